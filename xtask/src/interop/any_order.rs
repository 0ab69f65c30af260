//! One small workload written in many ways: each gives the table that it gives when written once, in order (P4, P8).
//!
//! A key's writes that disagree, and its removals, keep their order; else everything is in any order, said again, cut
//! into any requests, with flushes, merges, changes of types and a kill between. The tables of a run are in one server.

use std::collections::VecDeque;

use harness::{Eden, Field, Reading, Rng, Rows};

use super::clients::Clients;
use super::expected::Expected;
use super::{START_US, nothing_is_damaged, run_sql};
use crate::Outcome;

/// Cases between two looks by the clients, with a kill in the middle.
const GROUP: u64 = 50;
const DEVICES: i64 = 4;
const TIMES: i64 = 9;
/// Fields that a row may have.
const FIELDS: [&str; 5] = ["t", "n", "u", "ok", "note"];
const WRITES_IN_REQUEST_MAX: u64 = 24;

/// Runs `cases` of the seeds from `seed` on.
pub(crate) fn run(clients: &Clients, seed: u64, cases: u64, mut progress: impl FnMut(u64)) -> Outcome {
    let mut eden = Eden::start("any-order");
    eden.note(format!("cases {cases}, EDEN_SEED={seed}"));
    let mut done = 0;
    while done < cases {
        let count = GROUP.min(cases - done);
        // A panic keeps the data folder and shows the server's log.
        group(&mut eden, clients, seed + done..seed + done + count).unwrap_or_else(|failure| panic!("{failure}"));
        done += count;
        progress(done);
    }
    eden.stop();
    nothing_is_damaged(&eden)?;
    println!("{cases} ways to write one workload: DuckDB, Polars, deltalake and /_sql read the same from each table");
    Ok(())
}

fn group(eden: &mut Eden, clients: &Clients, seeds: std::ops::Range<u64>) -> Outcome {
    let cases: Vec<Case> = seeds.map(Case::new).collect();
    for case in &cases {
        case.run(eden, &case.steps[..case.steps.len() / 2])?;
    }
    eden.kill();
    eden.restart();
    for case in &cases {
        case.run(eden, &case.steps[case.steps.len() / 2..])?;
    }
    let folders: Vec<_> = cases.iter().map(|case| eden.table(&case.table)).collect();
    let seen = clients.read(&folders, None)?;
    for (case, seen) in cases.iter().zip(seen) {
        let rows = Rows::new(run_sql(eden, &format!("SELECT * FROM {}", case.table))?);
        seen.agree(&[("the workload", &case.expected.rows()), ("/_sql", &rows)]).map_err(|e| case.failure(&e))?;
    }
    Ok(())
}

/// One way to write the workload.
struct Case {
    seed: u64,
    table: String,
    steps: Vec<Step>,
    expected: Expected,
}

enum Step {
    Write(Vec<Reading>),
    Sql(String),
}

impl Case {
    fn new(seed: u64) -> Self {
        let table = format!("case_{seed}");
        let mut rng = Rng::new(seed);
        let workload = workload(&table);
        let mut expected = Expected::default();
        expected.write(&workload);
        let is_declared = rng.one_in(3);
        // A column of whole numbers becomes one of floats when the first float comes.
        let begins_whole = !is_declared && rng.one_in(3);
        let mut histories: Vec<VecDeque<Step>> =
            workload.iter().map(|reading| history(reading, begins_whole, &mut rng)).collect();
        histories.push(ghosts(&table, &mut rng));
        let mut steps = interleaved(&table, histories, &mut rng);
        if rng.one_in(6) {
            steps.splice(0..0, another_life(&table, &workload, &mut rng));
        }
        if is_declared {
            steps.insert(0, Step::Sql(declaration(&table)));
            for change in ["t SET DATA TYPE DECIMAL(18,3)", "n SET DATA TYPE DOUBLE", "t SET DATA TYPE DOUBLE"] {
                if rng.one_in(3) {
                    let at = 1 + rng.below(steps.len() as u64) as usize;
                    steps.insert(at, Step::Sql(format!("ALTER TABLE {table} ALTER COLUMN {change}")));
                }
            }
        }
        if rng.one_in(4) {
            let at = 1 + rng.below(steps.len() as u64) as usize;
            steps.insert(at, Step::Sql(format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS later DOUBLE")));
        }
        steps.push(Step::Sql(format!("REFRESH TABLE {table}")));
        if rng.one_in(4) {
            steps.push(Step::Sql(format!("OPTIMIZE TABLE {table}")));
        }
        Case { seed, table, steps, expected }
    }

    fn run(&self, eden: &Eden, steps: &[Step]) -> Outcome {
        let mut client = eden.client();
        for step in steps {
            match step {
                Step::Write(readings) => match client.write(readings) {
                    harness::Outcome::Acked => {}
                    other => return Err(self.failure(&format!("a write was answered {other:?}"))),
                },
                Step::Sql(statement) => drop(client.sql(statement).map_err(|error| self.failure(&error))?),
            }
        }
        Ok(())
    }

    /// All that was said to the server, to be said again by hand.
    fn failure(&self, what: &str) -> String {
        let mut said = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            if number == self.steps.len() / 2 {
                said += "(kill -9 and restart)\n";
            }
            match step {
                Step::Sql(statement) => said += statement,
                Step::Write(readings) => {
                    for (n, reading) in readings.iter().enumerate() {
                        said += if n == 0 { "write " } else { "\n      " };
                        reading.append_line(&mut said);
                    }
                }
            }
            said += "\n";
        }
        format!("{said}case of EDEN_SEED={} EDEN_SEEDS=1: {what}", self.seed)
    }
}

/// The rows that there are in the end, in order. `(device, time)` is unique.
fn workload(table: &str) -> Vec<Reading> {
    let mut rng = Rng::new(77);
    let mut readings = Vec::new();
    for time in 0..TIMES {
        for device in 0..DEVICES {
            // Seven hours apart: three days.
            let time_us = START_US + time * 7 * 3_600_000_000 + (time % 3);
            let mut reading = Reading::at(table, time_us).tag("device", &format!("d {device}"));
            if (time + device) % 3 == 0 {
                reading = reading.tag("floor", &format!("{}", time % 2));
            }
            for (nth, field) in FIELDS.into_iter().enumerate() {
                // Each row has t or another, none has all.
                if (time + device + nth as i64) % 3 != 0 {
                    reading = reading.field(field, value(field, &mut rng));
                }
            }
            readings.push(reading);
        }
    }
    readings
}

fn value(field: &str, rng: &mut Rng) -> Field {
    match field {
        // With one digit behind the point, never whole: so a column of these is one of floats.
        "t" => Field::F64((rng.below(4_000) as i64 - 2_000) as f64 + 0.5),
        // So that a double has it exactly.
        "n" => Field::I64(rng.below(1 << 50) as i64 - (1 << 49)),
        "u" => Field::U64(rng.next_u64()),
        "ok" => Field::Bool(rng.one_in(2)),
        _ => Field::Text(rng.pick(&["", "5", "söft \"x\" \\", "line", "ok, = so"]).to_string()),
    }
}

/// What happens to the key of `reading` until it is as it should be.
fn history(reading: &Reading, begins_whole: bool, rng: &mut Rng) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let table = &reading.table;
    let device = &reading.tags[0].1;
    let this = format!("device = '{device}' AND time = to_timestamp_micros({})", reading.time_us);
    let wrong = |fields: &[&str], rng: &mut Rng| {
        let mut wrong = Reading { fields: Vec::new(), ..reading.clone() };
        for field in fields {
            let value = match value(field, rng) {
                Field::F64(value) if begins_whole => Field::I64(value as i64),
                value => value,
            };
            wrong = wrong.field(field, value);
        }
        wrong
    };
    for _ in 0..rng.below(3) {
        let own: Vec<&str> = reading.fields.iter().map(|(name, _)| name.as_str()).collect();
        match rng.below(10) {
            0 => {
                repeated(&mut steps, &wrong(&FIELDS, rng), rng);
                steps.push_back(Step::Sql(format!("DELETE FROM {table} WHERE {this}")));
            }
            1 => {
                let others: Vec<&str> = FIELDS.into_iter().filter(|field| !own.contains(field)).collect();
                repeated(&mut steps, &wrong(&FIELDS, rng), rng);
                let nulls: Vec<_> = others.iter().map(|field| format!("{field} = NULL")).collect();
                steps.push_back(Step::Sql(format!("UPDATE {table} SET {} WHERE {this}", nulls.join(", "))));
            }
            _ => repeated(&mut steps, &wrong(&own, rng), rng),
        }
    }
    // The right values, field by field or together, in any order, at least once.
    let mut last = Vec::new();
    for (name, value) in &reading.fields {
        for _ in 0..=rng.below(2) {
            let mut part = Reading { fields: vec![(name.clone(), value.clone())], ..reading.clone() };
            part.fields.extend(reading.fields.iter().filter(|(other, _)| other != name && rng.one_in(2)).cloned());
            last.push(part);
        }
    }
    shuffle(&mut last, rng);
    steps.extend(last.into_iter().map(|part| Step::Write(vec![part])));
    steps
}

/// Rows that come and go again.
fn ghosts(table: &str, rng: &mut Rng) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    for _ in 0..rng.below(3) {
        for _ in 0..=rng.below(6) {
            let time_us = START_US + rng.below(200) as i64 * 3_600_000_000;
            let ghost = Reading::at(table, time_us).tag("device", "ghost").field("n", value("n", rng));
            repeated(&mut steps, &ghost, rng);
        }
        steps.push_back(Step::Sql(format!("DELETE FROM {table} WHERE device = 'ghost'")));
    }
    steps
}

/// The same keys with other values, and the end of them all.
fn another_life(table: &str, workload: &[Reading], rng: &mut Rng) -> Vec<Step> {
    let wrong = |reading: &Reading| Reading { fields: Vec::new(), ..reading.clone() }.field("n", value("n", rng));
    let mut steps = vec![Step::Write(workload.iter().map(wrong).collect())];
    if rng.one_in(2) {
        steps.push(Step::Sql(format!("REFRESH TABLE {table}")));
    }
    steps.push(Step::Sql(format!("DELETE FROM {table}")));
    steps
}

fn repeated(steps: &mut VecDeque<Step>, reading: &Reading, rng: &mut Rng) {
    for _ in 0..=rng.below(2) {
        steps.push_back(Step::Write(vec![reading.clone()]));
    }
}

/// One order that keeps that of each history; writes that follow each other are cut into requests at random.
fn interleaved(table: &str, mut histories: Vec<VecDeque<Step>>, rng: &mut Rng) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut room = 0;
    while !histories.is_empty() {
        let at = rng.below(histories.len() as u64) as usize;
        match (histories[at].pop_front(), steps.last_mut()) {
            (None, _) => drop(histories.swap_remove(at)),
            (Some(Step::Write(reading)), Some(Step::Write(request))) if room > 0 => {
                request.extend(reading);
                room -= 1;
            }
            (Some(step), _) => {
                steps.push(step);
                room = rng.below(WRITES_IN_REQUEST_MAX);
                if rng.one_in(5) {
                    steps.push(Step::Sql(format!("REFRESH TABLE {table}")));
                } else if rng.one_in(20) {
                    steps.push(Step::Sql(format!("OPTIMIZE TABLE {table}")));
                }
            }
        }
    }
    steps
}

fn declaration(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (device TEXT, floor TEXT, t DECIMAL(9,1), n BIGINT, u NUMERIC(20,0), ok BOOLEAN, \
         note TEXT, PRIMARY KEY (device, floor, time))"
    )
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at as u64 + 1) as usize);
    }
}

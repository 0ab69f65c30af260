//! P7 and P1 together: agents over MQTT 3.1.1, MQTT 5 and HTTP, links and the server, all dying at random; at the end
//! every reading that an outbox ever made durable is stored, once.
//!
//! Invariants
//!  1. An outbox counts the readings it made durable in its own log; the server counts what it applied; SQL counts rows.
//!     The three agree for each agent. No two readings of a simulated sensor have the same time.
//!  2. Every seq that an agent gave away is a batch that the server has, or lies in a gap that it was told of.
//!  3. Rows that SQL has shown are there after any kill.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::agent::{Agent, Outbox};
use crate::delta_log::DeltaLog;
use crate::proxy::{Fault, Proxy};
use crate::rng::Rng;
use crate::{Eden, Rows, wait};

/// Over what an agent sends; two of each.
const UPLINKS: [Uplink; 3] = [Uplink::Mqtt("3.1.1"), Uplink::Mqtt("5"), Uplink::Http];
const AGENTS: usize = 2 * UPLINKS.len();
/// Primes, so that the two sensors of an agent drift against each other and against the sync interval.
const INTERVALS: [Duration; 2] = [Duration::from_millis(19), Duration::from_millis(31)];
const SYNC_INTERVAL: Duration = Duration::from_millis(110);
const MAX_READINGS: u32 = 5;
const ROUNDS_PER_FOLDER: u64 = 15;
const ROUND_MS_MAX: u64 = 600;
const DOWN_MS_MAX: u64 = 500;
const FAULT_LASTS: Duration = Duration::from_millis(300);
/// A stop tries so long to send what waits; a back-off is a minute at most.
const GRACE: Duration = Duration::from_secs(90);
/// Stops until all outboxes are empty; with good links the first does it.
const STOPS_MAX: u32 = 3;
const TABLE: &str = "bmp180";

#[derive(Clone, Copy, Debug)]
enum Uplink {
    Mqtt(&'static str),
    Http,
}

/// What the rounds went through.
#[derive(Clone, Debug, Default)]
pub struct AgentKillReport {
    /// Rounds.
    pub rounds: u64,
    /// Kills of agents.
    pub agent_kills: u64,
    /// Kills of the server.
    pub server_kills: u64,
    /// Faults of links.
    pub faults: u64,
    /// Batches that the server has.
    pub batches: u64,
    /// Readings that outboxes made durable, all of them stored.
    pub readings: u64,
    /// Batches that were sent again although the server had them.
    pub duplicates: u64,
    /// Gaps that agents told of: seqs that an unclean stop skipped.
    pub gaps: u64,
}

impl fmt::Display for AgentKillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds: {} kills of agents, {} of the server, {} faults of links; {} batches with {} readings, {} \
             batches sent twice, {} gaps told; 0 lost, 0 doubled",
            self.rounds,
            self.agent_kills,
            self.server_kills,
            self.faults,
            self.batches,
            self.readings,
            self.duplicates,
            self.gaps
        )
    }
}

/// Runs `rounds` rounds; `progress` is told after each folder.
///
/// # Panics
/// When a reading is lost or doubled, or a gap is not told; the seed is printed.
pub fn agent_kills(first_seed: u64, rounds: u64, mut progress: impl FnMut(&AgentKillReport)) -> AgentKillReport {
    let mut report = AgentKillReport::default();
    let mut seed = first_seed;
    while report.rounds < rounds {
        Fleet::start(seed).run(ROUNDS_PER_FOLDER.min(rounds - report.rounds), &mut report);
        progress(&report);
        seed += 1;
    }
    report
}

struct Fleet {
    eden: Eden,
    agents: Vec<Agent>,
    mqtt: Proxy,
    http: Proxy,
    rng: Rng,
    /// Unclean stops, by agent.
    kills: Vec<u64>,
}

impl Fleet {
    fn start(seed: u64) -> Self {
        let mut eden = Eden::options("agent-kills").start();
        eden.note(format!("seed {seed}: EDEN_SEED={seed} repeats its choices"));
        let (mqtt, http) = (Proxy::start(eden.mqtt_address()), Proxy::start(eden.address()));
        let start = |n: usize| {
            let options = Agent::options(&format!("agent-{n}"))
                .sensor("first", INTERVALS[0])
                .sensor("second", INTERVALS[1])
                .sync_interval(SYNC_INTERVAL)
                .max_readings(MAX_READINGS)
                .grace(GRACE);
            match UPLINKS[n % UPLINKS.len()] {
                Uplink::Mqtt(version) => options.mqtt_server(&mqtt.address(), version),
                Uplink::Http => options.server(&format!("http://{}", http.address())),
            }
            .start()
        };
        let agents = (0..AGENTS).map(start).collect();
        Fleet { eden, agents, mqtt, http, rng: Rng::new(seed), kills: vec![0; AGENTS] }
    }

    fn run(mut self, rounds: u64, report: &mut AgentKillReport) {
        for round in 0..rounds {
            self.eden.note(format!("round {round}"));
            self.pass(ROUND_MS_MAX);
            match self.rng.below(6) {
                0 | 1 => self.kill_agents(report),
                2 => self.kill_server(report, &[]),
                3 => {
                    let agent = self.any_agent();
                    self.kill_server(report, &[agent]);
                }
                4 => {
                    let agent = self.any_agent();
                    let status = self.agents[agent].stop();
                    assert!(status.success(), "agent {agent}: a clean stop ended with {status}");
                    self.agents[agent].restart();
                }
                _ => {}
            }
            self.break_links(report);
            report.rounds += 1;
        }
        let outboxes = self.empty_all_outboxes();
        self.compare(&outboxes, report);
    }

    fn any_agent(&mut self) -> usize {
        self.rng.below(AGENTS as u64) as usize
    }

    /// A moment at random, not a wait for something.
    fn pass(&mut self, ms_max: u64) {
        wait::until(Duration::from_millis(self.rng.below(ms_max)), || None::<()>);
    }

    fn kill_agents(&mut self, report: &mut AgentKillReport) {
        let count = 1 + self.rng.below(3);
        let victims: Vec<_> = (0..count).map(|_| self.any_agent()).collect();
        for agent in victims {
            self.agents[agent].kill();
            self.kills[agent] += 1;
            report.agent_kills += 1;
            if self.rng.one_in(2) {
                self.pass(DOWN_MS_MAX);
            }
            self.agents[agent].restart();
        }
    }

    fn kill_server(&mut self, report: &mut AgentKillReport, with_it: &[usize]) {
        let shown = self.rows_by_agent();
        self.eden.kill();
        report.server_kills += 1;
        for agent in with_it {
            self.agents[*agent].kill();
            self.kills[*agent] += 1;
            report.agent_kills += 1;
        }
        self.pass(DOWN_MS_MAX);
        for agent in with_it {
            self.agents[*agent].restart();
        }
        self.eden.restart();
        let after = self.rows_by_agent();
        for (agent, rows) in shown {
            let now = after.get(&agent).copied().unwrap_or_default();
            assert!(now >= rows, "{agent}: SQL had shown {rows} readings, after a kill there are {now} (P1)");
        }
        self.mqtt.point_at(self.eden.mqtt_address());
        self.http.point_at(self.eden.address());
    }

    fn break_links(&mut self, report: &mut AgentKillReport) {
        for _ in 0..self.rng.below(4) {
            let fault = Fault::random(&mut self.rng, FAULT_LASTS);
            let proxy = if self.rng.one_in(3) { &self.http } else { &self.mqtt };
            report.faults += u64::from(proxy.fault_one(&mut self.rng, fault));
        }
    }

    fn rows_by_agent(&self) -> BTreeMap<String, u64> {
        // The table is not there before the first reading is.
        let answer = self.eden.client().sql(&format!("SELECT agent, count(*) FROM {TABLE} GROUP BY agent"));
        let Ok(answer) = answer else { return BTreeMap::new() };
        let rows = Rows::new(answer);
        (0..rows.len()).map(|row| (text(&rows.row(row)[0]), number(&rows.row(row)[1]))).collect()
    }

    /// All links are good; agents stop in order, which sends what waits.
    fn empty_all_outboxes(&mut self) -> Vec<Outbox> {
        self.mqtt.heal();
        self.http.heal();
        for attempt in 1.. {
            std::thread::scope(|scope| {
                let stops: Vec<_> = self.agents.iter_mut().map(|agent| scope.spawn(move || agent.stop())).collect();
                for (agent, stop) in stops.into_iter().enumerate() {
                    let status = stop.join().expect("a stop panicked");
                    assert!(status.success(), "agent {agent}: a clean stop ended with {status}");
                }
            });
            let outboxes: Vec<_> = self.agents.iter().map(|agent| agent.outbox().expect("it has run")).collect();
            if outboxes.iter().all(Outbox::is_empty) {
                return outboxes;
            }
            assert!(attempt < STOPS_MAX, "outboxes with good links do not become empty: {outboxes:?}");
            for agent in &mut self.agents {
                agent.restart();
            }
        }
        unreachable!("the loop returns or panics")
    }

    fn compare(&mut self, outboxes: &[Outbox], report: &mut AgentKillReport) {
        let rows_by_agent = self.rows_by_agent();
        let known = self.eden.sql("SELECT * FROM system.agents");
        // Without gaps so far the table may not be there.
        let gaps = self.eden.client().sql("SELECT * FROM system.agent_gaps").map(Rows::new).unwrap_or_default();
        assert_eq!(known.len(), AGENTS, "one row an agent: {known:?}");
        for (agent, outbox) in self.agents.iter().zip(outboxes) {
            let id = agent.id();
            let row = (0..known.len()).find(|row| text(known.get(*row, "agent")) == id);
            let row = row.unwrap_or_else(|| panic!("{id} is not in system.agents: {known:?}"));
            let says = |column: &str| number(known.get(row, column));
            let context = format!("{id}: {outbox:?}, system.agents: {:?} {:?}", known.columns(), known.row(row));

            assert!(outbox.closed, "{context}");
            assert_eq!(says("epoch"), outbox.epoch, "the epoch; {context}");
            assert_eq!(says("seq"), outbox.last_seq, "the highest contiguous seq; {context}");
            assert_eq!(says("missing"), 0, "seqs that are neither a batch nor a gap; {context}");
            assert_eq!(says("conflicts"), 0, "two batches under one seq; {context}");

            let stored = rows_by_agent.get(id).copied().unwrap_or_default();
            assert_eq!(stored, outbox.readings_made, "rows and readings made durable; {context}");
            assert_eq!(says("readings"), stored, "readings that the server counted and rows; {context}");

            let of_agent = (0..gaps.len()).filter(|row| text(gaps.get(*row, "agent")) == id);
            let (mut in_gaps, mut told) = (0, 0);
            for gap in of_agent {
                let reason = text(gaps.get(gap, "reason"));
                assert_eq!(reason, "unclean_stop", "nothing else happened; {context}");
                assert_eq!(number(gaps.get(gap, "epoch")), outbox.epoch, "{context}");
                in_gaps += number(gaps.get(gap, "last_seq")) - number(gaps.get(gap, "first_seq")) + 1;
                told += 1;
            }
            let kills = self.kills[id.trim_start_matches("agent-").parse::<usize>().expect("a number")];
            assert!(told <= kills, "{told} gaps and {kills} kills; {context}");
            assert_eq!(says("gaps"), told, "rows of system.agent_gaps; {context}");
            assert_eq!(says("batches") + in_gaps, outbox.last_seq, "each seq is a batch or in a gap; {context}");

            report.batches += says("batches");
            report.readings += stored;
            report.duplicates += says("duplicates");
            report.gaps += told;
        }
        let twice = self.eden.sql(&format!(
            "SELECT count(*) FROM (SELECT agent, sensor, time FROM {TABLE} GROUP BY agent, sensor, time \
             HAVING count(*) > 1)"
        ));
        assert_eq!(number(twice.single()), 0, "keys that are there twice (P4)");
        let all: u64 = rows_by_agent.values().sum();
        let status = self.eden.stop();
        assert!(status.success(), "a clean stop ended with {status}");
        assert_eq!(DeltaLog::read(&self.eden.table(TABLE)).rows(), all, "rows in shards after a clean stop (P5)");
    }
}

fn text(cell: &Value) -> String {
    cell.as_str().map_or_else(|| cell.to_string(), str::to_string)
}

/// A number, or a u64 as text, which is what a decimal on disk becomes; nothing is 0.
fn number(cell: &Value) -> u64 {
    if cell.is_null() {
        return 0;
    }
    cell.as_u64().or_else(|| cell.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{cell} is not a whole number"))
}

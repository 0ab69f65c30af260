use std::path::Path;
use std::time::Duration;

use tests::{Agent, Eden, Fault, Outcome, Proxy, Reading, Rows, Way, scenario, settings, wait};

const WITHIN: Duration = Duration::from_secs(60);
/// So long that an agent makes one reading in a test.
const ONCE: Duration = Duration::from_secs(3_600);

/// P1, P7; `cargo xtask soak agent-kills` runs 500 rounds.
#[test]
fn readings_of_agents_survive_kills_of_agents_links_and_server_once() {
    let report = scenario::agent_kills(settings::seed(), settings::rounds(30), |_| {});
    println!("{report}");
}

/// An agent's only batch is durable, its acknowledgement is lost, somebody corrects the reading, the agent sends again.
fn a_correction_before_the_retry_stands(name: &str, scheme: &str, hold_after: u64) {
    let eden = Eden::start(name);
    let proxy = Proxy::start(if scheme == "http" { eden.address() } else { eden.mqtt_address() });
    proxy.fault_next(Fault::HoldAfter(Way::Down, hold_after));
    let url = format!("{scheme}://{}", proxy.address());
    let mut agent = Agent::options(name).server(&url).sensor("only", ONCE).start();
    let stored = wait::until(WITHIN, || {
        let rows = Rows::new(eden.client().sql("SELECT * FROM bmp180").ok()?);
        (!rows.is_empty()).then_some(rows)
    });
    let stored = stored.expect("the batch is durable");
    assert_eq!(agent.outbox().map(|outbox| outbox.batches), Some(1), "its acknowledgement is held back");

    let correction = Reading::at("bmp180", stored.time_us(0)).tag("agent", name).tag("sensor", "only");
    let outcome = eden.client().write(&[correction.field("temperature", -40.5)]);
    assert_eq!(outcome, Outcome::Acked);
    proxy.fault(Fault::Reset);

    let came_again = wait::until(WITHIN, || (known(&eden, name, "duplicates") == 1).then_some(()));
    assert!(came_again.is_some(), "the agent sent the batch again");
    assert!(agent.stop().success());
    let outbox = agent.outbox().expect("it has run");
    assert!(outbox.is_empty(), "the second acknowledgement counts: {outbox:?}");
    assert_eq!(eden.sql("SELECT count(*) FROM bmp180").single(), 1);
    assert_eq!(eden.sql("SELECT temperature FROM bmp180").single(), -40.5, "the correction is newer than the batch");
    assert_eq!(known(&eden, name, "duplicates"), 1);
    assert_eq!(known(&eden, name, "conflicts"), 0);
}

#[test]
fn a_correction_between_a_lost_puback_and_the_retry_stands() {
    // CONNACK is 4 bytes.
    a_correction_before_the_retry_stands("lost-puback", "mqtt", 4);
}

#[test]
fn a_correction_between_a_lost_http_answer_and_the_retry_stands() {
    a_correction_before_the_retry_stands("lost-answer", "http", 0);
}

/// Two boards with one identity and one past, as after copying a card.
#[test]
fn two_boards_from_one_card_lose_nothing_and_are_reported() {
    let eden = Eden::start("cloned-card");
    let url = format!("http://{}", eden.address());
    let board = |sensor: &str| {
        let options = Agent::options("card").server(&url).sensor(sensor, Duration::from_millis(20)).max_readings(5);
        options.grace(WITHIN)
    };
    let has_sent = |readings: u64, sensor: &str| {
        let statement = format!("SELECT count(*) FROM bmp180 WHERE sensor = '{sensor}'");
        wait::until(WITHIN, || {
            let rows = Rows::new(eden.client().sql(&statement).ok()?);
            (rows.single().as_u64()? >= readings).then_some(())
        })
        .unwrap_or_else(|| panic!("{sensor} has not sent {readings} readings"));
    };
    let mut first = board("first").start();
    has_sent(30, "first");
    assert!(first.stop().success());
    let past = first.outbox().expect("it has run");
    assert!(past.is_empty(), "{past:?}");

    let card = tempfile::tempdir().expect("make a temporary folder");
    copy(&first.outbox_folder(), &card.path().join("outbox"));
    let mut second = board("second").folder(card.path()).start();
    first.restart();
    has_sent(past.readings_made + 30, "first");
    has_sent(30, "second");
    assert!(first.stop().success());
    assert!(second.stop().success());

    for (agent, sensor, before) in [(&first, "first", 0), (&second, "second", past.readings_made)] {
        let outbox = agent.outbox().expect("it has run");
        assert!(outbox.is_empty(), "{sensor}: {outbox:?}");
        assert_eq!(outbox.epoch, past.epoch, "it is the same card");
        let stored = eden.sql(&format!("SELECT count(*) FROM bmp180 WHERE sensor = '{sensor}'"));
        assert_eq!(stored.single().as_u64(), Some(outbox.readings_made - before), "readings of {sensor}");
    }
    assert!(known(&eden, "card", "conflicts") > 0, "two boards gave the same seqs to different batches");
}

/// A number of a row of `system.agents`.
fn known(eden: &Eden, agent: &str, column: &str) -> u64 {
    let rows = eden.sql(&format!("SELECT {column} FROM system.agents WHERE agent = '{agent}'"));
    let cell = rows.single();
    let number = cell.as_u64().or_else(|| cell.as_str()?.parse().ok());
    number.unwrap_or_else(|| panic!("{column} of {agent} is {cell}"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make the copy's folder");
    for entry in std::fs::read_dir(from).expect("list the outbox") {
        let entry = entry.expect("list the outbox");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("look at a file").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

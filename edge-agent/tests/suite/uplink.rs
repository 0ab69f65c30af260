//! Agents against servers that a test plays: what they send, when they send it again, and when they forget.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::config::{ByteSize, Config, MqttVersion, Period, Replay, SensorSection, ServerSection, Trust};
use edge_agent::log_lines::LogLines;
use edge_agent::timepiece::SystemTimepiece;
use edge_agent::{Agent, AgentStats, Surroundings};
use model::{Clock, SplitMix64, SystemClock};
use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter as _;
use wal::disk::LocalDisk;

use crate::peer::{Connection, HttpPeer, MqttPeer, Packet, Publish, seq};
use crate::rig::SkippingClock;

const GRACE: Duration = Duration::from_secs(10);

struct Rig {
    dir: TempDir,
    config: Config,
}

impl Rig {
    fn new(servers: Vec<ServerSection>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { servers, ..Config::default() };
        config.agent.id = "pi-7".to_owned();
        config.clock.trust = Trust::System;
        config.outbox.dir = dir.path().join("outbox");
        config.outbox.sync_interval = Period(Duration::from_millis(20));
        config.uplink.replay = Replay::OldestFirst;
        config.sensors.push(SensorSection {
            driver: "simulated-bmp180".to_owned(),
            name: "s1".to_owned(),
            interval: Period(Duration::from_millis(5)),
            ..SensorSection::default()
        });
        Rig { dir, config }
    }

    fn start(&self) -> Agent {
        self.start_by(Arc::new(SystemClock::new()))
    }

    fn start_by(&self, clock: Arc<dyn Clock>) -> Agent {
        Agent::start(self.config.clone(), self.surroundings(clock)).unwrap()
    }

    fn surroundings(&self, clock: Arc<dyn Clock>) -> Surroundings {
        Surroundings {
            disk: Arc::new(LocalDisk::new()),
            timepiece: Arc::new(SystemTimepiece::new()),
            clock,
            rng: Arc::new(SplitMix64::new(7)),
            serial: None,
            log_lines: Arc::default(),
        }
    }

    /// What waits after the agent stopped.
    fn waiting(&self) -> u64 {
        let disk: wal::disk::SharedDisk = Arc::new(LocalDisk::new());
        let waiting = edge_agent::outbox::peek(&disk, &self.dir.path().join("outbox")).unwrap().unwrap();
        waiting.lives.iter().map(|life| life.batches).sum()
    }
}

fn server(url: String, mqtt_version: MqttVersion) -> ServerSection {
    ServerSection { mqtt_version, ..ServerSection::new(&url) }
}

/// Stops the agent while `peer` goes on being played.
fn stop_beside(agent: Agent, play: impl FnOnce()) -> AgentStats {
    let stopping = std::thread::spawn(move || agent.stop(GRACE));
    play();
    let stopped = stopping.join().unwrap();
    assert!(stopped.closed);
    stopped.stats
}

fn status(publish: &Publish) -> serde_json::Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

fn plays_an_agents_life(version: MqttVersion) {
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(peer.url(), version)]);
    let agent = rig.start();
    let epoch = agent.life().epoch;
    let mut connection = peer.accept(None);
    assert_eq!(connection.client_id, "pi-7");
    let (topic, will) = connection.will.clone().unwrap();
    assert_eq!(topic, "eden/v1/pi-7/status");
    let will: serde_json::Value = serde_json::from_str(&will).unwrap();
    assert_eq!((&will["online"], &will["epoch"]), (&false.into(), &epoch.into()));

    let Packet::Publish(first) = connection.next() else { panic!("a status message comes first") };
    assert_eq!(first.topic, "eden/v1/pi-7/status");
    assert_eq!(status(&first)["online"], true);
    connection.ack(first.id);
    for number in 1..=5 {
        let batch = connection.next_batch();
        let text = batch.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(&*format!("# eden agent=pi-7 epoch={epoch} seq={number} precision=us")));
        assert!(lines.all(|line| line.starts_with("bmp180,agent=pi-7,sensor=s1 temperature=")), "{text}");
        connection.ack(batch.id);
    }
    let stats = stop_beside(agent, || {
        let mut last = None;
        loop {
            match connection.next() {
                Packet::Publish(publish) => {
                    connection.ack(publish.id);
                    last = Some(publish);
                }
                Packet::Disconnect => break,
                Packet::End => panic!("the connection ended without a goodbye"),
            }
        }
        let last = last.unwrap();
        assert_eq!(status(&last)["online"], false, "{last:?}");
        assert_eq!(status(&last)["backlog_batches"], 0);
    });
    assert_eq!((stats.acked, stats.backlog_batches), (stats.made, 0));
    assert_eq!(stats.resent, 0);
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn an_agent_speaks_mqtt_3_1_1() {
    plays_an_agents_life(MqttVersion::V311);
}

#[test]
fn an_agent_speaks_mqtt_5() {
    plays_an_agents_life(MqttVersion::V5);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_the_same_bytes_on_the_next_connection() {
    for version in [MqttVersion::V311, MqttVersion::V5] {
        let peer = MqttPeer::new();
        let rig = Rig::new(vec![server(peer.url(), version)]);
        let agent = rig.start();
        let mut connection = peer.accept(None);
        let before: Vec<Publish> = (0..6).map(|_| connection.next_batch()).collect();
        // The second and the third are acknowledged, out of order, and the link is cut.
        connection.ack(before[2].id);
        connection.ack(before[1].id);
        connection.ack(before[0].id);
        drop(connection);
        let mut connection = peer.accept(None);
        // None, the first or more of these acknowledgements were heard; what was not comes again in order.
        let mut again: Vec<Publish> = Vec::new();
        while again.last().is_none_or(|last| seq(&last.text()) < 6) {
            again.push(connection.next_batch());
        }
        let seqs: Vec<u64> = again.iter().map(|publish| seq(&publish.text())).collect();
        let possible: [&[u64]; 4] = [&[1, 2, 3, 4, 5, 6], &[1, 2, 4, 5, 6], &[1, 4, 5, 6], &[4, 5, 6]];
        assert!(possible.contains(&&*seqs), "{seqs:?}");
        for publish in &again {
            let before = &before[seq(&publish.text()) as usize - 1];
            assert_eq!((&before.topic, &before.payload), (&publish.topic, &publish.payload));
        }
        for publish in &again {
            connection.ack(publish.id);
        }
        let stats = stop_beside(agent, || {
            while let Packet::Publish(publish) = connection.next() {
                connection.ack(publish.id);
            }
        });
        assert_eq!((stats.connections, stats.backlog_batches), (2, 0));
        assert!(stats.resent >= 3, "{stats:?}");
    }
}

#[test]
fn a_batch_that_the_server_has_no_room_for_is_kept_and_sent_again() {
    const QUOTA_EXCEEDED: u8 = 0x97;
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(peer.url(), MqttVersion::V5)]);
    let agent = rig.start();
    let mut connection = peer.accept(None);
    let first = connection.next_batch();
    connection.refuse(first.id, QUOTA_EXCEEDED);
    loop {
        let batch = connection.next_batch();
        connection.ack(batch.id);
        if batch.payload == first.payload {
            break;
        }
    }
    let stats = stop_beside(agent, || {
        while let Packet::Publish(publish) = connection.next() {
            connection.ack(publish.id);
        }
    });
    assert_eq!((stats.connections, stats.refused, stats.backlog_batches), (1, 0, 0));
}

#[test]
fn no_more_is_in_flight_than_the_server_takes() {
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(peer.url(), MqttVersion::V5)]);
    let agent = rig.start();
    let mut connection = peer.accept(Some(2));
    let mut unacknowledged = Vec::new();
    for _ in 0..20 {
        while unacknowledged.len() < 2 {
            let Packet::Publish(publish) = connection.next() else { panic!("the connection ended") };
            unacknowledged.push(publish.id);
        }
        assert!(connection.is_silent(Duration::from_millis(30)), "a third is in flight");
        connection.ack(unacknowledged.remove(0));
    }
    drop(connection);
    // Nobody answers any more: what waits stays.
    drop(peer);
    let stopped = agent.stop(Duration::from_millis(200));
    assert!(stopped.closed);
    assert!(stopped.stats.backlog_batches > 0);
    assert_eq!(rig.waiting(), stopped.stats.backlog_batches);
}

#[test]
fn the_next_server_is_used_when_the_first_cannot_be_reached() {
    let nobody = MqttPeer::new().url();
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(nobody, MqttVersion::V311), server(peer.url(), MqttVersion::V311)]);
    let agent = rig.start();
    let mut connection = peer.accept(None);
    let batch = connection.next_batch();
    connection.ack(batch.id);
    assert_eq!(agent.stats().connected, Some(peer.url()));
    stop_beside(agent, || {
        while let Packet::Publish(publish) = connection.next() {
            connection.ack(publish.id);
        }
    });
}

#[test]
fn a_server_that_takes_batches_and_acknowledges_none_is_left_after_a_minute() {
    let peer = MqttPeer::new();
    let mut rig = Rig::new(vec![server(peer.url(), MqttVersion::V311)]);
    rig.config.uplink.status_interval = Period(Duration::from_secs(1));
    let clock = Arc::new(SkippingClock::default());
    let agent = rig.start_by(Arc::clone(&clock) as Arc<dyn Clock>);
    let mut connection = peer.accept(None);
    let first = connection.next_batch();
    clock.advance(Duration::from_secs(61));
    while connection.next() != Packet::End {}
    let mut connection = peer.accept(None);
    assert_eq!(connection.next_batch().payload, first.payload);
    drop((connection, peer));
    agent.stop(Duration::ZERO);
}

/// Acknowledges what comes while `time` passes, until the agent leaves. It passes in steps that each end with an
/// acknowledgement: a server that gives none for a minute is left without a word.
fn serve_for(time: Duration, agent: &Agent, clock: &SkippingClock, connection: &mut Connection) {
    const STEP: Duration = Duration::from_secs(25);
    let steps = time.div_duration_f64(STEP).ceil() as u64;
    // Twice as long: it leaves some time after.
    for _ in 0..2 * steps {
        let acked = agent.stats().acked;
        while agent.stats().acked == acked {
            match connection.next() {
                Packet::Publish(publish) => connection.ack(publish.id),
                Packet::Disconnect => return,
                Packet::End => panic!("it leaves in order, without its last will"),
            }
        }
        clock.advance(STEP);
    }
    panic!("it did not leave after {time:?}");
}

#[test]
fn a_preferred_server_is_gone_back_to_after_a_while() {
    let (preferred, other) = (MqttPeer::new(), MqttPeer::new());
    let mut rig = Rig::new(vec![server(preferred.url(), MqttVersion::V311), server(other.url(), MqttVersion::V5)]);
    rig.config.uplink.status_interval = Period(Duration::from_secs(1));
    let clock = Arc::new(SkippingClock::default());
    let agent = rig.start_by(Arc::clone(&clock) as Arc<dyn Clock>);
    preferred.turn_away();
    let mut connection = other.accept(None);
    serve_for(Duration::from_secs(300), &agent, &clock, &mut connection);
    // It was looked for, and then connected to.
    preferred.turn_away();
    let mut connection = preferred.accept(None);
    connection.next_batch();
    drop((connection, preferred, other));
    agent.stop(Duration::ZERO);
}

#[test]
fn a_stop_does_not_wait_for_a_server_that_does_not_answer() {
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(peer.url(), MqttVersion::V311)]);
    // The connection is made by the system, and nobody answers CONNECT.
    let agent = rig.start();
    while agent.stats().made < 2 {
        std::thread::yield_now();
    }
    let clock = SystemClock::new();
    let stopped = agent.stop(Duration::from_millis(100));
    assert!(stopped.closed);
    assert_eq!(stopped.stats.backlog_batches, stopped.stats.made);
    assert!(clock.monotonic() < Duration::from_secs(8), "{:?}", clock.monotonic());
}

#[test]
fn batches_go_over_http_on_one_connection() {
    let peer = HttpPeer::new(&[204]);
    let rig = Rig::new(vec![ServerSection::new(&peer.url())]);
    let agent = rig.start();
    for number in 1..=5 {
        let post = peer.next();
        assert_eq!((&*post.path, seq(&post.body), post.connection), ("/api/v3/write_lp?db=public", number, 0));
    }
    let stats = agent.stop(GRACE).stats;
    assert_eq!((stats.acked, stats.backlog_batches, stats.refused), (stats.made, 0, 0));
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn an_http_server_that_is_busy_gets_the_batch_again_and_one_that_refuses_does_not() {
    // A 400 of a server that does not say that it has read the batch is no reason to forget it.
    let peer = HttpPeer::new(&[503, 400, 204, 422, 204]);
    let rig = Rig::new(vec![ServerSection::new(&peer.url())]);
    let agent = rig.start();
    let bodies: Vec<String> = (0..5).map(|_| peer.next().body).collect();
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[0], bodies[2]);
    assert_eq!([seq(&bodies[2]), seq(&bodies[3]), seq(&bodies[4])], [1, 2, 3]);
    let stats = agent.stop(GRACE).stats;
    assert_eq!((stats.refused, stats.backlog_batches), (1, 0));
    assert_eq!(stats.acked + stats.refused, stats.made);
}

/// The server fails while an outbox of the smallest size overflows many times: what is left in the end is delivered, and
/// together with what the gaps say it is all that was measured. So nothing is sent that a gap names, but for a batch that
/// was on its way when it was dropped.
#[test]
fn readings_delivered_and_readings_in_gaps_are_all_that_were_measured() {
    let peer = HttpPeer::failing();
    let mut rig = Rig::new(vec![ServerSection::new(&peer.url())]);
    rig.config.outbox.max_bytes = ByteSize(2 << 20);
    rig.config.batch.max_readings = 1;
    rig.config.sensors[0].interval = Period(Duration::from_millis(1));
    let agent = rig.start();
    while agent.stats().gap_readings < 1_000 {
        std::thread::yield_now();
    }
    peer.recover();
    while agent.stats().acked == 0 {
        std::thread::yield_now();
    }
    let stats = agent.stop(6 * GRACE).stats;
    assert_eq!(stats.backlog_batches, 0);
    let (mut delivered, mut in_gaps) = (BTreeSet::new(), BTreeSet::new());
    let mut readings = 0;
    for post in peer.rest().iter().filter(|post| post.status == 204) {
        assert!(delivered.insert(seq(&post.body)), "twice: {}", post.body);
        for line in post.body.lines().skip(1) {
            let Some(gap) = line.strip_prefix("# eden gap ") else {
                readings += 1;
                continue;
            };
            let number = |key: &str| -> u64 {
                let value = gap.split(' ').find_map(|word| word.strip_prefix(key));
                value.unwrap_or_else(|| panic!("{key} in {gap}")).parse().unwrap()
            };
            let lost = number("first_seq=")..=number("last_seq=");
            assert_eq!(number("readings="), lost.end() - lost.start() + 1, "one reading a batch: {gap}");
            in_gaps.extend(lost);
        }
    }
    let gap_readings = in_gaps.len() as u64;
    assert_eq!(gap_readings, stats.gap_readings);
    assert!(delivered.union(&in_gaps).copied().eq(1..=stats.last_seq), "{stats:?}");
    // Now that the server takes batches, one may be on its way whenever the oldest segment goes, with its hundreds.
    let both = delivered.intersection(&in_gaps).count() as u64;
    assert!(both <= gap_readings / 100, "{both} batches were sent although a gap names them: {stats:?}");
    assert_eq!(readings + gap_readings, stats.readings + both, "{stats:?}");
}

#[test]
fn what_waits_is_sent_by_the_next_life_under_the_same_seqs() {
    let nobody = MqttPeer::new().url();
    let mut rig = Rig::new(vec![server(nobody, MqttVersion::V311)]);
    let agent = rig.start();
    let epoch = agent.life().epoch;
    while agent.stats().made < 5 {
        std::thread::yield_now();
    }
    let before = agent.stop(Duration::ZERO).stats;
    assert_eq!(before.backlog_batches, before.made);
    let peer = HttpPeer::new(&[204]);
    rig.config.servers = vec![ServerSection::new(&peer.url())];
    let agent = rig.start();
    assert_eq!(agent.life().epoch, epoch);
    for number in 1..=before.made + 1 {
        let body = peer.next().body;
        assert_eq!(seq(&body), number);
        assert!(!body.contains("# eden gap"), "a clean stop leaves no gap: {body}");
    }
    assert_eq!(agent.stop(GRACE).stats.backlog_batches, 0);
}

#[test]
fn two_agents_cannot_share_an_outbox() {
    let rig = Rig::new(vec![ServerSection::new("http://127.0.0.1:1")]);
    let agent = rig.start();
    let refused = Agent::start(rig.config.clone(), Surroundings::system()).unwrap_err();
    assert!(format!("{refused:?}").contains("Locked"), "{refused:?}");
    drop(agent);
    drop(rig.start());
}

#[test]
fn commands_are_carried_out_and_told_of_in_the_status() {
    for version in [MqttVersion::V311, MqttVersion::V5] {
        let peer = MqttPeer::new();
        let rig = Rig::new(vec![server(peer.url(), version)]);
        let agent = rig.start();
        let mut connection = peer.accept(None);
        let first = connection.next_batch();
        connection.ack(first.id);
        assert_eq!(connection.subscribed.as_deref(), Some("eden/v1/pi-7/cmd/#"));
        for (name, payload, retained, said) in [
            ("interval", r#"{"sensor": "s1", "interval": "1ms"}"#, false, "interval: s1 every 1ms"),
            ("interval", r#"{"sensor": "s2", "interval": "1ms"}"#, true, r#"interval: there is no sensor "s2""#),
            ("interval", &" ".repeat(100_000), true, "interval: it is longer than 4096 bytes"),
            ("restart", "", true, "restart: a restart that the server keeps is not carried out"),
            ("reboot", "", false, "reboot: there are interval, logs and restart"),
            ("restart", "", false, "restart"),
        ] {
            connection.publish(&format!("eden/v1/pi-7/cmd/{name}"), payload, retained);
            loop {
                let Packet::Publish(publish) = connection.next() else { panic!("it goes on") };
                connection.ack(publish.id);
                if publish.is_status() && status(&publish)["last_command"] == said {
                    break;
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agent.restart_asked());
        stop_beside(agent, || while !matches!(connection.next_acked(), Packet::Disconnect) {});
    }
}

#[test]
fn what_is_measured_now_does_not_wait_for_what_waited() {
    let nobody = MqttPeer::new().url();
    let mut rig = Rig::new(vec![server(nobody, MqttVersion::V311)]);
    (rig.config.uplink.replay, rig.config.uplink.in_flight) = (Replay::Interleaved, 1);
    let agent = rig.start();
    while agent.stats().made < 20 {
        std::thread::yield_now();
    }
    let waited = agent.stop(Duration::ZERO).stats.made;
    let peer = MqttPeer::new();
    rig.config.servers = vec![server(peer.url(), MqttVersion::V311)];
    let agent = rig.start();
    let mut connection = peer.accept(None);
    // What a server is tried by is the oldest. More is made until it is acknowledged.
    let first = connection.next_batch();
    assert_eq!(seq(&first.text()), 1);
    let made = agent.stats().made;
    while agent.stats().made < made + 3 {
        std::thread::yield_now();
    }
    connection.ack(first.id);
    for number in 2..=10 {
        let fresh = connection.next_batch();
        connection.ack(fresh.id);
        assert!(seq(&fresh.text()) > waited, "{} comes before what was measured since", seq(&fresh.text()));
        let made = agent.stats().made;
        while agent.stats().made < made + 3 {
            std::thread::yield_now();
        }
        let old = connection.next_batch();
        assert_eq!(seq(&old.text()), number);
        connection.ack(old.id);
    }
    stop_beside(agent, || while !matches!(connection.next_acked(), Packet::Disconnect) {});
}

#[test]
fn the_newest_lines_of_the_log_are_sent_when_they_are_asked_for_and_not_too_often() {
    let peer = MqttPeer::new();
    let rig = Rig::new(vec![server(peer.url(), MqttVersion::V311)]);
    let (log_lines, clock) = (Arc::new(LogLines::default()), Arc::new(SkippingClock::default()));
    let surroundings = Surroundings { log_lines: Arc::clone(&log_lines), ..rig.surroundings(Arc::clone(&clock) as _) };
    let agent = Agent::start(rig.config.clone(), surroundings).unwrap();
    let mut connection = peer.accept(None);
    log_lines.writer().make_writer().write_all(b"something was said\n").unwrap();
    for (skip, is_sent, said) in
        [(0, true, "logs: 1 lines"), (0, false, "logs: they were sent less than 10 s ago"), (11, true, "logs: 1 lines")]
    {
        clock.advance(Duration::from_secs(skip));
        connection.publish("eden/v1/pi-7/cmd/logs", "", false);
        let mut sent = Vec::new();
        loop {
            let Packet::Publish(publish) = connection.next() else { panic!("it goes on") };
            connection.ack(publish.id);
            if publish.topic == "eden/v1/pi-7/logs" {
                sent.push(publish.text());
            }
            if publish.is_status() && status(&publish)["last_command"] == said {
                break;
            }
        }
        assert_eq!(sent.len(), usize::from(is_sent), "{said}");
        let is_line = |text: &String| text.starts_with("agent_log,agent=pi-7,level=info line=\"something was said\" 1");
        assert!(sent.iter().all(is_line), "{sent:?}");
    }
    stop_beside(agent, || while !matches!(connection.next_acked(), Packet::Disconnect) {});
}

/// A server's TLS, and the certificate that signed for it, in PEM.
fn tls_server(name: &str) -> (rustls::ServerConfig, String) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    (config, cert.pem())
}

#[test]
fn an_agent_speaks_mqtt_over_tls_with_a_server_that_it_trusts() {
    for (version, name) in [
        (MqttVersion::V311, "localhost"),
        (MqttVersion::V5, "localhost"),
        (MqttVersion::V311, "::1"),
        (MqttVersion::V5, "::1"),
    ] {
        let (config, pem) = tls_server(name);
        let (peer, host) = match name {
            "::1" => (MqttPeer::with_tls_on_v6(config), "[::1]"),
            _ => (Some(MqttPeer::with_tls(config)), name),
        };
        let Some(peer) = peer else {
            println!("this machine has no IPv6");
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, pem).unwrap();
        let url = format!("mqtts://{host}:{}", peer.port());
        let section = ServerSection { ca: ca.display().to_string(), ..server(url, version) };
        let rig = Rig::new(vec![section]);
        let agent = rig.start();
        let mut connection = peer.accept(None);
        assert_eq!(connection.client_id, "pi-7");
        let first = connection.next_batch();
        assert_eq!(seq(&first.text()), 1);
        connection.ack(first.id);
        let stats = stop_beside(agent, || while !matches!(connection.next_acked(), Packet::Disconnect) {});
        assert_eq!((stats.acked, stats.backlog_batches), (stats.made, 0));
    }
}

#[test]
fn an_agent_speaks_http_over_tls_with_a_server_that_it_trusts_and_no_other() {
    let (config, pem) = tls_server("localhost");
    let (_, other) = tls_server("localhost");
    let peer = HttpPeer::with_tls(config);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let section = ServerSection {
        ca: ca.display().to_string(),
        ..ServerSection::new(&format!("https://localhost:{}", peer.port()))
    };

    std::fs::write(&ca, other).unwrap();
    let rig = Rig::new(vec![section.clone()]);
    let agent = rig.start();
    while agent.stats().made < 2 {
        std::thread::yield_now();
    }
    // It tries once more.
    let stats = agent.stop(GRACE).stats;
    assert_eq!((stats.connections, stats.acked), (0, 0));
    assert!(rig.waiting() > 0);
    assert!(peer.rest().is_empty());

    std::fs::write(&ca, pem).unwrap();
    let rig = Rig::new(vec![section]);
    let agent = rig.start();
    let first = peer.next();
    assert_eq!((&*first.path, seq(&first.body)), ("/api/v3/write_lp?db=public", 1));
    let second = peer.next();
    assert_eq!((seq(&second.body), second.connection), (2, first.connection));
    let stats = agent.stop(GRACE).stats;
    assert_eq!((stats.acked, stats.backlog_batches, stats.refused), (stats.made, 0, 0));
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn a_server_that_is_not_trusted_gets_nothing() {
    let (config, _) = tls_server("localhost");
    let (_, other) = tls_server("localhost");
    let (elsewhere, pem) = tls_server("eden.example");
    for (config, pem) in [(config, other), (elsewhere, pem)] {
        let peer = MqttPeer::with_tls(config);
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, pem).unwrap();
        let url = format!("mqtts://localhost:{}", peer.port());
        let rig = Rig::new(vec![ServerSection { ca: ca.display().to_string(), ..server(url, MqttVersion::V311) }]);
        let agent = rig.start();
        assert!(peer.ends_before_connect(), "the handshake fails");
        while agent.stats().readings == 0 {
            std::thread::yield_now();
        }
        let stats = agent.stop(Duration::ZERO).stats;
        assert_eq!((stats.connections, stats.acked), (0, 0));
        assert!(rig.waiting() > 0);
    }
}

//! Two real processes on a real folder; one is killed, the other adopts its log (docs/adr/0018).
//!
//! The second process is this very binary, asked for the one test that is the node: it writes until it is killed, and says
//! on its output what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, NodeId, SplitMix64, SystemClock, TableName, Value};
use storage::adopt;
use wal::disk::{LocalDisk, SharedDisk};

use crate::world::{World, read, write};

const FOLDER: &str = "EDEN_TEST_NODE_FOLDER";
const SEED: &str = "EDEN_TEST_NODE_SEED";
const OTHER: NodeId = NodeId(0xA);
const OURS: NodeId = NodeId(0xB);

fn world(data: PathBuf, node: NodeId, seed: u64) -> World {
    let mut world = World::on(Arc::new(LocalDisk::new()), data).with_seed(seed);
    world.config.shared = Some(node);
    // So that it is killed in flushes, too.
    world.config.table_memory_bytes_max = 32 << 10;
    world
}

/// The process that is killed; without a folder to work in it has nothing to do.
#[test]
#[expect(clippy::disallowed_methods, reason = "how a test tells its second process what to do")]
fn the_other_node() {
    let (Ok(folder), Ok(seed)) = (std::env::var(FOLDER), std::env::var(SEED)) else { return };
    let storage = world(PathBuf::from(folder), OTHER, seed.parse().unwrap()).open();
    for n in 1.. {
        let value = Value::F64(n as f64);
        write(&storage, "t", &[("a", n, &[("x", value)]), ("both", n % 50, &[("a", value)])]);
        println!("acked {n}");
        if n % 40 == 0 {
            storage.refresh(&TableName::public("t")).unwrap();
        }
    }
}

fn spawn(folder: &std::path::Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nodes_killed::the_other_node", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(SEED, seed.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn what_a_killed_process_acknowledged_is_adopted_by_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let disk: SharedDisk = Arc::new(LocalDisk::new());
    let here = world(data.clone(), OURS, 1);
    let storage = here.open();
    let (mut acked, mut ours) = (0, 0);
    for round in 0..4 {
        let mut other = spawn(&data, 100 + round);
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        let (mut said, wanted) = (0, 60 + 37 * round as i64);
        // Both write at the same time, to keys of their own and to the same ones.
        while said < wanted {
            let line = lines.next().expect("it writes until it is killed").unwrap();
            if let Some(n) = line.strip_prefix("acked ") {
                said = n.parse().unwrap();
                ours += 1;
                let value = Value::F64(ours as f64);
                write(&storage, "t", &[("b", ours, &[("x", value)]), ("both", ours % 50, &[("b", value)])]);
                if ours % 23 == 0 {
                    storage.refresh(&TableName::public("t")).unwrap();
                }
            }
        }
        other.kill().unwrap();
        other.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            said = line.strip_prefix("acked ").map_or(said, |n| n.parse().unwrap());
        }
        acked = acked.max(said);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let adopted = adopt(here.config.clone(), &disk, clock, Arc::new(SplitMix64::new(200 + round)), OTHER);
        let adopted = adopted.unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(adopted.epoch.0, 2 * (round + 1));
        let rows = read(&storage, "t");
        let of = |series: &str| -> BTreeMap<i64, String> {
            let rows = rows.iter().filter(|(key, _)| key.0 == format!("s={series}"));
            rows.map(|(key, row)| (key.1, row["x"].clone())).collect()
        };
        let (a, b) = (of("a"), of("b"));
        let is_whole = |rows: &BTreeMap<i64, String>, n: i64| (1..=n).all(|n| rows.get(&n) == Some(&n.to_string()));
        // The one write that was under way may be stored as well.
        assert!(is_whole(&a, acked) && a.len() as i64 <= acked + 1, "round {round}: {} of {acked}", a.len());
        assert!(is_whole(&b, ours) && b.len() as i64 == ours, "round {round}");
        assert_eq!(rows.len(), a.len() + b.len() + 50, "round {round}");
    }
    storage.close(Duration::from_secs(60)).unwrap();
}

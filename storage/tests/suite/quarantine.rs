//! What is set aside stays until it is replayed, and stays away then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::SimDisk;
use model::{Rng, SplitMix64};
use storage::{Quarantined, SetAside, Storage};
use wal::disk::{Disk, Replace, SharedDisk};

use crate::world::World;

fn aside(n: u64) -> SetAside {
    SetAside {
        time_us: 5,
        source: "test".into(),
        topic: "/api/v3/write_lp".into(),
        schema: "public".into(),
        precision: "auto".into(),
        reason: "no".into(),
        payload: n.to_string().into_bytes(),
        is_whole: true,
    }
}

fn kept(storage: &Storage) -> Result<Vec<(storage::QuarantineId, u64)>, storage::StorageError> {
    let number = |kept: &Quarantined| std::str::from_utf8(&kept.payload.payload).unwrap().parse().unwrap();
    Ok(storage.quarantined()?.iter().map(|kept| (kept.id, number(kept))).collect())
}

#[test]
fn payloads_and_what_was_replayed_of_them_survive_any_power_cut() {
    for seed in faults::seeds(60) {
        let rng = SplitMix64::new(seed);
        let mut sim = SimDisk::new();
        let (mut next, mut acked) = (0, Vec::<u64>::new());
        // Set aside or replayed when power went: either way is right.
        let mut perhaps: Vec<u64> = Vec::new();
        for life in 0..6 {
            let disk: SharedDisk = Arc::new(sim.clone());
            if life < 5 {
                sim.cut_after(20 + rng.below(60));
            }
            'life: {
                let world = World::on(disk, PathBuf::from("/data")).with_seed(rng.next_u64());
                let Ok(storage) = world.try_open() else {
                    assert!(!sim.is_on(), "seed {seed} life {life}");
                    break 'life;
                };
                let Ok(found) = kept(&storage) else {
                    assert!(!sim.is_on(), "seed {seed} life {life}");
                    break 'life;
                };
                let found: Vec<u64> = found.into_iter().map(|(_, n)| n).collect();
                let sure =
                    |list: &[u64]| -> Vec<u64> { list.iter().copied().filter(|n| !perhaps.contains(n)).collect() };
                assert_eq!(sure(&found), sure(&acked), "seed {seed} life {life}: {found:?} {perhaps:?}");
                (acked, perhaps) = (found, Vec::new());
                for _ in 0..12 {
                    let done = if rng.below(3) == 0 {
                        let Ok(found) = kept(&storage) else {
                            assert!(!sim.is_on(), "seed {seed} life {life}");
                            break 'life;
                        };
                        let some: Vec<_> = found.into_iter().filter(|_| rng.below(2) == 0).collect();
                        let (ids, numbers): (Vec<_>, Vec<u64>) = some.into_iter().unzip();
                        let done = storage.replayed(&ids);
                        acked.retain(|n| !numbers.contains(n));
                        perhaps.extend(numbers);
                        done
                    } else {
                        let new: Vec<u64> = (0..1 + rng.below(4)).map(|n| next + n).collect();
                        next += 10;
                        perhaps.extend(&new);
                        acked.extend(&new);
                        storage.set_aside(&new.into_iter().map(aside).collect::<Vec<_>>())
                    };
                    match done {
                        Ok(()) => perhaps.clear(),
                        Err(_) if !sim.is_on() => break 'life,
                        Err(e) => panic!("seed {seed} life {life}: {e}"),
                    }
                }
                if rng.below(2) == 0 {
                    let _ = storage.close(Duration::from_secs(60));
                }
            }
            sim = if rng.below(4) == 0 && sim.is_on() { sim.kill() } else { sim.power_cut(rng.next_u64()) };
        }
    }
}

#[test]
fn the_folder_of_the_first_version_is_taken_over_whenever_power_goes() {
    for cut in 1..12 {
        let sim = SimDisk::new();
        let world = |sim: &SimDisk, seed| World::on(Arc::new(sim.clone()), PathBuf::from("/data")).with_seed(seed);
        let storage = world(&sim, 1).open();
        storage.set_aside(&[aside(7)]).unwrap();
        storage.close(Duration::from_secs(60)).unwrap();
        drop(storage);
        sim.rename(Path::new("/data/quarantine"), Path::new("/data/rejected"), Replace::No).unwrap();
        sim.sync_dir(Path::new("/data")).unwrap();
        sim.cut_after(cut);
        drop(world(&sim, 2).try_open());
        let sim = sim.power_cut(cut);
        let storage = world(&sim, 3).open();
        assert_eq!(kept(&storage).unwrap().into_iter().map(|(_, n)| n).collect::<Vec<_>>(), [7], "cut {cut}");
        assert!(sim.info(Path::new("/data/rejected")).is_err());
    }
}

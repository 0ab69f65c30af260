//! What was forgotten out of the order of the log.
//!
//! Owns:     the ranges of batches that the server has although one before them in the log still waits.
//! Does not: decide what is handed out (`order`), or give space back: that goes by the log's beginning only.
//!
//! Invariant: a range holds no seq that waits. Seqs between two batches that are neighbours in the log stand for no batch,
//! so a range goes on over them.

use crate::gap::Life;

/// Batches that are neighbours in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeqRange {
    pub(crate) life: Life,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

impl SeqRange {
    pub(crate) fn covers(&self, life: &Life, seq: u64) -> bool {
        (self.first_seq..=self.last_seq).contains(&seq) && self.life == *life
    }
}

/// Adds batch `seq` of `life`; `neighbours` are the seqs of those beside it in the log that are forgotten too, and of the
/// same life.
pub(super) fn add(ranges: &mut Vec<SeqRange>, life: &Life, seq: u64, neighbours: impl IntoIterator<Item = u64>) {
    let mut new = SeqRange { life: life.clone(), first_seq: seq, last_seq: seq };
    for neighbour in neighbours {
        if let Some(at) = ranges.iter().position(|range| range.covers(life, neighbour)) {
            let SeqRange { first_seq, last_seq, .. } = ranges.remove(at);
            new.first_seq = new.first_seq.min(first_seq);
            new.last_seq = new.last_seq.max(last_seq);
        }
    }
    ranges.push(new);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{Rng, SplitMix64};

    use super::*;

    #[test]
    fn ranges_are_the_set_of_what_was_added_and_as_few_as_can_be() {
        for seed in faults::seeds(200) {
            let rng = SplitMix64::new(seed);
            let life = Life { agent: "pi-7".into(), epoch: 1 };
            // Some seqs were never given to a batch.
            let log: Vec<u64> = (1..60).filter(|_| rng.below(5) > 0).collect();
            let (mut ranges, mut set) = (Vec::new(), BTreeSet::new());
            for _ in 0..80 {
                let at = rng.below(log.len() as u64) as usize;
                let neighbours = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
                let neighbours = neighbours.filter_map(|at| log.get(at).copied()).filter(|seq| set.contains(seq));
                if !set.contains(&log[at]) {
                    add(&mut ranges, &life, log[at], neighbours.collect::<Vec<_>>());
                    set.insert(log[at]);
                }
                let covered = |seq: &u64| ranges.iter().any(|range| range.covers(&life, *seq));
                assert!(log.iter().all(|seq| covered(seq) == set.contains(seq)), "seed {seed}: {ranges:?}");
                let runs =
                    (0..log.len()).filter(|&at| set.contains(&log[at]) && (at == 0 || !set.contains(&log[at - 1])));
                assert_eq!(ranges.len(), runs.count(), "seed {seed}: {ranges:?}");
            }
        }
    }
}

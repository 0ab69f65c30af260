//! Which shards of a day are merged next.
//!
//! Owns:     the choice, from rows and times alone.
//! Does not: read or write anything.
//!
//! The aim is shards of about 1.5 M rows that follow each other in time. A full shard is left alone, unless many full
//! ones lie at one time. Small ones are merged with their neighbours in time: when together they fill a shard; when so
//! many of one size are there that their rows are not soon written again; and when the day has been quiet, for so much
//! longer as more rows would be written again for each that finds its place. So a row is usually merged once or twice,
//! and rows that come late cost their own day only.

use std::collections::BTreeMap;

/// Rows from which a shard is full.
pub(crate) const FULL_ROWS: u64 = 750_000;

/// Rows that a merged shard should have.
pub(crate) const TARGET_ROWS: u64 = 1_500_000;

/// Small shards of one size that are merged for being so many.
const TIER_SHARDS: usize = 16;

/// The same, if all of them lie at one time: a query for that time reads each.
const OVERLAPPING_SHARDS: usize = 8;

/// Full shards that may lie at one time.
const FULL_OVERLAPPING_MAX: usize = 4;

/// Shards in one merge: each takes memory for a batch of rows.
const INPUTS_MAX: usize = 128;

/// A quiet day is merged after at most so many times the wait: a small shard beside a large one is not in the way.
const QUIET_WAITS_MAX: u64 = 60;

/// What the plan knows of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) rows: u64,
    pub(crate) time_min_us: i64,
    pub(crate) time_max_us: i64,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Rows of that day are in memory.
    Busy,
    /// Nothing has changed for so many times the configured wait.
    Quiet(u64),
    /// Somebody asked for it.
    Now,
}

/// The shards to merge, as indexes of `pieces` in no order; `None` if they are best left as they are.
pub(crate) fn plan(pieces: &[Piece], when: When) -> Option<Vec<usize>> {
    let groups = groups(pieces);
    let rules = [filled, tier, overlapping];
    let by_rule = groups.iter().find_map(|group| rules.iter().find_map(|rule| rule(pieces, group)));
    by_rule.or_else(|| groups.iter().find_map(|group| quiet(pieces, group, when))).or_else(|| full_overlap(pieces))
}

/// Small shards in order of their middle in time, in groups between which a full shard lies.
fn groups(pieces: &[Piece]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|i| (i128::from(pieces[*i].time_min_us) + i128::from(pieces[*i].time_max_us), *i));
    order.split(|i| pieces[*i].rows >= FULL_ROWS).map(<[usize]>::to_vec).filter(|group| group.len() > 1).collect()
}

/// The first of a group that together fill a shard.
fn filled(pieces: &[Piece], group: &[usize]) -> Option<Vec<usize>> {
    let mut rows = 0;
    let filled = group.iter().position(|i| {
        rows += pieces[*i].rows;
        rows >= TARGET_ROWS
    })?;
    Some(group[..INPUTS_MAX.min(filled + 1)].to_vec())
}

/// The size of a small shard: four times the rows are another one.
fn tier_of(rows: u64) -> u32 {
    (rows / 4096).checked_ilog(4).map_or(0, |tier| tier + 1)
}

fn tiers(pieces: &[Piece], group: &[usize]) -> Vec<Vec<usize>> {
    let mut tiers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    group.iter().for_each(|i| tiers.entry(tier_of(pieces[*i].rows)).or_default().push(*i));
    tiers.into_values().collect()
}

/// Those of one size, if they are many.
fn tier(pieces: &[Piece], group: &[usize]) -> Option<Vec<usize>> {
    let many = tiers(pieces, group).into_iter().find(|tier| tier.len() >= TIER_SHARDS)?;
    Some(many[..many.len().min(INPUTS_MAX)].to_vec())
}

/// Those of one size that lie at one time, if they are several.
fn overlapping(pieces: &[Piece], group: &[usize]) -> Option<Vec<usize>> {
    tiers(pieces, group).iter().map(|tier| deepest(pieces, tier)).find(|found| found.len() >= OVERLAPPING_SHARDS)
}

/// All of a group, if the day has been quiet for long enough.
fn quiet(pieces: &[Piece], group: &[usize], when: When) -> Option<Vec<usize>> {
    let group = &group[..group.len().min(INPUTS_MAX)];
    let rows = |i: &usize| pieces[*i].rows;
    let largest = group.iter().map(rows).max().unwrap_or(0);
    let others = group.iter().map(rows).sum::<u64>() - largest;
    let wanted = (largest / others.max(1)).clamp(1, QUIET_WAITS_MAX);
    let is_time = match when {
        When::Busy => false,
        When::Quiet(waits) => waits >= wanted,
        When::Now => true,
    };
    is_time.then(|| group.to_vec())
}

/// Full shards that lie at one time, if they are too many: merged, they follow each other.
fn full_overlap(pieces: &[Piece]) -> Option<Vec<usize>> {
    let full: Vec<usize> = (0..pieces.len()).filter(|i| pieces[*i].rows >= FULL_ROWS).collect();
    let found = deepest(pieces, &full);
    (found.len() > FULL_OVERLAPPING_MAX).then_some(found)
}

/// The shards at the moment at which most of `among` lie.
fn deepest(pieces: &[Piece], among: &[usize]) -> Vec<usize> {
    // At one moment shards begin before others end: both have a row there.
    let mut changes: Vec<(i64, bool)> = Vec::with_capacity(among.len() * 2);
    for i in among {
        changes.extend([(pieces[*i].time_min_us, false), (pieces[*i].time_max_us, true)]);
    }
    changes.sort_unstable();
    let (mut depth, mut deepest) = (0_usize, (0, 0));
    for (time_us, ends) in changes {
        depth = if ends { depth - 1 } else { depth + 1 };
        if depth > deepest.0 {
            deepest = (depth, time_us);
        }
    }
    let lies_there = |i: &&usize| (pieces[**i].time_min_us..=pieces[**i].time_max_us).contains(&deepest.1);
    among.iter().filter(lies_there).take(INPUTS_MAX).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards as (rows in thousands, first hour, last hour).
    fn pieces(shards: &[(u64, i64, i64)]) -> Vec<Piece> {
        let piece = |(rows, from, to): &(u64, i64, i64)| Piece {
            rows: rows * 1000,
            time_min_us: from * 3_600_000_000,
            time_max_us: to * 3_600_000_000,
        };
        shards.iter().map(piece).collect()
    }

    #[track_caller]
    fn check(shards: &[(u64, i64, i64)], when: When, expected: Option<&[usize]>) {
        let found = plan(&pieces(shards), when).map(|mut found| {
            found.sort_unstable();
            found
        });
        assert_eq!(found.as_deref(), expected, "{shards:?} {when:?}");
    }

    #[test]
    fn full_shards_and_a_single_small_one_are_left_alone() {
        check(&[], When::Now, None);
        check(&[(5, 0, 1)], When::Now, None);
        check(&[(1500, 0, 8), (1500, 8, 16), (900, 16, 24)], When::Now, None);
        check(&[(1500, 0, 8), (5, 0, 24), (1500, 8, 16)], When::Now, None);
    }

    #[test]
    fn neighbours_that_fill_a_shard_are_merged_and_later_ones_wait() {
        check(&[(600, 0, 1), (600, 1, 2), (600, 2, 3), (5, 3, 4)], When::Busy, Some(&[0, 1, 2]));
        check(&[(600, 2, 3), (600, 0, 1), (200, 1, 2)], When::Busy, None);
    }

    #[test]
    fn a_full_shard_between_small_ones_keeps_them_apart() {
        check(&[(500, 0, 1), (1500, 1, 10), (500, 10, 11), (600, 11, 12)], When::Now, Some(&[2, 3]));
        check(&[(500, 0, 1), (1500, 1, 10), (500, 10, 11)], When::Now, None);
    }

    #[test]
    fn sixteen_of_a_size_are_merged_and_a_larger_one_is_not_written_again_for_them() {
        let fifteen: Vec<(u64, i64, i64)> = (0..15).map(|hour| (10, hour, hour)).collect();
        check(&fifteen, When::Busy, None);
        let sixteen: Vec<(u64, i64, i64)> = (0..16).map(|hour| (10, hour, hour)).chain([(400, 3, 5)]).collect();
        check(&sixteen, When::Busy, Some(&(0..16).collect::<Vec<_>>()));
    }

    #[test]
    fn eight_of_a_size_at_one_time_are_merged() {
        let mut shards: Vec<(u64, i64, i64)> = (0..8).map(|i| (10, i, 24)).collect();
        check(&shards, When::Busy, Some(&(0..8).collect::<Vec<_>>()));
        shards[0].2 = 6;
        check(&shards, When::Busy, None);
    }

    #[test]
    fn a_quiet_day_is_merged_the_later_the_more_rows_would_be_written_again() {
        check(&[(10, 0, 1), (10, 1, 2)], When::Busy, None);
        check(&[(10, 0, 1), (10, 1, 2)], When::Quiet(0), None);
        check(&[(10, 0, 1), (10, 1, 2)], When::Quiet(1), Some(&[0, 1]));
        check(&[(100, 0, 1), (10, 1, 2)], When::Quiet(9), None);
        check(&[(100, 0, 1), (10, 1, 2)], When::Quiet(10), Some(&[0, 1]));
        check(&[(700, 0, 1), (1, 1, 2)], When::Quiet(QUIET_WAITS_MAX - 1), None);
        check(&[(700, 0, 1), (1, 1, 2)], When::Quiet(QUIET_WAITS_MAX), Some(&[0, 1]));
    }

    #[test]
    fn more_than_four_full_shards_at_one_time_are_merged_and_others_left() {
        let day = [(1500, 0, 5), (1500, 6, 12), (1500, 13, 18), (1500, 19, 24)];
        let late = |n: usize| vec![(800, 0, 24); n];
        check(&[&day[..], &late(3)].concat(), When::Now, None);
        check(&[&day[..], &late(4)].concat(), When::Busy, Some(&[0, 4, 5, 6, 7]));
    }

    #[test]
    fn as_many_as_fit_into_memory_are_merged_at_once() {
        let shards: Vec<(u64, i64, i64)> = (0..500).map(|i| (1, i, i)).collect();
        assert_eq!(plan(&pieces(&shards), When::Now).unwrap().len(), INPUTS_MAX);
    }

    /// Replaces the chosen shards by one, as a merge of small ones does; returns its rows.
    fn merge(shards: &mut Vec<Piece>, mut chosen: Vec<usize>) -> u64 {
        chosen.sort_unstable();
        let inputs: Vec<Piece> = chosen.iter().rev().map(|i| shards.remove(*i)).collect();
        let merged = Piece {
            rows: inputs.iter().map(|input| input.rows).sum(),
            time_min_us: inputs.iter().map(|input| input.time_min_us).min().unwrap(),
            time_max_us: inputs.iter().map(|input| input.time_max_us).max().unwrap(),
        };
        shards.push(merged);
        merged.rows
    }

    #[test]
    fn a_row_of_a_day_that_comes_in_order_is_seldom_written_again() {
        // Rows of each flush, flushes, then in thousandths how often a row is merged at most, and how many shards are left.
        for (rows, flushes, merged_max, left_max) in [
            (1_000_000, 10, 0, 10),
            (300_000, 24, 1000, 6),
            (50_000, 24, 1000, 2),
            (40_000, 24, 1700, 1),
            (5_000, 200, 2000, 2),
            (10_000, 1440, 2100, 18),
            (1_000, 1440, 2900, 2),
        ] {
            let (mut shards, mut merged) = (Vec::new(), 0);
            for n in 0..flushes {
                // Neighbours overlap: clocks differ.
                shards.push(Piece { rows, time_min_us: n * 60 - 30, time_max_us: n * 60 + 90 });
                while let Some(chosen) = plan(&shards, When::Busy) {
                    merged += merge(&mut shards, chosen);
                }
            }
            while let Some(chosen) = plan(&shards, When::Quiet(QUIET_WAITS_MAX)) {
                merged += merge(&mut shards, chosen);
            }
            let merged = merged * 1000 / (rows * flushes as u64);
            assert!(merged <= merged_max, "{flushes} flushes of {rows} rows: merged {merged} thousandths");
            assert!(shards.len() <= left_max, "{flushes} flushes of {rows} rows: {} are left", shards.len());
        }
    }

    /// Whatever is there: merging as planned, with outputs as the merge makes them, ends, and few shards are left.
    #[test]
    fn planning_ends() {
        use model::Rng;
        for seed in 0..500 {
            let rng = model::SplitMix64::new(seed);
            let mut shards: Vec<Piece> = (0..1 + rng.below(60))
                .map(|_| {
                    let from = rng.below(86_400) as i64;
                    let to = from + rng.below(86_400 - from as u64) as i64;
                    let rows = 1 + rng.below([2_000, 100_000, 2_000_000][rng.below(3) as usize]);
                    Piece { rows, time_min_us: from, time_max_us: to }
                })
                .collect();
            let mut merges = 0;
            while let Some(chosen) = plan(&shards, When::Now) {
                assert!(chosen.len() > 1, "seed {seed}");
                let rows: u64 = chosen.iter().map(|i| shards[*i].rows).sum();
                let from = chosen.iter().map(|i| shards[*i].time_min_us).min().unwrap();
                let to = chosen.iter().map(|i| shards[*i].time_max_us).max().unwrap();
                let outputs = ((rows + TARGET_ROWS / 2) / TARGET_ROWS).max(1);
                let mut chosen = chosen;
                chosen.sort_unstable();
                for i in chosen.iter().rev() {
                    shards.remove(*i);
                }
                let cut = |n: u64| from + ((to - from) as u64 * n / outputs) as i64;
                shards.extend((0..outputs).map(|n| Piece {
                    rows: rows / outputs,
                    time_min_us: cut(n) + i64::from(n > 0),
                    time_max_us: cut(n + 1).max(cut(n) + i64::from(n > 0)),
                }));
                merges += 1;
                assert!(merges < 200, "seed {seed} does not end");
            }
            let small = shards.iter().filter(|shard| shard.rows < FULL_ROWS).count();
            let full = shards.len() - small;
            assert!(small <= full + 1, "seed {seed}: {small} small, {full} full");
        }
    }
}

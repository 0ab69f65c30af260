//! Numbers of batches as ranges: ascending, not touching, counted from 1.

/// First and last of each range.
pub(super) type Ranges = Vec<(u64, u64)>;

/// Adds `first..=last`.
pub(super) fn insert(ranges: &mut Ranges, first: u64, last: u64) {
    // Ranges that end before `first - 1` stay as they are, and so do those that begin behind `last + 1`.
    let from = ranges.partition_point(|range| range.1 < first - 1);
    let to = ranges.partition_point(|range| range.0 <= last.saturating_add(1));
    let met = &ranges[from..to];
    let first = met.first().map_or(first, |range| range.0.min(first));
    let last = met.last().map_or(last, |range| range.1.max(last));
    ranges.splice(from..to, [(first, last)]);
}

/// Takes `number` out. Returns whether it was in one of them.
pub(super) fn remove(ranges: &mut Ranges, number: u64) -> bool {
    let at = ranges.partition_point(|range| range.1 < number);
    let Some((first, last)) = ranges.get(at).copied().filter(|range| range.0 <= number) else { return false };
    let below = (first < number).then(|| (first, number - 1));
    let above = (number < last).then(|| (number + 1, last));
    ranges.splice(at..=at, below.into_iter().chain(above));
    true
}

/// How many of `first..=last` are in them.
pub(super) fn count(ranges: &Ranges, first: u64, last: u64) -> u64 {
    let of = |range: &(u64, u64)| {
        let (from, to) = (range.0.max(first), range.1.min(last));
        if from <= to { to - from + 1 } else { 0 }
    };
    ranges.iter().map(of).fold(0, u64::saturating_add)
}

/// The number up to which all from 1 on are in them.
pub(super) fn contiguous(ranges: &Ranges) -> u64 {
    ranges.first().filter(|range| range.0 == 1).map_or(0, |range| range.1)
}

/// The lowest numbers below the last range that are in none.
pub(super) fn lowest_hole(ranges: &Ranges) -> Option<(u64, u64)> {
    let mut next = 1;
    for (first, last) in ranges {
        if next < *first {
            return Some((next, first - 1));
        }
        next = last.saturating_add(1);
    }
    None
}

/// What of `first..=last` is in none of them.
pub(super) fn holes(ranges: &Ranges, first: u64, last: u64) -> Ranges {
    let mut holes = Ranges::new();
    let mut next = Some(first);
    for (from, to) in ranges.iter().filter(|range| range.1 >= first && range.0 <= last) {
        holes.extend(next.filter(|next| next < from).map(|next| (next, from - 1)));
        next = to.checked_add(1);
    }
    holes.extend(next.filter(|next| *next <= last).map(|next| (next, last)));
    holes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{Rng, SplitMix64};

    use super::*;

    #[test]
    fn ranges_are_the_set_of_their_numbers() {
        for seed in 0..200 {
            let rng = SplitMix64::new(seed);
            let (mut ranges, mut set) = (Ranges::new(), BTreeSet::new());
            for _ in 0..30 {
                let first = 1 + rng.below(60);
                let last = first + rng.below(6);
                insert(&mut ranges, first, last);
                set.extend(first..=last);
                assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
                for number in [first, 1 + rng.below(60)] {
                    if rng.below(2) == 0 {
                        assert_eq!(remove(&mut ranges, number), set.remove(&number), "{number} of {ranges:?}");
                    }
                }
                assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
                let contains = |number| count(&ranges, number, number) == 1;
                assert!((1..80).all(|number| contains(number) == set.contains(&number)), "{ranges:?}");
                let (from, to) = (1 + rng.below(60), 30 + rng.below(60));
                assert_eq!(count(&ranges, from, to), set.iter().filter(|n| (from..=to).contains(*n)).count() as u64);
                let holes: Vec<u64> = holes(&ranges, from, to).into_iter().flat_map(|hole| hole.0..=hole.1).collect();
                assert!(holes.into_iter().eq((from..=to).filter(|number| !set.contains(number))), "{ranges:?}");
                let contiguous_up_to = (1..).take_while(|number| set.contains(number)).count() as u64;
                assert_eq!(contiguous(&ranges), contiguous_up_to);
                let hole = lowest_hole(&ranges).map(|hole| hole.0);
                let highest = set.last().copied().unwrap_or(0);
                assert_eq!(hole, (1..highest).find(|number| !set.contains(number)));
            }
        }
    }

    #[test]
    fn the_largest_number_is_a_number() {
        let mut ranges = vec![(5, 6)];
        insert(&mut ranges, 1, u64::MAX);
        assert_eq!(ranges, [(1, u64::MAX)]);
        insert(&mut ranges, u64::MAX, u64::MAX);
        assert_eq!((ranges.len(), count(&ranges, 1, u64::MAX), lowest_hole(&ranges)), (1, u64::MAX, None));
        assert_eq!(holes(&ranges, 1, u64::MAX), []);
        assert!(remove(&mut ranges, u64::MAX) && !remove(&mut ranges, u64::MAX));
        assert_eq!(holes(&ranges, 1, u64::MAX), [(u64::MAX, u64::MAX)]);
    }
}

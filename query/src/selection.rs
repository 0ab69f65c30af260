//! The rows of a shard that a query reads, for a reader of Parquet.
//!
//! Owns:     the step from masked ordinals to runs of rows.
//! Does not: split runs at row groups: the reader does, and refuses a file with another number of rows.

use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};

/// All of `rows` rows but those whose ordinals are in `masked`, which ascends.
///
/// # Panics
/// If `masked` does not ascend or reaches past `rows`: a mask of another file would show wrong rows.
pub(crate) fn unmasked(rows: usize, masked: &[u32]) -> RowSelection {
    let mut selectors = Vec::with_capacity(2 * masked.len() + 1);
    let mut next = 0;
    for run in masked.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        let first = run[0] as usize;
        assert!(first >= next && first + run.len() <= rows, "a mask lies within its shard and ascends");
        if first > next {
            selectors.push(RowSelector::select(first - next));
        }
        selectors.push(RowSelector::skip(run.len()));
        next = first + run.len();
    }
    if next < rows {
        selectors.push(RowSelector::select(rows - next));
    }
    selectors.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_leaves_out_its_rows_and_no_others() {
        for (rows, masked) in
            [(5, &[][..]), (5, &[0]), (5, &[4]), (5, &[0, 1, 2, 3, 4]), (5, &[1, 2]), (5, &[0, 2, 4]), (1, &[0])]
        {
            let mut kept = Vec::new();
            let mut at = 0;
            for selector in unmasked(rows, masked).iter() {
                if !selector.skip {
                    kept.extend(at..at + selector.row_count);
                }
                at += selector.row_count;
            }
            let expected: Vec<usize> = (0..rows).filter(|row| !masked.contains(&(*row as u32))).collect();
            assert_eq!((kept, at), (expected, rows), "{rows} {masked:?}");
        }
    }

    #[test]
    #[should_panic(expected = "a mask lies within its shard")]
    fn a_mask_of_a_longer_file_is_refused() {
        unmasked(5, &[5]);
    }
}

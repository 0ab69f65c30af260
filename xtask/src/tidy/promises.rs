//! Promises are numbered in docs/ARCHITECTURE.md and cited by number in code and tests.

use std::collections::BTreeSet;

use super::tree::Tree;

const HOME: &str = "docs/ARCHITECTURE.md";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let Some(home) = tree.get(HOME) else { return vec![format!("{HOME} is missing")] };
    let rows: Vec<_> = home.text.lines().filter_map(row).collect();
    let known: BTreeSet<u32> = rows.iter().map(|row| row.number).collect();
    let mut cited = BTreeSet::new();
    let mut broken = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_rust() && !file.path.starts_with("xtask/src/tidy")) {
        for (number, line) in file.text.lines().enumerate() {
            for promise in citations(line) {
                cited.insert(promise);
                if !known.contains(&promise) {
                    broken.push(format!("{}:{}: P{promise} is no promise of {HOME}", file.path, number + 1));
                }
            }
        }
    }
    for row in rows.iter().filter(|row| row.claimed && !cited.contains(&row.number)) {
        broken.push(format!("{HOME}: P{} is claimed, and no code or test cites it", row.number));
    }
    broken
}

struct Row {
    number: u32,
    /// Held, or in part.
    claimed: bool,
}

/// `| P7 | what | state | proof |`
fn row(line: &str) -> Option<Row> {
    let mut cells = line.strip_prefix("| P")?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    let state = cells.nth(1)?;
    Some(Row { number, claimed: !state.starts_with("not yet") })
}

/// `P7` as a word of its own, in a comment, a document line or a text.
fn citations(line: &str) -> Vec<u32> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.split(|c: char| !is_word(c))
        .filter_map(|word| word.strip_prefix('P')?.parse().ok())
        // P50 and P99 are percentiles.
        .filter(|number| *number < 50)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read_from_the_table_and_from_comments() {
        let row = row("| P3 | A torn tail is cut | not yet | |").expect("a row");
        assert_eq!((row.number, row.claimed), (3, false));
        assert_eq!(
            citations("/// Acks only then (P1, P6); P99 is a percentile, SP2 and P3x are not promises."),
            [1, 6]
        );
    }
}

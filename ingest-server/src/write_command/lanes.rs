//! Which request a line goes with, so that several may be on their way.
//!
//! Owns:     lanes: a line's lane follows from its series, and the batches of a lane are sent one after the other.
//! Does not: send (`write_command`), or judge lines: the server does.
//!
//! Invariant: lines of one series are in one lane, in the order in which they were read. So of two lines with one key the later
//! one holds, as if all were sent one after the other.

use super::{BATCH_BYTES, BATCH_LINES, TEXT_LINES_MAX, TextState};

/// Lines of one lane and one file, to be sent together.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// The number in the file of each line of `bytes`, from 1.
    pub(super) numbers: Vec<u64>,
    /// Lines that are neither blank nor comments; one of several lines counts once.
    pub(super) readings: u64,
}

impl Part {
    fn is_full(&self, is_inside_text: bool) -> bool {
        let is_full = self.numbers.len() >= BATCH_LINES || self.bytes.len() >= BATCH_BYTES;
        is_full && (!is_inside_text || self.numbers.len() >= BATCH_LINES + TEXT_LINES_MAX)
    }
}

/// Sorts the lines of a file into batches.
#[derive(Debug)]
pub(super) struct Lanes {
    batches: Vec<Part>,
    /// Where the last line went.
    last: usize,
    text: TextState,
    /// Lines of the file that were read.
    read: u64,
    /// All go to one lane: its first line speaks for those behind it.
    is_one: bool,
}

impl Lanes {
    pub(super) fn new(lanes: usize) -> Lanes {
        let batches = (0..lanes.max(1)).map(|_| Part::default()).collect();
        Lanes { batches, last: 0, text: TextState::default(), read: 0, is_one: false }
    }

    /// The next line of the file, with its line break. Returns a batch that is full now, and its lane.
    pub(super) fn push(&mut self, line: &[u8]) -> Option<(usize, Part)> {
        self.is_one |= self.read == 0 && line.starts_with(b"# eden ");
        self.read += 1;
        if !self.text.is_inside {
            self.last = if self.is_one { 0 } else { lane(line, self.batches.len()) };
            let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
            self.batches[self.last].readings += u64::from(first.is_some_and(|byte| *byte != b'#'));
        }
        let batch = &mut self.batches[self.last];
        batch.bytes.extend_from_slice(line);
        batch.numbers.push(self.read);
        self.text.read_line(line);
        if !batch.is_full(self.text.is_inside) {
            return None;
        }
        // A text that never ends does not swallow the file.
        self.text = TextState::default();
        Some((self.last, std::mem::take(batch)))
    }

    /// The file has ended: what is left, with the lanes.
    pub(super) fn finish(&mut self) -> Vec<(usize, Part)> {
        let batches = self.batches.iter_mut().enumerate().filter(|(_, batch)| !batch.bytes.is_empty());
        let left = batches.map(|(lane, batch)| (lane, std::mem::take(batch))).collect();
        *self = Lanes::new(self.batches.len());
        left
    }

    /// The first line that is in no batch that was returned.
    pub(super) fn first_waiting(&self) -> Option<u64> {
        self.batches.iter().filter_map(|batch| batch.numbers.first().copied()).min()
    }
}

/// The lane of a line: the same for all ways to write its series. Tags may stand in any order, and a backslash may stand
/// before what needs none.
fn lane(line: &[u8], lanes: usize) -> usize {
    if lanes == 1 {
        return 0;
    }
    const SEED: u64 = 0xcbf2_9ce4_8422_2325;
    let (mut sum, mut part, mut is_escaped) = (0_u64, SEED, false);
    for byte in line.trim_ascii_start() {
        match byte {
            b'\\' => is_escaped = true,
            b',' if !is_escaped => {
                sum = sum.wrapping_add(part);
                part = SEED;
            }
            b' ' | b'\n' | b'\r' if !is_escaped => break,
            byte => {
                // FNV-1a, which is enough to spread.
                part = (part ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                is_escaped = false;
            }
        }
    }
    let sum = sum.wrapping_add(part);
    // The high bits are the better ones.
    ((sum ^ sum >> 32) % lanes as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &str, lanes: usize) -> Vec<(usize, u64)> {
        let mut sorter = Lanes::new(lanes);
        let mut found: Vec<_> = text.split_inclusive('\n').filter_map(|line| sorter.push(line.as_bytes())).collect();
        found.extend(sorter.finish());
        found.iter().map(|(_, batch)| (batch.numbers.len(), batch.readings)).collect()
    }

    #[test]
    fn batches_are_of_whole_lines() {
        assert_eq!(batches("", 4), []);
        assert_eq!(batches("a v=1", 4), [(1, 1)]);
        assert_eq!(batches(&"a v=1\n".repeat(12_000), 4), [(5_000, 5_000), (5_000, 5_000), (2_000, 2_000)]);
        assert_eq!(batches("# c\n\n a v=1\n", 1), [(3, 1)]);
    }

    #[test]
    fn a_text_of_two_lines_is_not_cut() {
        let text = format!("{}a v=\"x\ny\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text, 4), [(5_001, 5_000), (1, 1)]);
        // A quote in a tag or behind a backslash opens nothing.
        let text = format!("{}a,t=\"x v=\"\\\"\"\na v=2\n", "a v=1\n".repeat(4_999));
        assert_eq!(batches(&text, 1), [(5_000, 5_000), (1, 1)]);
        // A text that never ends does not swallow the file.
        let text = format!("a v=\"x\n{}", "a v=1\n".repeat(7_000));
        assert_eq!(batches(&text, 1), [(6_000, 1), (1_001, 1_001)]);
    }

    #[test]
    fn lines_of_one_series_are_in_one_lane_however_it_is_written() {
        for lanes in [2, 3, 4, 32] {
            let of = |line: &str| lane(line.as_bytes(), lanes);
            assert_eq!(of("m,a=1,b=2 v=1 5\n"), of(" m,b=2,a=1 w=\"a b\"\r\n"));
            assert_eq!(of("m\\ n,a\\=b=c\\,d v=1"), of("m\\ n,\\a\\=b=\\c\\,d v=2"));
            assert_eq!(of("m v=1"), of("m v=2 7"));
            assert_eq!(of("m"), of("m\n"));
        }
        let used: std::collections::BTreeSet<_> =
            (0..100).map(|device| lane(format!("cpu,host=h{device} v=1").as_bytes(), 4)).collect();
        assert_eq!(used.len(), 4);
    }

    #[test]
    fn lines_keep_their_numbers_and_their_order_and_an_agents_file_is_one_batch() {
        let text: String = (0..20_000).map(|n| format!("m,d={} v={n}\n", n % 13)).collect();
        let mut sorter = Lanes::new(4);
        let mut found: Vec<_> = text.split_inclusive('\n').filter_map(|line| sorter.push(line.as_bytes())).collect();
        assert!(sorter.first_waiting().is_some());
        found.extend(sorter.finish());
        assert_eq!(sorter.first_waiting(), None);
        let mut seen = [0_u64; 4];
        let mut all: Vec<u64> = Vec::new();
        for (lane, batch) in &found {
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            let own: String = batch.numbers.iter().map(|number| lines[*number as usize - 1]).collect();
            assert_eq!(own.as_bytes(), batch.bytes);
            assert!(batch.numbers.is_sorted() && batch.numbers[0] > seen[*lane]);
            seen[*lane] = batch.numbers[batch.numbers.len() - 1];
            all.extend(&batch.numbers);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=20_000));
        let agents = "# eden agent=a epoch=1 seq=1 precision=us\nm,d=1 v=1\nm,d=2 v=1\nm,d=3 v=1\n";
        assert_eq!(batches(agents, 4), [(4, 3)]);
    }
}

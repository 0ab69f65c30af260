//! What of a body is set aside, and how it is cut.
//!
//! Owns:     the pieces that go to the quarantine: each can be written again, or says that it cannot.
//! Does not: store them (`storage`), or decide what is refused.

use decode::line_protocol::{self, Precision};
use decode::metrics::RefusedSample;
use storage::{SET_ASIDE_BYTES_MAX, SetAside};

use super::Refused;

/// A body, as it is set aside.
pub(in crate::http) struct Came<'a> {
    /// Where it came in.
    pub(in crate::http) path: &'static str,
    pub(in crate::http) body: &'a [u8],
    pub(in crate::http) now_us: i64,
    /// Who sent it, and for which agent.
    pub(in crate::http) source: String,
    pub(in crate::http) schema: &'a str,
    pub(in crate::http) precision: Precision,
}

impl Came<'_> {
    /// Refused lines, each by itself with its reason; the whole body if not all of them are known.
    pub(in crate::http) fn set_aside(&self, refused: &Refused) -> Vec<SetAside> {
        match refused.lines.first() {
            None => Vec::new(),
            Some(first) if refused.total > refused.lines.len() as u64 => {
                let reason = format!("{} lines were refused, the first of them: {}", refused.total, first.message);
                let mut pieces = self.whole(&reason);
                // The others are stored, and may have been corrected since: not to be written again.
                pieces.iter_mut().for_each(|piece| piece.is_whole = false);
                pieces
            }
            Some(_) => {
                let lines = line_protocol::lines_at(self.body, refused.lines.iter().map(|error| error.line));
                let parts = refused.lines.iter().zip(lines).flat_map(|(error, line)| self.line(&error.message, line));
                parts.collect()
            }
        }
    }

    /// A refused line; if it is longer than what is kept whole, in pieces that are no lines.
    fn line(&self, reason: &str, line: &[u8]) -> Vec<SetAside> {
        let is_whole = line.len() <= SET_ASIDE_BYTES_MAX;
        let pieces = line.chunks(SET_ASIDE_BYTES_MAX);
        pieces.map(|piece| SetAside { is_whole, ..self.part(reason, piece) }).collect()
    }

    /// The body, of which nothing is stored, in pieces that are kept whole, cut behind lines where that is possible.
    pub(in crate::http) fn whole(&self, reason: &str) -> Vec<SetAside> {
        let (mut pieces, mut rest) = (Vec::new(), self.body);
        let is_one = rest.len() <= SET_ASIDE_BYTES_MAX;
        // A text may have line breaks, so a piece may begin or end in one.
        let has_texts = rest.contains(&b'"');
        while !rest.is_empty() {
            let most = &rest[..rest.len().min(SET_ASIDE_BYTES_MAX)];
            let behind_line = most.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let len = behind_line.filter(|_| most.len() < rest.len()).unwrap_or(most.len());
            let is_cut = !is_one && (has_texts || behind_line.is_none());
            pieces.push(SetAside { is_whole: !is_cut, ..self.part(reason, &rest[..len]) });
            rest = &rest[len..];
        }
        pieces
    }

    /// Samples that are no rows, neighbours of one reason together.
    pub(in crate::http) fn samples(&self, samples: &[RefusedSample]) -> Vec<SetAside> {
        let mut pieces: Vec<SetAside> = Vec::new();
        for sample in samples {
            let line = sample.line.as_bytes();
            match pieces.last_mut() {
                Some(last)
                    if last.reason == sample.reason
                        && last.is_whole == sample.is_whole
                        && last.payload.len() + 1 + line.len() <= SET_ASIDE_BYTES_MAX =>
                {
                    last.payload.push(b'\n');
                    last.payload.extend_from_slice(line);
                }
                _ if sample.is_whole => pieces.extend(self.line(&sample.reason, line)),
                _ => pieces.push(SetAside { is_whole: false, ..self.part(&sample.reason, line) }),
            }
        }
        pieces
    }

    fn part(&self, reason: &str, payload: &[u8]) -> SetAside {
        SetAside {
            time_us: self.now_us,
            source: self.source.clone(),
            topic: self.path.into(),
            schema: self.schema.into(),
            precision: self.precision.to_string(),
            reason: reason.into(),
            payload: payload.to_vec(),
            is_whole: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::intake::{Cause, RefusedLine};

    fn came(body: &[u8]) -> Came<'_> {
        Came {
            path: "/write",
            body,
            now_us: 5,
            source: "http pi".into(),
            schema: "plant",
            precision: Precision::Second,
        }
    }

    #[test]
    fn what_is_set_aside_is_the_refused_lines_as_they_came() {
        let line = |number| {
            let message = format!("bad {number}");
            RefusedLine { line: number, original: "cut".into(), message, cause: Cause::Grammar }
        };
        let check = |body: &[u8], numbers: &[u32], total: u64, expected: &[(&str, &str, bool)]| {
            let lines: Vec<RefusedLine> = numbers.iter().map(|number| line(*number)).collect();
            let aside = came(body).set_aside(&Refused { lines, total });
            let shown: Vec<_> =
                aside.iter().map(|a| (str::from_utf8(&a.payload).unwrap(), &*a.reason, a.is_whole)).collect();
            assert_eq!(shown, expected);
            assert!(aside.iter().all(|a| (&*a.topic, &*a.schema, &*a.precision) == ("/write", "plant", "second")));
        };
        check(b"body", &[], 0, &[]);
        let body = b"a v=1\nb v=\"x\ny\" 5\r\n# c\nc v=2";
        check(
            body,
            &[1, 2, 5],
            3,
            &[("a v=1", "bad 1", true), ("b v=\"x\ny\" 5\r", "bad 2", true), ("c v=2", "bad 5", true)],
        );
        // Not all are known: nobody knows which of them are stored, so they are only kept.
        let many = "2 lines were refused, the first of them: bad 1";
        check(b"a v=1\nb v=2", &[1], 2, &[("a v=1\nb v=2", many, false)]);
        let endless = "x".repeat(70_000);
        let (first, last) = endless.split_at(65_536);
        check(endless.as_bytes(), &[1], 1, &[(first, "bad 1", false), (last, "bad 1", false)]);
    }

    #[test]
    fn samples_of_one_reason_are_set_aside_together() {
        let sample = |line: &str, is_whole, reason: &str| RefusedSample {
            number: 1,
            line: line.into(),
            is_whole,
            is_histogram: false,
            reason: reason.into(),
        };
        let long = "x".repeat(SET_ASIDE_BYTES_MAX);
        let samples = [
            sample("a v=1 1", true, "late"),
            sample("a v=2 2", true, "late"),
            sample("a v=3 3", true, "type"),
            sample("{a=?} m", false, "type"),
            sample(&long, true, "type"),
            sample("a v=4 4", true, "type"),
        ];
        let aside = came(b"").samples(&samples);
        let shown: Vec<_> =
            aside.iter().map(|a| (str::from_utf8(&a.payload).unwrap(), &*a.reason, a.is_whole)).collect();
        assert_eq!(
            shown,
            [
                ("a v=1 1\na v=2 2", "late", true),
                ("a v=3 3", "type", true),
                ("{a=?} m", "type", false),
                (&*long, "type", true),
                ("a v=4 4", "type", true)
            ]
        );
    }

    #[test]
    fn a_whole_body_is_cut_behind_lines() {
        let check = |line: &str, is_whole: bool| {
            let is_line = line.ends_with('\n');
            let first = if is_line { SET_ASIDE_BYTES_MAX / line.len() * line.len() } else { SET_ASIDE_BYTES_MAX };
            let body = line.repeat(4000).into_bytes();
            let aside = came(&body).whole("refused");
            assert_eq!((aside[0].payload.len(), aside[0].is_whole, aside[1].is_whole), (first, is_whole, is_whole));
            assert_eq!([&aside[0].payload[..], &aside[1].payload].concat(), body);
        };
        check("a long line that is refused\n", true);
        check("a line=\"with a text\" refused\n", false);
        check("bytes without any line break", false);
    }
}

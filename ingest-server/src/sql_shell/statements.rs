//! Text into statements: a semicolon ends one, unless it is quoted or in a comment.

/// Collects text until a statement is whole.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    pending: String,
}

enum State {
    Code,
    Quoted(char),
    LineComment,
    BlockComment,
}

impl Splitter {
    /// Whether nothing but blanks waits for its semicolon.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.trim().is_empty()
    }

    /// Adds text; returns the statements that it ends, without their semicolons.
    pub(super) fn push(&mut self, text: &str) -> Vec<String> {
        self.pending.push_str(text);
        let mut statements = Vec::new();
        let mut start = 0;
        let mut state = State::Code;
        let mut chars = self.pending.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            match state {
                State::Code => match (char, next) {
                    ('\'' | '"', _) => state = State::Quoted(char),
                    ('-', Some('-')) => state = State::LineComment,
                    ('/', Some('*')) => {
                        // The star must not be read as the one that ends the comment.
                        chars.next();
                        state = State::BlockComment;
                    }
                    (';', _) => {
                        let statement = self.pending[start..at].trim();
                        if !statement.is_empty() {
                            statements.push(statement.to_owned());
                        }
                        start = at + 1;
                    }
                    _ => {}
                },
                // A doubled quote closes and opens again: the same.
                State::Quoted(quote) if char == quote => state = State::Code,
                State::LineComment if char == '\n' => state = State::Code,
                State::BlockComment if char == '*' && next == Some('/') => {
                    chars.next();
                    state = State::Code;
                }
                State::Quoted(_) | State::LineComment | State::BlockComment => {}
            }
        }
        self.pending.drain(..start);
        statements
    }

    /// What is left at the end of the text, if anything.
    pub(super) fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        let rest = rest.trim();
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: &[&str]) {
        let mut splitter = Splitter::default();
        let mut found: Vec<String> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        found.extend(splitter.finish());
        assert_eq!(found, expected, "{pieces:?}");
    }

    #[test]
    fn semicolons_end_statements_unless_quoted_or_commented() {
        check(&["SELECT 1; SELECT 2"], &["SELECT 1", "SELECT 2"]);
        check(&["SELECT\n", "1\n", ";;\n"], &["SELECT\n1"]);
        check(&["SELECT ';', 'it''s;', \"a;b\";"], &["SELECT ';', 'it''s;', \"a;b\""]);
        check(&["SELECT 1 -- no; end\n;"], &["SELECT 1 -- no; end"]);
        check(&["SELECT /* ; */ 1;/*/ ; */"], &["SELECT /* ; */ 1", "/*/ ; */"]);
        check(&["SELECT 'a\n", ";b';\n"], &["SELECT 'a\n;b'"]);
        check(&[" \n"], &[]);
    }
}

//! How deep the tree of a statement will be, told from its tokens.
//!
//! Owns:     the bounds that keep a statement from overflowing the stack of a query thread, and the parser from trying without end.
//! Does not: parse: the parser bounds parentheses itself, but `a OR b OR c …` it turns into a tree as deep as the
//!           chain is long, and planning, optimising and dropping such a tree are recursive.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Deepest tree that is planned. In a build without optimisation 1000 levels fit a stack of 8 MiB and 4000 did not;
/// and the time of planning grows with the square of the depth.
pub(crate) const DEPTH_MAX: usize = 500;

/// Keywords that make what came before a branch of a deeper tree.
const CHAINS: [&str; 8] = ["AND", "OR", "XOR", "UNION", "EXCEPT", "INTERSECT", "MINUS", "JOIN"];

/// Keywords that are operators.
const OPERATORS: [&str; 9] = ["IS", "NOT", "COLLATE", "AT", "LIKE", "ILIKE", "BETWEEN", "IN", "SIMILAR"];

/// Keywords that make a type of other types, in brackets behind them.
const NESTED_TYPES: [&str; 9] =
    ["ARRAY", "STRUCT", "UNION", "NULLABLE", "LOWCARDINALITY", "MAP", "NESTED", "TUPLE", "TABLE"];

/// The levels that a type in another type counts for, and a statement in another statement. The parser does not bound
/// those, and without optimisation it needs some 35 kB of stack for each.
const NESTED_TYPE_LEVELS: usize = 8;

/// Levels within each other of what the parser begins anew if it finds a mistake inside.
pub(crate) const RETRIED_MAX: usize = 12;

/// What it reads as a name when it could not read it as what its keyword says. A mistake behind n of them costs 2ⁿ attempts.
const RETRIED: [&str; 16] = [
    "ARRAY",
    "CAST",
    "CEIL",
    "CONVERT",
    "EXTRACT",
    "FLOOR",
    "INTERVAL",
    "OVERLAY",
    "POSITION",
    "SAFE_CAST",
    "STRUCT",
    "SUBSTR",
    "SUBSTRING",
    "TRIM",
    "TRY_CAST",
    "TRY_CONVERT",
];

/// It is read as an operator too.
const RETRIED_TWICE: &str = "POSITION";

/// How many of [`RETRIED`] are within each other.
pub(crate) fn retried(tokens: &[TokenWithSpan]) -> usize {
    let mut open: Vec<usize> = Vec::new();
    let (mut now, mut most, mut next) = (0_usize, 0, 0);
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket => {
                now += next;
                open.push(next);
                next = 0;
            }
            Token::RParen | Token::RBracket => {
                now = now.saturating_sub(open.pop().unwrap_or(0));
                next = 0;
            }
            Token::Word(word) if word.quote_style.is_none() => {
                let is_retried = RETRIED.iter().any(|name| word.value.eq_ignore_ascii_case(name));
                let is_twice = word.value.eq_ignore_ascii_case(RETRIED_TWICE);
                next = usize::from(is_retried) + usize::from(is_twice);
            }
            _ => next = 0,
        }
        most = most.max(now);
    }
    most
}

/// What is open at one level of parentheses.
#[derive(Default)]
struct Level {
    /// Links of the chain so far.
    chain: usize,
    /// Operators since its last link.
    operators: usize,
    /// Whether a comma is a link too: tables of a FROM are joined, and a WITH can build on those before it.
    commas_chain: bool,
}

/// An upper bound of the depth of the statement's tree.
pub(crate) fn depth(tokens: &[TokenWithSpan]) -> usize {
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let (mut above, mut deepest) = (0, 0);
    let mut is_behind_type = false;
    for token in tokens {
        let is_type = match &token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) => {
                word.quote_style.is_none() && NESTED_TYPES.iter().any(|name| word.value.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        if std::mem::replace(&mut is_behind_type, is_type) && matches!(token.token, Token::LParen | Token::Lt) {
            level.operators += NESTED_TYPE_LEVELS - 1;
        }
        match &token.token {
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            Token::LParen => {
                above += level.chain + level.operators + 1;
                outer.push(std::mem::take(&mut level));
            }
            Token::RParen => {
                level = outer.pop().unwrap_or_default();
                above = above.saturating_sub(level.chain + level.operators + 1);
            }
            Token::Comma if level.commas_chain => level.chain += 1,
            Token::Comma => level.operators = 0,
            Token::SemiColon => level = Level::default(),
            Token::Word(word) if word.quote_style.is_none() => {
                let is = |keyword: &&str| word.value.eq_ignore_ascii_case(keyword);
                if CHAINS.iter().any(is) {
                    level.chain += 1;
                    level.operators = 0;
                } else if OPERATORS.iter().any(is) {
                    level.operators += 1;
                } else if is(&"EXPLAIN") {
                    level.operators += NESTED_TYPE_LEVELS;
                } else if is(&"FROM") || is(&"WITH") {
                    level.commas_chain = true;
                } else if is(&"SELECT") || is(&"WHERE") || is(&"GROUP") || is(&"ORDER") {
                    level.commas_chain = false;
                }
            }
            Token::Word(_) => {}
            _ => level.operators += 1,
        }
        deepest = deepest.max(above + level.chain + level.operators);
    }
    deepest
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_tried_again_is_counted_within_itself_only() {
        for (sql, expected) in [
            ("SELECT CAST(a AS INT), CAST(b AS INT)", 1),
            ("SELECT cast (floor(substr(a, 1)) AS INT)", 3),
            ("SELECT abs(CAST(abs(ARRAY [a][1]) AS INT))", 2),
            ("SELECT POSITION('a' IN b)", 2),
            ("SELECT \"cast\"(a), cast", 0),
        ] {
            let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap();
            assert_eq!(retried(&tokens), expected, "{sql}");
        }
    }

    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn depth_of(sql: &str) -> usize {
        depth(&Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap())
    }

    #[test]
    fn chains_are_deep_and_lists_are_not() {
        for (sql, expected) in [
            ("SELECT a, b, c", 0),
            ("SELECT a FROM t WHERE b = 1 OR c = 2 OR d = 3", 3),
            ("SELECT a + 1, b + 2, c + 3", 1),
            ("SELECT a + b + c + d", 3),
            ("SELECT a IN (-1, -2, -3, -4)", 3),
            ("SELECT ((((1))))", 4),
            ("SELECT (a OR b) AND (c OR d)", 3),
            ("SELECT 1 UNION SELECT 2 UNION SELECT 3", 2),
            ("SELECT 1 FROM a, b, c, d", 3),
            ("WITH a AS (SELECT 1), b AS (SELECT 2), c AS (SELECT 3) SELECT x, y, z", 3),
            ("SELECT a::int::text::int", 3),
            ("SELECT a = b = c IS NULL IS NULL", 4),
            ("VALUES (1, -2), (3, -4), (5, 6)", 2),
            ("SELECT ')' , 1)) + 1", 1),
            ("SELECT CAST(a AS Nested(b INT, c INT))", 9),
            ("CREATE TABLE t (a ARRAY<ARRAY <INT>>, b INT, c ARRAY<INT>)", 18),
            ("SELECT 1 UNION (SELECT 2) UNION (SELECT 3)", 10),
        ] {
            assert_eq!(depth_of(sql), expected, "{sql}");
        }
    }
}

//! Bodies of agents: the head line, and the gaps behind it.

use crate::line_protocol::check_body;

/// The bytes as what follows `# eden `.
pub fn check(bytes: &[u8]) {
    check_body(&[b"# eden ", bytes].concat());
}

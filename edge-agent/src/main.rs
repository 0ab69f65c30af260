//! `eden-agent`.

fn main() {}

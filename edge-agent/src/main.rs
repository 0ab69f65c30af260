//! `eden-agent`: see [`edge_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_agent::cli::run()
}

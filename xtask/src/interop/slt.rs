//! The statements of `query/tests/slt` in DuckDB, whose answers must be those that Eden's tests expect.

use super::Clients;
use crate::Outcome;
use crate::command::{in_root, run};

const SCRIPT: &str = "tests/interop/run_slt.py";
const FOLDER: &str = "query/tests/slt";

/// Every statement that both speak has one answer.
pub(super) fn answers_agree(clients: &Clients) -> Outcome {
    run(in_root(&clients.python).args([SCRIPT, FOLDER]))
}

//! Stock clients of CrateDB: crate-python, crash and sqlalchemy-cratedb.

use harness::Eden;

use super::clients::install_from_pypi;
use crate::Outcome;
use crate::command::{in_root, output};

const SCRIPT: &str = "tests/interop/query_crate.py";

pub(super) fn stock_clients_query() -> Outcome {
    let python = install_from_pypi("venv-crate", "requirements-crate.txt")?;
    let mut eden = Eden::start("crate-interop");
    print!("{}", output(in_root(&python).arg(SCRIPT).arg(eden.address()))?);
    eden.stop();
    Ok(())
}

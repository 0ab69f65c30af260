//! Stock clients of Arrow Flight SQL: ADBC's driver and InfluxDB 3's client.

use harness::Eden;

use super::clients::install_from_pypi;
use super::free_port;
use crate::Outcome;
use crate::command::{in_root, output};

const SCRIPT: &str = "tests/interop/query_flight.py";

pub(super) fn stock_clients_query() -> Outcome {
    let python = install_from_pypi("venv-flight", "requirements-flight.txt")?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut eden = Eden::options("flight-interop").setting("EDEN_GRPC_LISTEN", &address).start();
    print!("{}", output(in_root(&python).arg(SCRIPT).arg(&address))?);
    eden.stop();
    Ok(())
}

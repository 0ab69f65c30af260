//! Files of DuckDB through `eden import` and `eden export`, and back to DuckDB: the same rows, to the last digit.

use std::process::Command;

use harness::Eden;

use super::clients::Clients;
use crate::Outcome;
use crate::command::{in_root, run};

const SCRIPT: &str = "tests/interop/transfer.py";

/// Where the types come from declared columns: CSV has none.
const COLUMNS: &str = "site TEXT, machine TEXT, f DOUBLE, i BIGINT, u NUMERIC(20,0), d DECIMAL(18,3), b BOOLEAN, s TEXT, \
                       time TIMESTAMP, PRIMARY KEY (site, machine, time)";

pub(super) fn files_come_back_as_they_were(clients: &Clients) -> Outcome {
    let eden = Eden::start("interop-transfer");
    let folder = eden.home().to_path_buf();
    let python = |arguments: &[&str]| -> Command {
        let mut command = in_root(&clients.python);
        command.arg(SCRIPT).args(arguments);
        command
    };
    let home = folder.to_string_lossy().into_owned();
    run(&mut python(&["write", &home]))?;
    let url = format!("http://{}", eden.address());
    let eden_does = |arguments: &[&str]| -> Outcome {
        let output = eden.command().args(arguments).args(["--url", &url]).current_dir(&folder).output();
        let output = output.map_err(|error| format!("run eden: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("eden {arguments:?}: {said}")) }
    };
    eden.sql(&format!("CREATE TABLE csv ({COLUMNS})"));
    eden_does(&["import", "--table", "csv", "in.csv"])?;
    for (table, file) in [("parquet", "in.parquet"), ("nested", "nested.parquet")] {
        eden_does(&["import", "--table", table, "--tags", "site,machine", file])?;
    }
    // What is in memory and what is in shards are exported alike.
    eden.refresh("nested");
    for table in ["csv", "parquet", "nested"] {
        eden_does(&["export", "--table", table, "--output", &format!("{table}-out.parquet")])?;
    }
    run(&mut python(&["compare", &home, "csv-out.parquet", "parquet-out.parquet", "nested-out.parquet"]))
}

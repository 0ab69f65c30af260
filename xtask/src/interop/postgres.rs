//! Stock clients of PostgreSQL's protocol: psql, psycopg 3, asyncpg, SQLAlchemy, node-postgres and pgJDBC connect, look around,
//! query with parameters, get errors, cancel and copy.

use std::path::PathBuf;
use std::process::Command;

use harness::Eden;

use super::clients::{cache, install_from_pypi};
use super::{free_port, install};
use crate::command::{in_root, output, run as run_command};
use crate::{Failure, Outcome};

const SCRIPT: &str = "tests/interop/query_postgres.py";
const NODE_SCRIPT: &str = "tests/interop/query_postgres.js";
const JAVA_PROGRAM: &str = "tests/interop/QueryPostgres.java";
const JDBC: &str = "42.7.7";
/// What psql's own commands must show.
const COMMANDS: [(&str, &str); 8] = [
    ("\\d", "psy"),
    ("\\dt", "psy"),
    ("\\d psy", "timestamp with time zone"),
    ("\\l", "eden"),
    ("\\dn", "public"),
    ("\\du", "List of roles"),
    ("\\df", "List of functions"),
    ("SELECT count(*) FROM psy", "1000"),
];

pub(super) fn stock_clients_query() -> Outcome {
    install("psql", "postgresql-client")?;
    install("npm", "npm")?;
    let python = install_from_pypi("venv-postgres", "requirements-postgres.txt")?;
    let node = cache()?.join("node-postgres");
    if !node.join("node_modules/pg").exists() {
        std::fs::create_dir_all(&node).map_err(|e| format!("make {}: {e}", node.display()))?;
        run_command(Command::new("npm").args(["install", "--silent", "pg@8.23.1"]).current_dir(&node))?;
    }
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let mut eden = Eden::options("postgres-interop").setting("EDEN_POSTGRES_LISTEN", &address).start();
    print!("{}", output(in_root(&python).arg(SCRIPT).arg(&address))?);
    for (command, shown) in COMMANDS {
        psql(port, command, shown)?;
    }
    println!("psql: {} commands show what is there", COMMANDS.len());
    let mut script = in_root(std::path::Path::new("node"));
    print!("{}", output(script.arg(NODE_SCRIPT).arg(port.to_string()).env("NODE_PATH", node.join("node_modules")))?);
    let classes = jdbc()?;
    print!("{}", output(in_root("java").arg("-cp").arg(classes).arg(JAVA_PROGRAM).arg(&address))?);
    eden.stop();
    Ok(())
}

/// PostgreSQL's driver for Java, by Maven, from wherever its settings say.
fn jdbc() -> Result<PathBuf, Failure> {
    install("javac", "default-jdk-headless")?;
    let folder = cache()?.join("jdbc");
    let jar = folder.join(format!("postgresql-{JDBC}.jar"));
    if !jar.exists() {
        install("mvn", "maven")?;
        println!("installing pgJDBC {JDBC}");
        let artifact = format!("-Dartifact=org.postgresql:postgresql:{JDBC}");
        let to = format!("-DoutputDirectory={}", folder.display());
        let copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";
        run_command(Command::new("mvn").args(["--quiet", "--batch-mode", copy, &artifact, &to]))?;
    }
    Ok(jar)
}

fn psql(port: u16, command: &str, shown: &str) -> Result<(), Failure> {
    let mut psql = Command::new("psql");
    psql.args([
        "-X",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "me",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        command,
        "eden",
    ]);
    let said = output(&mut psql)?;
    if said.contains(shown) { Ok(()) } else { Err(format!("psql {command}: wanted {shown:?}, found:\n{said}")) }
}

//! `eden` from outside: its processes and their exit codes, its endpoints and their exact shapes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod accounting;
mod arrow;
mod changes;
mod commands;
mod crate_db;
mod damaged;
mod failing_disk;
mod hostile_sql;
mod influx;
mod json;
mod life;
mod memory_limit;
mod mqtt;
mod mqtt_command;
mod otlp;
mod postgres;
mod process;
mod prometheus;
mod quarantine;
mod queries;
mod sql;
mod writes;

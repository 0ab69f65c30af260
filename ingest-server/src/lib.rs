//! The appliance: every listening socket, configuration, start and stop, and the commands of `eden`.
//!
//! Owns:     HTTP endpoints and their shapes, the configuration, the order of start and stop, the demo and the
//!           client commands, files in and out among them. `main.rs` only calls [`cli::run`].
//! Does not: parse what comes in by a socket (`decode`), store (`storage`) or plan SQL (`query`).
//!
//! A server within a process, as the tests use it:
//!
//! ```no_run
//! use ingest_server::config::Config;
//! use ingest_server::serve::Server;
//!
//! # async fn example() -> Result<(), ingest_server::failure::Failure> {
//! let mut config = Config::default();
//! config.http.listen = "127.0.0.1:0".into();
//! config.mqtt.listen = "127.0.0.1:0".into();
//! config.postgres.listen = "127.0.0.1:0".into();
//! config.grpc.listen = "127.0.0.1:0".into();
//! let mut server = Server::bind(config).await?;
//! server.open().await?;
//! println!("http://{}", server.http_addr());
//! server.stop().await?;
//! # Ok(())
//! # }
//! ```

pub mod addresses;
mod agent_batch;
pub mod app;
mod arrow_values;
pub mod brokers;
pub mod check_command;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
pub mod demo;
pub mod failure;
mod flight;
pub mod http;
pub mod metrics;
pub mod mqtt;
pub mod mqtt_command;
mod node_facts;
pub mod postgres;
pub mod progress;
pub mod quarantine_command;
pub mod serve;
pub mod sources;
pub mod sql_shell;
pub mod stop_flag;
pub mod stream;
pub mod transfer;
pub mod views;
pub mod write_command;

//! Tests of the agent.

mod config;
mod model;
mod outbox;
mod rig;

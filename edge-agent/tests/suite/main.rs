//! Tests of the agent.

mod config;
mod model;
mod outbox;
mod peer;
mod rig;
mod uplink;

//! The agent: its outbox on disks that fail, and its uplink against servers that a test plays.
#![cfg(test)]

mod chips;
mod config;
mod model;
mod outbox;
mod peer;
mod replay;
mod rig;
mod sensors;
mod shim;
mod uplink;

//! The storage room against its promises, on real and on simulated disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod agents;
mod agents_power;
mod correct;
mod damage;
mod evolve;
mod power;
mod quarantine;
mod world;

//! The storage room against its promises, on real and on simulated disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod agents;
mod agents_power;
mod changes;
mod check;
mod compact;
mod correct;
mod damage;
mod evolve;
mod fault_store;
mod full_disk;
mod maintain;
mod maintain_power;
mod mutations;
mod nodes;
mod nodes_killed;
mod nodes_power;
mod orders;
mod power;
mod quarantine;
mod store;
mod waiting;
mod world;

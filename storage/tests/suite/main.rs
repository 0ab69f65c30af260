//! The storage room against its promises, on real and on simulated disks.

mod correct;
mod power;
mod world;

//! The log, on a disk that loses power, fails, and is damaged.
#![cfg(test)]

mod basics;
mod damage;
mod hostile;
mod model;
mod objects;
mod rig;
mod ring;
mod sync_failure;

//! Whole-system scenarios on the real binary. Each test's name is its claim.

mod agents;
mod check;
mod kills;
mod mqtt_kills;
mod mqtt_overload;
mod one_server;
mod overload;
mod read_your_writes;
mod stop;
mod transfer;

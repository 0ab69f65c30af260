//! `eden` from outside: its processes and their exit codes, its endpoints and their exact shapes.

mod commands;
mod failing_disk;
mod life;
mod process;
mod sql;
mod writes;

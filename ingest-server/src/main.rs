//! `eden`: see [`ingest_server::cli`].

use std::ffi::c_long;
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for how long free memory is kept before the system gets it back, in ms; the binding has no name for it.
const PURGE_DELAY: mi_option_t = 15;

/// Sooner than by default: docs/adr/0041-no-huge-pages.md.
const PURGE_DELAY_MS: c_long = 300;

fn main() -> ExitCode {
    // SAFETY: it writes a variable of the allocator's, and no other thread runs yet.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
    ingest_server::cli::run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_a_second_by_default() {
        // SAFETY: it reads a variable that nobody writes.
        let ms = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(ms, 1_000, "or MIMALLOC_PURGE_DELAY is set");
    }
}

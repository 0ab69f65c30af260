//! What Linux lets this process and its children do.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process and those it starts have at least so many files open, as far as the hard limit goes.
///
/// # Panics
/// When the hard limit is below, or Linux refuses.
pub fn raise_open_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    assert!(maximum >= wanted, "the limit of open files is {maximum}; raise it to {wanted} (ulimit -Hn)");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).expect("set the limit");
}

//! In the place of `tls`, in a build without the feature `tls`: no configuration that asks for it is taken.

use std::path::Path;

use rumqttc::Transport;

use crate::config::Feature;

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trusted {}

pub(super) fn client(_ca: Option<&Path>) -> Result<Trusted, String> {
    Err(Feature::Tls.left_out())
}

pub(super) fn transport(trusted: &Trusted) -> Transport {
    match *trusted {}
}

#[cfg(feature = "http")]
pub(super) fn http_agent(_config: ureq::config::Config, trusted: Trusted) -> ureq::Agent {
    match trusted {}
}

//! In the place of `http` and `time`, in a build without the feature `http`: no configuration that asks for them is taken.

use std::sync::Arc;

use super::tls::Trusted;
use super::{End, Ended, Line};
use crate::config::Feature;
use crate::exchange::Exchange;
use crate::timepiece::Timepiece;

pub(super) fn run(_line: &Line<'_>, _base: &str, _trusted: Option<Trusted>) -> Ended {
    Ended { end: End::Failed(Feature::Http.left_out()), was_useful: false }
}

pub(super) fn probe(_base: &str, _trusted: Option<Trusted>) -> Result<(), String> {
    Err(Feature::Http.left_out())
}

pub(crate) fn ask(_urls: &[String], _exchange: &Exchange, _timepiece: &Arc<dyn Timepiece>) {}

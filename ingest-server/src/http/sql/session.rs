//! Who asks, as clients of CrateDB say it in headers.
//!
//! Owns:     the user's name, and what the schema `public` is called.
//! Does not: check passwords: there are no users yet.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use query::{ClientSession, Manner};

/// What the schema `public` is to clients of CrateDB, some of which have the name built in.
const DOC: &str = "doc";

/// The session of a request.
pub(super) fn of(headers: &HeaderMap, default_schema: Option<&str>) -> ClientSession {
    // Who calls it `public` gets it back under that name.
    let says_public = default_schema.is_some_and(|schema| schema.eq_ignore_ascii_case(model::name::PUBLIC));
    let public = if says_public { model::name::PUBLIC } else { DOC };
    let user = user(headers).unwrap_or_default();
    ClientSession { manner: Manner::CrateDb { public }, user, ..ClientSession::default() }
}

fn user(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let basic = text(AUTHORIZATION.as_str()).and_then(|value| value.split_once(' '));
    let encoded = basic.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).map(|(_, encoded)| encoded.trim());
    let decoded = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let named = decoded.and_then(|pair| pair.split_once(':').map(|(user, _)| user.to_owned()));
    named.or_else(|| text("x-user").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(headers: &[(&'static str, &'static str)], default_schema: Option<&str>) -> ClientSession {
        of(
            &headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
            default_schema,
        )
    }

    #[test]
    fn a_name_comes_with_credentials_or_alone() {
        for (headers, user) in [
            (&[("authorization", "Basic Y3JhdGU6cMOkc3M=")][..], "crate"),
            (&[("authorization", "basic bWU6"), ("x-user", "other")], "me"),
            (&[("x-user", "other")], "other"),
            (&[("authorization", "Bearer eyJh")], ""),
            (&[("authorization", "Basic ???")], ""),
            (&[], ""),
        ] {
            assert_eq!(session(headers, None).user, user, "{headers:?}");
        }
    }

    #[test]
    fn the_default_schema_is_called_as_the_client_calls_it() {
        for (schema, public) in
            [(None, "doc"), (Some("doc"), "doc"), (Some("Public"), "public"), (Some("plant"), "doc")]
        {
            assert_eq!(session(&[], schema).manner, Manner::CrateDb { public }, "{schema:?}");
        }
    }
}

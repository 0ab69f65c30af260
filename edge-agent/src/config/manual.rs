//! All keys with their defaults, as `docs/agent.md` holds them.

use settings::{show_list_item, show_section};

use super::{Config, SensorSection, ServerSection};

/// The defaults as TOML, each key under its manual entry.
pub fn manual() -> String {
    let Config { agent, batch, clock, outbox, uplink, .. } = Config::default();
    let mut out = String::new();
    show_section(&mut out, &agent);
    show_section(&mut out, &batch);
    show_section(&mut out, &clock);
    show_section(&mut out, &outbox);
    show_section(&mut out, &uplink);
    show_list_item(&mut out, &ServerSection::default());
    show_list_item(&mut out, &SensorSection::default());
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_in_docs_has_every_key_as_the_code_has_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once("All keys with their defaults:\n\n```toml\n").unwrap();
        let (_, after) = rest.split_once("```\n").unwrap();
        let right = format!("{before}All keys with their defaults:\n\n```toml\n{}```\n{after}", manual());
        expect_test::expect_file!["../../../docs/agent.md"].assert_eq(&right);
    }
}

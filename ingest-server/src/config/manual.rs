//! The configuration as commented TOML, and the page `docs/config.md` made of it.

use std::fmt::Write as _;

use super::{Config, Section};

/// `config` as TOML, each key under its manual entry.
pub fn show(config: &Config) -> String {
    let mut out = String::new();
    section(&mut out, &config.http);
    section(&mut out, &config.mqtt);
    section(&mut out, &config.ingest);
    section(&mut out, &config.storage);
    section(&mut out, &config.query);
    section(&mut out, &config.server);
    out
}

fn section<S: Section>(out: &mut String, section: &S) {
    if !out.is_empty() {
        out.push('\n');
    }
    for line in S::ABOUT {
        let _ = writeln!(out, "#{line}");
    }
    let _ = writeln!(out, "[{}]", S::NAME);
    for entry in section.entries() {
        out.push('\n');
        for line in entry.docs {
            let _ = writeln!(out, "#{line}");
        }
        let _ = writeln!(out, "{} = {}", entry.key, entry.value);
    }
}

/// The page `docs/config.md`.
pub fn manual() -> String {
    format!(
        "# Configuration\n\n\
         `eden serve` reads `--config FILE`, else `eden.toml` in the working directory if there is one; every key has a\n\
         default. The environment overrides the file by one rule: `EDEN_HTTP_LISTEN` sets `[http] listen`. Keys that do\n\
         not exist are refused. `eden config check` says whether a file is right, `eden config show` prints what is in\n\
         force.\n\n\
         All keys with their defaults, as `eden config show --defaults` prints them:\n\n\
         ```toml\n{}```\n",
        show(&Config::default())
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let mut config = Config::default();
        config.http.listen = "a \"quoted\"\nlisten".into();
        config.query.threads = 3;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eden.toml");
        std::fs::write(&path, show(&config)).unwrap();
        assert_eq!(Config::load(Some(&path), []).unwrap(), config);
    }

    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
        expect_test::expect_file![page].assert_eq(&manual());
    }
}

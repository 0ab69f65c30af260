//! The configuration as commented TOML, and the page `docs/config.md` made of it.

use settings::{Section, show_list_item, show_section};

use super::{BrokerSection, Config, MqttRule};

/// `config` as TOML, each key under its manual entry.
pub fn show(config: &Config) -> String {
    let mut out = String::new();
    show_section(&mut out, &config.http);
    show_section(&mut out, &config.mqtt);
    for rule in &config.mqtt_rules {
        show_list_item(&mut out, rule);
    }
    for broker in &config.brokers {
        show_list_item(&mut out, broker);
    }
    show_section(&mut out, &config.postgres);
    show_section(&mut out, &config.grpc);
    show_section(&mut out, &config.ingest);
    show_section(&mut out, &config.storage);
    show_section(&mut out, &config.query);
    show_section(&mut out, &config.server);
    out
}

/// One key, its value and its manual entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The section; of a list, with the number of the item: `mqtt.rule.1`.
    pub section: String,
    /// The key.
    pub key: &'static str,
    /// What is in force, as TOML.
    pub value: String,
    /// What is in force where nobody said anything.
    pub default: String,
    /// Its manual entry.
    pub about: String,
}

/// All keys of `config`.
pub fn entries(config: &Config) -> Vec<Entry> {
    let mut all = Vec::new();
    add(&mut all, &config.http, None);
    add(&mut all, &config.mqtt, None);
    for (rule, number) in config.mqtt_rules.iter().zip(1..) {
        add(&mut all, rule, Some(number));
    }
    for (broker, number) in config.brokers.iter().zip(1..) {
        add(&mut all, broker, Some(number));
    }
    add(&mut all, &config.postgres, None);
    add(&mut all, &config.grpc, None);
    add(&mut all, &config.ingest, None);
    add(&mut all, &config.storage, None);
    add(&mut all, &config.query, None);
    add(&mut all, &config.server, None);
    all
}

fn add<S: Section>(all: &mut Vec<Entry>, section: &S, number: Option<usize>) {
    let name = number.map_or_else(|| S::NAME.to_owned(), |number| format!("{}.{number}", S::NAME));
    all.extend(section.entries().into_iter().zip(S::default().entries()).map(|(entry, default)| Entry {
        section: name.clone(),
        key: entry.key,
        value: entry.value,
        default: default.value,
        about: entry.docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
    }));
}

/// The page `docs/config.md`.
pub fn manual() -> String {
    let mut lists = String::new();
    show_list_item(&mut lists, &MqttRule::default());
    show_list_item(&mut lists, &BrokerSection::default());
    format!(
        "# Configuration\n\n\
         `eden serve` reads `--config FILE`, else `eden.toml` in the working directory if there is one; every key has a\n\
         default. The environment overrides the file by one rule: `EDEN_HTTP_LISTEN` sets `[http] listen`. Keys that do\n\
         not exist are refused. `eden config check` says whether a file is right, `eden config show` prints what is in\n\
         force.\n\n\
         All keys with their defaults, as `eden config show --defaults` prints them:\n\n\
         ```toml\n{}```\n\n\
         Lists, of which there are as many as are written, none by default. They are in the file only, in no variable of\n\
         the environment. Their keys and defaults:\n\n\
         ```toml\n{lists}```\n",
        show(&Config::default())
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use settings::{ByteSize, Period};

    use super::*;
    use crate::config::{BrokerVersion, TopicFilters};

    #[test]
    fn what_is_shown_has_every_section_and_reads_back() {
        let mut config = Config::default();
        config.http.connections_max = 1;
        config.mqtt.line_protocol = TopicFilters(vec!["a/#".into(), "+/\"b\"".into()]);
        config.brokers = vec![
            BrokerSection {
                url: "mqtt://broker".into(),
                topics: TopicFilters(vec!["$share/eden/lp/#".into()]),
                version: BrokerVersion::V311,
                user: "eden".into(),
                password_file: "secret".into(),
                ..BrokerSection::default()
            },
            BrokerSection {
                url: "mqtt://[::1]:1884".into(),
                topics: TopicFilters(vec!["#".into()]),
                qos: 0,
                ..BrokerSection::default()
            },
        ];
        let tags = [("site".to_owned(), "plant \"7\"".to_owned())].into();
        let rule = MqttRule { topics: vec!["a/+".into(), "b".into()], tags, ..MqttRule::default() };
        config.mqtt_rules = vec![rule.clone(), MqttRule { name: "second".into(), ..rule }];
        config.ingest.max_future = Period(Duration::from_secs(2));
        config.storage.memory = ByteSize(3);
        config.query.threads = 4;
        config.server.log = "debug".into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eden.toml");
        std::fs::write(&path, show(&config)).unwrap();
        assert_eq!(Config::load(Some(&path), []).unwrap(), config);
    }

    #[test]
    fn every_key_is_among_the_entries_once() {
        let config = Config { mqtt_rules: vec![MqttRule::default(); 2], ..Config::default() };
        let entries = entries(&config);
        let shown = show(&config);
        let keys = shown.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(entries.len(), keys);
        let names: std::collections::BTreeSet<_> = entries.iter().map(|entry| (&entry.section, entry.key)).collect();
        assert_eq!(names.len(), keys);
        assert!(entries.iter().all(|entry| entry.value == entry.default && !entry.about.is_empty()));
        assert!(entries.iter().any(|entry| entry.section == "mqtt.rule.2"));
    }

    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
        expect_test::expect_file![page].assert_eq(&manual());
    }
}

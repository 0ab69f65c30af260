//! From the file and the environment to a [`Config`].

use std::path::Path;

use settings::{ConfigError, Configuration, Others, Part, Section as _, Setting, Value, quoted, text};

use super::{BrokerSection, Config, Grpc, Http, Ingest, Mqtt, MqttRule, Postgres, Process, Query, StorageSection};
use crate::mqtt::topic::{Topics, is_filter};

/// MQTT topic filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFilters(pub Vec<String>);

impl Setting for TopicFilters {
    fn read(value: &Value) -> Result<Self, String> {
        let filters = match value {
            Value::Texts(texts) => texts.clone(),
            Value::Untyped(text) => {
                text.split(',').map(str::trim).filter(|filter| !filter.is_empty()).map(str::to_owned).collect()
            }
            Value::Text(_) | Value::Integer(_) | Value::Named(_) | Value::Other(_) => {
                return Err("this key takes a list of topic filters such as [\"lp/#\"]".into());
            }
        };
        match filters.iter().find(|filter| !is_filter(filter)) {
            Some(bad) => Err(format!("{bad:?} is not a topic filter; `+` stands for one level, `#` for the rest")),
            None => Ok(TopicFilters(filters)),
        }
    }

    fn show(&self) -> String {
        let filters: Vec<String> = self.0.iter().map(|filter| quoted(filter)).collect();
        format!("[{}]", filters.join(", "))
    }
}

/// What old clients are told of a body of which some lines are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialWrites {
    /// That it is taken: the refused lines are in the quarantine.
    Quarantine,
    /// That it is wrong.
    Refuse,
}

impl Setting for PartialWrites {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "\"quarantine\" or \"refuse\"")? {
            "quarantine" => Ok(PartialWrites::Quarantine),
            "refuse" => Ok(PartialWrites::Refuse),
            other => Err(format!("{other:?} is nothing that can be done; write \"quarantine\" or \"refuse\"")),
        }
    }

    fn show(&self) -> String {
        quoted(match self {
            PartialWrites::Quarantine => "quarantine",
            PartialWrites::Refuse => "refuse",
        })
    }
}

impl Config {
    /// The defaults, overridden by `file` if there is one, overridden by `environment`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        settings::read(&mut config, file, environment, "EDEN_", Others::Ignored)?;
        config.check_brokers().map_err(ConfigError::Whole)?;
        Topics::new(&config).map_err(ConfigError::Whole)?;
        Ok(config)
    }
}

impl Configuration for Config {
    const SECTIONS: &'static [&'static str] = &[
        Http::NAME,
        Mqtt::NAME,
        MqttRule::NAME,
        BrokerSection::NAME,
        Postgres::NAME,
        Grpc::NAME,
        Ingest::NAME,
        StorageSection::NAME,
        Query::NAME,
        Process::NAME,
    ];

    fn part(&mut self, section: &str) -> Option<Part<'_>> {
        Some(match section {
            Http::NAME => Part::section(&mut self.http),
            Mqtt::NAME => Part::section(&mut self.mqtt),
            MqttRule::NAME => Part::checked_list(&mut self.mqtt_rules, MqttRule::check),
            BrokerSection::NAME => Part::list(&mut self.brokers),
            Postgres::NAME => Part::section(&mut self.postgres),
            Grpc::NAME => Part::section(&mut self.grpc),
            Ingest::NAME => Part::section(&mut self.ingest),
            StorageSection::NAME => Part::section(&mut self.storage),
            Query::NAME => Part::section(&mut self.query),
            Process::NAME => Part::section(&mut self.server),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        settings::read_text(&mut config, Path::new("eden.toml"), text).map_err(|e| e.to_string())?;
        Ok(config)
    }

    fn with_variable(name: &str, value: &str) -> Result<Config, String> {
        Config::load(None, [(name.to_string(), value.to_string())]).map_err(|e| e.to_string())
    }

    #[test]
    fn every_section_is_known_by_its_name() {
        for section in Config::SECTIONS.iter().filter(|section| !section.contains('.')) {
            let said = read(&format!("{section} = 1")).unwrap_err();
            assert_eq!(said, format!("eden.toml:1:1: {section} is a section: write [{section}] on a line of its own"));
        }
    }

    #[test]
    fn topic_filters_are_a_list_and_are_checked() {
        let filters = |texts: &[&str]| TopicFilters(texts.iter().map(|text| (*text).to_owned()).collect());
        let config = read("[mqtt]\nline_protocol = [\"a/#\", \"+/b\"]\n").unwrap();
        assert_eq!(config.mqtt.line_protocol, filters(&["a/#", "+/b"]));
        assert_eq!(read("[mqtt]\nline_protocol = []\n").unwrap().mqtt.line_protocol, filters(&[]));
        let config = with_variable("EDEN_MQTT_LINE_PROTOCOL", "a/#, +/b").unwrap();
        assert_eq!(config.mqtt.line_protocol, filters(&["a/#", "+/b"]));
        assert_eq!(with_variable("EDEN_MQTT_LISTEN", "").unwrap().mqtt.listen, "");
        for (text, said) in [
            ("[mqtt]\nline_protocol = \"lp/#\"", "this key takes a list of topic filters such as [\"lp/#\"]"),
            ("[mqtt]\nline_protocol = [1]", "this key takes a list of topic filters such as [\"lp/#\"]"),
            (
                "[mqtt]\nline_protocol = [\"lp#\"]",
                "\"lp#\" is not a topic filter; `+` stands for one level, `#` for the rest",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("eden.toml:2:17: line_protocol: {said}"));
        }
    }

    #[test]
    fn a_rule_that_is_wrong_is_named_with_its_place() {
        let good = "[[mqtt.rule]]\nname = \"a\"\ntopics = [\"x/+\"]\n";
        assert_eq!(read(good).unwrap().mqtt_rules.len(), 1);
        for (text, said) in [
            ("[[mqtt.rule]]\ntopics = [\"a#\"]", "2:10: topics: \"a#\" is not a topic filter"),
            ("[[mqtt.rule]]\ntopic = [\"a\"]", "2:1: unknown key \"topic\"; did you mean \"topics\"?"),
            ("[[mqtt.rule]]\ntopics = [\"a\"]\ndata_format = \"json\"", "1:1: name_override: nothing names the table"),
            ("[[mqtt.rule]]\ntopics = [\"eden/v1/+/x\"]", "2:10: topics: \"eden/v1/+/x\" is of this server's own"),
            ("[[mqtt.rule]]\ntopics = [\"$SYS/#\"]", "2:10: topics: \"$SYS/#\" is of this server's own"),
            ("[mqtt]\n[[mqtt.rules]]\n", "2:8: unknown key \"rules\"; did you mean \"rule\"?"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("eden.toml:{said}")), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eden.toml");
        std::fs::write(&path, good.repeat(2)).unwrap();
        let error = Config::load(Some(&path), []).unwrap_err().to_string();
        assert_eq!(error, "configuration: [[mqtt.rule]] number 2: name: another rule has the name \"a\"");
        assert!(
            with_variable("EDEN_MQTT_RULE", "x")
                .unwrap_err()
                .ends_with("[[mqtt.rule]] is a list: write it in the file")
        );
    }

    #[test]
    fn variables_with_the_prefix_override_and_others_of_it_are_left_alone() {
        assert_eq!(with_variable("EDEN_HTTP_LISTEN", "[::1]:0").unwrap().http.listen, "[::1]:0");
        assert_eq!(with_variable("EDEN_SEEDS", "1").unwrap(), Config::default());
        assert_eq!(with_variable("EDEN_BUILD_DIR", "x").unwrap(), Config::default());
    }
}

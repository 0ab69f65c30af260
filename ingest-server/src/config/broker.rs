//! What an entry of `[[mqtt.broker]]` says, taken apart and checked.

use settings::{Setting, Value, quoted, text};
use url::Url;

use super::{BrokerSection, Config};

/// A version of MQTT that is spoken to brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerVersion {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

impl Setting for BrokerVersion {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "\"5\" or \"3.1.1\"")? {
            "5" => Ok(BrokerVersion::V5),
            "3.1.1" => Ok(BrokerVersion::V311),
            other => {
                Err(format!("{other:?} is no version of MQTT that is spoken to brokers; write \"5\" or \"3.1.1\""))
            }
        }
    }

    fn show(&self) -> String {
        quoted(match self {
            BrokerVersion::V5 => "5",
            BrokerVersion::V311 => "3.1.1",
        })
    }
}

impl BrokerSection {
    /// Host and port.
    ///
    /// # Errors
    /// If `url` is none of a broker; says what to write.
    pub fn address(&self) -> Result<(String, u16), String> {
        let wrong = |what: &str| format!("{:?} {what}; write \"mqtt://host:1883\"", self.url);
        let url = Url::parse(&self.url).map_err(|e| wrong(&format!("is no URL ({e})")))?;
        match url.scheme() {
            "mqtt" | "tcp" => {}
            "mqtts" | "ssl" => return Err(wrong("is TLS, which this release does not speak")),
            _ => return Err(wrong("has an unknown scheme")),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host"))?;
        let has_more = !matches!(url.path(), "" | "/")
            || !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        if has_more {
            return Err(wrong("has more than a host and a port (user and password have keys of their own)"));
        }
        Ok((host.to_owned(), url.port().unwrap_or(1883)))
    }

    /// User and password, if there is a user.
    ///
    /// # Errors
    /// If the file of the password cannot be read.
    pub fn credentials(&self) -> Result<Option<(String, String)>, String> {
        if self.user.is_empty() {
            return Ok(None);
        }
        if self.password_file.is_empty() {
            return Ok(Some((self.user.clone(), String::new())));
        }
        let text = std::fs::read_to_string(&self.password_file)
            .map_err(|e| format!("read password_file {}: {e}", self.password_file))?;
        let password = text.lines().next().unwrap_or_default().to_owned();
        Ok(Some((self.user.clone(), password)))
    }

    fn check(&self) -> Result<(), String> {
        self.address()?;
        if self.topics.0.is_empty() {
            return Err("topics has no filter; write topics = [\"lp/#\"], or \"#\" for all".to_owned());
        }
        if self.qos > 1 {
            return Err(format!("qos is {}; write 0 or 1: a reading that comes twice counts once", self.qos));
        }
        if self.user.is_empty() && !self.password_file.is_empty() {
            return Err("there is a password_file and no user".to_owned());
        }
        Ok(())
    }
}

impl Config {
    /// What is wrong with the brokers, if anything is.
    pub(super) fn check_brokers(&self) -> Result<(), String> {
        for (index, broker) in self.brokers.iter().enumerate() {
            broker.check().map_err(|e| format!("[[mqtt.broker]] {}: {e}", index + 1))?;
            let same = |other: &&BrokerSection| other.url == broker.url && other.client_id == broker.client_id;
            if self.brokers[..index].iter().any(|other| same(&other)) {
                return Err(format!(
                    "[[mqtt.broker]] {}: {} is there twice with one client_id, and the two would throw each other out; list all \
                     filters in one entry, or name a client_id in each",
                    index + 1,
                    broker.url
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        settings::read_text(&mut config, Path::new("eden.toml"), text).map_err(|e| e.to_string())?;
        config.check_brokers()?;
        Ok(config)
    }

    #[test]
    fn a_broker_needs_an_address_and_topics() {
        let config = check("[[mqtt.broker]]\nurl = \"mqtt://broker\"\ntopics = [\"$share/eden/lp/#\"]\n").unwrap();
        assert_eq!(config.brokers[0].address().unwrap(), ("broker".to_owned(), 1883));
        let config = check("[[mqtt.broker]]\nurl = \"mqtt://[::1]:1\"\ntopics = [\"#\"]\nqos = 0\n").unwrap();
        assert_eq!(config.brokers[0].address().unwrap(), ("[::1]".to_owned(), 1));
        for (text, said) in [
            ("topics = [\"#\"]", "\"\" is no URL"),
            ("url = \"mqtts://b\"\ntopics = [\"#\"]", "is TLS"),
            ("url = \"http://b\"\ntopics = [\"#\"]", "has an unknown scheme"),
            ("url = \"mqtt://u:p@b\"\ntopics = [\"#\"]", "has more than a host and a port"),
            ("url = \"mqtt://b\"", "topics has no filter"),
            ("url = \"mqtt://b\"\ntopics = [\"#\"]\nqos = 2", "qos is 2"),
            ("url = \"mqtt://b\"\ntopics = [\"#\"]\npassword_file = \"x\"", "no user"),
            ("url = \"mqtt://b\"\ntopics = [\"#\"]\nversion = \"4\"", "\"4\" is no version"),
            ("url = \"mqtt://b\"\ntopics = [\"#/a\"]", "is not a topic filter"),
        ] {
            let error = check(&format!("[[mqtt.broker]]\n{text}\n")).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn two_clients_of_one_name_at_one_broker_are_refused() {
        let one = "[[mqtt.broker]]\nurl = \"mqtt://b\"\ntopics = [\"a\"]\n";
        assert!(check(&format!("{one}{one}")).unwrap_err().starts_with("[[mqtt.broker]] 2: mqtt://b is there twice"));
        check(&format!("{one}client_id = \"one\"\n{one}")).unwrap();
    }
}

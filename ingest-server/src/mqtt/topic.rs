//! Topics: which are whose.

use decode::mapping::{Rule, RuleOptions, Rules};

pub use decode::mapping::topic::{is_filter, matches};

use crate::config::{Config, MqttRule};

/// What the payload of a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Line protocol: a topic of `[mqtt] line_protocol` or of a rule that says no more, or an agent's `lp` or `logs`.
    Lines,
    /// An agent's line protocol, compressed.
    Zstd,
    /// What an agent says of itself.
    Status,
    /// A command for an agent.
    Command,
    /// What the rule of this number says.
    Rule(u16),
    /// What an edge node of Sparkplug says; the rule of this number.
    Sparkplug(u16),
    /// None that this server takes.
    Unknown,
    /// A topic that begins with `$`: the server's own.
    Own,
}

/// Longest id of a host of Sparkplug.
const HOST_BYTES_MAX: usize = 200;

/// What agents' topics begin with.
const AGENTS: &str = "eden/v1/";

/// Whether a filter is for topics that are the server's own.
pub fn is_reserved(filter: &str) -> bool {
    filter.starts_with(AGENTS) || filter.starts_with('$')
}

/// What the configuration says about topics.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    line_protocol: Vec<String>,
    rules: Rules,
}

impl Topics {
    /// By the settings.
    ///
    /// # Errors
    /// Which rule is wrong, and what about it.
    pub fn new(config: &Config) -> Result<Self, String> {
        let options: Vec<RuleOptions> = config.mqtt_rules.iter().map(MqttRule::options).collect();
        if options.len() > usize::from(u16::MAX) {
            return Err(format!("there are {} rules; at most {} are allowed", options.len(), u16::MAX));
        }
        let host = &config.mqtt.sparkplug_host;
        if !host.is_empty() {
            check_host(host).map_err(|what| format!("[mqtt] sparkplug_host: {what}"))?;
            if !options.iter().any(|rule| rule.data_format == "sparkplug_b" && !rule.topics.is_empty()) {
                let what =
                    "edge nodes would send what no rule takes; add a [[mqtt.rule]] with data_format = \"sparkplug_b\"";
                return Err(format!("[mqtt] sparkplug_host: {what}"));
            }
        }
        let rules = Rules::compile(&options).map_err(|(number, wrong)| {
            format!("[[mqtt.rule]] number {}: {}: {}", number + 1, wrong.option, wrong.reason)
        })?;
        Ok(Topics { line_protocol: config.mqtt.line_protocol.0.clone(), rules })
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The rule of [`Kind::Rule`] and [`Kind::Sparkplug`].
    pub fn rule(&self, number: u16) -> Option<&Rule> {
        self.rules.get(usize::from(number))
    }

    /// What `topic` is.
    pub fn kind(&self, topic: &str) -> Kind {
        if topic.starts_with('$') {
            return Kind::Own;
        }
        if topic.starts_with(AGENTS) {
            return match agent(topic) {
                Some((_, "lp" | "logs")) => Kind::Lines,
                Some((_, "lp.zst")) => Kind::Zstd,
                Some((_, "status")) => Kind::Status,
                Some((_, rest)) if rest.strip_prefix("cmd/").is_some_and(|name| !name.is_empty()) => Kind::Command,
                _ => Kind::Unknown,
            };
        }
        match self.rules.find(topic) {
            // Joined and parsed as one: the way of small messages that is cheapest.
            Some((_, rule)) if rule.is_plain_lines() => Kind::Lines,
            // To an edge node, and there is no way from client to client.
            Some((_, rule)) if rule.has_state() && is_edge_command(topic) => Kind::Unknown,
            Some((number, rule)) if rule.has_state() => Kind::Sparkplug(number as u16),
            Some((number, _)) => Kind::Rule(number as u16),
            None if self.line_protocol.iter().any(|filter| matches(filter, topic)) => Kind::Lines,
            None => Kind::Unknown,
        }
    }

    /// What `topic` is on a broker: there, commands to edge nodes arrive without us, our own among them, and are no news.
    pub fn kind_at_broker(&self, topic: &str) -> Kind {
        let kind = self.kind(topic);
        if kind != Kind::Unknown || !is_edge_command(topic) {
            return kind;
        }
        match self.rules.find(topic) {
            Some((number, rule)) if rule.has_state() => Kind::Sparkplug(number as u16),
            _ => kind,
        }
    }
}

/// `eden/v1/<agent>/<rest>` → (agent, rest).
pub fn agent(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix(AGENTS)?.split_once('/').filter(|(agent, _)| !agent.is_empty())
}

/// Whether a client may subscribe to `filter`: its own commands, those of one edge node of Sparkplug, the state of its
/// hosts, and nothing else. Which edge node a client is it says only later, by what it publishes.
pub fn is_own_downlink(client_id: &str, filter: &str) -> bool {
    let of_agent = agent(filter).is_some_and(|(agent, rest)| {
        agent == client_id && rest.strip_prefix("cmd/").is_some_and(|name| !name.is_empty())
    });
    of_agent || is_edge_downlink(filter)
}

/// Whether `id` can be a level of a topic.
fn check_host(id: &str) -> Result<(), String> {
    let is_bad = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    if id.len() > HOST_BYTES_MAX || id.contains(is_bad) {
        return Err(format!("{id:?} is no id of a host; at most {HOST_BYTES_MAX} bytes without /, + and #"));
    }
    Ok(())
}

fn is_edge_command(topic: &str) -> bool {
    matches!(topic.split('/').nth(2), Some("NCMD" | "DCMD"))
}

fn is_edge_downlink(filter: &str) -> bool {
    let is_name = |level: &&str| !level.is_empty() && !matches!(*level, "+" | "#");
    match filter.split('/').collect::<Vec<_>>().as_slice() {
        ["spBv1.0", "STATE", _] | ["STATE", _] => true,
        ["spBv1.0", group, "NCMD" | "DCMD", node, rest @ ..] => is_name(group) && is_name(node) && rest.len() <= 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_their_kinds() {
        let mut config = Config::default();
        config.mqtt.line_protocol.0 = vec!["lp/#".to_owned(), "+/lines".to_owned()];
        let rule = |topic: &str, data_format: &str| MqttRule {
            topics: vec![topic.to_owned()],
            data_format: data_format.to_owned(),
            name_override: if data_format == "value" { "m".to_owned() } else { String::new() },
            ..MqttRule::default()
        };
        config.mqtt_rules = vec![rule("lp/special", "value"), rule("plain", "influx"), rule("+/ignored", "value")];
        config.mqtt_rules.push(rule("spBv1.0/#", "sparkplug_b"));
        let topics = Topics::new(&config).unwrap();
        for (topic, kind) in [
            ("lp", Kind::Lines),
            ("lp/special", Kind::Rule(0)),
            ("plain", Kind::Lines),
            ("a/ignored", Kind::Rule(2)),
            ("spBv1.0/g/NDATA/n", Kind::Sparkplug(3)),
            ("spBv1.0/g/NCMD/n", Kind::Unknown),
            ("lp/a/b", Kind::Lines),
            ("x/lines", Kind::Lines),
            ("x/y/lines", Kind::Unknown),
            ("eden/v1/pi-7/lp", Kind::Lines),
            ("eden/v1/pi-7/lp.zst", Kind::Zstd),
            ("eden/v1/pi-7/logs", Kind::Lines),
            ("eden/v1/pi-7/status", Kind::Status),
            ("eden/v1/pi-7/cmd/restart", Kind::Command),
            ("eden/v1/pi-7/cmd/a/b", Kind::Command),
            ("eden/v1/pi-7/cmd/", Kind::Unknown),
            ("eden/v1/pi-7/cmd", Kind::Unknown),
            ("eden/v1//lp", Kind::Unknown),
            ("eden/v1/lp", Kind::Unknown),
            ("eden/v1/pi-7/lp/x", Kind::Unknown),
            ("$SYS/x", Kind::Own),
            ("$lines/lines", Kind::Own),
        ] {
            assert_eq!(topics.kind(topic), kind, "{topic}");
            let of_broker = if topic.contains("NCMD") { Kind::Sparkplug(3) } else { kind };
            assert_eq!(topics.kind_at_broker(topic), of_broker, "{topic}, of a broker");
        }
        assert_eq!(topics.kind_at_broker("x/y/NCMD"), Kind::Unknown);
    }

    #[test]
    fn a_host_of_sparkplug_needs_an_id_that_topics_can_have_and_a_rule() {
        let mut config = Config::default();
        let says = |config: &Config| Topics::new(config).map(drop).unwrap_err();
        config.mqtt.sparkplug_host = "scada".into();
        assert!(says(&config).contains("no rule takes"), "{}", says(&config));
        let topics = vec!["spBv1.0/#".to_owned()];
        config.mqtt_rules = vec![MqttRule { topics, data_format: "sparkplug_b".to_owned(), ..MqttRule::default() }];
        Topics::new(&config).unwrap();
        for id in ["a/b", "+", "a#", "a\nb"] {
            config.mqtt.sparkplug_host = id.into();
            assert!(says(&config).contains("is no id of a host"), "{}", says(&config));
        }
    }

    /// [MQTT-4.7.1-2], [MQTT-4.7.1-3] (3.1.1); [MQTT-4.7.1-1], [MQTT-4.7.1-2] (5).
    #[test]
    fn filters_are_checked() {
        for good in ["#", "+", "a/#", "a/+/b", "/", "+/+", "/+", "a//b"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a/b#", "a+", "+a/b", "#/"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn filters_take_topics() {
        for (filter, topic, taken) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/tennis", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "/x", false),
            ("/+", "/x", true),
            ("+/+", "/x", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches(filter, topic), taken, "{filter} {topic}");
        }
    }

    #[test]
    fn a_client_has_its_own_downlink_only() {
        for (filter, own) in [
            ("eden/v1/pi/cmd/#", true),
            ("eden/v1/pi/cmd/restart", true),
            ("eden/v1/pi/cmd/+", true),
            ("eden/v1/pi2/cmd/#", false),
            ("eden/v1/+/cmd/#", false),
            ("eden/v1/pi/#", false),
            ("eden/v1/pi/cmd", false),
            ("#", false),
            ("spBv1.0/g/NCMD/n/#", true),
            ("spBv1.0/g/DCMD/n/d", true),
            ("spBv1.0/g/NCMD/n", true),
            ("spBv1.0/STATE/scada", true),
            ("spBv1.0/STATE/+", true),
            ("STATE/scada", true),
            ("spBv1.0/+/NCMD/n", false),
            ("spBv1.0/g/NCMD/#", false),
            ("spBv1.0/g/NDATA/n", false),
            ("spBv1.0/#", false),
        ] {
            assert_eq!(is_own_downlink("pi", filter), own, "{filter}");
        }
    }
}

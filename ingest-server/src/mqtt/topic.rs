//! Topics: which are whose, and filters on them.

/// What the payload of a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Line protocol: a topic of `[mqtt] line_protocol`, or an agent's `lp`.
    Lines,
    /// An agent's line protocol, compressed.
    Zstd,
    /// What an agent says of itself.
    Status,
    /// A command for an agent.
    Command,
    /// None that this server takes.
    Unknown,
    /// A topic that begins with `$`: the server's own.
    Own,
}

/// What agents' topics begin with.
const AGENTS: &str = "eden/v1/";

impl Kind {
    /// Of `topic`; `filters` are those of `[mqtt] line_protocol`.
    pub fn of(topic: &str, filters: &[String]) -> Self {
        if topic.starts_with('$') {
            return Kind::Own;
        }
        if topic.starts_with(AGENTS) {
            return match agent(topic) {
                Some((_, "lp")) => Kind::Lines,
                Some((_, "lp.zst")) => Kind::Zstd,
                Some((_, "status")) => Kind::Status,
                Some((_, rest)) if rest.strip_prefix("cmd/").is_some_and(|name| !name.is_empty()) => Kind::Command,
                _ => Kind::Unknown,
            };
        }
        if filters.iter().any(|filter| matches(filter, topic)) { Kind::Lines } else { Kind::Unknown }
    }
}

/// `eden/v1/<agent>/<rest>` → (agent, rest).
pub fn agent(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix(AGENTS)?.split_once('/').filter(|(agent, _)| !agent.is_empty())
}

/// Whether `filter` is one by the rules of MQTT.
pub fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        if level.contains('#') && (level != "#" || !last) || level.contains('+') && level != "+" {
            return false;
        }
    }
    !filter.is_empty() && !filter.contains('\0')
}

/// Whether `filter` takes `topic`. A wildcard at the beginning takes no topic that begins with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether a client may subscribe to `filter`: its own commands and nothing else.
pub fn is_own_downlink(client_id: &str, filter: &str) -> bool {
    agent(filter).is_some_and(|(agent, rest)| {
        agent == client_id && rest.strip_prefix("cmd/").is_some_and(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_their_kinds() {
        let filters = ["lp/#".to_owned(), "+/lines".to_owned()];
        for (topic, kind) in [
            ("lp", Kind::Lines),
            ("lp/a/b", Kind::Lines),
            ("x/lines", Kind::Lines),
            ("x/y/lines", Kind::Unknown),
            ("eden/v1/pi-7/lp", Kind::Lines),
            ("eden/v1/pi-7/lp.zst", Kind::Zstd),
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
            assert_eq!(Kind::of(topic, &filters), kind, "{topic}");
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
        ] {
            assert_eq!(is_own_downlink("pi", filter), own, "{filter}");
        }
    }
}

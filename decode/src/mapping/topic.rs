//! Topics: filters on them, and templates that name their levels.

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

/// Names of levels: `_/site/device/_`; `#` at the end stands for any number of levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    /// Places, from 0, and their names.
    pub(super) names: Vec<(usize, String)>,
    levels: usize,
    has_rest: bool,
}

impl Template {
    /// Reads a template.
    pub(super) fn compile(text: &str) -> Result<Template, String> {
        let mut template = Template::default();
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            match level {
                "#" if levels.peek().is_none() => {
                    template.has_rest = true;
                    continue;
                }
                "" => return Err(format!("{text:?} has an empty level; write _ for a level without a name")),
                "_" => {}
                name if name.contains(['#', '+']) => {
                    return Err(format!("{text:?} names levels, and {name:?} is no name; # may stand at its end"));
                }
                name => template.names.push((template.levels, name.to_owned())),
            }
            template.levels += 1;
        }
        if template.names.is_empty() {
            return Err(format!("{text:?} names no level; right is a name in place of a level, such as _/site/_"));
        }
        Ok(template)
    }

    /// Says whether it has as many levels as topics of `filter` may have.
    pub(super) fn check(&self, filter: &str) -> Result<(), String> {
        let levels = filter.split('/').count();
        let is_open = filter.ends_with('#');
        let fits = match (is_open, self.has_rest) {
            (false, false) => self.levels == levels,
            (false, true) => self.levels <= levels,
            (true, false) => self.levels >= levels - 1,
            (true, true) => true,
        };
        if fits {
            return Ok(());
        }
        let (ours, theirs) = (self.levels, levels - usize::from(is_open));
        Err(format!("it has {ours} levels and the topic filter {filter:?} {theirs}; write _ for one without a name"))
    }

    /// Whether it fits a topic with so many levels.
    pub(super) fn fits(&self, levels: usize) -> bool {
        if self.has_rest { self.levels <= levels } else { self.levels == levels }
    }
}

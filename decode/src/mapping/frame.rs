//! What a rule adds to all rows of a message, whatever the payload: table, tags and fields by the topic, fixed tags, tags
//! by user properties.

use model::Value;

use super::Message;
use super::rows::Row;
use super::topic::Template;
use crate::line_protocol::quote;

/// Longest topic from which rows are made, and most bytes of the user properties that become tags: each row has them.
const BYTES_MAX: usize = 1024;

/// The part of a rule that does not look at the payload.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub(super) table: Option<String>,
    pub(super) measurement: Option<Template>,
    pub(super) tags: Option<Template>,
    pub(super) fields: Option<Template>,
    pub(super) field_name: Option<Template>,
    pub(super) topic_tag: String,
    pub(super) fixed: Vec<(String, String)>,
    pub(super) properties: Vec<String>,
}

/// What it says of one message.
#[derive(Debug)]
pub(crate) struct Framed<'a> {
    /// The table, if the rule or the topic names it.
    pub(super) table: Option<&'a str>,
    /// The name of the only field, if the topic names it.
    pub(super) field_name: Option<&'a str>,
    tags: Vec<(&'a str, &'a str)>,
    fields: Vec<(&'a str, Value<'a>)>,
}

impl Frame {
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none()
            && self.templates().next().is_none()
            && self.topic_tag.is_empty()
            && self.fixed.is_empty()
            && self.properties.is_empty()
    }

    pub(super) fn wants_user_properties(&self) -> bool {
        !self.properties.is_empty()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        [&self.measurement, &self.tags, &self.fields, &self.field_name].into_iter().flatten()
    }

    /// Reads the topic and the properties of a message.
    pub(super) fn of<'a>(&'a self, message: &Message<'a>) -> Result<Framed<'a>, String> {
        if message.topic.len() > BYTES_MAX {
            return Err(format!("the topic has {} bytes; rules read {BYTES_MAX} at most", message.topic.len()));
        }
        let mut levels: Vec<&str> = Vec::new();
        if self.templates().next().is_some() {
            levels = message.topic.split('/').collect();
            if self.templates().any(|template| !template.fits(levels.len())) {
                return Err(format!(
                    "the topic has {} levels, and the rule's topic_parsing another number",
                    levels.len()
                ));
            }
        }
        let named = |template: &'a Option<Template>| {
            let names = template.iter().flat_map(|template| &template.names);
            names.map(|(at, name)| (name.as_str(), levels[*at])).collect::<Vec<_>>()
        };
        let first = |template: &'a Option<Template>| named(template).first().map(|(_, level)| *level);
        let mut tags = named(&self.tags);
        tags.extend(self.fixed.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if !self.topic_tag.is_empty() {
            tags.push((&self.topic_tag, message.topic));
        }
        let mut bytes = 0;
        for name in &self.properties {
            let mut found = message.user_properties.iter().filter(|(of, _)| of == name);
            if let Some((_, value)) = found.next() {
                if found.any(|(_, other)| other != value) {
                    return Err(format!("the user property {} is there twice, with two values", quote(name)));
                }
                bytes += value.len();
                tags.push((name, value));
            }
        }
        if bytes > BYTES_MAX {
            return Err(format!("the user properties that are tags have {bytes} bytes; {BYTES_MAX} are allowed"));
        }
        let fields = named(&self.fields).into_iter().map(|(name, level)| (name, Value::Text(level))).collect();
        let table = self.table.as_deref().or_else(|| first(&self.measurement));
        Ok(Framed { table, field_name: first(&self.field_name), tags, fields })
    }
}

impl<'a> Framed<'a> {
    /// A row with what is the same in all of them.
    pub(crate) fn row(&self, table: &'a str, time_us: i64) -> Row<'a> {
        Row { table: self.table.unwrap_or(table), tags: self.tags.clone(), fields: self.fields.clone(), time_us }
    }

    /// Whether it brings a tag of that name.
    pub(super) fn has_tag(&self, name: &str) -> bool {
        self.tags.iter().any(|(tag, value)| *tag == name && !value.is_empty())
    }
}

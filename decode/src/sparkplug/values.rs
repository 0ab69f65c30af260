//! Values of metrics, by the numbers of their types (Sparkplug 3.0, 6.4.16).

use model::Value;

use super::payload::{Content, Metric, Template};

/// How deep templates may stand in templates.
const DEPTH_MAX: usize = 8;

/// A value with its own memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Owned {
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    Text(String),
}

impl Owned {
    pub(super) fn as_value(&self) -> Value<'_> {
        match self {
            Owned::F64(value) => Value::F64(*value),
            Owned::I64(value) => Value::I64(*value),
            Owned::U64(value) => Value::U64(*value),
            Owned::Bool(value) => Value::Bool(*value),
            Owned::Text(text) => Value::Text(text),
        }
    }
}

/// Adds the value of a metric, or the values of a template by their paths, to `fields`. A metric that is null adds none.
pub(super) fn value(
    name: &str,
    metric: &Metric,
    datatype: u32,
    fields: &mut Vec<(String, Owned)>,
) -> Result<(), String> {
    deep_value(name, metric, datatype, fields, 0)
}

fn deep_value(
    name: &str,
    metric: &Metric,
    datatype: u32,
    fields: &mut Vec<(String, Owned)>,
    depth: usize,
) -> Result<(), String> {
    let Some(content) = metric.content.as_ref().filter(|_| metric.is_null != Some(true)) else { return Ok(()) };
    let value = match (datatype, content) {
        (1..=8 | 13, Content::Int(_) | Content::Long(_)) => whole(datatype, metric.unsigned().unwrap_or_default()),
        // A float means the shortest text that reads back as it: 21.1, not 21.100000381469727.
        (9, Content::Float(value)) => finite(value.to_string().parse().unwrap_or(f64::NAN))?,
        (9 | 10, Content::Double(value)) => finite(*value)?,
        (10, Content::Float(value)) => finite(f64::from(*value))?,
        (11, Content::Boolean(value)) => Owned::Bool(*value),
        (12 | 14 | 15, Content::Text(text)) => Owned::Text(text.clone()),
        (19, Content::Template(bytes)) => {
            if depth == DEPTH_MAX {
                return Err(format!("templates stand in templates more than {DEPTH_MAX} deep"));
            }
            let template = Template::read(bytes)?;
            if template.is_definition == Some(true) {
                // A type, and no value.
                return Ok(());
            }
            for inner in &template.metrics {
                let own =
                    inner.name.as_deref().filter(|own| !own.is_empty()).ok_or("a metric in a template has no name")?;
                let path = format!("{name}.{own}");
                if path.len() > model::name::NAME_BYTES_MAX {
                    return Err(format!("a name in the template is longer than {} bytes", model::name::NAME_BYTES_MAX));
                }
                deep_value(&path, inner, inner.datatype.unwrap_or_default(), fields, depth + 1)?;
            }
            return Ok(());
        }
        (0, _) => return Err("its type is not known".into()),
        (16 | 17 | 18 | 20.., _) => return Err(format!("values of type {datatype} are not stored")),
        _ => return Err(format!("its value is none of its type {datatype}")),
    };
    fields.push((name.to_owned(), value));
    Ok(())
}

/// Signed numbers are in two's complement; writers differ in whether they fill the upper bytes.
fn whole(datatype: u32, bits: u64) -> Owned {
    match datatype {
        1 => Owned::I64((bits as u8 as i8).into()),
        2 => Owned::I64((bits as u16 as i16).into()),
        3 => Owned::I64((bits as u32 as i32).into()),
        5..=7 => i64::try_from(bits).map_or(Owned::U64(bits), Owned::I64),
        8 => Owned::U64(bits),
        // 64 bits, and milliseconds since 1970.
        _ => Owned::I64(bits as i64),
    }
}

fn finite(value: f64) -> Result<Owned, String> {
    if value.is_finite() { Ok(Owned::F64(value)) } else { Err(format!("{value} cannot be stored")) }
}

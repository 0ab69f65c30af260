//! Values of metrics, by the numbers of their types (Sparkplug 3.0, 6.4.16).

use std::borrow::Cow;

use model::Value;

use super::payload::{Content, Metric, Template};

/// How deep templates may stand in templates.
const DEPTH_MAX: usize = 8;

/// Gives the value of a metric, or the values of a template by their paths, to `take`. A metric that is null gives none.
pub(super) fn value<'a>(
    name: &'a str,
    metric: &Metric<'a>,
    datatype: u32,
    take: &mut impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), String>,
) -> Result<(), String> {
    deep_value(Cow::Borrowed(name), metric, datatype, take, 0)
}

fn deep_value<'a>(
    name: Cow<'a, str>,
    metric: &Metric<'a>,
    datatype: u32,
    take: &mut impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), String>,
    depth: usize,
) -> Result<(), String> {
    let Some(content) = metric.content.as_ref().filter(|_| !metric.is_null) else { return Ok(()) };
    let value = match (datatype, content) {
        (1..=8 | 13, Content::Int(_) | Content::Long(_)) => whole(datatype, metric.unsigned().unwrap_or_default()),
        // A float means the shortest text that reads back as it: 21.1, not 21.100000381469727.
        (9, Content::Float(value)) => finite(value.to_string().parse().unwrap_or(f64::NAN))?,
        (9 | 10, Content::Double(value)) => finite(*value)?,
        (10, Content::Float(value)) => finite(f64::from(*value))?,
        (11, Content::Boolean(value)) => Value::Bool(*value),
        (12 | 14 | 15, Content::Text(text)) => Value::Text(text),
        (19, Content::Template(message)) => {
            if depth == DEPTH_MAX {
                return Err(format!("templates stand in templates more than {DEPTH_MAX} deep"));
            }
            let template = Template::read(*message)?;
            if template.is_definition {
                // A type, and no value.
                return Ok(());
            }
            for inner in template.metrics() {
                let own = inner.name.filter(|own| !own.is_empty()).ok_or("a metric in a template has no name")?;
                let path = format!("{name}.{own}");
                if path.len() > model::name::NAME_BYTES_MAX {
                    return Err(format!("a name in the template is longer than {} bytes", model::name::NAME_BYTES_MAX));
                }
                deep_value(Cow::Owned(path), &inner, inner.datatype.unwrap_or_default(), take, depth + 1)?;
            }
            return Ok(());
        }
        (0, _) => return Err("its type is not known".into()),
        (16 | 17 | 18 | 20.., _) => return Err(format!("values of type {datatype} are not stored")),
        _ => return Err(format!("its value is none of its type {datatype}")),
    };
    take(name, value)
}

/// Signed numbers are in two's complement; writers differ in whether they fill the upper bytes.
fn whole(datatype: u32, bits: u64) -> Value<'static> {
    match datatype {
        1 => Value::I64((bits as u8 as i8).into()),
        2 => Value::I64((bits as u16 as i16).into()),
        3 => Value::I64((bits as u32 as i32).into()),
        5..=7 => i64::try_from(bits).map_or(Value::U64(bits), Value::I64),
        8 => Value::U64(bits),
        // 64 bits, and milliseconds since 1970.
        _ => Value::I64(bits as i64),
    }
}

fn finite(value: f64) -> Result<Value<'static>, String> {
    if value.is_finite() { Ok(Value::F64(value)) } else { Err(format!("{value} cannot be stored")) }
}

//! Line protocol, with what a rule adds to it.

use model::Value;

use super::frame::Framed;
use super::{Mapped, Message, REFUSED_MAX, Rows};
use crate::line_protocol::{Decoded, Options, Precision, lines_at, parse};

/// How lines are read.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) precision: Precision,
}

impl Lines {
    pub(super) fn is_plain(&self) -> bool {
        self.precision == Precision::Nanosecond
    }

    pub(super) fn map(&self, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Mapped {
        let options = Options {
            schema: model::name::PUBLIC,
            precision: self.precision,
            now_us: message.now_us,
            errors_max: REFUSED_MAX,
        };
        let Decoded { batches, errors, errors_total, .. } = parse(message.payload, &options);
        // By line, so that what is refused keeps the order of the payload.
        let mut refused: Vec<(u32, String)> = errors.into_iter().map(|error| (error.line, error.message)).collect();
        let mut unnamed = errors_total - refused.len() as u64;
        for batch in &batches {
            for at in 0..batch.len() {
                let mut row = framed.row(&batch.table.table, batch.times_us[at]);
                // What a line says of itself wins over what the rule adds.
                let own = &batch.series[batch.series_of[at] as usize];
                row.tags.retain(|(name, _)| own.get(name).is_none());
                row.tags.extend(own.tags());
                let fields = batch.fields.iter().filter(|field| field.valid.get(at));
                let fields: Vec<(&str, Value<'_>)> = fields.map(|field| (&*field.name, field.values.get(at))).collect();
                row.fields.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
                row.fields.extend(fields);
                if let Err(reason) = rows.push(row) {
                    if refused.len() < REFUSED_MAX {
                        refused.push((batch.lines[at], reason));
                    } else {
                        unnamed += 1;
                    }
                }
            }
        }
        refused.sort_by_key(|(line, _)| *line);
        let parts = lines_at(message.payload, refused.iter().map(|(line, _)| *line));
        let mut mapped = Mapped::default();
        for ((line, reason), part) in refused.iter().zip(parts) {
            mapped.refuse(Some(part), format!("line {line}: {reason}"));
        }
        mapped.refused_total += unnamed;
        mapped
    }
}

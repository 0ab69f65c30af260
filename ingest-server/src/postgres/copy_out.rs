//! `COPY … TO STDOUT`: rows as lines, streamed.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use pgwire::messages::PgWireBackendMessage as Say;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};

use super::command::{Copy, CopyFormat};
use super::connection::Connection;
use super::encode::{Encoder, Unsendable, Values};
use super::running::Source;
use super::socket::Stop;

impl Connection {
    /// Carries out a `COPY`.
    pub(super) async fn copy(&mut self, copy: &Copy) -> Result<(), Stop> {
        match (&copy.from_query, &copy.into) {
            (Some(query), _) => self.copy_out(query, &copy.format).await,
            (None, Some(table)) => self.copy_in(table, copy).await,
            (None, None) => Ok(()),
        }
    }

    async fn copy_out(&mut self, query: &str, format: &CopyFormat) -> Result<(), Stop> {
        let rows = self.start_rows(self.request(query)).await?;
        let columns = Arc::clone(&rows.schema);
        let encoder = Encoder::new(&columns, |_| false);
        let count = encoder.columns();
        let mut source = Source::Statement(Box::new(rows));
        let (slot, settings, reader, writer) = self.parts();
        let (begun, mut guard) = Connection::begin(slot, settings, reader);
        writer.say(Say::CopyOutResponse(CopyOutResponse::new(0, count as i16, vec![0; count])));
        let mut line = BytesMut::new();
        if format.header {
            let names = columns.fields().iter().map(|field| field.name().as_bytes());
            for (index, name) in names.enumerate() {
                separate(index, format, &mut line);
                escape(name, format, &mut line);
            }
            send_line(&mut line, &mut writer.bytes);
        }
        let mut sent = 0_u64;
        while let Some(batch) = guard.run(async { Ok(source.next().await) }).await? {
            let batch = batch?;
            let values = encoder.values(&batch)?;
            for row in 0..batch.num_rows() {
                write_line(&values, row, format, &mut line)?;
                send_line(&mut line, &mut writer.bytes);
                sent += 1;
                if writer.bytes.len() >= super::socket::SEND_BYTES {
                    guard.run(writer.flush()).await?;
                }
            }
        }
        drop((guard, begun));
        self.writer.say(Say::CopyDone(CopyDone::new()));
        self.complete(format!("COPY {sent}"));
        Ok(())
    }
}

fn separate(index: usize, format: &CopyFormat, line: &mut BytesMut) {
    if index > 0 {
        line.put_u8(format.delimiter);
    }
}

fn write_line(values: &[Values<'_>], row: usize, format: &CopyFormat, line: &mut BytesMut) -> Result<(), Unsendable> {
    let mut text = BytesMut::new();
    for (index, value) in values.iter().enumerate() {
        separate(index, format, line);
        text.clear();
        match value.write_plain(row, &mut text)? {
            true => escape(&text, format, line),
            false => line.put_slice(format.null.as_bytes()),
        }
    }
    Ok(())
}

fn send_line(line: &mut BytesMut, out: &mut BytesMut) {
    line.put_u8(b'\n');
    out.put_u8(b'd');
    out.put_u32(line.len() as u32 + 4);
    out.put_slice(line);
    line.clear();
}

/// A value as the format writes it.
fn escape(text: &[u8], format: &CopyFormat, line: &mut BytesMut) {
    if format.csv {
        let special = |byte: &u8| *byte == format.delimiter || *byte == format.quote || b"\r\n".contains(byte);
        let needs_quotes = text.iter().any(special) || text == format.null.as_bytes() || text == b"\\.";
        if !needs_quotes {
            line.put_slice(text);
            return;
        }
        line.put_u8(format.quote);
        for byte in text {
            if *byte == format.quote {
                line.put_u8(format.quote);
            }
            line.put_u8(*byte);
        }
        line.put_u8(format.quote);
        return;
    }
    for byte in text {
        match byte {
            b'\\' => line.put_slice(b"\\\\"),
            b'\n' => line.put_slice(b"\\n"),
            b'\r' => line.put_slice(b"\\r"),
            b'\t' => line.put_slice(b"\\t"),
            byte if *byte == format.delimiter => line.put_slice(&[b'\\', *byte]),
            byte => line.put_u8(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_where_they_would_be_taken_for_something_else() {
        let text = CopyFormat { csv: false, header: false, delimiter: b'\t', null: "\\N".into(), quote: b'"' };
        let csv = CopyFormat { csv: true, delimiter: b',', null: String::new(), ..text.clone() };
        for (value, as_text, as_csv) in [
            ("plain", "plain", "plain"),
            ("a\tb\\c\n", "a\\tb\\\\c\\n", "\"a\tb\\c\n\""),
            ("say \"x\", y", "say \"x\", y", "\"say \"\"x\"\", y\""),
            ("", "", "\"\""),
        ] {
            for (format, expected) in [(&text, as_text), (&csv, as_csv)] {
                let mut line = BytesMut::new();
                escape(value.as_bytes(), format, &mut line);
                // A tab needs no quotes in CSV.
                assert_eq!(line, expected.as_bytes(), "{value:?}");
            }
        }
    }
}

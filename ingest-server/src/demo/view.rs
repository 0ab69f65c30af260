//! What the demo shows: redrawn in place on a terminal, else one plain line a second.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::time_text::iso;

use crate::client::Client;
use crate::failure::Failure;

use super::TABLE;
use super::agents::{Agents, Sent};

/// A sensor's latest reading.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Latest {
    sensor: String,
    celsius: f64,
    pascal: f64,
    time_us: i64,
}

/// What is stored at one moment, by SQL.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    rows: u64,
    latest: Vec<Latest>,
}

impl Look {
    /// Asks the server.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) fn take(client: &Client) -> Result<Self, Failure> {
        let rows = super::count(client)?;
        let found = client.sql(&format!(
            "SELECT sensor, last_value(temperature ORDER BY time), last_value(pressure ORDER BY time), max(time) \
             FROM {TABLE} WHERE time > now() - INTERVAL '1 minute' GROUP BY sensor ORDER BY sensor"
        ))?;
        let latest = found["rows"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(|row| Latest {
            sensor: row[0].as_str().unwrap_or("?").to_owned(),
            celsius: row[1].as_f64().unwrap_or(f64::NAN),
            pascal: row[2].as_f64().unwrap_or(f64::NAN),
            time_us: (row[3].as_f64().unwrap_or_default() * 1e3).round() as i64,
        });
        Ok(Look { rows, latest: latest.collect() })
    }
}

/// The view and what it needs to show rates.
pub(super) struct View {
    live: bool,
    url: String,
    mqtt: String,
    data: PathBuf,
    before: u64,
    last: Option<(Duration, u64)>,
    drawn: usize,
}

impl View {
    /// A view for a terminal if `live`; `before` rows are of earlier runs.
    pub(super) fn new(live: bool, url: &str, mqtt: &str, data: &Path, before: u64) -> Self {
        View { live, url: url.into(), mqtt: mqtt.into(), data: data.into(), before, last: None, drawn: 0 }
    }

    /// Says where everything is, and what to paste.
    pub(super) fn introduce(&self) {
        let eden = std::env::args().next().unwrap_or_else(|| "eden".into());
        let (url, mqtt, data) = (&self.url, &self.mqtt, self.data.display());
        let (host, port) = mqtt.rsplit_once(':').unwrap_or((mqtt, "1883"));
        let earlier = match self.before {
            0 => "new".to_owned(),
            rows => format!("{rows} rows were there from earlier runs"),
        };
        print(&format!(
            "eden demo: ten agents with simulated BMP180 sensors publish to mqtt://{mqtt}; SQL is at {url}\n\
             data folder: {data} ({earlier})\n\
             to paste into another terminal:\n\
             \x20 curl -d 'room,site=here temperature=21.5' '{url}/api/v3/write_lp?db=public'\n\
             \x20 mosquitto_pub -h {host} -p {port} -q 1 -t lp/room -m 'room,site=there temperature=19.5'\n\
             \x20 {eden} sql --data {data} 'SELECT * FROM room'\n\
             \x20 {eden} sql --data {data} 'SELECT sensor, avg(temperature) FROM {TABLE} GROUP BY sensor ORDER BY sensor'\n\
             \x20 {eden} sql --data {data} 'SELECT agent, batches, duplicates, gaps, last_seen FROM system.agents'\n\
             \x20 {eden} sql --data {data} 'REFRESH TABLE {TABLE}'\n\
             \x20 duckdb -c \"SELECT count(*) FROM delta_scan('{data}/tables/public/{TABLE}')\"\n\
             metrics: {url}/metrics; Ctrl-C ends the demo\n\n"
        ));
    }

    /// Nothing is stored yet.
    pub(super) fn nothing_yet(&mut self, since: Duration) {
        if !self.live {
            print(&format!("{:>3} s: nothing stored yet\n", since.as_secs()));
        }
    }

    /// The server did not answer a look.
    pub(super) fn failed(&mut self, failure: &Failure) {
        print(&format!("the last look failed: {failure}\n"));
        self.drawn = 0;
    }

    /// Shows a look.
    pub(super) fn show(&mut self, look: &Look, agents: &Agents, since: Duration) {
        let waiting = |sensor: &str| agents.waiting(sensor);
        let rate = match self.last {
            Some((then, rows)) if since > then => {
                look.rows.saturating_sub(rows) as f64 / since.saturating_sub(then).as_secs_f64()
            }
            _ => look.rows.saturating_sub(self.before) as f64 / since.as_secs_f64().max(1.0),
        };
        self.last = Some((since, look.rows));
        if self.live {
            self.redraw(&screen(look, &waiting, agents.sent(), rate, since));
        } else {
            print(&plain(look, agents.sent(), rate, since));
        }
    }

    /// Draws over what was drawn before.
    fn redraw(&mut self, text: &str) {
        let (rows, columns) = match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 1 && size.ws_col > 1 => (size.ws_row as usize, size.ws_col as usize),
            _ => (24, 80),
        };
        let mut out = String::new();
        if self.drawn > 0 {
            // Up to the first line, and clear from there.
            let _ = write!(out, "\x1b[{}A\x1b[J", self.drawn);
        }
        // A line that wraps or scrolls away would spoil the count of lines to go up.
        let lines: Vec<String> =
            text.lines().take(rows - 1).map(|line| line.chars().take(columns - 1).collect()).collect();
        self.drawn = lines.len();
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        print(&out);
    }
}

/// A terminal or pipe that is gone is no reason to stop storing.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn screen(look: &Look, waiting: &dyn Fn(&str) -> u64, sent: Sent, rate: f64, since: Duration) -> String {
    let mut out = String::from("sensor       temperature     pressure    measured (UTC)           waiting\n");
    for latest in &look.latest {
        let Latest { sensor, celsius, pascal, time_us } = latest;
        let waiting = waiting(sensor);
        let _ = writeln!(
            out,
            "{sensor:<12} {celsius:>8.1} °C {:>9.2} hPa    {:<23} {waiting:>8}",
            pascal / 100.0,
            iso(*time_us)
        );
    }
    let _ = writeln!(
        out,
        "\n{} rows stored, {rate:.0} rows/s, {} batches acknowledged, {} waiting, {} s",
        look.rows,
        sent.acknowledged,
        sent.waiting,
        since.as_secs()
    );
    out
}

fn plain(look: &Look, sent: Sent, rate: f64, since: Duration) -> String {
    let mut out = format!(
        "{:>3} s: {} rows stored, {rate:.0} rows/s, {} batches waiting, {} sensors:",
        since.as_secs(),
        look.rows,
        sent.waiting,
        look.latest.len()
    );
    for Latest { sensor, celsius, .. } in &look.latest {
        let _ = write!(out, " {}={celsius:.1}", sensor.trim_start_matches("bmp180-"));
    }
    out + " °C\n"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn look() -> Look {
        let latest = |sensor: &str, celsius| Latest {
            sensor: sensor.into(),
            celsius,
            pascal: 101_325.0,
            time_us: 1_780_272_000_500_000,
        };
        Look { rows: 240, latest: vec![latest("bmp180-01", 21.5), latest("bmp180-02", -0.5)] }
    }

    fn sent() -> Sent {
        Sent { acknowledged: 118, waiting: 2, ..Sent::default() }
    }

    #[test]
    fn a_terminal_gets_a_line_a_sensor() {
        let waiting = |sensor: &str| if sensor == "bmp180-02" { 2 } else { 0 };
        expect![[r#"
            sensor       temperature     pressure    measured (UTC)           waiting
            bmp180-01        21.5 °C   1013.25 hPa    2026-06-01T00:00:00.5          0
            bmp180-02        -0.5 °C   1013.25 hPa    2026-06-01T00:00:00.5          2

            240 rows stored, 20 rows/s, 118 batches acknowledged, 2 waiting, 12 s
        "#]]
        .assert_eq(&screen(&look(), &waiting, sent(), 20.0, Duration::from_secs(12)));
    }

    #[test]
    fn a_pipe_gets_one_line() {
        assert_eq!(
            plain(&look(), sent(), 20.0, Duration::from_secs(12)),
            " 12 s: 240 rows stored, 20 rows/s, 2 batches waiting, 2 sensors: 01=21.5 02=-0.5 °C\n"
        );
    }
}

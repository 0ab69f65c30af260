//! Prometheus scrapes Eden and itself, and writes what it scrapes to Eden, which is killed and started again meanwhile: each
//! sample that it has is in SQL, as often as it says that it has sent it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Eden, Rows, wait};
use serde_json::Value;

use super::{free_port, install, piped, run_sql};
use crate::command::run as run_command;
use crate::{Failure, Outcome};

const KILLS: usize = 3;
const STARTED_WITHIN: Duration = Duration::from_secs(60);
const SENT_WITHIN: Duration = Duration::from_secs(60);
/// Markers of the end of series come two scrapes after the last one.
const QUIET: Duration = Duration::from_secs(2);
/// Samples of one series that must have come before Eden is killed, each time.
const SAMPLES_BETWEEN_KILLS: i64 = 8;

pub(super) fn prometheus_writes() -> Outcome {
    install("prometheus", "prometheus")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let mut eden = Eden::options("prometheus-interop").setting("EDEN_HTTP_LISTEN", &listen).start();
    let prometheus = Prometheus::start(eden.home(), &listen)?;
    for kill in 0..KILLS {
        let wanted = (kill as i64 + 1) * SAMPLES_BETWEEN_KILLS;
        let up = format!("SELECT count(*) FROM up WHERE value = 1 AND instance = '{listen}'");
        let come = wait::until(SENT_WITHIN, || {
            let rows = Rows::new(run_sql(&eden, &up).ok()?);
            rows.single().as_i64().filter(|count| *count >= wanted)
        });
        come.ok_or_else(|| format!("no {wanted} samples came within {SENT_WITHIN:?}\n{}", prometheus.log()))?;
        eden.kill();
        eden.restart();
    }
    prometheus.stop_scraping()?;
    let sent = prometheus.all_sent()?;
    eden.kill();
    eden.restart();
    // It sends what comes when it has read its own log: what was there before is not sent.
    let began = eden.sql("SELECT instance, min(time) AS time FROM up GROUP BY instance");
    let began_ms = (0..began.len()).map(|row| began.time_us(row) / 1_000).max().unwrap_or_default();
    let since_then = |samples: Samples| -> Samples {
        let samples = samples.into_iter().map(|(series, samples)| {
            (series, samples.into_iter().filter(|(time_ms, _)| *time_ms >= began_ms).collect::<Vec<_>>())
        });
        samples.filter(|(_, samples)| !samples.is_empty()).collect()
    };
    let (mut rows_total, mut compared) = (0, 0);
    let names = prometheus.get("/api/v1/label/__name__/values")?;
    let names: Vec<&str> = names["data"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for name in &names {
        // A metric that was there only before is no table.
        let has = since_then(prometheus.samples(name)?);
        let (stored, rows) = match stored(&eden, name) {
            Err(_) if has.is_empty() => continue,
            stored => stored?,
        };
        let stored = since_then(stored);
        if stored != has {
            let different = has.iter().find(|(series, samples)| stored.get(*series) != Some(samples));
            return Err(format!(
                "{name}: SQL has {} series, Prometheus {}; the first that differs: {different:?}, in SQL {:?}",
                stored.len(),
                has.len(),
                different.map(|(series, _)| stored.get(series))
            ));
        }
        rows_total += rows;
        compared += has.values().map(Vec::len).sum::<usize>();
    }
    if rows_total != sent {
        return Err(format!("Prometheus says that it has sent {sent} samples, SQL has {rows_total}"));
    }
    let quarantined = eden.sql("SELECT count(*) FROM system.quarantine");
    if quarantined.single().as_i64() != Some(0) {
        return Err(format!("{quarantined:?} are in the quarantine"));
    }
    println!(
        "{}: {sent} samples sent through {KILLS} kills are stored once; {compared} of them, of {} metrics, \
         are what it has itself",
        prometheus.version,
        names.len()
    );
    eden.stop();
    Ok(())
}

/// By labels, time in ms and value as text.
type Samples = BTreeMap<String, Vec<(i64, String)>>;

/// What a table has but for stale markers, and how many rows with them.
fn stored(eden: &Eden, name: &str) -> Result<(Samples, usize), Failure> {
    let rows = Rows::new(run_sql(eden, &format!("SELECT * FROM \"{name}\" ORDER BY time"))?);
    let mut samples = Samples::new();
    for row in 0..rows.len() {
        let mut labels = BTreeMap::new();
        let mut sample = None;
        for (column, value) in rows.columns().iter().zip(rows.row(row)) {
            match (column.as_str(), value) {
                ("time", _) | (_, Value::Null) => {}
                ("value", value) => sample = value.as_f64().map(|value| value.to_string()),
                ("special", Value::String(word)) => sample = (word != "stale").then(|| word.clone()),
                (label, value) => {
                    labels.insert(label.to_string(), value.as_str().unwrap_or_default().to_string());
                }
            }
        }
        if let Some(sample) = sample {
            samples.entry(format!("{labels:?}")).or_default().push((rows.time_us(row) / 1_000, sample));
        }
    }
    Ok((samples, rows.len()))
}

/// A running `prometheus`; killed when dropped.
struct Prometheus {
    address: String,
    eden: String,
    folder: PathBuf,
    version: String,
    process: Child,
}

impl Prometheus {
    fn start(folder: &Path, eden: &str) -> Result<Self, Failure> {
        let said = Command::new("prometheus").arg("--version").output().map_err(|e| format!("run prometheus: {e}"))?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = said.split(' ').skip(2).take(1).collect::<String>();
        let address = format!("127.0.0.1:{}", free_port()?);
        let folder = folder.to_path_buf();
        write_config(&folder, eden, &[&address, eden])?;
        let log = std::fs::File::create(folder.join("prometheus.log")).map_err(|e| format!("make a log: {e}"))?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--web.enable-lifecycle");
        let process = command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let process = process.map_err(|e| format!("run prometheus: {e}"))?;
        let prometheus =
            Prometheus { address, eden: eden.to_string(), folder, version: format!("prometheus {version}"), process };
        let ready =
            wait::until(STARTED_WITHIN, || prometheus.text("/-/ready").ok().filter(|text| text.contains("Ready")));
        ready.ok_or_else(|| format!("prometheus does not start:\n{}", prometheus.log()))?;
        Ok(prometheus)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("prometheus.log")).unwrap_or_default()
    }

    fn text(&self, path: &str) -> Result<String, Failure> {
        let url = format!("http://{}{path}", self.address);
        let answer = piped("curl", &["--silent", "--fail", &url], b"")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        let text = self.text(path)?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}: {text}"))
    }

    /// Goes on with what is to be sent, and scrapes nothing any more.
    fn stop_scraping(&self) -> Outcome {
        write_config(&self.folder, &self.eden, &[])?;
        run_command(
            Command::new("curl")
                .args(["--silent", "--fail", "--request", "POST"])
                .arg(format!("http://{}/-/reload", self.address)),
        )
    }

    /// How many samples it has sent, when it has no more to send, and says that it has given up none.
    fn all_sent(&self) -> Result<usize, Failure> {
        let (mut last, mut since) = (0, wait::now());
        let sent = wait::until(SENT_WITHIN, || {
            let page = self.text("/metrics").ok()?;
            let sent = total(&page, "prometheus_remote_storage_samples_total");
            let is_idle = total(&page, "prometheus_remote_storage_samples_pending") == 0;
            if !is_idle || sent != last {
                (last, since) = (sent, wait::now());
            }
            (since.elapsed() > QUIET).then_some(page)
        });
        let page = sent.ok_or_else(|| format!("prometheus does not come to an end\n{}", self.log()))?;
        for lost in
            ["prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_samples_dropped_total"]
        {
            if total(&page, lost) != 0 {
                return Err(format!("{lost} is {}\n{}", total(&page, lost), self.log()));
            }
        }
        // It counts each attempt as sent.
        let again = total(&page, "prometheus_remote_storage_samples_retried_total");
        if again == 0 {
            return Err("no sample was sent again: the kills came when nothing was sent".into());
        }
        usize::try_from(last - again).map_err(|e| e.to_string())
    }

    /// All samples that it has of a metric.
    fn samples(&self, name: &str) -> Result<Samples, Failure> {
        let answer = self.get(&format!("/api/v1/query?query={name}%5B1h%5D"))?;
        let mut all = Samples::new();
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            let labels: BTreeMap<&str, &str> = series["metric"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(label, _)| *label != "__name__")
                .map(|(label, value)| (label.as_str(), value.as_str().unwrap_or_default()))
                .collect();
            let samples = series["values"].as_array().into_iter().flatten().map(|sample| {
                let time_ms = (sample[0].as_f64().unwrap_or_default() * 1_000.0).round() as i64;
                let text = sample[1].as_str().unwrap_or_default();
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                (time_ms, number.map_or_else(|| text.to_string(), |number| number.to_string()))
            });
            all.insert(format!("{labels:?}"), samples.collect());
        }
        Ok(all)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The sum of a metric over its labels.
fn total(page: &str, name: &str) -> i64 {
    let of_metric =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_metric.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as i64
}

fn write_config(folder: &Path, eden: &str, targets: &[&str]) -> Outcome {
    let targets = targets.iter().map(|target| format!("'{target}'")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n  - job_name: all\n    \
         static_configs:\n      - targets: [{targets}]\n    metric_relabel_configs:\n      - source_labels: [__name__]\n        \
         regex: 'eden_(wal|ingest|http|storage)_.*|go_gc_.*|go_info|prometheus_(remote|target|http)_.*|prometheus_build_info'\n        \
         action: keep\nremote_write:\n  - url: http://{eden}/api/v1/prom/write\n    queue_config:\n      max_shards: 2\n      \
         batch_send_deadline: 100ms\n      min_backoff: 20ms\n      max_backoff: 200ms\n"
    );
    std::fs::write(folder.join("prometheus.yml"), text).map_err(|e| format!("write prometheus.yml: {e}"))
}

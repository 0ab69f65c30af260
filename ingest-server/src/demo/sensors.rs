//! Ten simulated sensors, each a thread with a connection of its own, as ten devices would be.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use edge_agent::{Bmp180Reading, Bmp180Twin};
use model::Clock;

use crate::client::Client;
use crate::failure::Failure;
use crate::stop_flag::StopFlag;

use super::TABLE;

/// Sensors.
pub(super) const SENSORS: u64 = 10;
/// A batch each.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Time between two readings of a sensor; a batch holds those of its second.
const READING_EVERY: Duration = Duration::from_millis(500);
/// Readings that a sensor keeps while the server takes none; the oldest go first.
const KEPT_MAX: usize = 1_200;

/// What all sensors did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Batches acknowledged.
    pub(super) acknowledged: u64,
    /// Batches refused or unanswered; their readings were sent again.
    pub(super) failed: u64,
    /// The longest wait for an acknowledgement.
    pub(super) slowest: Duration,
}

/// The running sensors.
pub(super) struct Sensors {
    stop: StopFlag,
    sent: Arc<Mutex<Sent>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sensors {
    /// Starts all sensors; they write to the server at `url`.
    ///
    /// # Errors
    /// If the system has no threads left.
    pub(super) fn start(url: &str, clock: &Arc<dyn Clock>) -> Result<Self, Failure> {
        let mut sensors = Sensors { stop: StopFlag::new(), sent: Arc::default(), threads: Vec::new() };
        for number in 1..=SENSORS {
            let sensor = Sensor {
                number,
                twin: Bmp180Twin::new(number),
                client: Client::new(url),
                clock: Arc::clone(clock),
                stop: sensors.stop.clone(),
                sent: Arc::clone(&sensors.sent),
                kept: VecDeque::new(),
            };
            let thread = Builder::new().name(format!("sensor-{number:02}")).spawn(move || sensor.run());
            match thread {
                Ok(thread) => sensors.threads.push(thread),
                Err(e) => {
                    sensors.stop();
                    return Err(Failure::work(format!("start sensor {number}: {e}")));
                }
            }
        }
        Ok(sensors)
    }

    /// Ends all sensors; waits for the batches under way.
    pub(super) fn stop(self) -> Sent {
        self.stop.raise();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a sensor's thread panicked");
            }
        }
        *self.sent.lock().expect("no holder of this lock panics")
    }
}

struct Sensor {
    number: u64,
    twin: Bmp180Twin,
    client: Client,
    clock: Arc<dyn Clock>,
    stop: StopFlag,
    sent: Arc<Mutex<Sent>>,
    kept: VecDeque<String>,
}

impl Sensor {
    fn run(mut self) {
        // Devices do not write at the same moment.
        let first = self.clock.monotonic() + BATCH_EVERY * (self.number as u32 - 1) / SENSORS as u32;
        let mut next = first;
        loop {
            if self.stop.wait(next.saturating_sub(self.clock.monotonic())) {
                return;
            }
            self.measure();
            self.write();
            next += BATCH_EVERY;
            // After a long wait, one batch makes up for all.
            next = next.max(self.clock.monotonic());
        }
    }

    fn measure(&mut self) {
        let now_us = self.clock.now_us();
        let readings = BATCH_EVERY.as_micros() / READING_EVERY.as_micros();
        for back in (0..readings as i64).rev() {
            let time_us = now_us - back * READING_EVERY.as_micros() as i64;
            let line = line(self.number, self.twin.read(time_us), time_us);
            self.kept.push_back(line);
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }

    fn write(&mut self) {
        let body: String = self.kept.iter().map(String::as_str).collect();
        let started = self.clock.monotonic();
        let path = "/api/v3/write_lp?db=public&precision=us";
        let answer = self.client.post(path, "text/plain; charset=utf-8", body.as_bytes());
        let took = self.clock.monotonic().saturating_sub(started);
        let mut sent = self.sent.lock().expect("no holder of this lock panics");
        match answer {
            Ok(answer) if answer.status == 204 => {
                sent.acknowledged += 1;
                sent.slowest = sent.slowest.max(took);
                self.kept.clear();
            }
            Ok(answer) => {
                sent.failed += 1;
                tracing::warn!(sensor = self.number, error = answer.error(), "a batch was refused; it is sent again");
            }
            Err(e) => {
                sent.failed += 1;
                tracing::warn!(sensor = self.number, error = %e, "a batch was not answered; it is sent again");
            }
        }
    }
}

fn line(number: u64, reading: Bmp180Reading, time_us: i64) -> String {
    let Bmp180Reading { temperature, pressure } = reading;
    format!(
        "{TABLE},agent=demo-{number:02},sensor=bmp180-{number:02} temperature={temperature},pressure={pressure} {time_us}\n"
    )
}

#[cfg(test)]
mod tests {
    use edge_agent::{DeciCelsius, Pascal};

    use super::*;

    #[test]
    fn a_reading_is_a_line() {
        let reading = Bmp180Reading { temperature: DeciCelsius(-5), pressure: Pascal(101_325) };
        assert_eq!(
            line(3, reading, 1_780_272_000_000_000),
            "bmp180,agent=demo-03,sensor=bmp180-03 temperature=-0.5,pressure=101325 1780272000000000\n"
        );
    }
}

//! What takes readings in, makes batches of them and keeps these: the outbox's thread, and its steps for tests.
//!
//! Owns:     shapers, the open batch, the wall time of readings, when to close a batch and when to sync.
//! Does not: measure (`sensor::lanes`), nor send (`uplink`).
//!
//! Invariant: the open batch is closed when it is full or a sync is due, so a power cut loses what was measured since
//! the last sync and nothing else (P7).

use std::sync::Arc;
use std::time::Duration;

use model::Clock;

use crate::causes::with_causes;
use crate::command::Command;
use crate::config::{Config, Period};
use crate::exchange::Exchange;
use crate::log_lines::LogLines;
use crate::outbox::record::Times;
use crate::outbox::{BODY_BYTES_MAX, Outbox};
use crate::sensor::lanes::{Given, Intake};
use crate::sensor::shape::{Shaper, Timed};
use crate::sensor::{Measured, Series};
use crate::timepiece::{BootId, Timepiece};
use crate::wall::{Wall, by_wall_clock};

/// The wall clock is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Lines of the log are sent this often at most.
const LOGS_INTERVAL: Duration = Duration::from_secs(10);

/// Readings that are not in a batch yet, in lines whose times are by the clock since boot.
#[derive(Debug, Default)]
struct Open {
    lines: String,
    readings: u32,
    first_us: i64,
    last_us: i64,
}

/// One sensor's way from its readings to lines.
#[derive(Debug)]
struct Channel {
    name: String,
    series: Series,
    shaper: Shaper,
    /// A reading came, whose fields were looked at.
    is_known: bool,
    /// Since the last reading.
    failures: u64,
    hangs: bool,
}

/// See the module.
pub(crate) struct Collector {
    channels: Vec<Channel>,
    outbox: Outbox,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) clock: Arc<dyn Clock>,
    timepiece: Arc<dyn Timepiece>,
    log_lines: Arc<LogLines>,
    /// When lines of the log may be sent again.
    logs_at: Duration,
    boot: BootId,
    wall: Wall,
    /// What is known of it is not in the outbox yet.
    is_unsaved: bool,
    /// Batches that wait for the wall clock, counted when it was looked at: the outbox goes through all that wait.
    untimed: u64,
    look_at: Duration,
    /// The offset by which windows and intervals are multiples of themselves; 0 while none is known.
    align_us: i64,
    max_readings: u32,
    in_flight: usize,
    /// Connections that the outbox was told of.
    connections: u64,
    pub(crate) sync_interval: Duration,
    sync_at: Duration,
    open: Open,
    readings_made: u64,
    sensor_failures: u64,
}

impl Collector {
    pub(crate) fn new(
        config: &Config,
        mut outbox: Outbox,
        exchange: Arc<Exchange>,
        (clock, timepiece): (Arc<dyn Clock>, Arc<dyn Timepiece>),
        log_lines: Arc<LogLines>,
    ) -> Self {
        let channel = |section: &crate::config::SensorSection| Channel {
            name: section.name.clone(),
            series: Series::new(&config.agent.id, section),
            shaper: Shaper::new(section),
            is_known: false,
            failures: 0,
            hangs: false,
        };
        let boot = timepiece.boot_id();
        let known = outbox.begin_boot(boot);
        let clocks = (Arc::clone(&clock), Arc::clone(&timepiece));
        let wall = Wall::new(clocks, config.clock.trust, config.clock.wait.0, outbox.newest_us(), known);
        let now = clock.monotonic();
        Collector {
            channels: config.sensors.iter().map(channel).collect(),
            outbox,
            exchange,
            clock,
            timepiece,
            log_lines,
            logs_at: Duration::ZERO,
            boot,
            wall,
            is_unsaved: false,
            untimed: 0,
            look_at: now,
            align_us: 0,
            max_readings: config.batch.max_readings,
            in_flight: config.uplink.in_flight as usize,
            connections: 0,
            sync_interval: config.outbox.sync_interval.0,
            sync_at: now + config.outbox.sync_interval.0,
            open: Open::default(),
            readings_made: 0,
            sensor_failures: 0,
        }
    }

    /// Does what is due: looks at the clock, closes and syncs, hands batches out, tells the figures. Returns when it is
    /// to be called again, on the monotonic clock.
    pub(crate) fn step(&mut self, intake: &Intake) -> Duration {
        let now = self.clock.monotonic();
        if now >= self.look_at {
            self.look(intake);
            self.look_at = now + LOOK_INTERVAL;
        }
        for command in self.exchange.take_commands() {
            self.carry_out(command, intake);
        }
        for given in intake.take() {
            self.take(given);
        }
        self.watch(intake, now);
        if now >= self.sync_at {
            self.close_batch();
            self.sync();
            self.sync_at = (self.sync_at + self.sync_interval).max(now);
        }
        self.hand_out();
        self.publish_stats();
        let due = self.sync_at.min(self.look_at);
        self.outbox.paced_until().map_or(due, |paced| paced.min(due))
    }

    /// Looks at the wall clock, and gives boots their time once it is known.
    fn look(&mut self, intake: &Intake) {
        self.untimed = self.outbox.untimed();
        let told = self.exchange.lock().told;
        let is_new = self.wall.look(told);
        let Some(fix) = self.wall.fix() else { return };
        if is_new {
            tracing::info!(offset_us = fix.offset_us, certainty = ?fix.certainty, "the wall clock is known");
        }
        if self.align_us != fix.offset_us {
            self.align_us = fix.offset_us;
            intake.align(fix.offset_us);
        }
        self.is_unsaved |= is_new || self.untimed > 0;
        if self.is_unsaved {
            match self.outbox.fix_boots(self.boot, fix) {
                Ok(()) => {
                    self.is_unsaved = !self.outbox.has_fix(self.boot, fix);
                    self.untimed = self.outbox.untimed();
                }
                Err(e) => tracing::debug!(error = %with_causes(&e), "the wall time of a boot is kept later"),
            }
        }
    }

    fn carry_out(&mut self, command: Command, intake: &Intake) {
        let done = match command {
            Command::Interval { sensor, interval } => {
                match self.channels.iter().position(|channel| channel.name == sensor) {
                    Some(station) => {
                        intake.set_interval(station, interval);
                        format!("interval: {sensor} every {}", Period(interval))
                    }
                    None => format!("interval: there is no sensor {sensor:?}"),
                }
            }
            Command::Logs => self.give_log_lines(),
            Command::Restart => {
                self.exchange.restart.notify_one();
                "restart".to_owned()
            }
        };
        tracing::info!(done, "a command");
        self.exchange.lock().stats.last_command = Some(done);
        self.exchange.notify.notify_one();
    }

    /// Gives the uplink the newest lines of the log. Says what was done.
    fn give_log_lines(&mut self) -> String {
        let now = self.clock.monotonic();
        if now < self.logs_at {
            return format!("logs: they were sent less than {} s ago", LOGS_INTERVAL.as_secs());
        }
        self.logs_at = now + LOGS_INTERVAL;
        // Where nobody knows the wall time, what the wall clock says: better than nothing for who looks for the reason.
        let offset_us = match self.wall.fix() {
            Some(fix) => fix.offset_us,
            None => self.clock.now_us() - self.timepiece.boot_us(),
        };
        let (message, count) = self.log_lines.message(&self.outbox.life().agent, offset_us);
        self.exchange.lock().log_lines = Some(message).filter(|_| count > 0);
        format!("logs: {count} lines")
    }

    /// Takes a reading, or a failure, of one sensor.
    pub(crate) fn take(&mut self, given: Given) {
        let Given { station, boot_us, measured } = given;
        let Some(channel) = self.channels.get_mut(station) else { return };
        let timed = match with_fields(measured).and_then(|fields| channel.series.check(fields)) {
            Ok(fields) => {
                if channel.failures > 0 {
                    tracing::info!(
                        sensor = channel.name,
                        failures = channel.failures,
                        "the sensor gives readings again"
                    );
                }
                channel.failures = 0;
                let strangers = if channel.is_known { Vec::new() } else { channel.shaper.strangers(&fields) };
                if !strangers.is_empty() {
                    tracing::warn!(
                        sensor = channel.name,
                        ?strangers,
                        "offsets or dead_band name fields that the sensor did not give"
                    );
                }
                channel.is_known = true;
                channel.shaper.take(fields, boot_us, self.align_us)
            }
            Err(e) => {
                self.sensor_failures += 1;
                channel.failures += 1;
                if channel.failures == 1 {
                    tracing::warn!(sensor = channel.name, error = %e, "a sensor gave no reading; it is tried again, later and later");
                } else {
                    tracing::debug!(sensor = channel.name, error = %e, failures = channel.failures, "still no reading");
                }
                None
            }
        };
        if let Some(timed) = timed {
            self.keep(station, &timed);
        }
    }

    /// Notes sensors that do not come back.
    fn watch(&mut self, intake: &Intake, now: Duration) {
        let hanging = intake.hanging(now);
        for (station, channel) in self.channels.iter_mut().enumerate() {
            let hangs = hanging.iter().find(|(other, _)| *other == station);
            if let Some((_, time)) = hangs
                && !channel.hangs
            {
                tracing::error!(
                    sensor = channel.name,
                    seconds = time.as_secs(),
                    "a sensor does not come back; those on other buses go on"
                );
            }
            channel.hangs = hangs.is_some();
        }
    }

    fn keep(&mut self, station: usize, (fields, boot_us): &Timed) {
        let open = &mut self.open;
        if open.readings == 0 {
            (open.first_us, open.last_us) = (*boot_us, *boot_us);
        }
        open.first_us = open.first_us.min(*boot_us);
        open.last_us = open.last_us.max(*boot_us);
        self.channels[station].series.write_line(fields, *boot_us, &mut open.lines);
        open.readings += 1;
        self.readings_made += 1;
        if open.readings >= self.max_readings || open.lines.len() > BODY_BYTES_MAX / 2 {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        let Open { lines, readings, first_us, last_us } = std::mem::take(&mut self.open);
        if readings == 0 {
            return;
        }
        match self.wall.fix() {
            Some(fix) => {
                let times = Times { boot: None, first_us: fix.wall_us(first_us), last_us: fix.wall_us(last_us) };
                if fix.certainty == crate::wall::Certainty::Known {
                    self.outbox.saw_time(times.last_us);
                }
                self.outbox.put_timed(&by_wall_clock(&lines, fix), readings, times);
            }
            None => self.outbox.put_timed(&lines, readings, Times { boot: Some(self.boot), first_us, last_us }),
        }
    }

    fn sync(&mut self) {
        // A failure is logged where it is found, and shows in the figures.
        if self.outbox.needs_sync() && self.outbox.sync().is_err() {
            tracing::debug!("the outbox is opened again later");
        }
    }

    fn hand_out(&mut self) {
        let (is_connected, connections) = {
            let stats = &self.exchange.lock().stats;
            (stats.connected.is_some(), stats.connections)
        };
        if self.connections != connections {
            self.connections = connections;
            self.outbox.connected();
        }
        // What is handed out before there is a connection goes before what is fresh then; one batch is enough to try a
        // server by.
        let window = if is_connected { self.in_flight } else { 1 };
        let withdrawn = self.outbox.take_withdrawn();
        if !withdrawn.is_empty() {
            self.exchange.withdraw(&withdrawn);
        }
        while self.exchange.len() < window {
            match self.outbox.next_batch() {
                Ok(Some(batch)) => self.exchange.offer(batch),
                Ok(None) => return,
                Err(e) => {
                    tracing::error!(error = %with_causes(&e), "read the outbox");
                    return;
                }
            }
        }
    }

    /// Waits for news, at most for `wait`, and notes what became of batches.
    pub(crate) fn take_outcomes(&mut self, wait: Duration) {
        for (key, _) in self.exchange.wait_for_outcomes(wait) {
            self.outbox.ack(key);
        }
    }

    pub(crate) fn publish_stats(&self) {
        let outbox = self.outbox.stats();
        let failing = self.channels.iter().filter(|channel| channel.failures > 0 || channel.hangs);
        let failing_sensors = failing.map(|channel| channel.name.clone()).collect();
        let mut shared = self.exchange.lock();
        shared.set_backlog(outbox.backlog_batches, outbox.backlog_bytes);
        let stats = &mut shared.stats;
        stats.readings = self.readings_made;
        stats.sensor_failures = self.sensor_failures;
        stats.failing_sensors = failing_sensors;
        stats.clock = self.wall.fix().map(|fix| fix.certainty);
        stats.untimed_batches = self.untimed;
        stats.made = outbox.made;
        stats.disk_bytes = outbox.disk_bytes;
        stats.wear = outbox.wear;
        stats.gaps = outbox.gaps;
        stats.gap_readings = outbox.gap_readings;
        stats.epoch = self.outbox.life().epoch;
        stats.last_seq = outbox.last_seq;
        stats.disk_failing = outbox.failing;
    }

    /// Makes durable what is there, and serves the uplink until it ends, or `late_at` on the monotonic clock.
    pub(crate) fn finish(mut self, late: Duration) -> bool {
        for station in 0..self.channels.len() {
            if let Some(timed) = self.channels[station].shaper.end() {
                self.keep(station, &timed);
            }
        }
        self.close_batch();
        self.sync();
        self.outbox.report_gaps();
        self.sync();
        loop {
            self.hand_out();
            self.untimed = self.outbox.untimed();
            self.publish_stats();
            // What waits for the wall clock is not sent by this life any more.
            if self.outbox.is_handed_out() || (self.wall.fix().is_none() && self.untimed > 0) {
                self.exchange.set_last();
            }
            let shared = self.exchange.lock();
            let late_at = shared.stop_at.unwrap_or_default() + late;
            if shared.uplink_ended || self.clock.monotonic() >= late_at {
                break;
            }
            drop(shared);
            let now = self.clock.monotonic();
            let paced = self.outbox.paced_until().map_or(self.sync_interval, |paced| paced.saturating_sub(now));
            self.take_outcomes(late_at.saturating_sub(now).min(self.sync_interval).min(paced));
        }
        self.take_outcomes(Duration::ZERO);
        self.publish_stats();
        let closed = self.outbox.close();
        if let Err(e) = &closed {
            tracing::error!(error = %with_causes(e), "the outbox could not be closed in order; it is as after a crash");
        }
        closed.is_ok()
    }
}

/// A reading without a field is none.
fn with_fields(measured: Measured) -> Measured {
    measured.and_then(|fields| {
        if fields.is_empty() { Err(crate::sensor::SensorError("it gave no value".to_owned())) } else { Ok(fields) }
    })
}

#[cfg(test)]
mod tests;

//! Threads that measure: one for each lane, which is what shares a wire.
//!
//! Owns:     when each sensor is due, the back-off of those that fail, and the readings on their way to the outbox's thread.
//! Does not: shape, write or keep readings.
//!
//! Invariants
//!  1. A lane that hangs stops no other, and no stop of the agent: it is left behind.
//!  2. Readings on their way are bounded; when there are as many, lanes wait, and what was due meanwhile is read once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use model::Clock;

use super::{Interrupt, Measured, Sensor, Station};
use crate::timepiece::Timepiece;

/// Readings on their way at most.
const WAITING_MAX: usize = 1_024;
/// A sensor that fails is tried again at least this often, unless its interval is longer.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A sensor that does not come back for as long is called hanging, unless it may take longer.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(15);
/// By so much it may take longer than it may.
const LATE_MAX: Duration = Duration::from_secs(5);
/// A stop waits for lanes that measure just now for as long.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);
/// Drivers need little.
const STACK_BYTES: usize = 256 << 10;

/// How a reading is stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// With the time at which it was measured.
    Measured,
    /// With the time at which it was due, a multiple of the interval: such times take fewer bytes.
    Interval,
}

/// What a sensor gave, or why it did not.
#[derive(Debug)]
pub(crate) struct Given {
    /// Which, in the order of the configuration.
    pub(crate) station: usize,
    /// By the clock since boot.
    pub(crate) boot_us: i64,
    pub(crate) measured: Measured,
}

/// What lanes and the outbox's thread share.
#[derive(Debug)]
pub(crate) struct Intake {
    shared: Mutex<Shared>,
    changed: Condvar,
    /// By station: for how long it may measure.
    patience: Vec<Duration>,
}

#[derive(Debug)]
struct Shared {
    given: VecDeque<Given>,
    /// By station.
    intervals_us: Vec<i64>,
    /// What is to be added to the clock since boot so that whole intervals are multiples of it.
    align_us: i64,
    /// By lane: what it measures now, and since when on the monotonic clock.
    busy: Vec<Option<(usize, Duration)>>,
    stops: bool,
}

impl Intake {
    fn new(intervals_us: Vec<i64>, patience: Vec<Duration>, lanes: usize) -> Intake {
        let shared =
            Shared { given: VecDeque::new(), intervals_us, align_us: 0, busy: vec![None; lanes], stops: false };
        Intake { shared: Mutex::new(shared), changed: Condvar::new(), patience }
    }

    /// Without lanes: a test gives readings itself.
    #[cfg(test)]
    pub(crate) fn idle() -> Intake {
        Intake::new(Vec::new(), Vec::new(), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }

    /// All that was given since the last call.
    pub(crate) fn take(&self) -> VecDeque<Given> {
        let given = std::mem::take(&mut self.lock().given);
        self.changed.notify_all();
        given
    }

    /// Sensors that hang: which, and for how long.
    pub(crate) fn hanging(&self, now: Duration) -> Vec<(usize, Duration)> {
        let busy = self.lock().busy.clone();
        let times = busy.into_iter().flatten().map(|(station, since)| (station, now.saturating_sub(since)));
        times.filter(|(station, time)| self.patience.get(*station).is_some_and(|patience| time >= patience)).collect()
    }

    /// From now on whole intervals are multiples of the clock since boot and `align_us`.
    pub(crate) fn align(&self, align_us: i64) {
        self.lock().align_us = align_us;
        self.changed.notify_all();
    }

    /// From now on `station` measures in this interval.
    pub(crate) fn set_interval(&self, station: usize, interval: Duration) {
        if let Some(interval_us) = self.lock().intervals_us.get_mut(station) {
            *interval_us = micros(interval);
        }
        self.changed.notify_all();
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// The running lanes.
pub(crate) struct Lanes {
    intake: Arc<Intake>,
    interrupts: Vec<Interrupt>,
    threads: Vec<JoinHandle<()>>,
}

/// What lanes are given.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timepiece: Arc<dyn Timepiece>,
    /// Called after each reading, so that somebody takes it.
    pub(crate) ring: Arc<dyn Fn() + Send + Sync>,
}

impl Lanes {
    /// Starts a thread for each lane of `stations`, which are in the order of the configuration.
    ///
    /// # Errors
    /// If the system has no threads left; none runs then.
    pub(crate) fn start(stations: Vec<(Station, Stamp)>, around: &Around) -> std::io::Result<Lanes> {
        let mut lanes: Vec<(String, Vec<Due>)> = Vec::new();
        let now_us = around.timepiece.boot_us();
        let mut intervals_us = Vec::new();
        let mut patience = Vec::new();
        let mut interrupts = Vec::new();
        for (station, (Station { lane, sensor, interval, .. }, stamp)) in stations.into_iter().enumerate() {
            intervals_us.push(micros(interval));
            patience.push(HANGS_AFTER.max(sensor.time_max().saturating_add(LATE_MAX)));
            interrupts.extend(sensor.interrupt());
            let due = Due { station, sensor, stamp, at_us: now_us, planned: (0, 0), failures: 0 };
            match lanes.iter_mut().find(|(name, _)| *name == lane) {
                Some((_, dues)) => dues.push(due),
                None => lanes.push((lane, vec![due])),
            }
        }
        let intake = Arc::new(Intake::new(intervals_us, patience, lanes.len()));
        let mut started = Lanes { intake: Arc::clone(&intake), interrupts, threads: Vec::new() };
        for (number, (_, dues)) in lanes.into_iter().enumerate() {
            let lane = Lane { number, dues, intake: Arc::clone(&intake), around: around.clone() };
            let thread = Builder::new().name(format!("eden-lane-{number}")).stack_size(STACK_BYTES);
            match thread.spawn(move || lane.run()) {
                Ok(thread) => started.threads.push(thread),
                Err(e) => {
                    started.stop();
                    return Err(e);
                }
            }
        }
        Ok(started)
    }

    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Ends all lanes but those that hang, which are left behind.
    pub(crate) fn stop(&mut self) {
        let mut shared = self.intake.lock();
        shared.stops = true;
        self.intake.changed.notify_all();
        for interrupt in &self.interrupts {
            interrupt();
        }
        let is_busy = |shared: &mut Shared| shared.busy.iter().any(Option::is_some);
        let waited = self.intake.changed.wait_timeout_while(shared, STOP_TIME_MAX, is_busy);
        let busy = waited.expect("no holder of this lock panics").0.busy.clone();
        for (thread, busy) in self.threads.drain(..).zip(busy) {
            if busy.is_none() && thread.join().is_err() {
                tracing::error!("a thread that measures panicked: a bug");
            }
        }
    }
}

/// A sensor, and when it is read next.
struct Due {
    station: usize,
    sensor: Box<dyn Sensor>,
    stamp: Stamp,
    at_us: i64,
    /// Its interval and its alignment when `at_us` was planned.
    planned: (i64, i64),
    failures: u32,
}

impl Due {
    /// It is read now. What was due while nobody could read it is read once, at the newest time at which it was due.
    fn begin(&mut self, now_us: i64) {
        let late_us = now_us.saturating_sub(self.at_us);
        if self.stamp == Stamp::Interval && late_us > 0 {
            self.at_us += late_us - late_us % self.planned.0;
        }
    }

    /// Plans what comes after a reading that ended at `now_us`, on the grid of the interval.
    fn next(&mut self, is_well: bool, now_us: i64, interval_us: i64) {
        self.failures = if is_well { 0 } else { self.failures.saturating_add(1) };
        if !is_well {
            let wait_us = now_us.saturating_add(retry_us(interval_us, self.failures)).saturating_sub(self.at_us);
            let intervals = wait_us / interval_us + i64::from(wait_us % interval_us != 0);
            self.at_us = self.at_us.saturating_add(intervals.saturating_mul(interval_us));
            return;
        }
        self.at_us = self.at_us.saturating_add(interval_us);
        if self.at_us < now_us {
            // After a long wait one reading makes up for all, on the same grid.
            self.at_us = now_us - (now_us - self.at_us).rem_euclid(interval_us);
            if self.at_us < now_us && self.stamp == Stamp::Interval {
                self.at_us = self.at_us.saturating_add(interval_us);
            }
        }
    }

    /// Plans anew if the interval, or what its times are multiples of, has changed.
    fn plan(&mut self, now_us: i64, interval_us: i64, align_us: i64) {
        if self.planned == (interval_us, align_us) {
            return;
        }
        self.planned = (interval_us, align_us);
        // A shorter interval than the one that it waits for takes effect now.
        if self.failures == 0 {
            self.at_us = self.at_us.min(now_us.saturating_add(interval_us));
        }
        if self.stamp == Stamp::Interval {
            let past_us = self.at_us.saturating_add(align_us).rem_euclid(interval_us);
            self.at_us += if past_us == 0 { 0 } else { interval_us - past_us };
        }
    }
}

struct Lane {
    number: usize,
    dues: Vec<Due>,
    intake: Arc<Intake>,
    around: Around,
}

impl Lane {
    fn run(mut self) {
        while let Some(index) = self.wait() {
            let due = &mut self.dues[index];
            let started_us = self.around.timepiece.boot_us();
            due.begin(started_us);
            let measured = due.sensor.measure(self.around.clock.now_us());
            let now_us = self.around.timepiece.boot_us();
            let boot_us = match due.stamp {
                Stamp::Measured => started_us,
                Stamp::Interval => due.at_us,
            };
            let is_well = measured.is_ok();
            let mut shared = self.intake.lock();
            shared.busy[self.number] = None;
            let interval_us = shared.intervals_us[due.station];
            due.next(is_well, now_us, interval_us);
            shared.given.push_back(Given { station: due.station, boot_us, measured });
            drop(shared);
            self.intake.changed.notify_all();
            (self.around.ring)();
        }
    }

    /// Waits until a sensor of the lane is due, which it is from now on busy with; `None` when the agent stops.
    fn wait(&mut self) -> Option<usize> {
        let mut shared = self.intake.lock();
        loop {
            if shared.stops {
                return None;
            }
            let now_us = self.around.timepiece.boot_us();
            for due in &mut self.dues {
                due.plan(now_us, shared.intervals_us[due.station], shared.align_us);
            }
            let first = self.dues.iter().enumerate().min_by_key(|(_, due)| due.at_us);
            let (index, due) = first?;
            if due.at_us <= now_us && shared.given.len() < WAITING_MAX {
                shared.busy[self.number] = Some((due.station, self.around.clock.monotonic()));
                return Some(index);
            }
            let wait = match u64::try_from(due.at_us.saturating_sub(now_us)) {
                Ok(us) if us > 0 => Duration::from_micros(us),
                // Until there is room.
                _ => Duration::from_secs(1),
            };
            shared = self.intake.changed.wait_timeout(shared, wait).expect("no holder of this lock panics").0;
        }
    }
}

/// Twice as long after each failure, up to [`RETRY_MAX`]; never sooner than the interval.
fn retry_us(interval_us: i64, failures: u32) -> i64 {
    let first_us = interval_us.max(1_000_000);
    let longest_us = micros(RETRY_MAX).max(interval_us);
    let doubled = first_us.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let wait_us = doubled.min(longest_us);
    // On the grid of the interval.
    let intervals = wait_us / interval_us + i64::from(wait_us % interval_us != 0);
    intervals.saturating_mul(interval_us)
}

#[cfg(test)]
mod tests {
    use model::SystemClock;

    use super::*;
    use crate::config::SensorSection;
    use crate::timepiece::SystemTimepiece;

    #[test]
    fn times_of_the_interval_are_multiples_of_it_by_the_wall_clock_once_that_is_known() {
        let section = SensorSection {
            driver: "simulated-bmp180".to_owned(),
            name: "s1".to_owned(),
            interval: settings::Period(Duration::from_millis(5)),
            ..SensorSection::default()
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let around = Around { timepiece: Arc::new(SystemTimepiece::new()), clock, ring: Arc::new(|| {}) };
        let mut lanes = Lanes::start(vec![(Station::new("pi-7", &section), Stamp::Interval)], &around).unwrap();
        let take = |count: usize| {
            let mut given = Vec::new();
            while given.len() < count {
                given.extend(lanes.intake().take());
                std::thread::yield_now();
            }
            given
        };
        assert!(take(5).iter().all(|given| given.boot_us % 5_000 == 0), "by the clock since boot");
        lanes.intake().align(1_234);
        let is_whole = |given: &Given| (given.boot_us + 1_234) % 5_000 == 0;
        // Some may have been on their way.
        while !take(1).last().is_some_and(is_whole) {}
        let given = take(20);
        assert!(given.iter().all(is_whole), "{given:?}");
        assert!(given.windows(2).all(|pair| pair[0].boot_us < pair[1].boot_us), "{given:?}");
        lanes.stop();
    }

    fn due(stamp: Stamp, at_us: i64, interval_us: i64) -> Due {
        let section =
            SensorSection { driver: "simulated-bmp180".to_owned(), name: "s1".to_owned(), ..SensorSection::default() };
        let sensor = Station::new("pi-7", &section).sensor;
        Due { station: 0, sensor, stamp, at_us, planned: (interval_us, 0), failures: 0 }
    }

    #[test]
    fn a_reading_that_is_late_has_the_newest_time_at_which_it_was_due() {
        for (now_us, stamped_us, next_us) in
            [(1_000, 1_000, 2_000), (1_999, 1_000, 2_000), (5_500, 5_000, 6_000), (6_000, 6_000, 7_000)]
        {
            let mut due = due(Stamp::Interval, 1_000, 1_000);
            due.begin(now_us);
            assert_eq!(due.at_us, stamped_us, "at {now_us}");
            due.next(true, now_us, 1_000);
            assert_eq!(due.at_us, next_us, "at {now_us}");
        }
        // A measurement that takes longer than the interval: the next one is due in the future, not before it ended.
        let mut due = due(Stamp::Interval, 1_000, 1_000);
        due.begin(1_000);
        due.next(true, 3_500, 1_000);
        assert_eq!(due.at_us, 4_000);
    }

    #[test]
    fn a_wait_after_a_failure_begins_when_it_failed() {
        let mut due = due(Stamp::Interval, 0, 1_000_000);
        // A bus that answered nothing for 30 s.
        due.begin(0);
        due.next(false, 30_200_000, 1_000_000);
        assert_eq!(due.at_us, 32_000_000);
        due.next(false, 32_000_000, 1_000_000);
        assert_eq!(due.at_us, 34_000_000);
        due.next(true, 34_000_000, 1_000_000);
        assert_eq!((due.at_us, due.failures), (35_000_000, 0));
    }

    #[test]
    fn a_program_that_may_take_long_is_not_called_hanging_before_that() {
        let patience = vec![HANGS_AFTER, Duration::from_secs(65)];
        let intake = Intake::new(vec![1, 1], patience, 2);
        intake.lock().busy = vec![Some((0, Duration::ZERO)), Some((1, Duration::ZERO))];
        let hanging = |seconds| intake.hanging(Duration::from_secs(seconds)).into_iter().map(|(at, _)| at).collect();
        let none: Vec<usize> = hanging(14);
        assert_eq!((none, hanging(15), hanging(65)), (vec![], vec![0], vec![0, 1]));
    }

    #[test]
    fn waits_after_failures_double_on_the_grid_of_the_interval() {
        let seconds = |interval_us, failures| retry_us(interval_us, failures) / 1_000_000;
        assert_eq!([1, 2, 3, 6, 7, 99].map(|failures| seconds(1_000_000, failures)), [1, 2, 4, 32, 60, 60]);
        assert_eq!([1, 9].map(|failures| seconds(300_000_000, failures)), [300, 300], "a long interval stays");
        assert_eq!(retry_us(7_000, 1), 1_001_000);
    }
}

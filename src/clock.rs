//! Shell: the one reader of time. Everything else is told what time it is.
//!
//! Three clocks side by side: [`Instant`] for timers, milliseconds since the Unix epoch for what
//! people and clients read, and NTP timestamps (RFC 5905 §6, as RTCP carries them: RFC 3550 §4).
//! NTP time advances with `Instant` from the start on, so that sender reports stay monotone when
//! somebody sets the system's clock.

// This is the place that the ban on reading the clock sends everybody to.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds from 1900, where NTP starts, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// Nothing that is looked at waited longer: a clock was set.
const LONGEST_AGO: Duration = Duration::from_secs(1);

/// The clocks of one process, aligned when it started. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// Since the Unix epoch, at `started`.
    started_at: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { started: Instant::now(), started_at: since_epoch() }
    }

    pub fn now(&self) -> Instant {
        Instant::now()
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Milliseconds since the Unix epoch, by the system's clock as it is set now.
    pub fn unix_millis(&self) -> u64 {
        since_epoch().as_millis() as u64
    }

    /// Both clocks at once.
    pub fn reading(&self) -> Reading {
        Reading { now: self.now(), unix: since_epoch() }
    }

    /// `now` as an NTP timestamp: 32 bits of seconds, 32 bits of fraction.
    pub fn ntp(&self, now: Instant) -> u64 {
        let unix = match now.checked_duration_since(self.started) {
            Some(after) => self.started_at + after,
            None => self.started_at.saturating_sub(self.started - now),
        };
        let seconds = (unix.as_secs() + NTP_TO_UNIX) << 32;
        seconds | ((u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000)
    }

    /// Processor time that the process has used, all threads together.
    pub fn cpu_time(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for a timespec, and the call writes nothing else.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
        if status == 0 {
            Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
        } else {
            Duration::ZERO
        }
    }
}

/// The same time by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub now: Instant,
    /// Since the Unix epoch, by the system's clock as it is set now.
    pub unix: Duration,
}

impl Reading {
    /// When it was `unix` by the system's clock, a little before this reading. If somebody set that clock
    /// meanwhile the answer is wrong, but not later than the reading and not by more than [`LONGEST_AGO`].
    pub fn when(&self, unix: Duration) -> Instant {
        let ago = self.unix.saturating_sub(unix).min(LONGEST_AGO);
        self.now.checked_sub(ago).unwrap_or(self.now)
    }
}

/// Date and time of day as people here read them.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub year: i32,
    /// From 1.
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub micros: u32,
}

/// The time in the zone that the system is set to.
pub fn local_now() -> Local {
    let now = since_epoch();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or_default();
    // SAFETY: a `tm` of zeros is a valid one, null for its zone's name included.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; what fails leaves the zeros.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    Local {
        year: parts.tm_year + 1900,
        month: parts.tm_mon.unsigned_abs() + 1,
        day: parts.tm_mday.unsigned_abs(),
        hour: parts.tm_hour.unsigned_abs(),
        minute: parts.tm_min.unsigned_abs(),
        second: parts.tm_sec.unsigned_abs(),
        micros: now.subsec_micros(),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_starts_in_1900_and_counts_fractions_of_a_second() {
        let started = Instant::now();
        let clock = Clock { started, started_at: Duration::from_millis(1_500) };
        assert_eq!(clock.ntp(started), ((NTP_TO_UNIX + 1) << 32) | 1 << 31);
        assert_eq!(clock.ntp(started + Duration::from_millis(500)), (NTP_TO_UNIX + 2) << 32);
    }

    #[test]
    fn what_was_long_ago_or_will_be_is_bounded() {
        let reading = Reading { now: Instant::now(), unix: Duration::from_secs(1_000) };
        let ago = |unix| reading.now - reading.when(unix);
        assert_eq!(ago(Duration::from_millis(999_995)), Duration::from_millis(5));
        assert_eq!(ago(Duration::ZERO), LONGEST_AGO);
        assert_eq!(ago(Duration::from_secs(1_060)), Duration::ZERO);
    }

    #[test]
    fn work_takes_processor_time() {
        let clock = Clock::start();
        let before = clock.cpu_time();
        let mut sum = 0_u64;
        while clock.cpu_time() - before < Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(clock.cpu_time() > before);
    }
}

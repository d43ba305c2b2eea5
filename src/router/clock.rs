//! The router's own steady time: what a batch of packets is stamped with, computed once for all
//! sinks.

use crate::rtp::{AbsSendTime, units::ticks};
use std::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub now: Instant,
    pub abs_send_time: AbsSendTime,
    /// Milliseconds since the router began, wrapping.
    pub ms: u32,
    /// Microseconds since the router began, wrapping.
    pub us: u32,
}

/// When a packet is looked at, and when it came: it may have waited for us, and what is told and reckoned
/// of the network must not contain that.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub now: Instant,
    /// Not after `now`.
    pub came: Instant,
}

impl From<(Instant, Instant)> for Times {
    fn from((now, came): (Instant, Instant)) -> Self {
        Self { now, came }
    }
}

/// It did not wait.
impl From<Instant> for Times {
    fn from(now: Instant) -> Self {
        Self { now, came: now }
    }
}

impl Stamp {
    pub fn new(origin: Instant, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(origin);
        Self {
            now,
            abs_send_time: AbsSendTime::new(elapsed),
            ms: ticks(elapsed, 1_000),
            us: ticks(elapsed, 1_000_000),
        }
    }
}

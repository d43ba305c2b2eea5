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
    /// Steps of 250 µs since the router began, wrapping.
    pub ticks: u32,
}

impl Stamp {
    pub fn new(origin: Instant, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(origin);
        Self {
            now,
            abs_send_time: AbsSendTime::new(elapsed),
            ms: ticks(elapsed, 1_000),
            us: ticks(elapsed, 1_000_000),
            ticks: ticks(elapsed, 4_000),
        }
    }
}

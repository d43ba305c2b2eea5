//! The router's own steady time: what a batch of packets is stamped with, computed once for all
//! sinks.

use crate::rtp::AbsSendTime;
use std::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub now: Instant,
    pub abs_send_time: AbsSendTime,
    /// Milliseconds since the router began, wrapping.
    pub ms: u32,
}

impl Stamp {
    pub fn new(origin: Instant, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(origin);
        Self { now, abs_send_time: AbsSendTime::new(elapsed), ms: elapsed.as_millis() as u32 }
    }
}

//! One party of RTCP: who it is, when it gets its next report, and how its clock stands to ours.

use super::{PeerKey, SinkKey, SourceKey, stats::PeerStats};
use crate::rtp::NtpTime;
use slotmap::Key;
use std::time::{Duration, Instant};

/// Between two reports, on average.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Reports come at most this much earlier or later (RFC 3550 §6.2: peers must not fall in step).
const SPREAD_MS: u64 = 100;
/// What a sample of the clock's offset may exceed the smallest one by, per report: clocks drift.
const DRIFT: i64 = (1 << 32) / 10_000;

#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Our name towards this peer, the same for all streams that are to be played in sync.
    pub cname: String,
    /// Whether REMB may be sent to it at all.
    pub remb: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub config: PeerConfig,
    pub sources: Vec<SourceKey>,
    pub sinks: Vec<SinkKey>,
    pub report_at: Instant,
    pub stats: PeerStats,
    pub last_rtcp_at: Option<Instant>,
    /// It reported, and has neither said goodbye nor fallen silent.
    pub reporting: bool,
    /// Whether it gets reports: there is no point before its transport is connected.
    pub active: bool,
    /// The SSRC of its last report: receivers without a stream of their own have one too.
    pub reporter: Option<u32>,
    /// Our wall clock minus the peer's, with the fastest way between us in it; in 2⁻³² s.
    offset: Option<i64>,
    random: u64,
}

impl Peer {
    pub fn new(now: Instant, key: PeerKey, config: PeerConfig) -> Self {
        let mut peer = Self {
            config,
            sources: Vec::new(),
            sinks: Vec::new(),
            report_at: now,
            stats: PeerStats::default(),
            last_rtcp_at: None,
            reporting: false,
            active: true,
            reporter: None,
            offset: None,
            random: key.data().as_ffi(),
        };
        peer.schedule_report(now);
        peer
    }

    pub fn schedule_report(&mut self, now: Instant) {
        // A step of a linear congruential generator, of which the upper bits are good enough.
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let spread = (self.random >> 33) % (2 * SPREAD_MS + 1);
        self.report_at = now + REPORT_INTERVAL + Duration::from_millis(spread)
            - Duration::from_millis(SPREAD_MS);
    }

    /// A sender report of this peer: `sent` by its clock, read at `ntp` by ours. The smallest
    /// difference is the report that waited least, and serves all streams of the peer alike.
    pub fn observe_clock(&mut self, ntp: NtpTime, sent: NtpTime) {
        let sample = ntp.minus(sent);
        let offset = match self.offset {
            // Far off means that one of the clocks was set.
            Some(offset) if sample.wrapping_sub(offset).unsigned_abs() < 10 << 32 => {
                sample.min(offset.wrapping_add(DRIFT))
            }
            _ => sample,
        };
        self.offset = Some(offset);
    }

    /// What the peer's clock reads when ours reads `ntp`.
    pub fn remote_time(&self, ntp: NtpTime) -> Option<NtpTime> {
        Some(NtpTime::from_bits(ntp.bits().wrapping_sub(self.offset? as u64)))
    }
}

//! One party of RTCP: who it is, when it gets its next report, and how its clock stands to ours.

use super::{
    PeerKey, SinkKey, SourceKey,
    agenda::{Appointment, on_grid},
    arrivals::Arrivals,
    clock::Stamp,
    lent::Lent,
    sending::Sending,
    stats::{DropReason, PeerStats},
};
use crate::{
    bandwidth::{Fate, Means},
    rtp::{NtpTime, extensions::Said},
};
use slotmap::Key;
use std::time::{Duration, Instant};

/// Between two reports, on average.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Reports come at most this much earlier or later (RFC 3550 §6.2: peers must not fall in step).
const SPREAD_MS: u64 = 100;
/// Reports are due at multiples of this: with hundreds of peers one would be due every other millisecond.
const REPORTS_TOGETHER: Duration = Duration::from_millis(20);
/// Between a report and one that has news.
const SOONEST: Duration = Duration::from_millis(100);
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
    pub reported_at: Instant,
    pub appointment: Appointment,
    pub stats: PeerStats,
    pub last_rtcp_at: Option<Instant>,
    /// It reported, and has neither said goodbye nor fallen silent.
    pub reporting: bool,
    /// Whether it gets reports: there is no point before its transport is connected.
    pub active: bool,
    /// The SSRC of its last report: receivers without a stream of their own have one too.
    pub reporter: Option<u32>,
    /// Of all its streams together.
    pub arrivals: Arrivals,
    pub sending: Lent<Sending>,
    /// What it took to answer, before any report told.
    way: Option<Duration>,
    /// Our wall clock minus the peer's, with the fastest way between us in it; in 2⁻³² s.
    offset: Option<i64>,
    random: u64,
    /// Of the router's steady clock.
    origin: Instant,
}

impl Peer {
    pub fn new(origin: Instant, now: Instant, key: PeerKey, config: PeerConfig) -> Self {
        let means = if config.remb { Means::Remb } else { Means::Reports };
        let mut peer = Self {
            config,
            sources: Vec::new(),
            sinks: Vec::new(),
            report_at: now,
            reported_at: now,
            appointment: Appointment::default(),
            stats: PeerStats::default(),
            last_rtcp_at: None,
            reporting: false,
            active: true,
            reporter: None,
            arrivals: Arrivals::default(),
            sending: Lent::new(Sending::new(now, means)),
            way: None,
            offset: None,
            random: key.data().as_ffi(),
            origin,
        };
        peer.schedule_report(now);
        peer
    }

    /// What connectivity checks took there and back.
    pub fn set_round_trip(&mut self, time: Duration) {
        self.way = Some(time);
        self.sending.set_round_trip(time);
    }

    /// What reports told of it, or else the checks: whoever only sends to us tells nothing.
    pub fn round_trip(&self) -> Option<Duration> {
        self.stats.round_trip.or(self.way)
    }

    pub fn schedule_report(&mut self, now: Instant) {
        // A step of a linear congruential generator, of which the upper bits are good enough.
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let spread = (self.random >> 33) % (2 * SPREAD_MS + 1);
        let at = now + REPORT_INTERVAL + Duration::from_millis(spread)
            - Duration::from_millis(SPREAD_MS);
        self.report_at = on_grid(self.origin, at, REPORTS_TOGETHER);
        self.reported_at = now;
    }

    /// There is something that the peer is to know soon.
    pub fn hasten_report(&mut self, now: Instant) {
        let soon = on_grid(self.origin, now.max(self.reported_at + SOONEST), REPORTS_TOGETHER);
        self.report_at = self.report_at.min(soon);
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let report = self.active.then_some(self.report_at);
        let times = [report, self.arrivals.poll_timeout(), self.sending.poll_timeout()];
        times.into_iter().flatten().min()
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

    /// Notes what the header of a packet from this peer says, and makes what is passed on ours. When
    /// the number in its transport is of no use the reason is counted.
    pub fn take_said(
        &mut self,
        now: Instant,
        came: Duration,
        said: &mut Said,
    ) -> Result<(), DropReason> {
        if let Some(time) = &mut said.carried.capture_time {
            // Clock of capture = clock of the sender + offset: the sender is us from here on.
            let ours = self.offset.map(|offset| offset as u64);
            time.offset = time.offset.zip(ours).map(|(theirs, ours)| theirs.wrapping_sub(ours));
        }
        said.transport_sequence.map_or(Ok(()), |number| self.arrivals.note(now, came, number))
    }

    /// The peer tells what arrived there. `fates` is room for it.
    pub fn take_feedback(
        &mut self,
        stamp: Stamp,
        raw: &[u8],
        fates: &mut Vec<Fate>,
    ) -> Result<(), DropReason> {
        self.sending.handle_feedback(stamp, raw, fates)?;
        self.stats.feedback_received += 1;
        (self.stats.acknowledged, self.stats.fraction_missing) = self.sending.acknowledged();
        Ok(())
    }

    /// What the peer's clock reads when ours reads `ntp`.
    pub fn remote_time(&self, ntp: NtpTime) -> Option<NtpTime> {
        Some(NtpTime::from_bits(ntp.bits().wrapping_sub(self.offset? as u64)))
    }
}

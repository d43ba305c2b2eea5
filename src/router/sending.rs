//! All that leaves to one peer, over all its sinks: its numbers, how much there may be of it, and when it
//! may leave.
//!
//! What has to wait is not copied: it stays in the history of its source, and is found there by its
//! number when its time comes. Its own number, its timestamp and its payload type were settled when it
//! was let through, so that nothing of it depends on when that is.

use super::{
    SinkKey, SourceKey,
    clock::Stamp,
    departures::{Acknowledged, Departures, FeedbackSink},
    sink::Leaving,
    stats::DropReason,
};
use crate::{
    bandwidth::{Bandwidth, Bounds, Class, Estimate, Fate, Limit, Means, Pacer, pacer},
    prefetch,
    rtp::{Bitrate, transport_feedback::TransportFeedback},
};
use std::time::{Duration, Instant};

/// Where nothing limits.
const UNLIMITED: Bitrate = Bitrate::from_bps(10_000_000_000);
/// Whoever is sent so much more than his link carries for that it would take so long to get it, and has
/// suffered from it for a while, gets no pictures for another: they would only keep sound away from him.
const STARVING: Duration = Duration::from_secs(3);
const SUFFERED: Duration = Duration::from_secs(2);
/// The same if that was so not long ago.
const SUFFERED_AGAIN: Duration = Duration::from_millis(700);
const RECOVERED: Duration = Duration::from_secs(10);
/// The first while, and the longest; each is twice the one before if that is not long ago.
const SHORTEST_FAST: Duration = Duration::from_secs(4);
const LONGEST_FAST: Duration = Duration::from_secs(16);
/// Of what a narrow link carries, and so many bytes in any case: a small keyframe.
const AGAIN: (u64, u64) = (1, 3);
const LEAST_AGAIN: u64 = 12 << 10;
/// Packets that wait when no more repetitions may.
const MOST_REPETITIONS: usize = pacer::CAPACITY / 2;

/// A way there and back that takes so long is too long to wait for what is asked for again.
const FAR: Duration = Duration::from_millis(40);

/// What waits for its time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// A packet of `source`, by its number there.
    Packet { sink: SinkKey, source: SourceKey, sequence: u64, leaving: Leaving },
    /// One that is to be sent again, by its index.
    Again { sink: SinkKey, index: u64 },
    /// One that is to be sent twice, in case it is lost.
    Twice { sink: SinkKey, index: u64 },
}

#[derive(Debug)]
pub(super) struct Sending {
    pub departures: Departures,
    pub bandwidth: Bandwidth,
    pacer: Pacer<Held>,
    acknowledged: Acknowledged,
    /// The last REMB named no stream of sound, so it is not about those.
    pub remb_is_of_video: bool,
    /// When the estimate wants to be looked at.
    due: Option<Instant>,
    /// What was shared among the sinks, and when.
    pub shared: Option<(Instant, Estimate)>,
    /// Since when what arrives is far less than what is sent.
    suffers_since: Option<Instant>,
    /// Until when no pictures are sent, and for how long at the time before.
    pub fasts_until: Option<Instant>,
    fasted: Duration,
    /// When the last such time ended.
    fasted_at: Option<Instant>,
    /// Whether the way there and back is long.
    far: bool,
}

impl Sending {
    pub fn new(now: Instant, means: Means) -> Self {
        let bandwidth = Bandwidth::new(now, means, Bounds::default());
        let mut sending = Self {
            departures: Departures::default(),
            pacer: Pacer::new(now, UNLIMITED),
            bandwidth,
            acknowledged: Acknowledged::default(),
            remb_is_of_video: false,
            due: None,
            shared: None,
            suffers_since: None,
            fasts_until: None,
            fasted: Duration::ZERO,
            fasted_at: None,
            far: false,
        };
        sending.set_pace();
        sending
    }

    /// What connectivity checks took there and back.
    pub fn set_round_trip(&mut self, time: Duration) {
        self.far = time >= FAR;
    }

    /// Whether what is lost is missed for long.
    pub fn is_far(&self) -> bool {
        self.far
    }

    /// A sink joined whose receiver tells so much.
    pub fn learn(&mut self, now: Instant, means: Means) {
        if self.bandwidth.means() != means {
            self.bandwidth.set_means(now, means);
            self.set_pace();
        }
    }

    /// Notes a packet that leaves now; the number of its transport, if it is to have one.
    #[inline]
    pub fn depart(&mut self, stamp: Stamp, size: usize, numbered: bool) -> u16 {
        let number = if numbered { self.departures.send(stamp, size) } else { 0 };
        self.bandwidth.sent(stamp.now, number, size as u32);
        number as u16
    }

    /// Packets are next: what each of them needs.
    #[inline]
    pub fn expect(&self) {
        prefetch::value(&self.departures);
        self.pacer.expect();
        self.bandwidth.expect();
    }

    /// Packets that wait for their time.
    pub fn waiting(&self) -> usize {
        self.pacer.len()
    }

    /// Whether a packet may leave now; then it counts as sent.
    #[inline]
    pub fn admit(&mut self, now: Instant, class: Class, size: usize) -> bool {
        self.pacer.admit(now, class, size as u32)
    }

    /// Whether nothing waits and more may leave.
    pub fn is_free(&self, now: Instant) -> bool {
        self.pacer.is_free(now)
    }

    pub fn is_full(&self) -> bool {
        self.pacer.is_full()
    }

    /// Keeps a packet until its time.
    pub fn hold(&mut self, size: usize, held: Held) -> Result<(), DropReason> {
        let class = match held {
            Held::Packet { .. } => Class::Video,
            Held::Again { .. } if self.pacer.len() > MOST_REPETITIONS => {
                return Err(DropReason::PacerFull);
            }
            Held::Again { .. } => Class::Repetition,
            Held::Twice { .. } => Class::Padding,
        };
        self.pacer.push(class, size as u32, held).map_err(|_| DropReason::PacerFull)
    }

    /// What waited and may leave now.
    pub fn release(&mut self, now: Instant) -> Option<Held> {
        self.pacer.poll(now)
    }

    /// What waits, with its size, for a probe to consist of.
    pub fn release_early(&mut self, now: Instant) -> Option<(u32, Held)> {
        self.pacer.poll_early(now)
    }

    /// Bytes that may be sent again in a second, where the link is known to be narrow: what is new needs
    /// its share, and a picture that takes more is better begun anew.
    pub fn bears_again(&self) -> Option<u64> {
        let rate = self.bandwidth.estimate().target.bps();
        self.bandwidth.is_narrow().then(|| (rate / 8 * AGAIN.0 / AGAIN.1).max(LEAST_AGAIN))
    }

    /// A packet left whatever the pace.
    pub fn spend(&mut self, now: Instant, size: usize) {
        self.pacer.spend(now, size as u32);
    }

    /// When the next of what waits may leave.
    pub fn released_at(&self) -> Option<Instant> {
        self.pacer.poll_timeout()
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.due, self.pacer.poll_timeout(), self.fasts_until].into_iter().flatten().min()
    }

    /// Looks whether time alone changed the estimate.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.bandwidth.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The peer tells what of its packets arrived. `fates` is room for them.
    ///
    /// # Errors
    /// When it cannot be true; then nothing has changed.
    pub fn handle_feedback(
        &mut self,
        stamp: Stamp,
        raw: &[u8],
        fates: &mut Vec<Fate>,
    ) -> Result<(), DropReason> {
        let message = TransportFeedback::parse(raw).ok_or(DropReason::MalformedFeedback)?;
        fates.clear();
        let mut told = Told { fates, acknowledged: &mut self.acknowledged };
        self.departures.take(stamp, &message, &mut told)?;
        // The pieces of a message stand in the order of their numbers.
        self.bandwidth.handle_feedback(stamp.now, fates.drain(..));
        self.settle(stamp.now);
        Ok(())
    }

    pub fn handle_remb(&mut self, now: Instant, bitrate: Bitrate) {
        self.bandwidth.handle_remb(now, bitrate);
        self.settle(now);
    }

    /// Of all that was sent this share was lost, in 256ths.
    pub fn handle_report(&mut self, now: Instant, lost: u8, round_trip: Option<Duration>) {
        self.bandwidth.handle_report(now, lost, round_trip);
        self.settle(now);
    }

    pub fn set_bounds(&mut self, now: Instant, bounds: Bounds) {
        self.bandwidth.set_bounds(now, bounds);
        self.settle(now);
    }

    /// What arrives by the peer's feedback, and the share that is missing, in 256ths.
    pub fn acknowledged(&self) -> (Bitrate, u8) {
        (self.acknowledged.bitrate, self.acknowledged.fraction_lost)
    }

    /// The estimate, if there is reason for one.
    pub fn estimate(&self) -> Option<Estimate> {
        let estimate = self.bandwidth.estimate();
        match (estimate.reason, self.bandwidth.means()) {
            (Limit::Nothing, _) | (Limit::Start, Means::Remb | Means::Reports) => None,
            _ => Some(estimate),
        }
    }

    /// Whether pictures are not to be sent for a while, from now on. Reports alone tell too late of what
    /// is over already, so it takes more.
    pub fn begins_to_fast(&mut self, now: Instant) -> bool {
        let patience = if self.fasted.is_zero() { SUFFERED } else { SUFFERED_AGAIN };
        let long = |since| now.saturating_duration_since(since) >= patience;
        let starves = self.fasts_until.is_none()
            && self.bandwidth.means() == Means::TransportWide
            && self.suffers_since.is_some_and(long)
            && self.pacer.overdrawn(now) > STARVING;
        if starves {
            self.fasted = (2 * self.fasted).clamp(SHORTEST_FAST, LONGEST_FAST);
            self.fasts_until = Some(now + self.fasted);
        }
        starves
    }

    /// Whether a while without pictures ends.
    pub fn ends_to_fast(&mut self, now: Instant) -> bool {
        let ends = self.fasts_until.is_some_and(|until| until <= now);
        if ends {
            self.fasts_until = None;
            self.fasted_at = Some(now);
            self.bandwidth.stay_narrow();
        }
        ends
    }

    /// After whatever may have changed the estimate.
    fn settle(&mut self, now: Instant) {
        self.set_pace();
        self.pacer.rest(now);
        let soonest = now + Duration::from_millis(1);
        self.due = self.bandwidth.poll_timeout(now).map(|due| due.max(soonest));
        if self.bandwidth.suffers() {
            self.suffers_since.get_or_insert(now);
        } else {
            self.suffers_since = None;
            let recovered = |at| now.saturating_duration_since(at) >= RECOVERED;
            if self.fasted_at.is_some_and(recovered) && self.fasts_until.is_none() {
                self.fasted = Duration::ZERO;
            }
        }
    }

    fn set_pace(&mut self) {
        self.pacer.set_link(if self.bandwidth.is_narrow() || self.fasts_until.is_some() {
            pacer::Link::Narrow
        } else if self.bandwidth.estimate().reason == Limit::Start {
            pacer::Link::Unknown
        } else {
            pacer::Link::Roomy
        });
        self.pacer.set_estimate(self.estimate().map_or(UNLIMITED, |estimate| estimate.target));
    }
}

/// Takes what a message tells, for statistics and for the estimate.
struct Told<'a> {
    fates: &'a mut Vec<Fate>,
    acknowledged: &'a mut Acknowledged,
}

impl FeedbackSink for Told<'_> {
    fn packet(
        &mut self,
        sequence: u64,
        size: usize,
        sent_at: Instant,
        received_at: Option<Duration>,
    ) {
        self.acknowledged.packet(sequence, size, sent_at, received_at);
        self.fates.push(Fate { seq: sequence, size: size as u32, sent_at, received_at });
    }

    fn end(&mut self, now: Instant) {
        self.acknowledged.end(now);
    }
}

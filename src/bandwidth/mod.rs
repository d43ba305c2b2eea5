//! How much a transport may send: what its receiver reports, turned into one rate and the reason that
//! holds it there.
//!
//! Congestion control on the sending side after draft-ietf-rmcat-gcc-02, with what libwebrtc is known
//! to add: a trendline, probes, and knowing when the application is the limit. Each part has its file:
//!
//! * [`groups`], [`overuse`], [`queue`]: what the delay says; [`aimd`]: the rate it allows.
//! * [`loss`]: the rate that losses allow. [`acknowledged`], [`application`]: what arrives, what is sent.
//! * [`probe`]: asking for more. [`pacer`]: when packets leave. [`estimate`]: the words of all this.
//!
//! The machine neither reads packets nor holds them. The caller tells it what left, what became of it
//! ([`Fate`]), and what reports said; it asks for the [`Estimate`] and for probes. What a receiver
//! claims is never believed beyond the bounds: a lie can move the rate within them and nothing else.
//!
//! Left out: ECN, and sharing one estimate between transports of one host.

mod acknowledged;
mod aimd;
mod application;
mod estimate;
mod groups;
mod loss;
mod overuse;
pub mod pacer;
mod probe;
mod queue;

#[cfg(test)]
mod tests;

pub use estimate::{Bounds, Counts, Estimate, Fate, Limit, Means};
pub use pacer::{Class, Pacer};
pub use probe::ProbeRequest;

use crate::prefetch;
use crate::rtp::Bitrate;
use acknowledged::Acknowledged;
use aimd::{Aimd, Seen};
use application::SendRate;
use groups::{Groups, Step};
use loss::LossControl;
use overuse::{Overuse, Usage};
use probe::{BEYOND, Prober, Situation};
use queue::Queue;
use std::time::{Duration, Instant};

/// Below this there is no call left to save, and nothing to learn from.
const FLOOR: f64 = 30_000.0;
/// Where no maximum is set: more than any one transport carries.
const CEILING: f64 = 10e9;
/// How long a REMB holds.
const REMB_HOLDS: i64 = 10_000_000;
/// Packets that one feedback message can tell of: its count has 16 bits.
const MOST_FATES: usize = 65_535;
/// Without feedback for so long, though packets left, the rate falls, step by step. In µs.
const SILENCE: i64 = 1_500_000;
const SILENCE_STEP: i64 = 500_000;
const SILENCE_FACTOR: f64 = 0.8;
/// A shorter queue than this, in µs, is jitter or a frame; while probes are under way they are the queue,
/// and after a keyframe it is; with a rate to spare one large picture may be.
const TOLERATED: i64 = 20_000;
const TOLERATED_PROBING: i64 = 60_000;
const TOLERATED_AMPLE: i64 = 80_000;
const TOLERATED_BURST: i64 = 120_000;
/// Whoever sends so much less than the target is not likely to fill the link by its mean rate.
const AMPLE: f64 = 1.1;
/// A queue that stands longer than this after a decrease is emptied by sending less than the link carries.
const STANDING: f64 = 50_000.0;
/// It is to be empty within about this time, in µs, and this share is sent at least.
const EMPTIED_IN: f64 = 800_000.0;
const LEAST_SHARE: f64 = 0.4;
/// How long after a decrease, in µs.
const EMPTYING: i64 = 4_000_000;
/// A link that was found narrow is so until the estimate has exceeded what is sent by this much for so
/// long, in µs: then it is no longer the link that limits.
const ROOMY: f64 = 1.35;
const ROOMY_FOR: i64 = 2_000_000;
/// A longer queue, in µs, or a greater share lost means that much more is sent than the link carries.
const SUFFERING: i64 = 300_000;
const SUFFERING_LOSS: f64 = 0.3;

/// The estimate of one transport.
#[derive(Debug)]
pub struct Bandwidth {
    start: Instant,
    means: Means,
    bounds: Bounds,
    wanted: f64,
    sent: SendRate,
    groups: Groups,
    overuse: Overuse,
    queue: Queue,
    acknowledged: Acknowledged,
    aimd: Aimd,
    loss: LossControl,
    prober: Prober,
    remb: Option<(i64, f64)>,
    round_trip: Option<i64>,
    /// The least of feedback, where no report told one.
    answered: Option<i64>,
    /// Transport-wide feedback has come, and when last.
    told: Option<i64>,
    highest: Option<u64>,
    /// Of packets before the next that arrived nothing was told.
    skipped: bool,
    highest_sent: u64,
    /// The first packet that left after the last feedback, and when the rate fell for want of it.
    unanswered: Option<i64>,
    hushed: Option<i64>,
    /// When the last report came, and all bytes sent until then.
    reported: Option<(i64, u64)>,
    probed: Option<i64>,
    /// It was the link that limited, and since when there is room again.
    narrow: bool,
    roomy: Option<i64>,
    estimate: Estimate,
    counts: Counts,
}

impl Bandwidth {
    pub fn new(now: Instant, means: Means, bounds: Bounds) -> Self {
        let mut this = Self {
            start: now,
            means,
            bounds,
            wanted: 0.0,
            sent: SendRate::default(),
            groups: Groups::default(),
            overuse: Overuse::default(),
            queue: Queue::default(),
            acknowledged: Acknowledged::default(),
            aimd: Aimd::new(0.0),
            loss: LossControl::default(),
            prober: Prober::default(),
            remb: None,
            round_trip: None,
            answered: None,
            told: None,
            highest: None,
            skipped: false,
            highest_sent: 0,
            unanswered: None,
            hushed: None,
            reported: None,
            probed: None,
            narrow: false,
            roomy: None,
            estimate: Estimate { target: Bitrate::default(), reason: Limit::Start },
            counts: Counts::default(),
        };
        this.set_bounds(now, bounds);
        this
    }

    /// Takes effect at once. `start` counts as long as nothing was reported.
    pub fn set_bounds(&mut self, now: Instant, bounds: Bounds) {
        const START: f64 = 300_000.0;
        self.bounds = bounds;
        if !self.has_heard() {
            self.aimd.set(bounds.start.map_or(START, |start| start.bps() as f64));
        }
        self.settle(self.at(now));
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The receiver turns out to tell more than was known.
    pub fn set_means(&mut self, now: Instant, means: Means) {
        self.means = means;
        self.settle(self.at(now));
    }

    pub fn means(&self) -> Means {
        self.means
    }

    /// What the streams behind the transport could use all together; without it nothing is probed.
    pub fn set_wanted(&mut self, wanted: Bitrate) {
        self.wanted = (wanted.bps() as f64).min(CEILING);
    }

    /// Packets are next.
    #[inline]
    pub fn expect(&self) {
        prefetch::value(&self.start);
        prefetch::value(&self.sent);
        prefetch::value(&self.highest_sent);
        prefetch::value(&self.unanswered);
        self.prober.expect();
    }

    /// A packet left. `seq` is its number of the transport, unwrapped; 0 throughout where there is none.
    #[inline]
    pub fn sent(&mut self, now: Instant, seq: u64, size: u32) {
        let now = self.at(now);
        self.sent.add(now, size);
        self.highest_sent = self.highest_sent.max(seq);
        if self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        if self.prober.is_under_way() {
            self.prober.sent(now, seq, size);
        }
    }

    /// One message of transport-wide feedback, in the order of its numbers. Of more fates than a message
    /// can tell, the rest is not looked at.
    pub fn handle_feedback(&mut self, now: Instant, fates: impl IntoIterator<Item = Fate>) {
        let at = self.at(now);
        let mut newest: Option<i64> = None;
        let mut believed = false;
        for fate in fates.into_iter().take(MOST_FATES) {
            if fate.sent_at > now || fate.seq > self.highest_sent {
                self.counts.refused += 1;
                continue;
            }
            believed = true;
            let sent = self.at(fate.sent_at);
            if self.take(at, sent, fate) {
                newest = newest.max(Some(sent));
            }
        }
        if !believed {
            return;
        }
        if self.told.is_none() {
            // From here on the machine moves by itself, from where the bounds let it start.
            self.aimd.set(self.clamp(self.aimd.target()).0);
        }
        self.told = Some(at);
        self.unanswered = None;
        self.hushed = None;
        if let Some(sent) = newest {
            let answer = at.saturating_sub(sent).clamp(1_000, 10_000_000);
            let least = self.answered.map_or(answer, |before| before.min(answer));
            // It forgets slowly: a route may have become longer.
            self.answered = Some(least + (answer - least) / 64);
        }
        self.queue.settle(at);
        self.update(at);
        self.settle(at);
    }

    /// The receiver's estimate. A rate of 0 or beyond all bounds counts as the bound.
    pub fn handle_remb(&mut self, now: Instant, bitrate: Bitrate) {
        let at = self.at(now);
        self.remb = Some((at, (bitrate.bps() as f64).min(CEILING)));
        self.settle(at);
    }

    /// A receiver report: the share lost since the one before, of 256, and the round trip if it told one.
    /// Of several streams the caller tells the share of all together.
    pub fn handle_report(&mut self, now: Instant, fraction_lost: u8, round_trip: Option<Duration>) {
        let at = self.at(now);
        if let Some(time) = round_trip {
            let time = micros(time).clamp(1_000, 10_000_000);
            self.round_trip = Some(self.round_trip.map_or(time, |before| (7 * before + time) / 8));
        }
        let total = self.sent.total();
        let (since, before) = *self.reported.get_or_insert((at, total));
        if self.told.is_none() && at > since {
            let share = f64::from(fraction_lost) / 256.0;
            self.loss.report(at, total.wrapping_sub(before), at - since, share);
            self.reported = Some((at, total));
            // Nothing proves such a limit too low but passing; far above what is sent it says nothing.
            let sent = self.sent.rate(at).unwrap_or(0.0);
            self.loss.forget_above((3.0 * sent).max(1e6));
        }
        self.settle(at);
    }

    /// To be called at [`Bandwidth::poll_timeout`]; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.at(now);
        if let Some(since) = self.silent_since()
            && at >= self.silence_due(since)
        {
            self.hushed = Some(at);
            self.aimd.set((self.aimd.target() * SILENCE_FACTOR).max(FLOOR));
        }
        self.settle(at);
    }

    /// Packets to send now, so that a probe has its rate. To be asked whenever media was sent and at
    /// [`Bandwidth::poll_timeout`]; what is sent goes through [`Bandwidth::sent`] like all else.
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeRequest> {
        if self.means != Means::TransportWide {
            return None;
        }
        let at = self.at(now);
        let situation = self.situation();
        let request = self.prober.poll(at, situation)?;
        self.probed = Some(at);
        Some(request)
    }

    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let at = self.at(now);
        let probe = match self.means {
            Means::TransportWide => self.prober.timeout(at, self.situation()),
            Means::Remb | Means::Reports => None,
        };
        let silence = self.silent_since().map(|since| self.silence_due(since));
        let remb = self.remb.map(|(since, _)| since + REMB_HOLDS).filter(|due| *due > at);
        let start = self.start_ends().filter(|due| self.told.is_none() && *due > at);
        let due = [probe, silence, remb, start].into_iter().flatten().min()?;
        Some(self.start + Duration::from_micros(u64::try_from(due).unwrap_or(0)))
    }

    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// The rate that what is sent has to keep below, as far as there is reason to believe that the link
    /// or its receiver is the limit. An estimate is often low only because nobody used more: that is
    /// none. Neither is the rate of one whose feedback has ceased, for nothing arrives there at all.
    pub fn narrowest(&self, now: Instant) -> Option<Bitrate> {
        let Estimate { target, reason } = self.estimate;
        let known = match reason {
            Limit::Start | Limit::Silence | Limit::Nothing => false,
            Limit::Remb | Limit::Loss | Limit::Maximum => true,
            Limit::Delay | Limit::Application | Limit::Probing | Limit::Minimum => {
                self.narrow || self.remb(self.at(now)).is_some()
            }
        };
        known.then_some(target)
    }

    /// What was sent of late says nothing of the link, which was the limit before.
    pub fn stay_narrow(&mut self) {
        self.narrow = true;
        self.roomy = None;
    }

    /// Whether the link turned out to be the limit.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Whether much more is sent than the link carries.
    pub fn suffers(&self) -> bool {
        self.queue.waits() > SUFFERING || self.loss.lately() > SUFFERING_LOSS
    }

    /// What the receiver says arrives; `None` without transport-wide feedback.
    pub fn acknowledged(&self) -> Option<Bitrate> {
        self.acknowledged.rate().map(|rate| Bitrate::from_bps(rate as u64))
    }

    /// How long packets wait at the bottleneck.
    pub fn queueing_delay(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.queue.waits()).unwrap_or(0))
    }

    pub fn round_trip(&self) -> Option<Duration> {
        let time = self.round_trip.or(self.answered)?;
        Some(Duration::from_micros(u64::try_from(time).unwrap_or(0)))
    }

    pub fn counts(&self) -> Counts {
        Counts {
            probes_unfilled: self.prober.unfilled,
            probes_unclear: self.prober.unclear,
            ..self.counts
        }
    }

    /// One packet of a feedback message; whether it arrived.
    fn take(&mut self, now: i64, sent: i64, fate: Fate) -> bool {
        let arrived = fate.received_at.map(micros);
        self.skipped |= self.highest.is_some_and(|highest| fate.seq > highest + 1);
        self.highest = self.highest.max(Some(fate.seq));
        self.loss.add(fate.seq, fate.size, sent, arrived.is_some());
        if self.prober.is_under_way() {
            self.prober.told(fate.seq, fate.size, sent, arrived);
        }
        let Some(arrived) = arrived else { return false };
        if std::mem::take(&mut self.skipped) {
            self.acknowledged.skip_to(fate.seq, arrived);
        } else {
            self.acknowledged.add(fate.seq, fate.size, arrived);
        }
        self.queue.add(sent, arrived);
        match self.groups.add(sent, arrived, now) {
            Step::Nothing => {}
            Step::Deltas(deltas) => self.overuse.add(deltas, arrived, now),
            Step::Reset => {
                self.counts.clock_jumps += 1;
                self.overuse = Overuse::default();
                self.queue.reset();
            }
        }
        true
    }

    /// What the message has shown, turned into a rate.
    fn update(&mut self, now: i64) {
        let round_trip = self.round_trip.or(self.answered).unwrap_or(100_000);
        let probing = self.prober.is_under_way()
            || self.probed.is_some_and(|at| now.saturating_sub(at) < round_trip + 500_000);
        let application_limited = self.sent.is_limited(now, self.aimd.target());
        let rate = self.acknowledged.rate().unwrap_or(0.0);
        let burst = self.sent.has_burst(now);
        let before = self.aimd.decreased();
        self.aimd.update(
            now,
            Seen {
                usage: self.overuse.usage(),
                rate: self.acknowledged.rate(),
                lately: self.acknowledged.lately(),
                round_trip,
                queue: self.queue.waits(),
                tolerated: match (burst, probing) {
                    (true, _) => TOLERATED_BURST,
                    _ if self.aimd.target() > AMPLE * rate => TOLERATED_AMPLE,
                    (_, true) => TOLERATED_PROBING,
                    _ => TOLERATED,
                },
                application_limited,
                enough: if self.wanted > 0.0 { BEYOND * self.wanted } else { CEILING },
            },
        );
        let decreased = self.aimd.decreased() != before;
        if decreased {
            self.prober.put_off(now);
        }
        self.watch_room(now, decreased);
        let highest = self.highest.unwrap_or(0);
        if let Some(rate) = self.prober.settle(now, highest, self.aimd.target(), round_trip)
            && self.overuse.usage() != Usage::Over
        {
            let rate = rate.min(CEILING);
            self.aimd.raise(rate);
            self.loss.raise(rate);
        }
        self.loss.forget_above(2.0 * self.aimd.target());
        self.aimd.set(self.aimd.target().clamp(FLOOR, CEILING));
    }

    /// Whether the link is what limits: it is from a decrease on, until there is room for a while.
    fn watch_room(&mut self, now: i64, decreased: bool) {
        if decreased || self.loss.limit().is_some() {
            self.narrow = true;
            self.roomy = None;
        } else if self.narrow {
            let sent = self.sent.rate(now).unwrap_or(0.0);
            if self.aimd.target() < ROOMY * sent {
                self.roomy = None;
            } else if now - *self.roomy.get_or_insert(now) > ROOMY_FOR {
                self.narrow = false;
            }
        }
    }

    fn situation(&self) -> Situation {
        Situation {
            target: self.estimate.target.bps() as f64,
            wanted: self.wanted.min(self.bounds.max.map_or(CEILING, |max| max.bps() as f64)),
            calm: self.overuse.usage() == Usage::Normal
                && self.queue.waits() < STANDING as i64
                && self.hushed.is_none()
                && self.may_be_more(),
            round_trip: self.round_trip.or(self.answered).unwrap_or(100_000),
        }
    }

    /// Whoever fills a link is not to probe it all the time at the cost of those who share it: only
    /// when it is back at the last limit, and there is no queue this time.
    fn may_be_more(&self) -> bool {
        self.aimd.held_by_application() || self.aimd.is_at_limit() && self.queue.waits() < TOLERATED
    }

    /// The least of what the parts allow, and which of them it is.
    fn settle(&mut self, now: i64) {
        let (mut rate, mut reason) = self.by_delay(now);
        let mut least = |other: Option<f64>, why: Limit| {
            if let Some(other) = other.filter(|other| *other < rate) {
                (rate, reason) = (other, why);
            }
        };
        least(self.loss.limit(), Limit::Loss);
        least(self.remb(now), Limit::Remb);
        let (bounded, bound) = self.clamp(rate);
        self.estimate =
            Estimate { target: Bitrate::from_bps(bounded as u64), reason: bound.unwrap_or(reason) };
    }

    fn by_delay(&self, now: i64) -> (f64, Limit) {
        let target = self.aimd.target();
        if self.told.is_none() {
            let heard = match self.means {
                Means::TransportWide | Means::Remb => self.remb.is_some(),
                Means::Reports => self.reported.is_some(),
            };
            // One that agreed to report and does not, for so long, has nothing to say.
            return if heard || self.start_ends().is_some_and(|end| now >= end) {
                (CEILING, Limit::Nothing)
            } else {
                (target, Limit::Start)
            };
        }
        if self.hushed.is_some() {
            return (target, Limit::Silence);
        }
        let emptying = self.aimd.decreased().is_some_and(|at| now.saturating_sub(at) < EMPTYING);
        let waits = self.queue.waits() as f64;
        if emptying && waits > STANDING {
            let share = (1.0 - (waits - STANDING) / EMPTIED_IN).clamp(LEAST_SHARE, 1.0);
            return (target * share, Limit::Delay);
        }
        let reason = if self.prober.is_under_way() {
            Limit::Probing
        } else if self.aimd.held_by_application() {
            Limit::Application
        } else {
            Limit::Delay
        };
        (target, reason)
    }

    fn remb(&self, now: i64) -> Option<f64> {
        let (at, rate) = self.remb?;
        (now.saturating_sub(at) < REMB_HOLDS).then_some(rate)
    }

    /// Within the bounds, and the bound that it met.
    fn clamp(&self, rate: f64) -> (f64, Option<Limit>) {
        let max = self.bounds.max.map_or(CEILING, |max| (max.bps() as f64).min(CEILING));
        let min = self.bounds.min.map_or(FLOOR, |min| min.bps() as f64).max(FLOOR).min(max);
        if rate > max {
            (max, self.bounds.max.is_some().then_some(Limit::Maximum))
        } else if rate < min {
            (min, Some(Limit::Minimum))
        } else {
            (rate, None)
        }
    }

    fn has_heard(&self) -> bool {
        self.told.is_some() || self.remb.is_some() || self.reported.is_some()
    }

    /// Until when a first report is waited for.
    fn start_ends(&self) -> Option<i64> {
        self.sent.began().map(|began| began + REMB_HOLDS)
    }

    /// Since when packets leave without an answer, of a peer that used to answer.
    fn silent_since(&self) -> Option<i64> {
        self.told.and(self.unanswered)
    }

    fn silence_due(&self, since: i64) -> i64 {
        let round_trip = self.round_trip.or(self.answered).unwrap_or(0);
        let first = since + SILENCE.max(3 * round_trip);
        self.hushed.map_or(first, |at| first.max(at + SILENCE_STEP))
    }

    fn at(&self, now: Instant) -> i64 {
        micros(now.saturating_duration_since(self.start))
    }
}

/// A span or a foreign time; what no clock shows is cut to what can be subtracted.
fn micros(time: Duration) -> i64 {
    const LONGEST: u64 = 1 << 40;
    time.as_secs().min(LONGEST) as i64 * 1_000_000 + i64::from(time.subsec_micros())
}

//! When packets may leave, so that a large picture does not fill the queue of a narrow link at once.
//!
//! A packet may leave as long as what left before it has been paid for by time, at the pacing rate,
//! up to one tick ahead, or more where the link is known to bear it. What must wait is called up when
//! that is paid for, a tick's worth at a time, so that runs for segmentation offload form. While the estimate is far above what is sent, nothing
//! waits, and all there is to do is one comparison and two additions.
//!
//! Numbers that must follow the order of departure (transport-wide sequence numbers) are to be given
//! out when a packet leaves: audio overtakes what waits.

use crate::prefetch;
use crate::rtp::Bitrate;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So much may leave ahead of its time, and so much of what waits leaves at once.
pub const TICK: Duration = Duration::from_millis(5);
/// The same for links with room, if nothing waits: a common picture, so that it need not be called up in
/// pieces.
const BURST: Duration = Duration::from_millis(20);
/// Faster than the estimate, for pictures differ in size and the estimate is an average.
const FACTOR: f64 = 2.5;
/// What waits is sent faster rather than waiting longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The same as long as nothing is known of the link: what is waited for then is the first picture.
const FIRST_WAIT: Duration = Duration::from_millis(80);
/// The same for links that are known to be narrow. What leaves faster than they carry it is lost in their
/// queue, and a keyframe of which a part is lost is worth less than one that comes late.
const NARROW_FACTOR: f64 = 1.25;
const NARROW_WAIT: Duration = Duration::from_millis(1_500);
/// No more is remembered of what left ahead of its time, in ns.
const MOST_OWED: i64 = 10_000_000_000;
/// For so long room is kept for packets that wait, in ns.
const FORGOTTEN: i64 = 3_000_000_000;
/// Packets that may wait: two of the largest pictures that cameras make.
pub const CAPACITY: usize = 1_024;

/// What goes first when not everything can.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// It never waits; what it takes is taken from the others.
    Audio,
    Repetition,
    Video,
    /// What only probes.
    Padding,
}

/// What is known of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    Unknown,
    Roomy,
    Narrow,
}

/// `P` is whatever finds the packet again.
#[derive(Debug)]
pub struct Pacer<P> {
    start: Instant,
    /// Until when, in ns since `start`, all that has left is paid for.
    paid: i64,
    /// How far ahead of that more may leave.
    ahead: i64,
    factor: f64,
    longest_wait: Duration,
    cost: f64,
    rate_cost: f64,
    /// The same at the rate of the estimate itself, and with nothing sent faster.
    owed: i64,
    owed_cost: f64,
    waiting: [VecDeque<(u32, P)>; 3],
    /// When something waited the last time, in ns since `start`.
    waited: i64,
    packets: usize,
    /// Of those, without what only probes.
    bytes: u64,
}

impl<P> Pacer<P> {
    pub fn new(now: Instant, estimate: Bitrate) -> Self {
        let mut pacer = Self {
            start: now,
            paid: 0,
            ahead: TICK.as_nanos() as i64,
            factor: FACTOR,
            longest_wait: LONGEST_WAIT,
            cost: f64::MAX,
            rate_cost: 0.0,
            owed: 0,
            owed_cost: 0.0,
            waiting: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            waited: 0,
            packets: 0,
            bytes: 0,
        };
        pacer.set_estimate(estimate);
        pacer
    }

    /// Takes effect at once, for what waits as well.
    pub fn set_estimate(&mut self, estimate: Bitrate) {
        self.owed_cost = 8e9 / estimate.bps().max(10_000) as f64;
        self.rate_cost = self.owed_cost / self.factor;
        self.hurry();
    }

    /// What the link is like. Takes effect with the next estimate.
    pub fn set_link(&mut self, link: Link) {
        (self.ahead, self.factor, self.longest_wait) = match link {
            Link::Unknown => (BURST.as_nanos() as i64, FACTOR, FIRST_WAIT),
            Link::Roomy => (BURST.as_nanos() as i64, FACTOR, LONGEST_WAIT),
            Link::Narrow => (TICK.as_nanos() as i64, NARROW_FACTOR, NARROW_WAIT),
        };
    }

    /// Packets are next.
    #[inline]
    pub fn expect(&self) {
        prefetch::value(&self.start);
        prefetch::value(&self.paid);
        prefetch::value(&self.owed_cost);
        prefetch::value(&self.packets);
    }

    /// Whether a packet of `size` bytes may leave now. If so it counts as sent; if not, it is for
    /// [`Pacer::push`].
    #[inline]
    pub fn admit(&mut self, now: Instant, class: Class, size: u32) -> bool {
        let now = self.at(now);
        let free = class == Class::Audio || self.is_free_at(now);
        if free {
            self.pay(now, size);
        }
        free
    }

    /// Whether nothing waits and more may leave.
    #[inline]
    pub fn is_free(&self, now: Instant) -> bool {
        self.is_free_at(self.at(now))
    }

    fn is_free_at(&self, now: i64) -> bool {
        self.packets == 0 && self.paid <= now + self.ahead
    }

    /// Keeps a packet until its time.
    ///
    /// # Errors
    /// The packet itself when [`CAPACITY`] are waiting: it is to be dropped and counted.
    pub fn push(&mut self, class: Class, size: u32, packet: P) -> Result<(), P> {
        if self.packets >= CAPACITY {
            return Err(packet);
        }
        let queue = match class {
            Class::Audio | Class::Repetition => 0,
            Class::Video => 1,
            Class::Padding => 2,
        };
        self.waiting[queue].push_back((size, packet));
        self.packets += 1;
        if class != Class::Padding {
            self.bytes += u64::from(size);
            self.hurry();
        }
        Ok(())
    }

    /// The next packet whose time has come; it counts as sent.
    pub fn poll(&mut self, now: Instant) -> Option<P> {
        if self.packets == 0 || self.paid > self.at(now) + TICK.as_nanos() as i64 {
            return None;
        }
        self.poll_early(now).map(|(_, packet)| packet)
    }

    /// The next packet that waits, whether or not its time has come, and its size; it counts as sent.
    pub fn poll_early(&mut self, now: Instant) -> Option<(u32, P)> {
        let now = self.at(now);
        let [again, pictures, padding] = &mut self.waiting;
        let counted = again.pop_front().or_else(|| pictures.pop_front());
        self.bytes = self.bytes.saturating_sub(counted.as_ref().map_or(0, |one| u64::from(one.0)));
        let (size, packet) = counted.or_else(|| padding.pop_front())?;
        self.packets -= 1;
        self.waited = now;
        self.pay(now, size);
        if self.packets == 0 {
            self.hurry();
        }
        Some((size, packet))
    }

    /// A packet leaves whatever the time, as those of probes do.
    pub fn spend(&mut self, now: Instant, size: u32) {
        self.pay(self.at(now), size);
    }

    /// Gives back the room for what waits when nothing has for a while: mostly it is the first keyframe
    /// only.
    pub fn rest(&mut self, now: Instant) {
        if self.packets == 0 && self.at(now) - self.waited > FORGOTTEN {
            self.waiting = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
        }
    }

    /// Packets there is room for.
    #[cfg(test)]
    fn room(&self) -> usize {
        self.waiting.iter().map(VecDeque::capacity).sum()
    }

    /// How long it would take to send at the estimated rate what has left ahead of its time.
    pub fn overdrawn(&self, now: Instant) -> Duration {
        Duration::from_nanos(u64::try_from(self.owed - self.at(now)).unwrap_or(0))
    }

    /// Whether no more can wait.
    pub fn is_full(&self) -> bool {
        self.packets >= CAPACITY
    }

    /// When the next tick's worth may leave.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let paid = Duration::from_nanos(u64::try_from(self.paid).unwrap_or(0));
        (self.packets > 0).then(|| self.start + paid)
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.packets
    }

    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// All that waits, in the order it would leave, and without the time.
    pub fn drain(&mut self) -> impl Iterator<Item = P> + '_ {
        self.packets = 0;
        self.bytes = 0;
        self.cost = self.rate_cost;
        self.waiting.iter_mut().flat_map(|queue| queue.drain(..)).map(|(_, packet)| packet)
    }

    fn pay(&mut self, now: i64, size: u32) {
        self.paid = self.paid.max(now).saturating_add((f64::from(size) * self.cost) as i64);
        let owed = self.owed.max(now).saturating_add((f64::from(size) * self.owed_cost) as i64);
        self.owed = owed.min(now.saturating_add(MOST_OWED));
    }

    /// What waits must be gone in time, whatever the rate, unless it only probes; once faster, it stays so
    /// until nothing waits.
    fn hurry(&mut self) {
        self.cost = if self.packets == 0 {
            self.rate_cost
        } else if self.bytes == 0 {
            self.cost.min(self.rate_cost)
        } else {
            let most = self.longest_wait.as_nanos() as f64 / self.bytes as f64;
            self.cost.min(self.rate_cost).min(most)
        };
    }

    fn at(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.start);
        (since.as_secs() as i64).saturating_mul(1_000_000_000) + i64::from(since.subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
        Instant::now()
    }

    /// (ms, packet) as they leave, asked for at the pacer's own times.
    fn departures(pacer: &mut Pacer<u32>, from: Instant) -> Vec<(u128, u32)> {
        let mut left = Vec::new();
        while let Some(at) = pacer.poll_timeout() {
            let now = at.max(from);
            while let Some(packet) = pacer.poll(now) {
                left.push(((now - from).as_millis(), packet));
            }
        }
        left
    }

    #[test]
    fn a_picture_leaves_over_time_and_in_runs() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(1_000));
        for packet in 0..20 {
            if !pacer.admit(now, Class::Video, 1_200) {
                pacer.push(Class::Video, 1_200, packet).expect("room");
            }
        }
        let left = departures(&mut pacer, now);
        // 24 000 bytes at 2.5 Mbit/s are 77 ms.
        let last = left.last().expect("a departure").0;
        assert!((60..=80).contains(&last), "{left:?}");
        let ticks: std::collections::BTreeSet<_> =
            left.iter().map(|departure| departure.0).collect();
        assert!(ticks.len() <= left.len() / 2 + 1, "{left:?}");
        assert!(left.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn a_keyframe_for_a_narrow_link_takes_its_time() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(250));
        pacer.set_link(Link::Narrow);
        pacer.set_estimate(Bitrate::from_kbps(250));
        for packet in 0..30 {
            pacer.push(Class::Video, 1_200, packet).expect("room");
        }
        // 36 000 bytes at 312 kbit/s.
        let left = departures(&mut pacer, now);
        let last = left.last().expect("a departure").0;
        assert!((880..=930).contains(&last), "{last}");
        for packet in 0..90 {
            pacer.push(Class::Video, 1_200, packet).expect("room");
        }
        let last = departures(&mut pacer, now).last().expect("a departure").0;
        assert!((2_300..=2_450).contains(&last), "{last}: in a second and a half");
    }

    #[test]
    fn audio_passes_and_repetitions_go_before_video() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(100));
        while pacer.admit(now, Class::Video, 1_200) {}
        assert!(pacer.admit(now, Class::Audio, 100));
        pacer.push(Class::Padding, 1_200, 4).expect("room");
        pacer.push(Class::Video, 1_200, 2).expect("room");
        pacer.push(Class::Repetition, 1_200, 1).expect("room");
        pacer.push(Class::Video, 1_200, 3).expect("room");
        assert!(!pacer.admit(now, Class::Video, 10), "it would overtake");
        let order: Vec<_> =
            departures(&mut pacer, now).iter().map(|departure| departure.1).collect();
        assert_eq!(order, [1, 2, 3, 4]);
    }

    #[test]
    fn what_only_probes_leaves_last_and_hurries_nothing() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(300));
        pacer.set_link(Link::Unknown);
        pacer.set_estimate(Bitrate::from_kbps(300));
        for packet in 0..20 {
            pacer.push(Class::Video, 1_200, packet).expect("room");
            pacer.push(Class::Padding, 1_200, 100 + packet).expect("room");
        }
        let left = departures(&mut pacer, now);
        let order: Vec<_> = left.iter().map(|departure| departure.1).collect();
        assert_eq!(order, (0..20).chain(100..120).collect::<Vec<_>>());
        // 24 000 bytes in 80 ms, and the same again as fast.
        assert!((70..=80).contains(&left[19].0), "{left:?}");
        assert!((150..=160).contains(&left[39].0), "{left:?}");
    }

    #[test]
    fn the_room_of_a_burst_is_given_back_when_nothing_waits_for_a_while() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(1_000));
        for packet in 0..40 {
            pacer.push(Class::Video, 1_200, packet).expect("room");
        }
        let later = now + Duration::from_secs(60);
        pacer.rest(later);
        assert_eq!(departures(&mut pacer, later).len(), 40, "what waits is not lost");
        pacer.rest(later + Duration::from_secs(1));
        assert!(pacer.room() >= 40, "another burst may come soon");
        pacer.rest(later + Duration::from_secs(5));
        assert_eq!(pacer.room(), 0);
    }

    #[test]
    fn nothing_waits_much_longer_than_a_quarter_of_a_second() {
        let now = start();
        let mut pacer = Pacer::new(now, Bitrate::from_kbps(30));
        let mut refused = 0;
        for packet in 0..2_000 {
            refused += u32::from(pacer.push(Class::Video, 1_200, packet).is_err());
        }
        assert_eq!(refused, 2_000 - CAPACITY as u32);
        let last = departures(&mut pacer, now).last().expect("a departure").0;
        assert!(last <= 260, "{last}");
        assert!(pacer.is_empty());
    }
}

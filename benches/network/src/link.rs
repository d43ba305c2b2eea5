//! One direction of a network path: a bottleneck of some rate with a queue that ends, then delay,
//! jitter, loss at random and in bursts (Gilbert and Elliott's two states), packets that overtake, and
//! packets that come twice. It is the same on every run with the same seed.
//!
//! Loss strikes before the queue, as it does on a wireless hop in front of a router: what is lost takes
//! no room. A queue that is full drops what comes last.

use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// However patient a queue is: it never holds more than this.
const QUEUE_BYTES: u64 = 8 << 20;
/// Nor are more packets under way behind it.
const UNDER_WAY: usize = 65_536;

/// How much waits at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Queue {
    /// What would wait for longer than this, at the rate of the moment, is dropped.
    Time(Duration),
    Bytes(u64),
}

/// Losses in a row. While the link is bad, packets are lost with the share `lost`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// The chance before each packet that the link turns bad, from 0 to 1.
    pub begins: f64,
    /// And that it turns good again.
    pub ends: f64,
    pub lost: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Bits per second; without it, packets do not wait for each other.
    pub rate: Option<f64>,
    pub queue: Queue,
    pub delay: Duration,
    /// Up to this much more, each value as likely as another.
    pub jitter: Duration,
    /// Whether jitter lets packets overtake each other.
    pub overtaking: bool,
    /// From 0 to 1, as all chances here.
    pub loss: f64,
    pub burst: Option<Burst>,
    /// Of the packets, these wait for up to `reorder_by` more, and others overtake them.
    pub reorder: f64,
    pub reorder_by: Duration,
    pub duplicate: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            rate: None,
            queue: Queue::Time(Duration::from_millis(300)),
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            overtaking: false,
            loss: 0.0,
            burst: None,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            duplicate: 0.0,
        }
    }
}

/// Packets that did not arrive, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    pub random: u64,
    pub burst: u64,
    /// The queue was full.
    pub queue: u64,
    /// There was no more room for packets under way.
    pub crowded: u64,
}

/// What went over a link since it was last asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    pub offered_packets: u64,
    pub offered_bytes: u64,
    pub delivered_packets: u64,
    pub delivered_bytes: u64,
    /// The longest that a packet waited before it left the bottleneck.
    pub longest_wait: Duration,
    pub dropped: Dropped,
}

#[derive(Debug)]
struct Waiting<T> {
    since: Instant,
    size: u32,
    /// Bits that have not left yet.
    left: f64,
    packet: T,
}

#[derive(Debug)]
pub struct Link<T> {
    conditions: Conditions,
    random: Random,
    bad: bool,
    queue: VecDeque<Waiting<T>>,
    queued_bytes: u64,
    /// Up to here it is known what the bottleneck did.
    done: Option<Instant>,
    /// No packet that keeps its order arrives before this.
    in_order: Option<Instant>,
    under_way: BTreeMap<(Instant, u64), (u32, T)>,
    /// Orders what arrives at one moment.
    inserted: u64,
    seen: Seen,
}

impl<T: Clone> Link<T> {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            conditions,
            random: Random::seeded(seed),
            bad: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            done: None,
            in_order: None,
            under_way: BTreeMap::new(),
            inserted: 0,
            seen: Seen::default(),
        }
    }

    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// From now on; what waits goes on at the new rate.
    pub fn set(&mut self, now: Instant, conditions: Conditions) {
        self.run(now);
        self.conditions = conditions;
    }

    /// How long a packet that is sent now waits before it begins to leave.
    pub fn waits(&self, now: Instant) -> Duration {
        let Some(rate) = self.conditions.rate else { return Duration::ZERO };
        let Some(first) = self.queue.front() else { return Duration::ZERO };
        let others = (self.queued_bytes - u64::from(first.size)) as f64 * 8.0;
        let begun = self.done.map_or(now, |done| done.max(first.since));
        let passed = now.saturating_duration_since(begun).as_secs_f64();
        let seconds = (first.left + others) / rate.max(1.0) - passed;
        Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
    }

    pub fn send(&mut self, now: Instant, size: u32, packet: T) {
        self.run(now);
        self.seen.offered_packets += 1;
        self.seen.offered_bytes += u64::from(size);
        if self.random.happens(self.conditions.loss) {
            self.seen.dropped.random += 1;
            return;
        }
        if self.in_burst() {
            self.seen.dropped.burst += 1;
            return;
        }
        if self.random.happens(self.conditions.duplicate) {
            self.queue_up(now, size, packet.clone());
        }
        self.queue_up(now, size, packet);
        self.run(now);
    }

    fn in_burst(&mut self) -> bool {
        let Some(Burst { begins, ends, lost }) = self.conditions.burst else { return false };
        self.bad = if self.bad { !self.random.happens(ends) } else { self.random.happens(begins) };
        self.bad && self.random.happens(lost)
    }

    fn queue_up(&mut self, now: Instant, size: u32, packet: T) {
        let full = match self.conditions.queue {
            Queue::Time(longest) => self.waits(now) > longest,
            Queue::Bytes(most) => self.queued_bytes + u64::from(size) > most,
        };
        let limited = self.conditions.rate.is_some();
        if limited && full || self.queued_bytes + u64::from(size) > QUEUE_BYTES {
            self.seen.dropped.queue += 1;
            return;
        }
        self.queued_bytes += u64::from(size);
        self.queue.push_back(Waiting { since: now, size, left: f64::from(size) * 8.0, packet });
    }

    /// Lets leave what has left by `now`, at the rate of the moment.
    pub fn run(&mut self, now: Instant) {
        while let Some(first) = self.queue.front_mut() {
            let begins = self.done.map_or(first.since, |done| done.max(first.since));
            let ends = match self.conditions.rate {
                None => begins,
                Some(rate) => match Duration::try_from_secs_f64(first.left / rate) {
                    Ok(takes) if begins + takes <= now => begins + takes,
                    _ => {
                        let passed = now.saturating_duration_since(begins).as_secs_f64();
                        first.left = (first.left - passed * rate).max(0.0);
                        self.done = Some(begins.max(now));
                        break;
                    }
                },
            };
            self.done = Some(ends);
            let Some(Waiting { since, size, packet, .. }) = self.queue.pop_front() else { break };
            self.queued_bytes -= u64::from(size);
            self.seen.longest_wait = self.seen.longest_wait.max(ends.duration_since(since));
            self.fly(ends, size, packet);
        }
    }

    fn fly(&mut self, at: Instant, size: u32, packet: T) {
        if self.under_way.len() >= UNDER_WAY {
            self.seen.dropped.crowded += 1;
            return;
        }
        let Conditions { delay, jitter, overtaking, reorder, reorder_by, .. } = self.conditions;
        let mut arrives = at + delay + self.up_to(jitter);
        if self.random.happens(reorder) {
            arrives += self.up_to(reorder_by);
        } else if !overtaking {
            arrives = self.in_order.map_or(arrives, |before| before.max(arrives));
            self.in_order = Some(arrives);
        }
        self.inserted += 1;
        self.under_way.insert((arrives, self.inserted), (size, packet));
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.random.below(limit.as_micros() as u64 + 1))
    }

    /// The next packet that has arrived by `now`, and when.
    pub fn receive(&mut self, now: Instant) -> Option<(Instant, T)> {
        self.run(now);
        let first = self.under_way.first_entry()?;
        let at = first.key().0;
        if at > now {
            return None;
        }
        let (size, packet) = first.remove();
        self.seen.delivered_packets += 1;
        self.seen.delivered_bytes += u64::from(size);
        Some((at, packet))
    }

    /// When the next packet arrives, or leaves the bottleneck.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let leaves = self.queue.front().and_then(|first| {
            let takes = Duration::try_from_secs_f64(first.left / self.conditions.rate?).ok()?;
            self.done.map_or(first.since, |done| done.max(first.since)).checked_add(takes)
        });
        let arrives = self.under_way.first_key_value().map(|((at, _), _)| *at);
        leaves.into_iter().chain(arrives).min()
    }

    /// What was seen since the last call; what waits now counts as waiting.
    pub fn take_seen(&mut self, now: Instant) -> Seen {
        self.run(now);
        let mut seen = std::mem::take(&mut self.seen);
        let oldest = self.queue.front().map(|first| now.saturating_duration_since(first.since));
        seen.longest_wait = seen.longest_wait.max(oldest.unwrap_or_default());
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SIZE: u32 = 1_250;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
        Instant::now()
    }

    /// Sends a packet of 10 000 bits each so many microseconds, and returns what arrived, in ms.
    fn run(link: &mut Link<u32>, from: Instant, packets: u32, every: u64) -> Vec<(u32, f64)> {
        let mut arrived = Vec::new();
        let mut now = from;
        for packet in 0..packets {
            now = from + Duration::from_micros(u64::from(packet) * every);
            link.send(now, SIZE, packet);
        }
        while let Some(at) = link.poll_timeout() {
            now = now.max(at);
            while let Some((at, packet)) = link.receive(now) {
                arrived.push((packet, at.duration_since(from).as_secs_f64() * 1_000.0));
            }
        }
        arrived
    }

    fn rate(rate: f64) -> Conditions {
        Conditions { rate: Some(rate), ..Conditions::default() }
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate_and_arrive_after_the_delay() {
        let mut link = Link::new(1, Conditions { delay: 20 * MS, ..rate(1e6) });
        let arrived = run(&mut link, start(), 3, 0);
        assert_eq!(arrived, [(0, 30.0), (1, 40.0), (2, 50.0)]);
    }

    #[test]
    fn what_would_wait_too_long_is_dropped_and_counted() {
        let mut link = Link::new(1, Conditions { queue: Queue::Time(50 * MS), ..rate(1e6) });
        let from = start();
        assert_eq!(run(&mut link, from, 10, 0).len(), 6);
        let seen = link.take_seen(from + 100 * MS);
        assert_eq!(seen.dropped, Dropped { queue: 4, ..Dropped::default() });
        assert_eq!((seen.offered_packets, seen.delivered_packets), (10, 6));
        assert_eq!(seen.longest_wait, 60 * MS);
        let mut link = Link::new(1, Conditions { queue: Queue::Bytes(2_500), ..rate(1e6) });
        assert_eq!(run(&mut link, from, 10, 0).len(), 2);
    }

    #[test]
    fn a_rate_that_changes_changes_what_is_on_its_way_out() {
        let from = start();
        let mut link = Link::new(1, rate(1e6));
        link.send(from, SIZE, 0);
        // Half of it has left; the rest takes as long again at half the rate.
        link.set(from + 5 * MS, rate(0.5e6));
        assert_eq!(link.waits(from + 5 * MS), 10 * MS);
        assert_eq!(link.poll_timeout(), Some(from + 15 * MS));
        // Nothing leaves for a second, and what was left does after it.
        link.set(from + 10 * MS, rate(0.0));
        assert_eq!(link.receive(from + 900 * MS), None);
        link.set(from + 1_010 * MS, rate(0.5e6));
        assert_eq!(link.receive(from + 2_000 * MS), Some((from + 1_015 * MS, 0)));
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let from = start();
        let mut link = Link::new(1, rate(1e6));
        run(&mut link, from, 1, 0);
        link.send(from + 500 * MS, SIZE, 1);
        assert_eq!(link.poll_timeout(), Some(from + 510 * MS));
    }

    #[test]
    fn losses_come_in_the_share_and_in_the_rows_that_were_asked_for() {
        let from = start();
        let mut link = Link::new(3, Conditions { loss: 0.05, ..Conditions::default() });
        let arrived = run(&mut link, from, 20_000, 100).len();
        assert!((18_850..19_150).contains(&arrived), "{arrived}");
        let burst = Some(Burst { begins: 0.01, ends: 0.25, lost: 1.0 });
        let mut link = Link::new(3, Conditions { burst, ..Conditions::default() });
        let arrived = run(&mut link, from, 50_000, 100);
        let lost = 50_000 - arrived.len();
        let rows = arrived.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count();
        assert!((1_600..2_300).contains(&lost), "{lost}");
        assert!((3.5..4.5).contains(&(lost as f64 / rows as f64)), "{lost} in {rows} rows");
        assert_eq!(link.take_seen(from).dropped.burst, lost as u64);
    }

    #[test]
    fn jitter_keeps_the_order_unless_it_may_not() {
        let ordered = |arrived: &[(u32, f64)]| arrived.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let jitter = Conditions { jitter: 30 * MS, ..Conditions::default() };
        let arrived = run(&mut Link::new(5, jitter), start(), 500, 1_000);
        assert!(ordered(&arrived) && arrived.len() == 500);
        let free = Conditions { overtaking: true, ..jitter };
        assert!(!ordered(&run(&mut Link::new(5, free), start(), 500, 1_000)));
        let some = Conditions { reorder: 0.02, reorder_by: 30 * MS, ..Conditions::default() };
        let arrived = run(&mut Link::new(5, some), start(), 1_000, 1_000);
        assert!(!ordered(&arrived) && arrived.len() == 1_000);
    }

    #[test]
    fn a_seed_stands_for_one_course_of_events() {
        let conditions = Conditions { loss: 0.1, jitter: 10 * MS, duplicate: 0.05, ..rate(2e6) };
        let from = start();
        let run = |seed| run(&mut Link::new(seed, conditions), from, 1_000, 4_000);
        assert_eq!(run(4), run(4));
        assert_ne!(run(4), run(5));
    }
}

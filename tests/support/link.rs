//! A network of one direction, in memory: a bottleneck, delay, jitter, loss, reordering and duplication,
//! the same on every run with the same seed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A small generator (xorshift64*), so that no change of a library changes what tests see.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }
}

/// How a link treats what is sent over it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    pub delay: Duration,
    /// Up to this much more; order is kept.
    pub jitter: Duration,
    pub loss_per_mille: u64,
    /// Of the packets, these wait for up to `reorder_by` more, and others overtake them.
    pub reorder_per_mille: u64,
    pub reorder_by: Duration,
    pub duplicate_per_mille: u64,
    /// Bits per second, zero for any number; what would have to wait longer than `queue` is lost.
    pub rate: u64,
    pub queue: Duration,
}

impl Conditions {
    pub const fn delay(ms: u64) -> Self {
        Self {
            delay: Duration::from_millis(ms),
            jitter: Duration::ZERO,
            loss_per_mille: 0,
            reorder_per_mille: 0,
            reorder_by: Duration::ZERO,
            duplicate_per_mille: 0,
            rate: 0,
            queue: Duration::ZERO,
        }
    }

    pub const fn rate(mut self, kbps: u64, queue_ms: u64) -> Self {
        self.rate = kbps * 1_000;
        self.queue = Duration::from_millis(queue_ms);
        self
    }

    pub const fn jitter(mut self, ms: u64) -> Self {
        self.jitter = Duration::from_millis(ms);
        self
    }

    pub const fn loss_per_mille(mut self, chance: u64) -> Self {
        self.loss_per_mille = chance;
        self
    }

    pub const fn reorder(mut self, per_mille: u64, by_ms: u64) -> Self {
        self.reorder_per_mille = per_mille;
        self.reorder_by = Duration::from_millis(by_ms);
        self
    }

    pub const fn duplicate_per_mille(mut self, chance: u64) -> Self {
        self.duplicate_per_mille = chance;
        self
    }
}

/// What is under way from one end to the other.
#[derive(Debug)]
pub struct Link<T> {
    conditions: Conditions,
    random: Random,
    under_way: BTreeMap<(Instant, u64), T>,
    /// Orders what arrives at one moment.
    inserted: u64,
    /// No packet that keeps its order arrives before this.
    in_order: Option<Instant>,
    /// When all that was sent has passed the bottleneck.
    free: Option<Instant>,
}

impl<T: Clone + AsRef<[u8]>> Link<T> {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        let under_way = BTreeMap::new();
        let random = Random::seeded(seed);
        Self { conditions, random, under_way, inserted: 0, in_order: None, free: None }
    }

    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    pub fn send(&mut self, now: Instant, datagram: T) {
        let conditions = self.conditions;
        if self.random.per_mille(conditions.loss_per_mille) {
            return;
        }
        let Some(passed) = self.pass(now, datagram.as_ref().len()) else { return };
        if self.random.per_mille(conditions.duplicate_per_mille) {
            let at = passed + conditions.delay + self.up_to(conditions.jitter);
            self.insert(at, datagram.clone());
        }
        let mut at = passed + conditions.delay + self.up_to(conditions.jitter);
        if self.random.per_mille(conditions.reorder_per_mille) {
            at += self.up_to(conditions.reorder_by);
        } else {
            at = self.in_order.map_or(at, |before| before.max(at));
            self.in_order = Some(at);
        }
        self.insert(at, datagram);
    }

    /// The next datagram that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<T> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// How long a datagram that is sent now waits at the bottleneck.
    pub fn waits(&self, now: Instant) -> Duration {
        self.free.map_or(Duration::ZERO, |free| free.saturating_duration_since(now))
    }

    /// When a datagram has passed the bottleneck, with headers of IP and UDP; `None` when it is lost there.
    fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.conditions.rate == 0 {
            return Some(now);
        }
        let waits = self.waits(now);
        if waits > self.conditions.queue {
            return None;
        }
        let nanos = (bytes as u64 + 28) * 8 * 1_000_000_000 / self.conditions.rate;
        let passed = now + waits + Duration::from_nanos(nanos);
        self.free = Some(passed);
        Some(passed)
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.random.below(limit.as_micros() as u64 + 1))
    }

    fn insert(&mut self, at: Instant, datagram: T) {
        self.inserted += 1;
        self.under_way.insert((at, self.inserted), datagram);
    }
}

//! A bottleneck: a rate that changes over time, a queue with an end, delay, jitter, loss at random and
//! in bursts, and packets that overtake.

use crate::support::link::Random;
use std::collections::{BTreeMap, VecDeque};

/// Times are microseconds since the start of a simulation.
pub type Micros = i64;

pub const MS: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

#[derive(Clone, Debug)]
pub struct Conditions {
    /// From when on the link has which rate, in bits per second; the last repeats nothing.
    pub rates: Vec<(Micros, f64)>,
    /// What would take longer to leave is lost.
    pub queue: Micros,
    pub delay: Micros,
    /// Up to this much more; order is kept.
    pub jitter: Micros,
    pub loss_per_mille: u64,
    /// Of the packets after one that was lost, so many are lost too.
    pub loss_goes_on_per_mille: u64,
    /// Losses begin here.
    pub loss_from: Micros,
    pub reorder_per_mille: u64,
    pub reorder_by: Micros,
}

impl Conditions {
    /// 25 ms each way, and a queue of 400 ms.
    pub fn rate(rate: f64) -> Self {
        Self {
            rates: vec![(0, rate)],
            queue: 400 * MS,
            delay: 25 * MS,
            jitter: 0,
            loss_per_mille: 0,
            loss_goes_on_per_mille: 0,
            loss_from: 0,
            reorder_per_mille: 0,
            reorder_by: 0,
        }
    }

    pub fn then(mut self, at: Micros, rate: f64) -> Self {
        self.rates.push((at, rate));
        self
    }

    fn rate_at(&self, now: Micros) -> f64 {
        self.rates.iter().rev().find(|(from, _)| *from <= now).map_or(0.0, |(_, rate)| *rate)
    }
}

#[derive(Debug)]
pub struct Link<T> {
    conditions: Conditions,
    random: Random,
    queue: VecDeque<(Micros, u32, T)>,
    queued: u64,
    /// When what has left the queue has left it.
    free: Micros,
    in_a_row: bool,
    in_order: Micros,
    under_way: BTreeMap<(Micros, u64), T>,
    inserted: u64,
}

impl<T> Link<T> {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            conditions,
            random: Random::seeded(seed),
            queue: VecDeque::new(),
            queued: 0,
            free: 0,
            in_a_row: false,
            in_order: 0,
            under_way: BTreeMap::new(),
            inserted: 0,
        }
    }

    /// How long a packet that is sent now waits.
    pub fn waits(&self, now: Micros) -> Micros {
        let bits = self.queued as f64 * 8.0;
        (bits * 1e6 / self.conditions.rate_at(now).max(1.0)) as Micros + (self.free - now).max(0)
    }

    pub fn send(&mut self, now: Micros, size: u32, packet: T) {
        let conditions = &self.conditions;
        let lost = now >= conditions.loss_from
            && (self.random.per_mille(conditions.loss_per_mille)
                || self.in_a_row && self.random.per_mille(conditions.loss_goes_on_per_mille));
        self.in_a_row = lost;
        if lost || self.waits(now) > self.conditions.queue {
            return;
        }
        self.queue.push_back((now, size, packet));
        self.queued += u64::from(size);
    }

    /// Lets leave what has left by `now`, at the rate of the moment.
    pub fn run(&mut self, now: Micros) {
        while let Some(&(since, size, _)) = self.queue.front() {
            let takes = f64::from(size) * 8e6 / self.conditions.rate_at(now).max(1.0);
            let begins = self.free.max(since);
            if begins + takes as Micros > now {
                break;
            }
            self.free = begins + (takes as Micros).max(1);
            let Some((_, _, packet)) = self.queue.pop_front() else { break };
            self.queued -= u64::from(size);
            self.fly(self.free, packet);
        }
    }

    fn fly(&mut self, at: Micros, packet: T) {
        let Conditions { delay, jitter, reorder_per_mille, reorder_by, .. } = self.conditions;
        let mut arrives = at + delay + self.random.below(jitter as u64 + 1) as Micros;
        if self.random.per_mille(reorder_per_mille) {
            arrives += self.random.below(reorder_by as u64 + 1) as Micros;
        } else {
            arrives = arrives.max(self.in_order);
            self.in_order = arrives;
        }
        self.inserted += 1;
        self.under_way.insert((arrives, self.inserted), packet);
    }

    /// The next packet that has arrived by `now`, and when.
    pub fn receive(&mut self, now: Micros) -> Option<(Micros, T)> {
        let first = self.under_way.first_entry()?;
        let at = first.key().0;
        (at <= now).then(|| (at, first.remove()))
    }
}

//! The link of the network bench on the clock of these simulations, which counts microseconds: a
//! bottleneck whose rate changes over time, a queue with an end, delay, jitter, loss at random and in
//! bursts, and packets that overtake.

use rivero_network::{Burst, Direction, Queue, Trace};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

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

    fn at(&self, now: Micros) -> rivero_network::Conditions {
        let rate = self.rates.iter().rev().find(|(from, _)| *from <= now);
        let share = |per_mille: u64| per_mille as f64 / 1_000.0;
        let loss = if now >= self.loss_from { share(self.loss_per_mille) } else { 0.0 };
        let goes_on = share(self.loss_goes_on_per_mille);
        let row = Burst { begins: loss, ends: (1.0 - goes_on) * (1.0 - loss), lost: 1.0 };
        rivero_network::Conditions {
            rate: Some(rate.map_or(0.0, |(_, rate)| *rate)),
            queue: Queue::Time(after(self.queue)),
            delay: after(self.delay),
            jitter: after(self.jitter),
            loss: if goes_on > 0.0 { 0.0 } else { loss },
            burst: (goes_on > 0.0).then_some(row),
            reorder: share(self.reorder_per_mille),
            reorder_by: after(self.reorder_by),
            ..rivero_network::Conditions::default()
        }
    }
}

/// What a link is like from when on.
#[derive(Clone, Debug)]
pub struct Course(VecDeque<(Micros, rivero_network::Conditions)>);

impl From<Conditions> for Course {
    fn from(conditions: Conditions) -> Self {
        let rates = conditions.rates.iter().map(|(at, _)| *at);
        let mut times: Vec<_> = rates.chain([conditions.loss_from]).collect();
        times.sort_unstable();
        Self(times.into_iter().map(|at| (at, conditions.at(at))).collect())
    }
}

impl From<&Trace> for Course {
    fn from(trace: &Trace) -> Self {
        let course = trace.course(Direction::Down).into_iter();
        Self(course.map(|(at, conditions)| (at.as_micros() as Micros, conditions)).collect())
    }
}

fn after(time: Micros) -> Duration {
    Duration::from_micros(time.max(0) as u64)
}

#[derive(Debug)]
pub struct Link<T> {
    epoch: Instant,
    course: Course,
    link: rivero_network::Link<T>,
}

impl<T: Clone> Link<T> {
    pub fn new(epoch: Instant, seed: u64, course: Course) -> Self {
        let link = rivero_network::Link::new(seed, rivero_network::Conditions::default());
        let mut link = Self { epoch, course, link };
        link.run(0);
        link
    }

    fn instant(&self, at: Micros) -> Instant {
        self.epoch + after(at)
    }

    /// How long a packet that is sent now waits.
    pub fn waits(&self, now: Micros) -> Micros {
        self.link.waits(self.instant(now)).as_micros() as Micros
    }

    pub fn send(&mut self, now: Micros, size: u32, packet: T) {
        self.link.send(self.instant(now), size, packet);
    }

    /// Lets leave what has left by `now`, and takes the changes that are due.
    pub fn run(&mut self, now: Micros) {
        while let Some((at, conditions)) = self.course.0.pop_front_if(|(at, _)| *at <= now) {
            self.link.set(self.instant(at), conditions);
        }
        self.link.run(self.instant(now));
    }

    /// The next packet that has arrived by `now`, and when.
    pub fn receive(&mut self, now: Micros) -> Option<(Micros, T)> {
        let (at, packet) = self.link.receive(self.instant(now))?;
        Some((at.duration_since(self.epoch).as_micros() as Micros, packet))
    }
}

//! Calls over a bottleneck: a camera, the estimator and the pacer on one side, a receiver that reports
//! on the other.

use super::link::{Course, Link, MS, Micros, SECOND};
use crate::support::link::Random;
use rivero::bandwidth::{Bandwidth, Bounds, Class, Fate, Limit, Means, Pacer};
use rivero::rtp::Bitrate;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

const AUDIO: u32 = 100;
const PACKET: u32 = 1_200;

/// What is to be sent.
#[derive(Clone, Debug)]
pub enum Source {
    /// One that follows the estimate, up to its most, 200 ms later.
    Follows { most: f64 },
    /// The highest layer that the estimate carries; the lowest in any case.
    Layers(Vec<f64>),
    /// The same, and each change begins with a keyframe.
    Encodings(Vec<f64>),
    /// One rate, whatever the estimate says.
    Fixed(f64),
}

impl Source {
    fn most(&self) -> f64 {
        match self {
            Self::Follows { most } | Self::Fixed(most) => *most,
            Self::Layers(layers) | Self::Encodings(layers) => {
                layers.iter().copied().fold(0.0, f64::max)
            }
        }
    }
}

/// How the receiver reports.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub means: Means,
    pub interval: Micros,
    /// What its feedback takes longer.
    pub late_by: Micros,
    pub feedback_lost_per_mille: u64,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            means: Means::TransportWide,
            interval: 60 * MS,
            late_by: 0,
            feedback_lost_per_mille: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    size: u32,
    at: Micros,
    class: Class,
}

/// What was seen every 50 ms.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Micros,
    pub target: f64,
    /// Bits per second that left, and that arrived, in these 50 ms.
    pub sent: f64,
    pub arrived: f64,
    /// The wait at the bottleneck.
    pub queue: Micros,
    pub reason: Limit,
    /// Packets that wait in the pacer.
    pub pacing: usize,
}

type Report = Vec<(u64, Option<Micros>)>;

pub struct Flow {
    pub source: Source,
    receiver: Receiver,
    pub bandwidth: Bandwidth,
    pacer: Pacer<(Class, u32)>,
    random: Random,
    sent: Vec<Sent>,
    starts_at: Micros,
    next_picture: Micros,
    next_audio: Micros,
    pictures: u64,
    keyframe: bool,
    /// What the camera was told, and when it follows.
    orders: VecDeque<(Micros, f64)>,
    rate: f64,
    arrived: BTreeMap<u64, Micros>,
    reported: Option<u64>,
    next_report: Micros,
    reports: VecDeque<(Micros, Report)>,
    remb: VecDeque<(Micros, f64, u8)>,
    bytes_sent: u64,
    bytes_arrived: u64,
    /// Since the last report: packets that left and that arrived, and the bytes of the latter.
    interval_packets: (u64, u64),
    interval_bytes: u64,
    pub probe_bytes: u64,
    pub dropped: u64,
    pub samples: Vec<Sample>,
}

impl Flow {
    fn new(epoch: Instant, seed: u64, source: Source, receiver: Receiver, bounds: Bounds) -> Self {
        let mut bandwidth = Bandwidth::new(epoch, receiver.means, bounds);
        bandwidth.set_wanted(Bitrate::from_bps(source.most() as u64));
        Self {
            pacer: Pacer::new(epoch, bandwidth.estimate().target),
            source,
            receiver,
            bandwidth,
            random: Random::seeded(seed),
            sent: Vec::new(),
            starts_at: 0,
            next_picture: 0,
            next_audio: 0,
            pictures: 0,
            keyframe: false,
            orders: VecDeque::new(),
            rate: 0.0,
            arrived: BTreeMap::new(),
            reported: None,
            next_report: 0,
            reports: VecDeque::new(),
            remb: VecDeque::new(),
            bytes_sent: 0,
            bytes_arrived: 0,
            interval_bytes: 0,
            interval_packets: (0, 0),
            probe_bytes: 0,
            dropped: 0,
            samples: Vec::new(),
        }
    }

    /// Pictures of 30 per second, each tenth second a larger one.
    fn produce(&mut self, epoch: Instant, now: Micros, link: &mut Link<(usize, u64)>, own: usize) {
        let target = self.bandwidth.estimate().target.bps() as f64;
        let before = self.rate;
        self.rate = match &self.source {
            Source::Fixed(rate) => *rate,
            Source::Follows { most } => {
                self.orders.push_back((now + 200 * MS, target.min(*most)));
                while self.orders.len() > 1 && self.orders[0].0 <= now {
                    self.rate = self.orders[0].1;
                    self.orders.pop_front();
                }
                if self.rate == 0.0 { target.min(*most) } else { self.rate }
            }
            Source::Layers(layers) | Source::Encodings(layers) => {
                layers.iter().copied().filter(|layer| *layer <= target).fold(layers[0], f64::max)
            }
        };
        self.keyframe |= self.rate != before && matches!(self.source, Source::Encodings(_));
        if now >= self.next_audio {
            self.next_audio = now.max(self.next_audio) + 20 * MS;
            self.offer(epoch, now, Class::Audio, AUDIO, link, own);
        }
        if now >= self.next_picture {
            self.next_picture = now.max(self.next_picture) + SECOND / 30;
            self.pictures += 1;
            let video = (self.rate - 40_000.0).max(20_000.0);
            let large = if std::mem::take(&mut self.keyframe) {
                6.0
            } else if self.pictures.is_multiple_of(300) {
                4.0
            } else {
                1.0
            };
            let varies = (800 + self.random.below(401)) as f64 / 1_000.0;
            let mut left = (video / 30.0 / 8.0 * varies * large) as u32;
            while left > 0 {
                let size = left.clamp(100, PACKET);
                left = left.saturating_sub(size);
                self.offer(epoch, now, Class::Video, size, link, own);
            }
        }
    }

    fn offer(
        &mut self,
        epoch: Instant,
        now: Micros,
        class: Class,
        size: u32,
        link: &mut Link<(usize, u64)>,
        own: usize,
    ) {
        if self.pacer.admit(instant(epoch, now), class, size) {
            self.leave(epoch, now, class, size, link, own);
        } else if self.pacer.push(class, size, (class, size)).is_err() {
            self.dropped += 1;
        }
    }

    fn leave(
        &mut self,
        epoch: Instant,
        now: Micros,
        class: Class,
        size: u32,
        link: &mut Link<(usize, u64)>,
        own: usize,
    ) {
        self.sent.push(Sent { size, at: now, class });
        let seq = self.sent.len() as u64;
        self.bandwidth.sent(instant(epoch, now), seq, size);
        self.bytes_sent += u64::from(size);
        self.interval_packets.0 += 1;
        if class == Class::Padding {
            self.probe_bytes += u64::from(size);
        }
        link.send(now, size, (own, seq));
    }

    fn send(&mut self, epoch: Instant, now: Micros, link: &mut Link<(usize, u64)>, own: usize) {
        let at = instant(epoch, now);
        self.pacer.set_estimate(self.bandwidth.estimate().target);
        if now < self.starts_at {
            return;
        }
        self.produce(epoch, now, link, own);
        while let Some((class, size)) = self.pacer.poll(at) {
            self.leave(epoch, now, class, size, link, own);
        }
        if let Some(probe) = self.bandwidth.poll_probe(at) {
            for _ in 0..probe.packets {
                self.leave(epoch, now, Class::Padding, PACKET, link, own);
            }
        }
        if self.bandwidth.poll_timeout(at).is_some_and(|due| due <= at) {
            self.bandwidth.handle_timeout(at);
        }
    }

    fn arrive(&mut self, at: Micros, seq: u64) {
        // The receiver's clock has an origin and a grain of its own, and runs 50 ppm fast.
        let its = (at + at / 20_000 + 77 * SECOND) / 250 * 250;
        self.arrived.insert(seq, its);
        let size = u64::from(self.sent[seq as usize - 1].size);
        self.bytes_arrived += size;
        self.interval_bytes += size;
        self.interval_packets.1 += 1;
    }

    fn report(&mut self, now: Micros) {
        if now < self.next_report {
            return;
        }
        match self.receiver.means {
            Means::TransportWide => {
                self.next_report = now + self.receiver.interval;
                let Some(&highest) = self.arrived.keys().next_back() else { return };
                let lowest = *self.arrived.keys().next().expect("one at least");
                let from = self.reported.map_or(lowest, |reported| (reported + 1).min(lowest));
                let report =
                    (from..=highest).map(|seq| (seq, self.arrived.get(&seq).copied())).collect();
                self.reported = self.reported.max(Some(highest));
                self.arrived.clear();
                if !self.random.per_mille(self.receiver.feedback_lost_per_mille) {
                    self.reports.push_back((now + 25 * MS + self.receiver.late_by, report));
                }
            }
            Means::Remb | Means::Reports => {
                self.next_report = now + SECOND;
                self.arrived.clear();
                let (sent, arrived) = std::mem::take(&mut self.interval_packets);
                let lost = sent.saturating_sub(arrived) * 256 / sent.max(1);
                // Such receivers follow what arrives, and say half as much again.
                let rate = std::mem::take(&mut self.interval_bytes) as f64 * 8.0 * 1.5;
                self.remb.push_back((now + 25 * MS, rate, lost.min(255) as u8));
            }
        }
    }

    /// Hears reports; packets that are called lost are sent again, up to a fifth of the rate.
    fn hear(&mut self, epoch: Instant, now: Micros, link: &mut Link<(usize, u64)>, own: usize) {
        let at = instant(epoch, now);
        while self.reports.front().is_some_and(|report| report.0 <= now) {
            let (_, report) = self.reports.pop_front().expect("looked at");
            let fates: Vec<Fate> = report
                .iter()
                .map(|&(seq, arrived)| {
                    let sent = self.sent[seq as usize - 1];
                    Fate {
                        seq,
                        size: sent.size,
                        sent_at: instant(epoch, sent.at),
                        received_at: arrived.map(|at| Duration::from_micros(at as u64)),
                    }
                })
                .collect();
            self.bandwidth.handle_feedback(at, fates);
            let lost: Vec<_> = report.iter().filter(|(_, arrived)| arrived.is_none()).collect();
            for (seq, _) in lost.iter().take(report.len().div_ceil(5)) {
                let sent = self.sent[*seq as usize - 1];
                if sent.class == Class::Video {
                    self.offer(epoch, now, Class::Repetition, sent.size, link, own);
                }
            }
        }
        while self.remb.front().is_some_and(|report| report.0 <= now) {
            let (_, rate, lost) = self.remb.pop_front().expect("looked at");
            self.bandwidth.handle_report(at, lost, Some(Duration::from_millis(50)));
            if self.receiver.means == Means::Remb {
                self.bandwidth.handle_remb(at, Bitrate::from_bps(rate as u64));
            }
        }
    }

    fn sample(&mut self, now: Micros, queue: Micros) {
        let estimate = self.bandwidth.estimate();
        self.samples.push(Sample {
            at: now,
            target: estimate.target.bps() as f64,
            sent: std::mem::take(&mut self.bytes_sent) as f64 * 8.0 * 20.0,
            arrived: std::mem::take(&mut self.bytes_arrived) as f64 * 8.0 * 20.0,
            queue,
            reason: estimate.reason,
            pacing: self.pacer.len(),
        });
    }

    fn between(&self, from: Micros, to: Micros) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| (from..to).contains(&sample.at))
    }

    pub fn mean(&self, from: Micros, to: Micros, of: impl Fn(&Sample) -> f64) -> f64 {
        let values: Vec<_> = self.between(from, to).map(of).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// When after `from` something holds that then holds for half a second.
    pub fn first(&self, from: Micros, of: impl Fn(&Sample) -> bool) -> Option<Micros> {
        let after: Vec<_> = self.between(from, Micros::MAX).collect();
        let found = after.windows(10).find(|window| window.iter().all(|sample| of(sample)))?;
        Some(found[0].at - from)
    }

    pub fn least(&self, from: Micros, to: Micros, of: impl Fn(&Sample) -> f64) -> f64 {
        self.between(from, to).map(of).fold(f64::MAX, f64::min)
    }

    /// The share of the samples for which something holds.
    pub fn share(&self, from: Micros, to: Micros, of: impl Fn(&Sample) -> bool) -> f64 {
        self.mean(from, to, |sample| f64::from(u8::from(of(sample))))
    }

    /// A line for each half second: what to look at when a figure does not hold.
    pub fn table(&self) -> String {
        let line = |chunk: &[Sample]| {
            let mean = |of: fn(&Sample) -> f64| {
                chunk.iter().map(of).sum::<f64>() / chunk.len() as f64 / 1_000.0
            };
            format!(
                "{:5.1} s target {:5.0} sent {:5.0} arrived {:5.0} queue {:4.0} pacer {:3} {}\n",
                chunk[0].at as f64 / 1e6,
                mean(|sample| sample.target),
                mean(|sample| sample.sent),
                mean(|sample| sample.arrived),
                mean(|sample| sample.queue as f64),
                chunk[0].pacing,
                chunk[0].reason.as_str(),
            )
        };
        self.samples.chunks(10).map(line).collect()
    }
}

pub fn instant(epoch: Instant, at: Micros) -> Instant {
    epoch + Duration::from_micros(at.max(0) as u64)
}

pub struct Simulation {
    epoch: Instant,
    seed: u64,
    link: Link<(usize, u64)>,
    pub flows: Vec<Flow>,
    now: Micros,
}

impl Simulation {
    pub fn new(seed: u64, course: impl Into<Course>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
        let epoch = Instant::now();
        let link = Link::new(epoch, seed, course.into());
        Self { epoch, seed, link, flows: Vec::new(), now: 0 }
    }

    pub fn flow(self, source: Source) -> Self {
        self.flow_to(source, Receiver::default(), Bounds::default())
    }

    pub fn flow_to(mut self, source: Source, receiver: Receiver, bounds: Bounds) -> Self {
        let seed = self.seed * 31 + self.flows.len() as u64;
        self.flows.push(Flow::new(self.epoch, seed, source, receiver, bounds));
        self
    }

    /// The last flow begins later than the others.
    pub fn later(mut self, at: Micros) -> Self {
        self.flows.last_mut().expect("a flow").starts_at = at;
        self
    }

    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    pub fn run(mut self, until: Micros) -> Self {
        while self.now < until {
            self.now += MS;
            let now = self.now;
            for (own, flow) in self.flows.iter_mut().enumerate() {
                flow.hear(self.epoch, now, &mut self.link, own);
                flow.send(self.epoch, now, &mut self.link, own);
            }
            self.link.run(now);
            while let Some((at, (own, seq))) = self.link.receive(now) {
                self.flows[own].arrive(at, seq);
            }
            for flow in &mut self.flows {
                flow.report(now);
                if now % (50 * MS) == 0 {
                    flow.sample(now, self.link.waits(now));
                }
            }
        }
        self
    }
}

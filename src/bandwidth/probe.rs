//! Asking the network for more than is being sent: a short run of packets at a higher rate, and how
//! fast it arrives. libwebrtc probes in the same places; RFC 8836 §2 asks for a start that is not slow.
//!
//! A cluster is all packets between its first and its last, media included; what media does not
//! fill, the caller is asked to fill with repetitions or padding. Losses within a cluster are counted
//! as if they had arrived: whether a link loses by rate or by share is the loss controller's question.

use crate::prefetch;
use crate::rtp::Bitrate;

/// A cluster lasts at least this long, in µs, and has at least so many packets: fewer measure jitter.
const LASTS: i64 = 15_000;
const PACKETS: u32 = 6;
const PACKET: f64 = 1_200.0;
/// How much above what is wanted a probe may go.
pub const BEYOND: f64 = 1.25;
/// A cluster that arrived at this share of its rate, or much faster than the target, is followed by
/// the next.
const PASSED: f64 = 0.7;
const MUCH_FASTER: f64 = 1.2;
/// Below this share of the rate it was sent at, what arrives is what the link lets pass.
const SATURATED: f64 = 0.9;
/// Of the reported packets of a cluster so many must have arrived.
const ARRIVED: f64 = 0.75;
/// Pauses between probes that show nothing new, in µs.
const FIRST_PAUSE: i64 = 3_000_000;
const LONGEST_PAUSE: i64 = 6_000_000;
/// The pause after a probe of which too much was lost to tell.
const AGAIN: i64 = 1_000_000;
/// How long feedback is waited for after the last packet, beyond the round trip.
const PATIENCE: i64 = 1_000_000;

/// Packets to send now, in addition to media, so that a probe has its rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbeRequest {
    pub cluster: u32,
    /// The rate of the cluster as a whole.
    pub bitrate: Bitrate,
    /// Repetitions or padding to send at once, as packets of the usual size and as bytes.
    pub packets: u32,
    pub bytes: u32,
}

/// What decides whether to probe.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    pub target: f64,
    /// What the streams behind the transport could use.
    pub wanted: f64,
    /// No queue, no loss of a limit, nothing being waited for.
    pub calm: bool,
    pub round_trip: i64,
}

#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u32,
    rate: f64,
    began: i64,
    ended: Option<i64>,
    first: Option<u64>,
    last: u64,
    sent: u64,
    packets: u32,
    told: u32,
    arrived: u32,
    /// Bytes told of from the first arrived on, without that one, up to the last arrived.
    bytes: u64,
    /// Of those that were lost after the last arrived.
    trailing: u64,
    last_size: u32,
    first_size: u32,
    first_times: Option<(i64, i64)>,
    last_times: (i64, i64),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Phase {
    /// Three and six times the first estimate, one after the other.
    #[default]
    Start,
    StartSecond,
    Running,
}

#[derive(Debug, Default)]
pub struct Prober {
    /// The last is being sent if it has not ended; the one before may still wait for feedback.
    clusters: [Option<Cluster>; 2],
    ids: u32,
    phase: Phase,
    first_target: f64,
    follow: Option<f64>,
    next: i64,
    pause: i64,
    /// Clusters that did not get their packets, and those that were lost or came too mangled to tell.
    pub unfilled: u64,
    pub unclear: u64,
}

impl Prober {
    /// Packets are next.
    #[inline]
    pub fn expect(&self) {
        prefetch::value(&self.clusters);
    }

    /// Whether a cluster is being sent or waited for.
    pub fn is_under_way(&self) -> bool {
        self.clusters.iter().any(Option::is_some)
    }

    fn sending(&mut self) -> Option<&mut Cluster> {
        self.clusters.iter_mut().flatten().find(|cluster| cluster.ended.is_none())
    }

    /// Every packet that leaves passes here.
    pub fn sent(&mut self, now: i64, seq: u64, size: u32) {
        let Some(cluster) = self.sending() else { return };
        if seq < cluster.last {
            return;
        }
        if cluster.first.is_none() {
            cluster.first = Some(seq);
            cluster.began = now;
        }
        cluster.last = seq;
        cluster.sent += u64::from(size);
        cluster.packets += 1;
        if cluster.packets >= PACKETS && cluster.sent as f64 >= cluster.needs() {
            cluster.ended = Some(now);
        }
    }

    /// What feedback told of a packet; `arrived` on the receiver's clock, in µs.
    pub fn told(&mut self, seq: u64, size: u32, sent: i64, arrived: Option<i64>) {
        for cluster in self.clusters.iter_mut().flatten() {
            if cluster.first.is_some_and(|first| first <= seq) && seq <= cluster.last {
                cluster.told(size, sent, arrived);
            }
        }
    }

    /// After a feedback message that told of packets up to `highest`: what a whole cluster measured.
    pub fn settle(&mut self, now: i64, highest: u64, target: f64, round_trip: i64) -> Option<f64> {
        let mut best: Option<f64> = None;
        for slot in &mut self.clusters {
            let Some(cluster) = slot else { continue };
            let Some(ended) = cluster.ended else { continue };
            let late = now.saturating_sub(ended) > PATIENCE + round_trip;
            if highest < cluster.last && !late {
                continue;
            }
            let whole = *cluster;
            *slot = None;
            match whole.measure() {
                Some(rate) => {
                    if rate >= (PASSED * whole.rate).min(MUCH_FASTER * target) {
                        self.follow = Some(self.follow.unwrap_or(0.0).max(2.0 * rate));
                    } else {
                        self.pause = (self.pause + self.pause / 2).min(LONGEST_PAUSE);
                    }
                    best = Some(best.map_or(rate, |best| best.max(rate)));
                }
                None => {
                    self.unclear += 1;
                    self.next = self.next.min(now + AGAIN);
                }
            }
        }
        best
    }

    /// The queue made the rate fall: the link is looked at again when it has calmed down.
    pub fn put_off(&mut self, now: i64) {
        self.follow = None;
        self.pause = FIRST_PAUSE;
        self.next = now + FIRST_PAUSE;
    }

    pub fn poll(&mut self, now: i64, situation: Situation) -> Option<ProbeRequest> {
        self.give_up(now, situation.round_trip);
        if self.sending().is_none() {
            self.plan(now, situation);
        }
        let cluster = self.sending()?;
        let due = cluster.due(now);
        if due < 1.0 {
            return None;
        }
        Some(ProbeRequest {
            cluster: cluster.id,
            bitrate: Bitrate::from_bps(cluster.rate as u64),
            packets: (due / PACKET).ceil() as u32,
            bytes: due as u32,
        })
    }

    /// When to poll again, in µs.
    pub fn timeout(&self, now: i64, situation: Situation) -> Option<i64> {
        if let Some(cluster) = self.clusters.iter().flatten().find(|one| one.ended.is_none()) {
            // At the packet after those that are sent, in steps that let packets leave together.
            let at = cluster.began + (cluster.sent as f64 * 8e6 / cluster.rate) as i64;
            return Some(at.max(now + 1_000));
        }
        let more = situation.calm && situation.wanted > situation.target;
        (more && !self.is_under_way()).then(|| self.next.max(now + 1_000))
    }

    /// A cluster that nobody fills ends as it is; one that nobody tells of is forgotten.
    fn give_up(&mut self, now: i64, round_trip: i64) {
        for slot in &mut self.clusters {
            let Some(cluster) = slot else { continue };
            let planned = (cluster.needs() * 8e6 / cluster.rate) as i64;
            match cluster.ended {
                None if now.saturating_sub(cluster.began) > 3 * planned + 100_000 => {
                    *slot = None;
                    self.unfilled += 1;
                    self.follow = None;
                    self.phase = Phase::Running;
                    self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    self.next = now + self.pause;
                }
                Some(ended) if now.saturating_sub(ended) > 2 * (PATIENCE + round_trip) => {
                    *slot = None;
                    self.unclear += 1;
                }
                _ => {}
            }
        }
    }

    fn plan(&mut self, now: i64, situation: Situation) {
        let Situation { target, wanted, calm, .. } = situation;
        let more = wanted > target;
        let rate = match self.phase {
            Phase::Start if more && calm => {
                self.phase = Phase::StartSecond;
                self.first_target = target;
                self.pause = FIRST_PAUSE;
                3.0 * target
            }
            Phase::StartSecond => {
                self.phase = Phase::Running;
                self.next = now + self.pause;
                if !more || BEYOND * wanted <= 3.0 * self.first_target {
                    return;
                }
                6.0 * self.first_target
            }
            Phase::Running if more && calm && !self.is_under_way() => match self.follow.take() {
                Some(rate) => rate.max(1.1 * target),
                None if now >= self.next => {
                    self.next = now + self.pause;
                    2.0 * target
                }
                None => return,
            },
            _ => {
                if !more {
                    self.follow = None;
                }
                return;
            }
        };
        let Some(slot) = self.clusters.iter_mut().find(|slot| slot.is_none()) else { return };
        self.ids = self.ids.wrapping_add(1);
        *slot = Some(Cluster::new(self.ids, rate.min(BEYOND * wanted), now));
    }
}

impl Cluster {
    fn new(id: u32, rate: f64, began: i64) -> Self {
        Self {
            id,
            rate: rate.max(1_000.0),
            began,
            ended: None,
            first: None,
            last: 0,
            sent: 0,
            packets: 0,
            told: 0,
            arrived: 0,
            bytes: 0,
            trailing: 0,
            last_size: 0,
            first_size: 0,
            first_times: None,
            last_times: (0, 0),
        }
    }

    fn needs(&self) -> f64 {
        (self.rate * LASTS as f64 / 8e6).max(f64::from(PACKETS) * PACKET)
    }

    /// Bytes that are missing so that the cluster has its rate now.
    fn due(&self, now: i64) -> f64 {
        if self.first.is_none() {
            return PACKET;
        }
        let due = now.saturating_sub(self.began) as f64 * self.rate / 8e6 + PACKET;
        (due.min(self.needs() + PACKET) - self.sent as f64).max(0.0)
    }

    fn told(&mut self, size: u32, sent: i64, arrived: Option<i64>) {
        self.told = self.told.saturating_add(1);
        let Some(arrived) = arrived else {
            self.trailing += u64::from(size);
            return;
        };
        self.arrived = self.arrived.saturating_add(1);
        let Some((_, before)) = self.first_times.map(|_| self.last_times) else {
            self.first_times = Some((sent, arrived));
            self.last_times = (sent, arrived);
            self.first_size = size;
            self.last_size = size;
            self.trailing = 0;
            return;
        };
        self.bytes += u64::from(size) + std::mem::take(&mut self.trailing);
        if arrived >= before {
            self.last_times = (sent.max(self.last_times.0), arrived);
            self.last_size = size;
        }
    }

    /// The rate that the network carried, if the cluster tells one.
    fn measure(&self) -> Option<f64> {
        let first = self.first_times?;
        let enough = self.told >= PACKETS.min(self.packets)
            && f64::from(self.arrived) >= ARRIVED * f64::from(self.told)
            && f64::from(self.told) >= ARRIVED * f64::from(self.packets);
        let sending = self.last_times.0.saturating_sub(first.0);
        let arriving = self.last_times.1.saturating_sub(first.1);
        if !enough || self.arrived < 4 || sending <= 0 || arriving <= 0 || arriving > 1_000_000 {
            return None;
        }
        let bytes = self.bytes as f64;
        let leaving = (bytes + f64::from(self.first_size) - f64::from(self.last_size)).max(0.0);
        let sent = leaving * 8e6 / sending as f64;
        let arrived = bytes * 8e6 / arriving as f64;
        if arrived > 2.0 * sent {
            // It was held back and let go: that is a link's rhythm and not its rate.
            return None;
        }
        let rate = if arrived < SATURATED * sent { 0.95 * arrived } else { sent.min(arrived) };
        Some(rate.min(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITUATION: Situation =
        Situation { target: 300_000.0, wanted: 2.5e6, calm: true, round_trip: 50_000 };

    /// Fills clusters for two seconds over a link of this rate; the rates measured.
    fn run(prober: &mut Prober, mut situation: Situation, link: f64, fill: bool) -> Vec<f64> {
        let (mut seq, mut free) = (0, 0i64);
        let mut measured = Vec::new();
        let mut told: Vec<(u64, i64, i64)> = Vec::new();
        for now in (0..2_000_000).step_by(1_000) {
            if let Some(request) = prober.poll(now, situation)
                && fill
            {
                for _ in 0..request.packets {
                    seq += 1;
                    free = free.max(now) + (9_600e6 / link) as i64;
                    prober.sent(now, seq, 1_200);
                    told.push((seq, now, free));
                }
            }
            if now % 50_000 == 0 && !told.is_empty() {
                for (seq, sent, arrived) in told.drain(..) {
                    prober.told(seq, 1_200, sent, Some(arrived));
                }
                if let Some(rate) = prober.settle(now, seq, situation.target, 50_000) {
                    measured.push(rate);
                    situation.target = situation.target.max(rate);
                }
            }
        }
        measured
    }

    #[test]
    fn the_start_reaches_what_is_wanted_and_stops_there() {
        let mut prober = Prober::default();
        let measured = run(&mut prober, SITUATION, 1e9, true);
        let last = *measured.last().expect("a measure");
        assert!(last > 2.3e6 && last < 3.4e6, "{measured:?}");
        assert!(measured.len() <= 4);
    }

    #[test]
    fn a_link_is_measured_and_not_the_probe() {
        let measured = run(&mut Prober::default(), SITUATION, 1e6, true);
        assert!(measured.iter().all(|rate| (0.6e6..1.05e6).contains(rate)), "{measured:?}");
    }

    #[test]
    fn clusters_that_nobody_fills_become_rare() {
        let mut prober = Prober::default();
        assert!(run(&mut prober, SITUATION, 1e9, false).is_empty());
        assert!((1..=2).contains(&prober.unfilled), "{}", prober.unfilled);
    }

    #[test]
    fn what_is_enough_is_not_probed() {
        let enough = Situation { wanted: 300_000.0, ..SITUATION };
        assert!(Prober::default().poll(0, enough).is_none());
    }
}

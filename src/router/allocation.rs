//! What may be sent to a peer, shared among its sinks, and what the sources behind them are told.
//!
//! Sound comes first: it is small, and a call without pictures is still a call. The rest is shared evenly
//! among the video sinks, within the rates that were set for them.
//!
//! A source with one encoding is told the least of what its viewers' links carry, as Kurento does, and not
//! less than the lower bound that was set: nothing here can make less of a picture for one of them. But
//! only links count that turned out to be narrow. An estimate that is low because nobody used more, as it
//! is with each viewer that comes, holds nobody down, nor does a link over which nothing comes back.
//! Whoever gets more than his link carries all the same, because the source does not obey or may not go
//! lower, is sent no pictures for a while each time he suffers from it, so that he hears.
//!
//! Of a source with layers the best viewer counts, as long as the lowest layer fits everybody.
//! The sender of several encodings is told what those need that somebody can get, see
//! [`super::layers`](super::layers).
//!
//! A source that nobody watches for long is told to send half of what it sent.

use super::{
    DropReason, Egress, PeerKey, Router, SinkKey, SourceKey,
    agenda::Whose,
    clock::Stamp,
    feedback::{Behind, Limit},
    layers::Ascent,
    sending::Held,
    sink::SendBounds,
};
use crate::{
    bandwidth::{self, Bounds, Estimate},
    rtp::{Bitrate, NtpTime},
};
use std::time::{Duration, Instant};

/// Shares are computed anew after this long, or when the estimate changed by this much.
const INTERVAL: Duration = Duration::from_millis(100);
const CHANGED: f64 = 0.05;
/// What a stream of sound needs with its headers, as long as nothing was measured and at least.
const SOUND: u64 = 40_000;
/// What a camera may be able to send of which nobody knows yet: what browsers send of 1280x720 at most.
const CAMERA: u64 = 2_500_000;
/// The lowest layer counts as at least this much of a source, in 1/256.
const LEAST_SHARE: u64 = 16;
/// Above what a source sends, so that it may send a little more.
const MARGIN: f64 = 1.5;
/// A source is told of changes of more than this with the next report, and of larger ones at once.
const LOWER: f64 = 0.97;
const HIGHER: f64 = 1.15;
/// How long nobody has to watch before a source is told. It is told to send half of what it sent, and this
/// in any case: browsers that were held to little take half a minute until they send much again, and
/// whoever comes then would have to look at it.
const GRACE: Duration = Duration::from_secs(30);
const UNWATCHED: Bitrate = Bitrate::from_kbps(500);
/// A probe sends no more than this at once.
const MOST_AT_ONCE: usize = 32 << 10;

impl Router {
    /// The rates that were set for a video stream to a peer; they take effect at once.
    pub fn set_video_send_bounds(
        &mut self,
        now: Instant,
        key: SinkKey,
        min: Option<Bitrate>,
        max: Option<Bitrate>,
    ) {
        let Some(sink) = self.sinks.get_mut(key).filter(|sink| sink.is_video()) else { return };
        sink.bounds = SendBounds { min, max };
        // What was tried in vain was tried under others.
        sink.ascent = Ascent::default();
        let peer = sink.peer;
        if let Some(one) = self.peers.get_mut(peer) {
            one.sending.shared = None;
        }
        self.share(now, peer);
        self.plan_peer(peer);
    }

    /// What may be sent over a sink; `None` while nothing is known of a limit.
    pub fn budget(&self, sink: SinkKey) -> Option<Bitrate> {
        self.sinks.get(sink)?.budget
    }

    /// What the way to the peer of a sink carries by our estimate, and what limits it; `None` while
    /// there is no reason for one.
    pub fn available_to(&self, sink: SinkKey) -> Option<Estimate> {
        let sink = self.sinks.get(sink)?;
        self.peers.get(sink.peer)?.sending.estimate()
    }

    /// The estimate of a peer may have changed.
    pub(super) fn estimated(&mut self, now: Instant, peer: PeerKey, out: &mut impl Egress) {
        let Some(one) = self.peers.get_mut(peer) else { return };
        if one.sending.begins_to_fast(now) {
            self.set_fasting(now, peer, true);
        }
        self.share(now, peer);
        self.probe(now, peer, out);
        self.plan_peer(peer);
    }

    /// What is due for a peer.
    pub(super) fn serve_peer(
        &mut self,
        now: Instant,
        ntp: NtpTime,
        peer: PeerKey,
        out: &mut impl Egress,
    ) {
        let Some(one) = self.peers.get(peer) else { return };
        if one.arrivals.poll_timeout().is_some_and(|due| due <= now) {
            self.send_feedback(now, peer, out);
        }
        self.release(now, peer, out);
        let Some(one) = self.peers.get_mut(peer) else { return };
        let reports = one.active && one.report_at <= now;
        if reports {
            one.schedule_report(now);
        }
        if reports || one.sending.poll_timeout().is_some_and(|due| due <= now) {
            one.sending.handle_timeout(now);
            if one.sending.ends_to_fast(now) {
                self.set_fasting(now, peer, false);
            }
            self.estimated(now, peer, out);
        }
        if reports {
            self.notice_silence(now, peer);
            self.report(now, ntp, peer, out);
        }
        self.plan_peer(peer);
    }

    /// What sound takes of the way to a peer.
    fn audio_to(&self, peer: PeerKey) -> Bitrate {
        let sinks = self.peers.get(peer).into_iter().flat_map(|one| &one.sinks);
        let sinks = sinks.filter_map(|key| self.sinks.get(*key));
        let sound = sinks.filter(|sink| !sink.is_video() && sink.active && sink.source.is_some());
        // Headers are a third of it.
        let rates = sound.map(|sink| (sink.stats.bitrate.bps().saturating_mul(4) / 3).max(SOUND));
        Bitrate::from_bps(rates.fold(0, u64::saturating_add))
    }

    /// Looks at a peer when something of it is due.
    pub(super) fn plan_peer(&mut self, peer: PeerKey) {
        if let Some(one) = self.peers.get_mut(peer)
            && let Some(at) = one.poll_timeout()
        {
            self.agenda.plan(&mut one.appointment, Whose::Peer(peer), at);
        }
    }

    /// Shares what may be sent to a peer among its sinks.
    pub(super) fn share(&mut self, now: Instant, peer: PeerKey) {
        let Some(one) = self.peers.get(peer) else { return };
        let estimate = one.sending.bandwidth.estimate();
        let shared = one.sending.shared;
        if shared.is_some_and(|(at, before)| is_fresh(now, at, before, estimate)) {
            return;
        }
        let audio = self.audio_to(peer).bps();
        let (mut wanted, mut count) = (audio, 0);
        let (mut least, mut most) = (0u64, Some(0u64));
        for &key in &self.peers[peer].sinks {
            let Some(sink) = self.sinks.get(key) else { continue };
            let Some(source) = sink.source.filter(|_| sink.is_video() && sink.active) else {
                continue;
            };
            let max = sink.bounds.max.map(Bitrate::bps);
            let track = sink.track.unwrap_or(source);
            wanted = wanted.saturating_add(self.wish(track).min(max.unwrap_or(u64::MAX)));
            least = least.saturating_add(sink.bounds.min.map_or(0, Bitrate::bps));
            most = most.zip(max).map(|(sum, max)| sum.saturating_add(max));
            count += 1;
        }
        let most = most.filter(|_| count > 0).map(|most| most.saturating_add(audio));
        let bounds = Bounds {
            min: (least > 0).then(|| Bitrate::from_bps(least)),
            max: most.map(Bitrate::from_bps),
            start: None,
        };
        let sending = &mut self.peers[peer].sending;
        sending.bandwidth.set_wanted(Bitrate::from_bps(wanted));
        if sending.bandwidth.bounds() != bounds {
            sending.set_bounds(now, bounds);
        }
        sending.shared = Some((now, sending.bandwidth.estimate()));
        let rate = sending.estimate().map(|Estimate { target, reason }| match reason {
            bandwidth::Limit::Remb if sending.remb_is_of_video => target.bps(),
            _ => target.bps().saturating_sub(audio),
        });
        let narrow = sending.bandwidth.narrowest(now).is_some();
        self.divide(now, peer, rate, narrow, count, shared.is_none());
    }

    /// Gives each of the `count` video sinks of a peer its share of `rate`, and tells their sources: of
    /// those that are routed `anew` always. To look at all that watch a source takes long, so nobody does
    /// for a viewer of whom nothing has changed.
    fn divide(
        &mut self,
        now: Instant,
        peer: PeerKey,
        rate: Option<u64>,
        narrow: bool,
        count: u64,
        anew: bool,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch.shared);
        scratch.clear();
        scratch.extend_from_slice(&self.peers[peer].sinks);
        let even = rate.and_then(|rate| rate.checked_div(count));
        let video = |sink: &SinkKey| self.sinks.get(*sink).filter(|one| one.is_video());
        let bounded = scratch.iter().filter_map(video).filter(|one| one.active);
        // What some may not use is for the others.
        let (taken, others) = bounded.fold((0, 0), |(taken, others), one| match one.bounds.max {
            Some(max) if even.is_some_and(|even| max.bps() < even) => (taken + max.bps(), others),
            _ => (taken, others + 1),
        });
        let share = rate.map(|rate| rate.saturating_sub(taken) / u64::max(others, 1));
        for &key in &scratch {
            let Some(sink) = self.sinks.get_mut(key).filter(|one| one.is_video()) else { continue };
            let SendBounds { min, max } = sink.bounds;
            let share = share.map(|share| {
                let raised = share.max(min.map_or(0, Bitrate::bps));
                Bitrate::from_bps(raised.min(max.map_or(u64::MAX, Bitrate::bps)))
            });
            let before = sink.budget;
            sink.budget = share.or(max);
            let fell =
                sink.budget.is_some_and(|budget| before.is_none_or(|before| budget < before));
            let narrowest = share.filter(|_| narrow || sink.fasting).or(max);
            let changed = std::mem::replace(&mut sink.narrowest, narrowest) != narrowest;
            if let Some(track) = sink.track {
                if fell {
                    self.choose_soon(now, track);
                }
                if anew || changed {
                    self.tell_soon(now, track);
                }
            }
        }
        self.scratch.shared = scratch;
    }

    /// What a viewer could use of a source.
    fn wish(&self, key: SourceKey) -> u64 {
        let Some(source) = self.sources.get(key) else { return 0 };
        let held_down = source.stats.limit.is_some_and(is_of_viewers);
        let steady = source.estimate.steady().bps().max(self.most_of(key));
        let steady = (steady as f64 * MARGIN) as u64;
        if held_down || steady == 0 { steady.max(CAMERA) } else { steady }
    }

    /// What is known of those who watch a source.
    pub(super) fn behind(&mut self, now: Instant, key: SourceKey) -> Behind {
        let Some(source) = self.sources.get_mut(key) else { return Behind::Open };
        let sinks = source.watchers.iter().filter_map(|&sink| self.sinks.get(sink));
        let mut watching = sinks.filter(|sink| sink.active).map(|sink| sink.narrowest).peekable();
        if watching.peek().is_none() {
            let steady = source.estimate.steady();
            let (since, sent) = *source.unwatched.get_or_insert((now, steady));
            if now.saturating_duration_since(since) < GRACE {
                return Behind::Open;
            }
            return Behind::Nobody(Bitrate::from_bps(sent.bps() / 2).max(UNWATCHED));
        }
        source.unwatched = None;
        if !source.encodings.is_empty() {
            return self.used_of(now, key).map_or(Behind::Open, Behind::Narrow);
        }
        let layered = source.has_choice().then(|| source.rates.share(0, 0).max(LEAST_SHARE));
        let (mut least, mut most) = (None::<Bitrate>, Some(Bitrate::default()));
        for narrowest in watching {
            least = [least, narrowest].into_iter().flatten().min();
            most = most.zip(narrowest).map(|(most, one)| most.max(one));
        }
        // Of layers each gets what it can take; the lowest is still to fit for everybody.
        let told = match (least, layered) {
            (Some(least), Some(share)) => {
                let least = Bitrate::from_bps(least.bps().saturating_mul(256) / share);
                Some(most.map_or(least, |most| most.min(least)))
            }
            (least, _) => least,
        };
        told.map_or(Behind::Open, Behind::Narrow)
    }

    /// Sees to it that the sender of a source hears soon of what has changed for it.
    fn tell_soon(&mut self, now: Instant, key: SourceKey) {
        let behind = self.behind(now, key);
        let Some(source) = self.sources.get(key) else { return };
        let told = source.stats.remb.unwrap_or(Bitrate::from_bps(u64::MAX));
        let (rate, limit) = match behind {
            // Of several encodings all count.
            Behind::Narrow(rate) if !source.encodings.is_empty() => (rate, Limit::Receiver),
            _ => source.estimate.limited(behind),
        };
        let ratio = rate.bps() as f64 / told.bps().max(1) as f64;
        let news = match source.stats.limit {
            Some(before) if is_of_viewers(before) => {
                !is_of_viewers(limit) || !(LOWER..HIGHER).contains(&ratio)
            }
            _ => is_of_viewers(limit) && ratio < LOWER,
        };
        if news && let Some(one) = self.peers.get_mut(source.peer) {
            let peer = source.peer;
            one.hasten_report(now);
            self.plan_peer(peer);
        }
    }

    fn set_fasting(&mut self, now: Instant, peer: PeerKey, fasting: bool) {
        for index in 0..self.peers[peer].sinks.len() {
            let key = self.peers[peer].sinks[index];
            let Some(sink) = self.sinks.get_mut(key).filter(|one| one.is_video()) else { continue };
            sink.fasting = fasting;
            sink.close();
            if !fasting {
                self.want_keyframe_for(now, key);
            }
        }
    }

    /// Sends what waited for its time, as far as that has come.
    fn release(&mut self, now: Instant, peer: PeerKey, out: &mut impl Egress) {
        let stamp = Stamp::new(self.origin, now);
        while let Some(held) = self.peers.get_mut(peer).and_then(|one| one.sending.release(now)) {
            self.send_held(stamp, peer, held, out);
        }
    }

    fn send_held(&mut self, stamp: Stamp, peer: PeerKey, held: Held, out: &mut impl Egress) {
        let Some(one) = self.peers.get_mut(peer) else { return };
        let (Held::Packet { sink, .. } | Held::Again { sink, .. } | Held::Twice { sink, .. }) =
            held;
        let Some(sink) = self.sinks.get_mut(sink) else { return };
        match held {
            Held::Packet { source, sequence, leaving, .. } => {
                let source = self.sources.get(source);
                match source.and_then(|source| source.history.get(sequence)) {
                    Some(kept) => {
                        sink.forward_held(stamp, &leaving, kept.payload, &mut one.sending, out);
                    }
                    None => sink.stats.drops.count(DropReason::PacerForgotten),
                }
            }
            Held::Again { index, .. } | Held::Twice { index, .. } => {
                let source = sink.source.and_then(|source| self.sources.get(source));
                let (Some(source), sending) = (source, &mut one.sending) else { return };
                let buffer = &mut self.scratch.repetition;
                if matches!(held, Held::Twice { .. }) && !sink.may_send_twice(stamp, index) {
                    return;
                }
                let done = sink.resend(stamp, index, &source.history, sending, buffer, out);
                if let Err(reason) = done {
                    sink.stats.drops.count(reason);
                }
            }
        }
    }

    /// Sends what a probe lacks: what waits for its time first, then repetitions.
    fn probe(&mut self, now: Instant, peer: PeerKey, out: &mut impl Egress) {
        let Some(one) = self.peers.get_mut(peer).filter(|one| one.active) else { return };
        let Some(request) = one.sending.bandwidth.poll_probe(now) else { return };
        let stamp = Stamp::new(self.origin, now);
        let mut lacks = (request.bytes as usize).min(MOST_AT_ONCE);
        while lacks > 0
            && let Some(one) = self.peers.get_mut(peer)
            && let Some((size, held)) = one.sending.release_early(now)
        {
            self.send_held(stamp, peer, held, out);
            lacks = lacks.saturating_sub(size as usize);
        }
        let Some(one) = self.peers.get_mut(peer) else { return };
        for &key in &one.sinks {
            let Some(sink) = self.sinks.get_mut(key).filter(|one| one.active) else { continue };
            let source = sink.source.and_then(|source| self.sources.get(source));
            if let Some(source) = source.filter(|_| lacks > 0 && sink.is_numbered()) {
                let buffer = &mut self.scratch.repetition;
                let sending = &mut one.sending;
                let left = sink.probe(stamp, lacks, &source.history, sending, buffer, out);
                lacks = lacks.saturating_sub(left);
            }
        }
        one.sending.handle_timeout(now);
    }
}

/// Whether it is for the sake of viewers that a source is told no more.
fn is_of_viewers(limit: Limit) -> bool {
    matches!(limit, Limit::Receiver | Limit::Unwatched | Limit::Minimum | Limit::Floor)
}

/// Whether shares of before are good enough for an estimate of now.
fn is_fresh(now: Instant, at: Instant, before: Estimate, estimate: Estimate) -> bool {
    let (before, new) = (before.target.bps() as f64, estimate.target.bps() as f64);
    now.saturating_duration_since(at) < INTERVAL && (new - before).abs() <= CHANGED * before
}

//! Which of several encodings of one source a sink gets, and which layers of it.
//!
//! Encodings that come at the same time (simulcast, RFC 8853) are sources of their own; the first one
//! stands for all of them where sinks are connected. Ten times a second it is looked at what comes and
//! what each sink is allowed: the choice is the best that fits. Down it goes at once, up only after
//! what is better fitted with room to spare for a while, by the most that it lately was, so that a rate
//! near a limit does not swing. An encoding begins with a keyframe, which is much for a narrow link: so
//! another one is entered only when all its layers fit, and not soon again by who had to come down from it.
//! Until its keyframe comes the sink keeps what it has.
//!
//! Among the layers of an encoding, pictures are worth more than size: above the smallest size the lowest
//! frame rate of three is not chosen.

use super::{
    Egress, Router, SinkKey, SourceKey, agenda::Whose, clock::Stamp, sink::Layers, source::Source,
};
use crate::rtp::Bitrate;
use std::time::{Duration, Instant};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long something better must fit before it is chosen.
const UP_AFTER: Duration = Duration::from_secs(1);
/// Who comes down so soon after going up to another encoding should not have gone; how long it stays down
/// then, the first time and after that; and who stays up so long begins anew with the first.
const REGRETS: Duration = Duration::from_secs(8);
const FIRST_STAY: Duration = Duration::from_secs(4);
const LONGEST_STAY: Duration = Duration::from_secs(8);
const SETTLED: Duration = Duration::from_secs(15);
/// What must be left over to go up: a twelfth; and to enter another encoding, of which all layers are to
/// fit: a twentieth.
const ROOM: (u64, u64) = (13, 12);
const ROOM_TO_ENTER: (u64, u64) = (21, 20);
/// An encoding that was silent for so long, or for three of its pictures, has ended.
const SILENCE: Duration = Duration::from_millis(500);
const MAX_SILENCE: Duration = Duration::from_millis(2_500);
/// With all sources silent for this long nobody looks any more.
const REST: Duration = Duration::from_secs(3);
/// A keyframe is asked for when layers that could be had are out of reach for so long.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// Nobody who sends several encodings is told to send less.
const LEAST: Bitrate = Bitrate::from_kbps(150);
/// Of the most that an encoding lately was, so much is forgotten with each look: half of it in 9 s.
const FORGOTTEN: u64 = 128;
/// How long nobody has to be able to take an encoding before its sender is told: estimates recover sooner
/// than senders do.
const UNUSED: Duration = Duration::from_secs(8);
/// The rate of what was not measured yet: more than fits anywhere.
const UNKNOWN: u64 = u64::MAX / 1_024;
/// Points that are looked at.
const MAX_POINTS: usize = 64;

/// Something that a sink can get.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    source: SourceKey,
    layers: Layers,
    rate: Bitrate,
    /// The most that it lately was.
    most: Bitrate,
    /// The same of the encoding with all its layers.
    entry: Bitrate,
}

/// What one look at the encodings of a source says, from the least to the best.
#[derive(Debug, Default)]
pub(super) struct Points(Vec<Point>);

/// When a sink went up to another encoding, and when it may again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ascent {
    went_up: Option<Instant>,
    stay: Duration,
    not_before: Option<Instant>,
}

impl Ascent {
    fn may_go_up(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    fn up(&mut self, now: Instant) {
        self.went_up = Some(now);
    }

    fn down(&mut self, now: Instant) {
        let Some(up_for) = self.went_up.take().map(|at| now.saturating_duration_since(at)) else {
            return;
        };
        if up_for < REGRETS {
            self.stay = (2 * self.stay).clamp(FIRST_STAY, LONGEST_STAY);
            self.not_before = Some(now + self.stay);
        } else if up_for >= SETTLED {
            self.stay = Duration::ZERO;
        }
    }
}

impl Points {
    /// The best that fits; else the least.
    fn best(&self, allowance: Option<Bitrate>) -> Option<usize> {
        self.last(|point| allowance.is_none_or(|allowed| point.rate <= allowed))
    }

    /// The same for a sink that comes new to encodings: all layers are to fit, for each begins with a
    /// keyframe, and that is as large as ever when layers are left out behind it.
    fn first(&self, allowance: Option<Bitrate>) -> Option<usize> {
        self.last(|point| allowance.is_none_or(|allowed| point.entry <= allowed))
    }

    /// The best that fits with some room, for a sink that has an encoding, and may go over to another one
    /// or not.
    fn better(&self, allowance: Option<Bitrate>, has: SourceKey, others: bool) -> Option<usize> {
        self.last(|point| {
            let own = point.source == has;
            let (needs, room) = match own {
                true => (point.rate.max(point.most), ROOM),
                false => (point.entry, ROOM_TO_ENTER),
            };
            let needs = needs.bps().saturating_mul(room.0) / room.1;
            (own || others) && allowance.is_none_or(|allowed| needs <= allowed.bps())
        })
    }

    fn last(&self, fits: impl Fn(&Point) -> bool) -> Option<usize> {
        self.0.len().checked_sub(1)?;
        Some(self.0.iter().rposition(fits).unwrap_or(0))
    }
}

impl Router {
    /// From now on these sources are encodings of one, and the first stands for all of them. They
    /// are of one peer and not connected yet.
    pub fn join_encodings(&mut self, encodings: &[SourceKey]) {
        let Some(&lead) = encodings.first().filter(|_| encodings.len() > 1) else { return };
        for key in encodings {
            if let Some(source) = self.sources.get_mut(*key) {
                source.lead = Some(lead);
            }
        }
        if let Some(source) = self.sources.get_mut(lead) {
            source.encodings = encodings.to_vec();
        }
    }

    /// A packet of a source with several encodings or layers came.
    pub(super) fn plan_choice(&mut self, now: Instant) {
        if !self.layers_appointment.is_made() {
            self.agenda.plan(&mut self.layers_appointment, Whose::Layers, now + INTERVAL);
        }
    }

    /// What a sink may get has changed.
    pub(super) fn choose_soon(&mut self, now: Instant, track: SourceKey) {
        if self.sources.get(track).is_some_and(|one| one.has_choice()) {
            self.agenda.plan(&mut self.layers_appointment, Whose::Layers, now);
        }
    }

    /// Looks at all that can be chosen.
    pub(super) fn choose_layers(&mut self, now: Instant, out: &mut impl Egress) {
        let mut leads = std::mem::take(&mut self.scratch.leads);
        leads.extend(self.sources.iter().filter(|(_, one)| one.has_choice()).map(|(key, _)| key));
        let mut any = false;
        for &lead in &leads {
            let last = self.last_packet_at(lead);
            any |= last.is_some_and(|last| now.saturating_duration_since(last) < REST);
            self.choose_for(now, lead, out);
        }
        leads.clear();
        self.scratch.leads = leads;
        if any {
            self.plan_choice(now);
        }
    }

    fn choose_for(&mut self, now: Instant, lead: SourceKey, out: &mut impl Egress) {
        let mut points = std::mem::take(&mut self.points);
        self.look_at(now, lead, &mut points);
        for index in 0..self.sources.get(lead).map_or(0, |one| one.watchers.len()) {
            let sink = self.sources[lead].watchers[index];
            if let Some(wanted) = self.choose(now, sink, &points) {
                self.request_keyframe(now, wanted, out);
            }
        }
        self.points = points;
    }

    /// What comes of a source.
    fn look_at(&mut self, now: Instant, lead: SourceKey, points: &mut Points) {
        points.0.clear();
        let ms = Stamp::new(self.origin, now).ms;
        let Some(one) = self.sources.get(lead) else { return };
        let mut sizes: Vec<(SourceKey, u64, u64)> = Vec::new();
        for index in 0..one.encodings.len().max(1) {
            let key = self.sources[lead].encodings.get(index).copied().unwrap_or(lead);
            let Some(source) = self.sources.get_mut(key) else { continue };
            let measured = source.rates.total(ms).map(Bitrate::bps);
            source.most = measured.unwrap_or(0).max(source.most - source.most / FORGOTTEN);
            if !source.is_live(now) {
                continue;
            }
            // As much as it was, while nobody knows; what never came before may be anything.
            let lately = Some(source.most).filter(|most| *most > 0);
            let rate = measured.or(lately).unwrap_or(UNKNOWN);
            sizes.push((key, source.pixels.map_or(0, u64::from), rate));
        }
        // By size where all tell theirs, else by rate.
        let sized = sizes.iter().all(|(_, pixels, _)| *pixels > 0);
        sizes.sort_by_key(|&(_, pixels, rate)| if sized { (pixels, rate) } else { (rate, pixels) });
        for (place, &(key, _, rate)) in sizes.iter().enumerate() {
            self.sources[key].points(key, rate, place == 0, &mut points.0);
        }
        points.0.truncate(MAX_POINTS);
    }

    /// Chooses for one sink; a source whose keyframe it needs.
    fn choose(&mut self, now: Instant, key: SinkKey, points: &Points) -> Option<SourceKey> {
        let sink = self.sinks.get_mut(key)?;
        let at = |source: Option<SourceKey>, layers: Layers| {
            let is_it = |point: &Point| Some(point.source) == source && point.layers == layers;
            points.0.iter().position(is_it)
        };
        let heading = sink.next.or(sink.source);
        let wanted = sink.selection.wanted;
        // Layers come and go with the stream, so the same encoding counts too.
        let current = at(heading, wanted)
            .or_else(|| points.0.iter().rposition(|point| Some(point.source) == heading));
        let fitting = points.best(sink.budget)?;
        let chosen = match (current, heading) {
            (Some(current), _) if fitting < current => fitting,
            (None, _) | (_, None) => points.first(sink.budget)?,
            (Some(current), Some(heading)) => {
                let others = sink.ascent.may_go_up(now);
                let better = points.better(sink.budget, heading, others)?;
                if better <= current {
                    sink.better_since = None;
                    current
                } else if now.saturating_duration_since(*sink.better_since.get_or_insert(now))
                    < UP_AFTER
                {
                    current
                } else {
                    better
                }
            }
        };
        if Some(chosen) != current {
            sink.better_since = None;
        }
        let point = points.0[chosen];
        if let Some(current) = current.filter(|_| heading != Some(point.source)) {
            if chosen > current { sink.ascent.up(now) } else { sink.ascent.down(now) }
        }
        self.head_for(now, key, point)
    }

    /// Lets a sink go over to a point; the source whose keyframe that takes.
    fn head_for(&mut self, now: Instant, key: SinkKey, point: Point) -> Option<SourceKey> {
        let sink = self.sinks.get_mut(key)?;
        sink.selection.wanted = point.layers;
        let Some(before) = sink.next.or(sink.source).filter(|before| *before != point.source)
        else {
            if sink.source != Some(point.source) {
                return None;
            }
            let highest = self.sources.get(point.source)?.rates.highest();
            let waits = sink.selection.waits(highest);
            let since = match waits {
                false => *sink.waits_since.insert(now),
                true => *sink.waits_since.get_or_insert(now),
            };
            let needs_size = sink.selection.waits_for_size(highest);
            let long = now.saturating_duration_since(since) >= MAX_WAIT;
            if waits && (long || needs_size) {
                sink.waits_since = Some(now);
                return Some(point.source);
            }
            return None;
        };
        // Where it was headed it is not expected any more.
        if sink.source != Some(before)
            && let Some(left) = self.sources.get_mut(before)
        {
            left.sinks.retain(|one| *one != key);
        }
        if sink.source == Some(point.source) {
            sink.next = None;
            return None;
        }
        sink.next = Some(point.source);
        let expected = self.sources.get_mut(point.source)?;
        expected.sinks.push(key);
        Some(point.source)
    }

    /// A keyframe of a source begins: those who waited for it go over to it.
    #[cold]
    pub(super) fn switch_sinks(&mut self, source: SourceKey, timestamp: u32) {
        let Some(one) = self.sources.get(source) else { return };
        for index in 0..one.sinks.len() {
            let key = self.sources[source].sinks[index];
            let Some(sink) = self.sinks.get_mut(key).filter(|one| one.next == Some(source)) else {
                continue;
            };
            let before = sink.source;
            let one = &self.sources[source];
            let meant = before.and_then(|before| {
                let before = self.sources.get(before).filter(|other| other.peer == one.peer)?;
                before.timestamp_at(|| one.sent_at(timestamp))
            });
            let lesser = before.and_then(|before| self.sources.get(before));
            let lesser = lesser.is_some_and(|before| one.size() < before.size());
            self.switches[usize::from(lesser)] += 1;
            sink.switch(source, &one.config.formats, meant);
            if let Some(before) = before.and_then(|before| self.sources.get_mut(before)) {
                before.sinks.retain(|other| *other != key);
            }
        }
    }

    /// The encoding that a sink begins with.
    pub(super) fn first_encoding(
        &mut self,
        now: Instant,
        sink: SinkKey,
        lead: SourceKey,
    ) -> SourceKey {
        let mut points = std::mem::take(&mut self.points);
        self.look_at(now, lead, &mut points);
        let budget = self.sinks.get(sink).and_then(|sink| sink.budget);
        let best = points.first(budget).map(|at| points.0[at]);
        self.points = points;
        let Some(point) = best else { return lead };
        if let Some(sink) = self.sinks.get_mut(sink) {
            sink.selection.wanted = point.layers;
        }
        point.source
    }

    /// What a sink could use of a source and its other encodings, in bits per second: of each what it sends,
    /// or sent lately.
    pub(super) fn most_of(&self, lead: SourceKey) -> u64 {
        let encodings = self.encodings(lead).iter().filter_map(|key| self.sources.get(*key));
        encodings.map(|one| one.most.max(one.estimate.steady().bps())).max().unwrap_or(0)
    }

    fn encodings(&self, lead: SourceKey) -> &[SourceKey] {
        self.sources.get(lead).map_or(&[], |one| &one.encodings)
    }

    /// What the sender of several encodings is to send at most: those that are used and the smaller ones,
    /// with room to grow. `None` when somebody takes all there is, or could take more than is sent.
    pub(super) fn used_of(&mut self, now: Instant, lead: SourceKey) -> Option<Bitrate> {
        if self.sources.get(lead)?.encodings.is_empty() {
            return None;
        }
        let ms = Stamp::new(self.origin, now).ms;
        let mut rates: Vec<(SourceKey, u64)> = Vec::new();
        for index in 0..self.sources[lead].encodings.len() {
            let key = self.sources[lead].encodings[index];
            let Some(source) = self.sources.get_mut(key) else { continue };
            // It is forgotten: what did not fit once is tried again some day.
            let rate = source.rates.total(ms).unwrap_or_default().bps();
            rates.push((key, source.most.max(rate)));
        }
        rates.sort_by_key(|(_, most)| *most);
        let lead_key = lead;
        let lead = &self.sources[lead];
        let sinks = lead.watchers.iter().filter_map(|sink| self.sinks.get(*sink));
        let mut top = Some(0);
        for sink in sinks.filter(|sink| sink.active) {
            top = top.zip(sink.narrowest).map(|(top, most)| most.bps().max(top));
        }
        let mut used = None;
        let mut sum = 0;
        for (place, &(key, most)) in rates.iter().enumerate() {
            // What never came may be small enough; if nobody watches, nothing is.
            if place > 0 && top.is_some_and(|top| most > top || top == 0) {
                used = Some(Bitrate::from_bps(sum * 5 / 4).max(LEAST));
                break;
            }
            sum += self.sources[key].rates.total(ms).unwrap_or_default().bps();
        }
        let unused_since = &mut self.sources.get_mut(lead_key)?.unused_since;
        let Some(used) = used else {
            *unused_since = None;
            return None;
        };
        let since = *unused_since.get_or_insert(now);
        (now.saturating_duration_since(since) >= UNUSED).then_some(used)
    }
}

impl Source {
    /// Whether its sinks can choose.
    pub fn has_choice(&self) -> bool {
        self.lead.is_none() && self.layered || !self.encodings.is_empty()
    }

    /// What encodings of one source are compared by.
    fn size(&self) -> (u32, u64) {
        (self.pixels.unwrap_or(0), self.most)
    }

    /// Whether it comes at present.
    fn is_live(&self, now: Instant) -> bool {
        let pictures = Duration::from_millis(3 * u64::from(self.rates.interval_ms()));
        let silence = pictures.clamp(SILENCE, MAX_SILENCE);
        self.last_packet_at.is_some_and(|at| now.saturating_duration_since(at) < silence)
    }

    /// What can be had of it, from the least to the best.
    fn points(&self, key: SourceKey, rate: u64, smallest: bool, points: &mut Vec<Point>) {
        let (spatial, temporal) = self.rates.highest();
        for size in 0..=spatial {
            let lowest = if smallest && size == 0 { 0 } else { temporal.saturating_sub(1) };
            for speed in lowest..=temporal {
                let best = (size, speed) == (spatial, temporal);
                let layers =
                    if best { Layers::ALL } else { Layers { spatial: size, temporal: speed } };
                let share = self.rates.share(size, speed);
                let part = |of: u64| Bitrate::from_bps(of.saturating_mul(share) / 256);
                let entry = Bitrate::from_bps(rate.max(self.most));
                let (rate, most) = (part(rate), part(self.most));
                points.push(Point { source: key, layers, rate, most, entry });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_down_soon_stays_down_longer_each_time() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as an origin")]
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut ascent = Ascent::default();
        let mut stays = Vec::new();
        let mut now = 0;
        for _ in 0..5 {
            ascent.up(at(now));
            ascent.down(at(now + 3));
            let stay = (0..).find(|s| ascent.may_go_up(at(now + 3 + s))).unwrap_or_default();
            stays.push(stay);
            now += 3 + stay;
        }
        assert_eq!(stays, [4, 8, 8, 8, 8]);
        // A link that became narrow is no reason, and a long stay above makes up for it.
        ascent.up(at(now));
        ascent.down(at(now + 40));
        assert!(ascent.may_go_up(at(now + 40)));
        ascent.up(at(now + 50));
        ascent.down(at(now + 55));
        assert!(!ascent.may_go_up(at(now + 58)) && ascent.may_go_up(at(now + 59)));
    }
}

//! A selective forwarding middlebox (RFC 7667 §3.7): one packet in, one per sink out.
//!
//! Peers are the parties of RTCP. Each has *sources*, streams that come from it, and *sinks*,
//! streams that go to it. A source feeds any number of sinks, a sink has at most one source and
//! sees one continuous stream whatever it is connected to. Reports are translated, requests for
//! packets are answered from the source's history, requests for keyframes are merged towards the
//! source.
//!
//! The router opens no sockets and holds no keys: what leaves goes through [`Egress`]. Forwarding
//! takes no lock, and no memory once buffers have grown to the stream.
//!
//! Where it was agreed on, packets are numbered over all streams of a peer: it is told which of its own
//! arrived and when, and says the same of ours. From this, or from whatever else a peer tells, comes an
//! estimate of what the way to it carries. It decides when packets leave, what the sinks of the peer get
//! of it, and what the senders of their sources are told.
//!
//! Packets that arrived together are taken in first and then delivered together, see [`Router::take`]. With
//! many sinks, other threads may help with that, see [`Crew`].
//!
//! Of a source that sends several encodings at the same time, or layers, each sink gets what it is allowed.
//!
//! Left out: reports about streams of retransmissions, BYE for what is removed.

mod agenda;
mod allocation;
mod arrivals;
mod batch;
mod budget;
mod clock;
mod control;
mod counting;
mod departures;
mod feedback;
mod header;
mod history;
mod latency;
mod layers;
mod lent;
mod peer;
mod reports;
mod sending;
mod shares;
mod sink;
mod skips;
mod source;
mod stats;

pub use clock::Times;
pub use counting::Holdings;
pub use departures::FeedbackSink;
pub use feedback::{Limit, RembParams};
pub use peer::PeerConfig;
pub use shares::{Alone, Crew, Lender, Share, Way};
pub use sink::{RtxConfig, SinkConfig};
pub use source::SourceConfig;
pub use stats::{DropReason, Drops, PeerStats, SinkStats, SourceStats};

use crate::bandwidth::{self, Means};
use crate::rtp::{Bitrate, Format, NtpTime, RtpPacket, keyframe};
use agenda::{Agenda, Appointment, Whose};
use batch::Batch;
use clock::Stamp;
use latency::Latencies;
use lent::Lent;
use peer::Peer;
use sink::Sink;
use slotmap::{SlotMap, new_key_type};
use source::Source;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

new_key_type! {
    /// A party of RTCP: an endpoint with its transport.
    pub struct PeerKey;
    /// A stream that comes from a peer.
    pub struct SourceKey;
    /// A stream that goes to a peer.
    pub struct SinkKey;
}

/// Events kept for a caller who does not ask; beyond it the oldest are lost and counted.
const MAX_EVENTS: usize = 1_024;

/// After this long without any packet a peer that reported counts as gone.
const SILENCE: Duration = Duration::from_secs(18);

/// Where packets leave. Called in the middle of forwarding, so it must not wait.
pub trait Egress {
    /// One RTP packet: its header, its payload, and the extended sequence number (48 bits count),
    /// whose low 16 bits stand in the header. The same `index` of an SSRC comes again only with the
    /// same header and payload.
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64);
    /// One compound RTCP packet.
    fn rtcp(&mut self, to: PeerKey, compound: &[u8]);
    /// Packets for that party are next: a hint, see [`prefetch`](crate::prefetch). Steps come in their order,
    /// from [`Step::Party`] on.
    fn expect(&mut self, _to: PeerKey, _step: Step) {}
}

/// What a sink's packets need, in the order in which it can be fetched: each tells where the next one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    Sink,
    /// What leaves to its party, and the way there.
    Party,
    /// What it is sealed with.
    Keys,
    /// The indices that were sealed.
    Indices,
}

impl Step {
    const ALL: [Self; 4] = [Self::Sink, Self::Party, Self::Keys, Self::Indices];
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouterEvent {
    /// The first report of a peer, or the first one after its BYE.
    FirstRtcp(PeerKey),
    /// A peer that had reported said goodbye for one of its sources, or nothing came from it for
    /// [`SILENCE`].
    Bye(PeerKey),
}

/// All that belongs to one pipeline.
#[derive(Debug)]
pub struct Router {
    peers: SlotMap<PeerKey, Peer>,
    /// Each for itself: a map that grows moves all that is in it, and half of it may be empty.
    sources: SlotMap<SourceKey, Box<Source>>,
    sinks: SlotMap<SinkKey, Lent<Sink>>,
    /// What sources took in and sinks have not got yet.
    batch: Batch,
    events: VecDeque<RouterEvent>,
    events_lost: u64,
    /// The start of the router's steady clock.
    origin: Instant,
    agenda: Agenda,
    scratch: reports::Scratch,
    /// When it is looked at what sinks can choose among; what there was the last time.
    layers_appointment: Appointment,
    points: layers::Points,
    /// How often a sink went over to a better encoding, and to a lesser one.
    switches: [u64; 2],
    /// Of parties that were removed, and what was told of all.
    estimators_of_removed: bandwidth::Counts,
    estimators_taken: bandwidth::Counts,
    /// Of sources and sinks that were removed.
    drops_of_removed: Drops,
    /// Of control packets, which belong to no stream.
    drops_of_control: Drops,
    drops_taken: Drops,
    /// While they are measured.
    latencies: Option<Latencies>,
}

impl Router {
    /// `now` becomes the origin of the steady clock that abs-send-time is read from.
    pub fn new(now: Instant) -> Self {
        Self {
            peers: SlotMap::with_key(),
            sources: SlotMap::with_key(),
            sinks: SlotMap::with_key(),
            batch: Batch::default(),
            events: VecDeque::new(),
            events_lost: 0,
            origin: now,
            agenda: Agenda::default(),
            scratch: reports::Scratch::default(),
            layers_appointment: Appointment::default(),
            points: layers::Points::default(),
            switches: [0; 2],
            estimators_of_removed: bandwidth::Counts::default(),
            estimators_taken: bandwidth::Counts::default(),
            drops_of_removed: Drops::default(),
            drops_of_control: Drops::default(),
            drops_taken: Drops::default(),
            latencies: None,
        }
    }

    pub fn add_peer(&mut self, now: Instant, config: PeerConfig) -> PeerKey {
        let key = self.peers.insert_with_key(|key| Peer::new(self.origin, now, key, config));
        self.agenda.joined();
        self.plan_peer(key);
        key
    }

    /// Removes a peer with its sources and sinks.
    pub fn remove_peer(&mut self, peer: PeerKey) {
        let Some(peer) = self.peers.remove(peer) else { return };
        self.estimators_of_removed += peer.sending.bandwidth.counts();
        self.agenda.left();
        peer.sources.into_iter().for_each(|source| self.remove_source(source));
        peer.sinks.into_iter().for_each(|sink| self.remove_sink(sink));
    }

    /// # Panics
    /// When `peer` was removed.
    pub fn add_source(&mut self, peer: PeerKey, config: SourceConfig) -> SourceKey {
        let key = self.sources.insert(Box::new(Source::new(self.origin, peer, config)));
        self.agenda.joined();
        self.peers[peer].sources.push(key);
        key
    }

    /// Removes a source; its sinks stay, connected to nothing. With the first of several encodings the
    /// others end for them too.
    pub fn remove_source(&mut self, source: SourceKey) {
        let Some(removed) = self.sources.remove(source) else { return };
        self.agenda.left();
        self.drops_of_removed.add(&removed.stats.drops);
        for key in removed.watchers {
            self.set_route_to_none(key);
        }
        for key in removed.sinks {
            let Some(sink) = self.sinks.get_mut(key) else { continue };
            if sink.next == Some(source) {
                sink.next = None;
            } else if sink.source == Some(source) {
                // It goes over to another encoding when it is looked at next.
                sink.connect(None, &[]);
            }
        }
        if let Some(lead) = removed.lead.and_then(|lead| self.sources.get_mut(lead)) {
            lead.encodings.retain(|one| *one != source);
        }
        if let Some(peer) = self.peers.get_mut(removed.peer) {
            peer.sources.retain(|one| *one != source);
        }
    }

    /// # Panics
    /// When `peer` was removed.
    pub fn add_sink(&mut self, peer: PeerKey, config: SinkConfig) -> SinkKey {
        let key = self.sinks.insert(Lent::new(Sink::new(peer, config)));
        let one = &mut self.peers[peer];
        one.sinks.push(key);
        if self.sinks[key].is_numbered() {
            one.sending.learn(self.origin, Means::TransportWide);
        }
        key
    }

    pub fn remove_sink(&mut self, sink: SinkKey) {
        self.set_route_to_none(sink);
        let Some(removed) = self.sinks.remove(sink) else { return };
        self.drops_of_removed.add(&removed.stats.drops);
        if let Some(peer) = self.peers.get_mut(removed.peer) {
            peer.sinks.retain(|one| *one != sink);
            peer.sending.shared = None;
        }
    }

    /// Connects a sink to a source, or to none. A video sink starts at the next keyframe, which is
    /// asked for with the next timeout (due at once); an audio sink starts with the next packet.
    pub fn set_route(&mut self, now: Instant, sink: SinkKey, source: Option<SourceKey>) {
        let source = source.filter(|source| self.sources.contains_key(*source));
        if self.sinks.get(sink).is_none_or(|one| one.track == source) {
            return;
        }
        let peer = self.sinks[sink].peer;
        self.set_route_to_none(sink);
        if let Some(lead) = source {
            let first = self.first_encoding(now, sink, lead);
            self.sources[lead].watchers.push(sink);
            let one = &mut self.sinks[sink];
            one.track = Some(lead);
            let source = &mut self.sources[first];
            one.connect(Some(first), &source.config.formats);
            source.sinks.push(sink);
        }
        self.routed_anew(now, peer);
        self.want_keyframe_for(now, sink);
    }

    fn set_route_to_none(&mut self, key: SinkKey) {
        let Some(sink) = self.sinks.get_mut(key) else { return };
        for source in [sink.source, sink.next].into_iter().flatten() {
            if let Some(source) = self.sources.get_mut(source) {
                source.sinks.retain(|other| *other != key);
            }
        }
        if let Some(track) = sink.track.take().and_then(|track| self.sources.get_mut(track)) {
            track.watchers.retain(|other| *other != key);
        }
        sink.selection.wanted = sink::Layers::ALL;
        sink.connect(None, &[]);
    }

    /// Switches a sink off, so that nothing is sent to a peer that cannot take it yet, or on again;
    /// then it starts as after [`Self::set_route`]. Sinks begin switched on.
    pub fn set_active(&mut self, now: Instant, sink: SinkKey, active: bool) {
        let Some(one) = self.sinks.get_mut(sink) else { return };
        if one.active != active {
            one.active = active;
            one.close();
            one.stop_measuring();
            let peer = one.peer;
            self.routed_anew(now, peer);
            self.want_keyframe_for(now, sink);
        }
    }

    /// Switches the reports to a peer off, while there is no way to it, or on again. They begin
    /// switched on.
    pub fn set_peer_active(&mut self, now: Instant, peer: PeerKey, active: bool) {
        let Some(one) = self.peers.get_mut(peer) else { return };
        if !std::mem::replace(&mut one.active, active) && active {
            one.schedule_report(now);
            self.plan_peer(peer);
        }
    }

    /// What it takes a peer to answer, measured before any media went to it.
    pub fn set_round_trip(&mut self, peer: PeerKey, time: Duration) {
        if let Some(one) = self.peers.get_mut(peer) {
            one.set_round_trip(time);
        }
    }

    /// Forwards a packet of `source` to its sinks.
    pub fn forward(
        &mut self,
        times: impl Into<Times>,
        source: SourceKey,
        packet: &RtpPacket<'_>,
        out: &mut impl Egress,
    ) {
        self.take(times, source, packet, out);
        self.deliver(out);
    }

    /// Takes a packet of `source` in. It goes to the sinks with [`Self::deliver`], which is to be called
    /// when all that arrived at the same time was taken in, and before anything else is done with sinks.
    pub fn take(
        &mut self,
        times: impl Into<Times>,
        source: SourceKey,
        packet: &RtpPacket<'_>,
        out: &mut impl Egress,
    ) {
        let Times { now, came } = times.into();
        let starts = self.sources.get(source).is_some_and(|one| !one.starting.is_empty());
        if starts || self.batch.is_full() {
            self.deliver(out);
        }
        if starts {
            self.start_sinks(now, source, out);
        }
        let Some(one) = self.sources.get_mut(source) else { return };
        let stamp = Stamp::new(self.origin, now);
        let mut said = one.read(packet);
        if (said.transport_sequence.is_some() || said.carried.capture_time.is_some())
            && let Some(peer) = self.peers.get_mut(one.peer)
        {
            if let Err(reason) =
                peer.take_said(now, came.saturating_duration_since(self.origin), &mut said)
            {
                one.stats.drops.count(reason);
            }
            if let Some(due) = peer.arrivals.poll_timeout() {
                self.agenda.plan(&mut peer.appointment, Whose::Peer(one.peer), due);
            }
        }
        let mut payload = packet.payload();
        let received = match one.unwrap(packet) {
            Ok(None) => one.receive(stamp, came, packet, said.carried),
            Ok(Some(repeated)) => {
                payload = repeated.payload();
                one.receive_repeated(stamp, &repeated)
            }
            Err(reason) => Err(reason),
        };
        let (has_choice, lead) = (one.has_choice(), one.lead);
        if has_choice || lead.is_some() {
            self.plan_choice(now);
            if let Ok(Some(arrival)) = &received
                && arrival.keyframe
            {
                // What came before is still of the encoding that they leave.
                self.deliver(out);
                self.switch_sinks(source, arrival.timestamp);
            }
        }
        let Some(one) = self.sources.get_mut(source) else { return };
        match received {
            Ok(Some(arrival)) if !one.sinks.is_empty() => {
                let payload = if arrival.empty { &[] } else { payload };
                let newest = one.newest_sequence().unwrap_or(arrival.sequence);
                self.batch.push(source, arrival, stamp, newest, payload);
            }
            Ok(_) => {}
            Err(reason) => one.stats.drops.count(reason),
        }
        // A request is already due when it was wanted before the sender's SSRC was known, and when this
        // packet ended an outage.
        let wanting = one.keyframes.is_due();
        let due = one.poll_timeout();
        if let Some(due) = due.filter(|_| !wanting) {
            self.agenda.plan(&mut one.appointment, Whose::Source(source), due);
        }
        if wanting {
            self.request_keyframe(now, source, out);
        }
    }

    /// Asks the sender of `source` for a keyframe, now or as soon as the pace of asking allows.
    pub fn request_keyframe(&mut self, now: Instant, source: SourceKey, out: &mut impl Egress) {
        if let Some(one) = self.sources.get_mut(source) {
            one.wants_keyframe(now);
            self.send_requests(now, source, out);
        }
    }

    /// As [`Self::request_keyframe`], sent with the next timeout, which is due at once.
    pub fn want_keyframe(&mut self, now: Instant, source: SourceKey) {
        if let Some(one) = self.sources.get_mut(source) {
            one.wants_keyframe(now);
            self.agenda.plan(&mut one.appointment, Whose::Source(source), now);
        }
    }

    /// What a sink gets: what it is connected to, or of several encodings one.
    pub fn route(&self, sink: SinkKey) -> Option<SourceKey> {
        self.sinks.get(sink)?.source
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// Sends what is due: requests to sources, reports to peers, and what waited for its time. `ntp` is
    /// the wall clock's reading at `now`.
    pub fn handle_timeout(&mut self, now: Instant, ntp: NtpTime, out: &mut impl Egress) {
        let mut due = std::mem::take(&mut self.scratch.due);
        while let Some((at, whose)) = self.agenda.pop(now) {
            let appointment = match whose {
                Whose::Peer(key) => self.peers.get_mut(key).map(|one| &mut one.appointment),
                Whose::Source(key) => self.sources.get_mut(key).map(|one| &mut one.appointment),
                Whose::Layers => Some(&mut self.layers_appointment),
            };
            if appointment.is_some_and(|appointment| appointment.keep(at)) {
                due.push(whose);
            }
        }
        for whose in due.drain(..) {
            match whose {
                Whose::Source(key) => {
                    if self.sources.get(key).is_some_and(|one| !one.starting.is_empty()) {
                        self.start_sinks(now, key, out);
                    }
                    if let Some(one) = self.sources.get_mut(key) {
                        one.keyframes.handle_input(now, keyframe::Input::Timeout);
                        self.send_requests(now, key, out);
                    }
                }
                Whose::Peer(key) => self.serve_peer(now, ntp, key, out),
                Whose::Layers => self.choose_layers(now, out),
            }
        }
        self.scratch.due = due;
        let (peers, sources) = (&self.peers, &self.sources);
        let layers = self.layers_appointment;
        self.agenda.tidy(|whose, entry| match whose {
            Whose::Peer(key) => peers.get(key).is_some_and(|one| one.appointment == entry),
            Whose::Source(key) => sources.get(key).is_some_and(|one| one.appointment == entry),
            Whose::Layers => layers == entry,
        });
    }

    pub fn poll_event(&mut self) -> Option<RouterEvent> {
        self.events.pop_front()
    }

    /// Bounds in kbps of what REMB tells the sender of a video source; a `max_kbps` of 0 is none.
    pub fn set_video_receive_bounds(&mut self, source: SourceKey, min_kbps: u64, max_kbps: u64) {
        if let Some(source) = self.sources.get_mut(source) {
            source.estimate.bounds.min = Bitrate::from_kbps(min_kbps);
            source.estimate.bounds.max = Bitrate::from_kbps(max_kbps);
        }
    }

    pub fn set_remb_params(&mut self, source: SourceKey, params: RembParams) {
        if let Some(source) = self.sources.get_mut(source) {
            source.estimate.params = params;
        }
    }

    /// All zero for a source that was removed; so are the other statistics.
    pub fn source_stats(&self, source: SourceKey) -> SourceStats {
        self.sources.get(source).map_or_else(SourceStats::default, |one| {
            let round_trip = self.peers.get(one.peer).and_then(|peer| peer.stats.round_trip);
            SourceStats { round_trip, ..one.stats() }
        })
    }

    pub fn sink_stats(&self, sink: SinkKey) -> SinkStats {
        self.sinks.get(sink).map_or_else(SinkStats::default, |one| one.stats)
    }

    pub fn peer_stats(&self, peer: PeerKey) -> PeerStats {
        self.peers.get(peer).map_or_else(PeerStats::default, |one| one.stats)
    }

    /// The formats that were negotiated for a source; none for one that was removed.
    pub fn source_formats(&self, source: SourceKey) -> &[(u8, Format)] {
        self.sources.get(source).map_or(&[], |one| &one.config.formats)
    }

    /// The same for a sink, the preferred first.
    pub fn sink_formats(&self, sink: SinkKey) -> &[(u8, Format)] {
        self.sinks.get(sink).map_or(&[], |one| one.formats())
    }

    /// When the source last sent anything, in any of its encodings.
    pub fn last_packet_at(&self, source: SourceKey) -> Option<Instant> {
        let one = self.sources.get(source)?;
        let all = one.encodings.iter().filter_map(|key| self.sources.get(*key)?.last_packet_at);
        all.chain(one.last_packet_at).max()
    }

    /// When the peer's last report came.
    pub fn last_rtcp_at(&self, peer: PeerKey) -> Option<Instant> {
        self.peers.get(peer)?.last_rtcp_at
    }

    /// What was dropped since this was asked last.
    pub fn take_drops(&mut self) -> Drops {
        let mut total = self.drops_of_removed;
        total.add(&self.drops_of_control);
        self.sources.values().for_each(|source| total.add(&source.stats.drops));
        self.sinks.values().for_each(|sink| total.add(&sink.stats.drops));
        let new = total.since(&self.drops_taken);
        self.drops_taken = total;
        new
    }

    /// How often sinks went over to a better encoding, and to a lesser one, since this was asked last.
    pub fn take_switches(&mut self) -> [u64; 2] {
        std::mem::take(&mut self.switches)
    }

    /// Events that nobody fetched in time.
    pub fn events_lost(&self) -> u64 {
        self.events_lost
    }

    /// A sink will be switched on soon: its keyframe is asked for, so that it is there then.
    pub fn expect(&mut self, now: Instant, sink: SinkKey) {
        let Some(sink) = self.sinks.get(sink).filter(|one| one.is_new() && !one.active) else {
            return;
        };
        let Some(key) = sink.source else { return };
        if self.sources.get(key).is_some_and(|source| source.start(now).is_none()) {
            self.want_keyframe(now, key);
        }
    }

    fn want_keyframe_for(&mut self, now: Instant, waiting: SinkKey) {
        let Some(sink) = self.sinks.get(waiting).filter(|one| one.waits_for_keyframe()) else {
            return;
        };
        let Some(key) = sink.source else { return };
        let Some(source) = self.sources.get_mut(key) else { return };
        if sink.is_new() && source.start(now).is_some() {
            if !source.starting.contains(&waiting) {
                source.starting.push(waiting);
            }
        } else {
            source.wants_keyframe(now);
        }
        self.agenda.plan(&mut source.appointment, Whose::Source(key), now);
    }

    /// Gives new sinks what is there of a source since its last keyframe.
    #[cold]
    fn start_sinks(&mut self, now: Instant, key: SourceKey, out: &mut impl Egress) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let stamp = Stamp::new(self.origin, now);
        let mut starting = std::mem::take(&mut source.starting);
        for waiting in starting.drain(..) {
            let Some(source) = self.sources.get_mut(key) else { break };
            let waits = |one: &&mut Lent<Sink>| one.source == Some(key) && one.waits_for_keyframe();
            let Some(sink) = self.sinks.get_mut(waiting).filter(waits) else { continue };
            let Some(range) = source.start(now) else {
                source.wants_keyframe(now);
                continue;
            };
            let Some(peer) = self.peers.get_mut(sink.peer) else { continue };
            for sequence in range {
                let Some((arrival, payload)) = source.arrival_of(sequence) else { break };
                sink.forward(waiting, stamp, &arrival, payload, &mut peer.sending, out);
            }
            let peer = sink.peer;
            self.plan_peer(peer);
        }
        if let Some(source) = self.sources.get_mut(key) {
            source.starting = starting;
        }
    }

    /// A sink of a peer gets something else from now on.
    fn routed_anew(&mut self, now: Instant, peer: PeerKey) {
        if let Some(one) = self.peers.get_mut(peer) {
            one.sending.shared = None;
            self.share(now, peer);
            self.plan_peer(peer);
        }
    }

    fn plan_source(&mut self, key: SourceKey) {
        if let Some(one) = self.sources.get_mut(key)
            && let Some(due) = one.poll_timeout()
        {
            self.agenda.plan(&mut one.appointment, Whose::Source(key), due);
        }
    }

    fn notice_silence(&mut self, now: Instant, peer: PeerKey) {
        let one = &self.peers[peer];
        let packets = one.sources.iter().filter_map(|key| self.sources.get(*key)?.last_packet_at);
        let last = packets.chain(one.last_rtcp_at).max();
        let silent = last.is_none_or(|last| now.saturating_duration_since(last) >= SILENCE);
        if one.reporting && silent {
            self.peers[peer].reporting = false;
            self.push_event(RouterEvent::Bye(peer));
        }
    }

    fn push_event(&mut self, event: RouterEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.events_lost += 1;
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;

//! A batch for many sinks, in shares that several threads serve.
//!
//! What a sink needs is lent: itself, what leaves to its party, and the way there. So it belongs to one
//! thread at any time, and when the batch is over everything is where it was. A share that nobody else
//! took is served by the thread that made it: a busy helper costs nothing.

use super::{
    Egress, PeerKey, Router, SinkKey, Step,
    agenda::Whose,
    batch::{Group, Packets},
    history::History,
    lent::Lent,
    peer::Peer,
    sending::Sending,
    sink::{Sink, Verdict},
};
use slotmap::SlotMap;
use std::{sync::Arc, time::Instant};

/// Sinks of a share: enough that asking for it costs little, and few enough that nobody waits long for
/// the last one.
const SINKS: usize = 16;
/// Packets times sinks from which on others are asked to help: waking one takes as long as serving some
/// thirty, and to lend and to take back as long as a third of serving one packet.
const WORTH_IT: usize = 128;
/// Sinks whose things are fetched together: for one at a time each step would be waited for, and of many
/// those of the first would be gone again.
const FETCHED: usize = 6;

/// How what leaves to one party is protected and sent, for whoever has it to himself.
pub trait Way: Send {
    /// Where it is sent from: each thread has its own.
    type Out: ?Sized;

    /// As [`Egress::rtp`].
    fn rtp(&mut self, header: &[u8], payload: &[u8], index: u64, out: &mut Self::Out);
}

/// An egress of which the ways to parties can be lent.
pub trait Lender: Egress {
    type Way: Way;

    /// Whatever was to leave leaves, so that nothing overtakes it.
    fn flush(&mut self);
    /// None if what leaves to that party can only leave from here.
    fn lend(&mut self, to: PeerKey) -> Option<Self::Way>;
    fn give_back(&mut self, to: PeerKey, way: Self::Way);
}

/// Threads that help.
pub trait Crew<W: Way> {
    /// Begins a batch; whether somebody has time to help.
    fn begin(&mut self) -> bool;
    /// An empty share: one that was used before, if there is one.
    fn empty(&mut self) -> Share<W>;
    /// Offers a share to whoever is free.
    fn offer(&mut self, share: Share<W>);
    /// A share that was served, by whomever; none when all of them were handed out. What nobody took is
    /// served here, and what somebody works at is waited for.
    fn served(&mut self) -> Option<Share<W>>;
    /// For the next batch.
    fn keep(&mut self, share: Share<W>);
}

/// Nobody helps.
#[derive(Debug, Default)]
pub struct Alone;

impl<W: Way> Crew<W> for Alone {
    fn begin(&mut self) -> bool {
        false
    }

    fn empty(&mut self) -> Share<W> {
        Share::default()
    }

    fn offer(&mut self, _: Share<W>) {}

    fn served(&mut self) -> Option<Share<W>> {
        None
    }

    fn keep(&mut self, _: Share<W>) {}
}

/// Some of the sinks that a batch is for, with all they need.
#[derive(Debug)]
pub struct Share<W> {
    packets: Option<Arc<Packets>>,
    first: u16,
    members: Vec<Member<W>>,
}

#[derive(Debug)]
struct Member<W> {
    key: SinkKey,
    peer: PeerKey,
    sink: Box<Sink>,
    sending: Box<Sending>,
    way: W,
    outcome: Outcome,
}

/// What came of a sink's packets, beside that they left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    wants_keyframe: bool,
    /// Something waits for its time.
    waits: bool,
    /// The sink began with this packet, and needs what came after it already; that and what follows is
    /// still to be done.
    stopped_at: Option<u16>,
}

impl<W> Default for Share<W> {
    fn default() -> Self {
        Self { packets: None, first: 0, members: Vec::new() }
    }
}

impl<W: Way> Share<W> {
    /// Does what there is to do.
    pub fn serve(&mut self, out: &mut W::Out) {
        let Some(packets) = &self.packets else { return };
        for Member { key, sink, sending, way, outcome, .. } in &mut self.members {
            let mut out = Over { way, out };
            *outcome = sink.serve(*key, packets, self.first, None, sending, &mut out);
        }
    }
}

/// The egress to one party.
struct Over<'a, W: Way> {
    way: &'a mut W,
    out: &'a mut W::Out,
}

impl<W: Way> Egress for Over<'_, W> {
    fn rtp(&mut self, _: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        self.way.rtp(header, payload, index, self.out);
    }

    /// Sinks send no reports.
    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

impl Sink {
    /// Serves the sink the packets of a group, from one of them on. Without the history of their source it
    /// stops where it would need it.
    pub(super) fn serve(
        &mut self,
        key: SinkKey,
        packets: &Packets,
        first: u16,
        history: Option<&History>,
        sending: &mut Sending,
        out: &mut impl Egress,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        for (place, packet) in packets.from(first) {
            let payload = packets.payload(packet);
            let (arrival, stamp) = (&packet.arrival, packet.stamp);
            match self.forward(key, stamp, arrival, payload, sending, out) {
                Verdict::Sent | Verdict::Dropped => {}
                Verdict::Held => outcome.waits = true,
                Verdict::WantsKeyframe => {
                    (outcome.waits, outcome.wants_keyframe) = (true, true);
                }
                Verdict::Started => {
                    (outcome.waits, outcome.wants_keyframe) = (true, false);
                    if packet.newest > arrival.sequence {
                        let Some(history) = history else {
                            outcome.stopped_at = Some(place);
                            return outcome;
                        };
                        let (after, newest) = (arrival.sequence, packet.newest);
                        self.catch_up(key, stamp, after, newest, history, sending, out);
                    }
                }
            }
        }
        outcome
    }
}

/// A sink is served soon.
#[inline]
fn expect(
    sinks: &SlotMap<SinkKey, Lent<Sink>>,
    peers: &SlotMap<PeerKey, Peer>,
    key: SinkKey,
    step: Step,
    out: &mut impl Egress,
) {
    let Some(sink) = sinks.get(key).and_then(Lent::here) else { return };
    let sending = || peers.get(sink.peer).and_then(|peer| peer.sending.here());
    match step {
        Step::Sink => return sink.expect(),
        Step::Party => {
            sink.expect_index();
            sending().into_iter().for_each(Sending::expect);
        }
        Step::Keys => sending().into_iter().for_each(|one| one.departures.expect()),
        Step::Indices => {}
    }
    out.expect(sink.peer, step);
}

impl Router {
    /// Sends to the sinks what sources took in.
    pub fn deliver(&mut self, out: &mut impl Egress) {
        let (packets, groups) = self.batch.begin();
        for group in &groups {
            self.serve_all(&packets, group, out);
        }
        drop(packets);
        self.batch.end(groups);
    }

    /// The same, with helpers where there is enough to do.
    pub fn deliver_with<E: Lender>(
        &mut self,
        out: &mut E,
        crew: &mut (impl Crew<E::Way> + ?Sized),
    ) {
        let (packets, groups) = self.batch.begin();
        for group in &groups {
            let sinks = self.sources.get(group.source).map_or(0, |one| one.sinks.len());
            if sinks > SINKS && sinks * usize::from(group.packets) >= WORTH_IT && crew.begin() {
                self.share_out(&packets, group, out, crew);
            } else {
                self.serve_all(&packets, group, out);
            }
        }
        drop(packets);
        self.batch.end(groups);
    }

    fn serve_all(&mut self, packets: &Packets, group: &Group, out: &mut impl Egress) {
        let Some(one) = self.sources.get(group.source) else { return };
        let mut wants_keyframe = false;
        for some in one.sinks.chunks(FETCHED) {
            for step in Step::ALL {
                for &key in some {
                    expect(&self.sinks, &self.peers, key, step, out);
                }
            }
            for &key in some {
                let Some(sink) = self.sinks.get_mut(key) else { continue };
                if sink.source != Some(group.source) {
                    continue; // It waits for a keyframe to go over.
                }
                let Some(peer) = self.peers.get_mut(sink.peer) else { continue };
                let sending = &mut peer.sending;
                let history = Some(&one.history);
                let outcome = sink.serve(key, packets, group.first, history, sending, out);
                wants_keyframe |= outcome.wants_keyframe;
                if outcome.waits
                    && let Some(due) = sending.released_at()
                {
                    self.agenda.plan(&mut peer.appointment, Whose::Peer(sink.peer), due);
                }
            }
        }
        if wants_keyframe {
            self.ask_after(packets, group, out);
        }
    }

    fn share_out<E: Lender>(
        &mut self,
        packets: &Arc<Packets>,
        group: &Group,
        out: &mut E,
        crew: &mut (impl Crew<E::Way> + ?Sized),
    ) {
        out.flush();
        let mut left = std::mem::take(&mut self.scratch.left);
        let Some(one) = self.sources.get(group.source) else { return };
        let mut share = crew.empty();
        for &key in &one.sinks {
            let Some(slot) = self.sinks.get_mut(key) else { continue };
            if slot.source != Some(group.source) {
                continue; // It waits for a keyframe to go over.
            }
            let peer = slot.peer;
            // A party that has two sinks of one source is served by one thread.
            let sending = self.peers.get_mut(peer).and_then(|one| one.sending.lend());
            let Some(sending) = sending else {
                left.push(key);
                continue;
            };
            let way = out.lend(peer);
            let Some((way, sink)) = way.and_then(|way| Some((way, slot.lend()?))) else {
                self.peers[peer].sending.give_back(sending);
                left.push(key);
                continue;
            };
            let outcome = Outcome::default();
            share.members.push(Member { key, peer, sink, sending, way, outcome });
            if share.members.len() == SINKS {
                share.packets = Some(packets.clone());
                share.first = group.first;
                let next = crew.empty();
                crew.offer(std::mem::replace(&mut share, next));
            }
        }
        share.packets = Some(packets.clone());
        share.first = group.first;
        crew.offer(share);
        let mut wants_keyframe = false;
        while let Some(mut share) = crew.served() {
            for member in share.members.drain(..) {
                wants_keyframe |= self.take_back(packets, group, member, out);
            }
            share.packets = None;
            crew.keep(share);
        }
        for key in left.drain(..) {
            wants_keyframe |= self.serve_rest(packets, group, key, group.first, out);
        }
        self.scratch.left = left;
        if wants_keyframe {
            self.ask_after(packets, group, out);
        }
    }

    /// What was lent to a share is here again; whether its sink wants a keyframe.
    fn take_back<E: Lender>(
        &mut self,
        packets: &Packets,
        group: &Group,
        member: Member<E::Way>,
        out: &mut E,
    ) -> bool {
        let Member { key, peer: to, sink, sending, way, outcome } = member;
        out.give_back(to, way);
        if let Some(slot) = self.sinks.get_mut(key) {
            slot.give_back(sink);
        }
        let Some(peer) = self.peers.get_mut(to) else { return false };
        peer.sending.give_back(sending);
        let mut wants_keyframe = outcome.wants_keyframe;
        if outcome.waits
            && let Some(due) = peer.sending.released_at()
        {
            self.agenda.plan(&mut peer.appointment, Whose::Peer(to), due);
        }
        if let Some(place) = outcome.stopped_at {
            self.catch_up(packets, group, key, place, out);
            wants_keyframe |= self.serve_rest(packets, group, key, packets.after(place), out);
        }
        wants_keyframe
    }

    /// A sink began with the packet at `place` of the batch: what came after it already.
    fn catch_up(
        &mut self,
        packets: &Packets,
        group: &Group,
        key: SinkKey,
        place: u16,
        out: &mut impl Egress,
    ) {
        let Some(one) = self.sources.get(group.source) else { return };
        let Some(sink) = self.sinks.get_mut(key) else { return };
        let Some(peer) = self.peers.get_mut(sink.peer) else { return };
        if let Some((_, packet)) = packets.from(place).next() {
            let (after, newest) = (packet.arrival.sequence, packet.newest);
            let (history, sending) = (&one.history, &mut peer.sending);
            sink.catch_up(key, packet.stamp, after, newest, history, sending, out);
        }
    }

    /// Serves one sink from a packet of the batch on; whether it wants a keyframe.
    fn serve_rest(
        &mut self,
        packets: &Packets,
        group: &Group,
        key: SinkKey,
        first: u16,
        out: &mut impl Egress,
    ) -> bool {
        let Some(one) = self.sources.get(group.source) else { return false };
        let Some(sink) = self.sinks.get_mut(key) else { return false };
        let Some(peer) = self.peers.get_mut(sink.peer) else { return false };
        let sending = &mut peer.sending;
        let outcome = sink.serve(key, packets, first, Some(&one.history), sending, out);
        if let Some(due) = sending.released_at() {
            self.agenda.plan(&mut peer.appointment, Whose::Peer(sink.peer), due);
        }
        outcome.wants_keyframe
    }

    /// Some sink could do nothing with what came of this source last.
    #[cold]
    fn ask_after(&mut self, packets: &Packets, group: &Group, out: &mut impl Egress) {
        let now: Option<Instant> = packets.from(group.first).last().map(|(_, one)| one.stamp.now);
        let asked = self.sources.get(group.source).is_none_or(|one| one.keyframes.is_wanting());
        if let Some(now) = now.filter(|_| !asked) {
            self.request_keyframe(now, group.source, out);
        }
    }
}

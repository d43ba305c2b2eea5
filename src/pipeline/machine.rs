//! All that one media worker does, without its thread: datagrams, commands and time go in; datagrams
//! and notices come out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use slotmap::SlotMap;

use super::sealed::{LentWay, Sealed};
use super::setup::{Handshakes, Waiting};
use super::{Command, Notice, Pipeline, Ticket, WorkerId};
use crate::bandwidth::Counts;
use crate::elements::{Asker, Inbound, LegKey, Moment, Net, Owner, PipelineKey, PlainKey};
use crate::model::{Event, ObjectId, RemoteError};
use crate::router::{Alone, Crew, Holdings, PeerKey, RouterEvent};
use crate::rtp::packet::RtpPacket;
use crate::transport::DtlsState;
use crate::transport::LinkOutput;
use crate::transport::demux::{Datagram, classify};
use crate::transport::path::{self, Path};
use crate::transport::webrtc::{Event as SessionEvent, Output, Received};

/// Where datagrams go.
pub trait Outbox {
    /// Sends what `fill` writes into a buffer of an Ethernet frame's length, from the socket bound to
    /// `local`; nothing when `fill` gives none.
    fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    );

    /// The same, with a mark for routers, see [`Leg::mark`].
    fn send_marked(
        &mut self,
        _mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        self.send(local, remote, fill);
    }

    /// Whatever waits to be sent is sent.
    fn flush(&mut self) {}

    /// Whether others than this one may send from the socket bound to `local`.
    fn is_shared(&self, _local: SocketAddr) -> bool {
        false
    }

    /// Does what a session wants with its connection to a TURN server.
    fn link(&mut self, _leg: LegKey, _output: LinkOutput) {}

    /// Sends over that connection the part of a buffer that `fill` returns.
    fn send_link(&mut self, _leg: LegKey, _fill: impl FnOnce(&mut [u8]) -> Option<Range<usize>>) {}

    /// Looks a name up, for [`Machine::handle_resolved`].
    fn resolve(&mut self, _asker: Asker, _name: String) {}
}

/// The way out for what the router of a pipeline sends. The pipeline is borrowed from the machine
/// already, which a method could not know.
macro_rules! sealed {
    ($machine:ident, $pipeline:ident, $out:ident) => {
        Sealed {
            legs: &mut $machine.net.legs,
            peers: &$pipeline.peers,
            plain: &mut $machine.net.plain.legs,
            plain_peers: &$pipeline.plain_peers,
            touched: &mut $machine.net.plain.touched,
            out: $out,
            unsent: &mut $machine.dropped.unsent,
        }
    };
}

/// Why the machine dropped a packet, beyond what transport and router count.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    /// From an address no session knows, or for a user name fragment that is none of ours.
    unknown_session: u64,
    /// A check from an address that another session is connected with.
    address_in_use: u64,
    /// Authenticated, but not RTP.
    malformed_rtp: u64,
    /// A payload type that was not negotiated, or one SSRC too many.
    unknown_stream: u64,
    /// Nowhere to send it: no pair, no keys, or too long to be sealed.
    unsent: u64,
}

/// How many DTLS handshakes began, ended with a connection, and failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shaken {
    pub begun: u64,
    pub done: u64,
    pub failed: u64,
}

/// What a worker holds at a moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Levels {
    pub sessions: usize,
    /// Handshakes under way.
    pub shaking: usize,
    /// Datagrams of handshakes that wait, and their bytes.
    pub handshakes: usize,
    pub handshake_bytes: usize,
    /// Bytes of messages that wait on data channels.
    pub messages: usize,
    pub routers: Holdings,
}

pub struct Machine {
    id: WorkerId,
    pipelines: SlotMap<PipelineKey, Pipeline>,
    ids: HashMap<ObjectId, PipelineKey>,
    net: Net,
    timers: Timers,
    events: Vec<Event>,
    notices: Vec<Notice>,
    /// Pipelines that packets went through since their timers were last looked at.
    busy: Vec<PipelineKey>,
    /// Those of them whose latencies are measured, until that is done.
    timed: Vec<PipelineKey>,
    /// Whose turn it is, for the case that it fails.
    at_work: Option<PipelineKey>,
    ended: usize,
    /// Packets came that have not gone on yet.
    packets: bool,
    /// Handshakes wait until media was sent.
    handshakes: Handshakes,
    shaken: Shaken,
    dropped: Dropped,
    /// By reason, what transports dropped.
    dropped_by_transport: HashMap<&'static str, u64>,
    /// Who helps with packets that are for many.
    crew: Box<dyn Crew<LentWay>>,
}

impl Shaken {
    fn note(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Dtls(DtlsState::Connecting) => self.begun += 1,
            SessionEvent::Dtls(DtlsState::Connected) => self.done += 1,
            SessionEvent::Dtls(DtlsState::Failed) => self.failed += 1,
            _ => {}
        }
    }
}

impl Machine {
    pub fn new(id: WorkerId, net: Net) -> Self {
        Self {
            id,
            pipelines: SlotMap::with_key(),
            ids: HashMap::new(),
            net,
            timers: Timers::default(),
            events: Vec::new(),
            notices: Vec::new(),
            busy: Vec::new(),
            timed: Vec::new(),
            at_work: None,
            ended: 0,
            packets: false,
            handshakes: Handshakes::default(),
            shaken: Shaken::default(),
            dropped: Dropped::default(),
            dropped_by_transport: HashMap::new(),
            crew: Box::new(Alone),
        }
    }

    /// From here on these help with packets that are for many.
    pub fn set_crew(&mut self, crew: Box<dyn Crew<LentWay>>) {
        self.crew = crew;
    }

    /// What happened, in order.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    /// How many pipelines live here.
    pub fn pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// How many pipelines ended since this was asked last.
    pub fn take_ended(&mut self) -> usize {
        std::mem::take(&mut self.ended)
    }

    /// Whether a session still exists.
    pub fn has(&self, leg: LegKey) -> bool {
        self.net.legs.contains_key(leg)
    }

    /// No pipeline is at work: what fails now is nobody's fault.
    pub fn at_rest(&mut self) {
        self.at_work = None;
    }

    /// What was dropped since this was asked last, by reason.
    pub fn take_dropped(&mut self) -> Vec<(&'static str, u64)> {
        let own = std::mem::take(&mut self.dropped);
        let mut all: Vec<_> = self.dropped_by_transport.drain().collect();
        all.extend([
            ("unknown_session", own.unknown_session),
            ("address_in_use", own.address_in_use),
            ("malformed_rtp", own.malformed_rtp),
            ("unknown_stream", own.unknown_stream),
            ("unsent", own.unsent),
            ("handshakes_full", self.handshakes.take_refused()),
            ("old_candidate", std::mem::take(&mut self.net.places.old_candidates)),
            ("too_many_candidates", std::mem::take(&mut self.net.places.refused_candidates)),
            ("malformed_candidate", std::mem::take(&mut self.net.places.malformed_candidates)),
        ]);
        for pipeline in self.pipelines.values_mut() {
            let drops = pipeline.router.take_drops();
            all.extend(drops.iter().map(|(reason, count)| (reason.name(), count)));
        }
        all
    }

    /// What became of handshakes since this was asked last.
    pub fn take_shaken(&mut self) -> Shaken {
        std::mem::take(&mut self.shaken)
    }

    /// What estimates could not use since this was asked last, by name.
    pub fn take_estimator_counts(&mut self) -> [(&'static str, u64); 4] {
        let mut total = Counts::default();
        let all = self.pipelines.values_mut();
        all.for_each(|pipeline| total += pipeline.router.take_estimator_counts());
        total.named()
    }

    /// What is held now. It looks at each session and stream: not for every turn.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels {
            sessions: self.net.legs.len(),
            handshakes: self.handshakes.len(),
            handshake_bytes: self.handshakes.bytes(),
            ..Levels::default()
        };
        for leg in self.net.legs.values() {
            levels.shaking += usize::from(leg.session.dtls_state() == DtlsState::Connecting);
            levels.messages += leg.session.waiting();
        }
        for pipeline in self.pipelines.values() {
            levels.routers += pipeline.router.holdings();
        }
        levels
    }

    /// How often viewers went over to a better encoding, and to a lesser one, since this was asked last.
    pub fn take_switches(&mut self) -> [u64; 2] {
        let each = self.pipelines.values_mut().map(|pipeline| pipeline.router.take_switches());
        each.fold([0; 2], |[up, down], [more_up, more_down]| [up + more_up, down + more_down])
    }

    /// Ends all pipelines.
    pub fn release_all(&mut self, at: Moment, out: &mut impl Outbox) {
        for object in self.ids.keys().cloned().collect::<Vec<_>>() {
            // Releasing cannot fail.
            let _ = self.carry_out(at, Command::Release { object });
        }
        self.settle(at, out);
    }

    /// Throws the pipeline away that was at work, without asking it anything, and says so.
    pub fn bury(&mut self, at: Moment) {
        let Some(key) = self.at_work.take() else { return };
        let legs: Vec<LegKey> = self
            .net
            .legs
            .iter()
            .filter(|(_, leg)| leg.owner.pipeline == key)
            .map(|(leg, _)| leg)
            .collect();
        for leg in legs {
            self.net.demux.remove(leg);
            self.net.legs.remove(leg);
        }
        self.net.plain.close_all(key);
        // Those that were waiting to be looked at are asked again at once.
        for leg in std::mem::take(&mut self.net.touched) {
            if self.net.legs.contains_key(leg) {
                self.timers.set(Timer::Session(leg), at.now);
            }
        }
        self.ids.retain(|_, pipeline| *pipeline != key);
        if let Some(pipeline) = self.pipelines.remove(key) {
            self.ended += 1;
            self.notices.extend(self.events.drain(..).map(Notice::Event));
            let (failure, gone) = pipeline.bury(at);
            self.notices.push(Notice::Event(failure));
            self.notices.extend(gone.into_iter().map(|id| Notice::Destroyed { id }));
        }
    }

    /// A datagram arrived at `local`. `bytes` is deciphered in place. Whether a session took it.
    pub fn handle_datagram(
        &mut self,
        at: Moment,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) -> Option<LegKey> {
        let Some(key) = self.net.demux.find(local, remote, bytes) else {
            self.dropped.unknown_session += 1;
            return None;
        };
        if self.is_taken(at.now, key, local, remote, bytes) {
            self.dropped.address_in_use += 1;
            return None;
        }
        self.handle_of(at, key, local, remote, bytes, out).then_some(key)
    }

    /// Whether a check came over a pair of addresses that another session is using: what comes there
    /// besides checks says nothing of who it is for. So it is with a second call between two servers
    /// that have one port each; it goes over TCP, where each has connections of its own.
    fn is_taken(
        &mut self,
        now: Instant,
        key: LegKey,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        if path::of(local) != Path::Udp || classify(bytes) != Datagram::Stun {
            return false;
        }
        let Some(holder) = self.net.demux.holder(remote).filter(|holder| *holder != key) else {
            return false;
        };
        let used = self.net.legs.get(holder).is_some_and(|leg| leg.session.uses(now, remote));
        if used
            && let Some(leg) = self.net.legs.get_mut(key)
            && !std::mem::replace(&mut leg.crowded_out, true)
        {
            let pipeline = self.pipelines.get(leg.owner.pipeline);
            let _named = pipeline.map(|pipeline| pipeline.span(leg.owner.object).entered());
            tracing::info!(%local, %remote, "another endpoint uses these ports: TCP is tried instead");
        }
        used
    }

    /// A message of the TURN server of a session arrived.
    pub fn handle_link(
        &mut self,
        at: Moment,
        key: LegKey,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) {
        let Some(leg) = self.net.legs.get_mut(key) else { return };
        self.at_work = Some(leg.owner.pipeline);
        match leg.session.handle_link(at.now, bytes) {
            Ok(Some((local, remote, range))) => {
                self.handle_of(at, key, local, remote, &mut bytes[range], out);
            }
            Ok(None) => {}
            Err(reason) => {
                *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
            }
        }
        self.net.touched.push(key);
        self.settle(at, out);
    }

    /// The connection of a session to its TURN server opened, or is lost.
    pub fn handle_link_state(
        &mut self,
        at: Moment,
        key: LegKey,
        open: bool,
        out: &mut impl Outbox,
    ) {
        let Some(leg) = self.net.legs.get_mut(key) else { return };
        self.at_work = Some(leg.owner.pipeline);
        if open {
            leg.session.handle_link_open(at.now);
        } else {
            leg.session.handle_link_lost(at.now);
        }
        self.net.touched.push(key);
        self.settle(at, out);
    }

    /// A name that a session asked about was looked up.
    pub fn handle_resolved(
        &mut self,
        at: Moment,
        asker: Asker,
        ip: Option<IpAddr>,
        out: &mut impl Outbox,
    ) {
        match asker {
            Asker::Session(key, number) => {
                let Some(leg) = self.net.legs.get_mut(key) else { return };
                self.at_work = Some(leg.owner.pipeline);
                leg.session.handle_resolved(at.now, number, ip);
                self.net.touched.push(key);
            }
            Asker::Plain(key) => {
                let Some(leg) = self.net.plain.legs.get_mut(key) else { return };
                self.at_work = Some(leg.owner.pipeline);
                leg.session.handle_resolved(ip);
                self.net.plain.touched.push(key);
            }
        }
        self.settle(at, out);
    }

    fn handle_of(
        &mut self,
        at: Moment,
        key: LegKey,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) -> bool {
        let Some(leg) = self.net.legs.get_mut(key) else { return false };
        let waits = match classify(bytes) {
            Datagram::Dtls => leg.session.shakes_hands(local, remote) || self.handshakes.has(key),
            // Without the keys that are about to be agreed on it would be lost.
            Datagram::Rtp | Datagram::Rtcp => self.handshakes.has(key),
            Datagram::Stun | Datagram::Unknown => false,
        };
        if waits {
            return self.handshakes.push(key, local, remote, bytes, at.came);
        }
        self.take(at, key, local, remote, bytes, out)
    }

    /// How many datagrams wait for [`Self::next_handshake`].
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Takes the next datagram of a handshake, if one waits. What comes of it may take as long as
    /// hundreds of packets: it is for when those were sent.
    pub fn next_handshake(&mut self, at: Moment, out: &mut impl Outbox) {
        if let Some(Waiting { leg, local, remote, mut bytes, came }) = self.handshakes.pop() {
            self.take(Moment { came, ..at }, leg, local, remote, &mut bytes, out);
        }
    }

    /// A datagram for a session; whether it took it.
    fn take(
        &mut self,
        at: Moment,
        key: LegKey,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) -> bool {
        let Some(leg) = self.net.legs.get_mut(key) else { return false };
        self.at_work = Some(leg.owner.pipeline);
        // Media is not logged, and pays for no name.
        let setting_up = !matches!(classify(bytes), Datagram::Rtp | Datagram::Rtcp);
        let pipeline = self.pipelines.get(leg.owner.pipeline).filter(|_| setting_up);
        let _named = pipeline.map(|pipeline| pipeline.span(leg.owner.object).entered());
        match leg.session.handle_datagram(at.now, local, remote, bytes) {
            Received::Rtp(len) => self.forward(at, Way::Session(key), &bytes[..len], out),
            Received::Rtcp(len) => {
                let (peer, owner) = (leg.peer, leg.owner);
                self.handle_rtcp(at, peer, owner, &bytes[..len], out);
            }
            Received::Nothing => {
                self.net.touched.push(key);
                self.settle(at, out);
            }
            Received::Dropped(reason) => {
                *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
                if setting_up {
                    // It may have set something going all the same.
                    self.net.touched.push(key);
                    self.settle(at, out);
                }
                return false;
            }
        }
        true
    }

    /// A datagram arrived at an address that belongs to one way of plain RTP.
    pub fn handle_plain_datagram(
        &mut self,
        at: Moment,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) {
        let Some(key) = self.net.plain.find(local) else {
            self.dropped.unknown_session += 1;
            return;
        };
        let leg = &mut self.net.plain.legs[key];
        let (peer, owner) = (leg.peer, leg.owner);
        self.at_work = Some(owner.pipeline);
        let received = leg.session.handle_datagram(at.now, local, remote, bytes);
        if leg.session.has_events() {
            // Whoever is sent to from now on gets what this packet brings about.
            self.tell_plain(at, key);
        }
        match received {
            Received::Rtp(len) => self.forward(at, Way::Plain(key), &bytes[..len], out),
            Received::Rtcp(len) => self.handle_rtcp(at, peer, owner, &bytes[..len], out),
            Received::Nothing => {}
            Received::Dropped(reason) => {
                *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
            }
        }
    }

    /// Hands on what a way of plain RTP noticed.
    fn tell_plain(&mut self, at: Moment, key: PlainKey) {
        while let Some(leg) = self.net.plain.legs.get_mut(key)
            && let Some(event) = leg.session.poll_event()
        {
            let owner = leg.owner;
            self.at_work = Some(owner.pipeline);
            self.busy.push(owner.pipeline);
            if let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) {
                let (net, events) = (&mut self.net, &mut self.events);
                pipeline.with_object(at, net, events, owner.object, |node, cx| {
                    node.handle_plain(cx, key, event);
                });
            }
        }
    }

    fn forward(&mut self, at: Moment, way: Way, bytes: &[u8], out: &mut impl Outbox) {
        let Ok(packet) = RtpPacket::parse(bytes) else {
            self.dropped.malformed_rtp += 1;
            return;
        };
        let Some((inbound, owner)) = way.inbound(&mut self.net) else { return };
        let Some(found) = inbound.source(&packet) else {
            self.dropped.unknown_stream += 1;
            return;
        };
        let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) else { return };
        let mut egress = sealed!(self, pipeline, out);
        pipeline.router.take((at.now, at.came), found.source, &packet, &mut egress);
        self.packets = true;
        if found.woke {
            pipeline.flow_due = Some(at.now);
        }
        if self.busy.last() != Some(&owner.pipeline) {
            self.busy.push(owner.pipeline);
        }
    }

    fn handle_rtcp(
        &mut self,
        at: Moment,
        peer: Option<PeerKey>,
        owner: Owner,
        compound: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(peer) = peer else { return };
        let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) else { return };
        let mut egress = sealed!(self, pipeline, out);
        pipeline.router.handle_rtcp(at.now, at.ntp, peer, compound, &mut egress);
        self.busy.push(owner.pipeline);
    }

    /// Whether packets wait for [`Self::end_of_batch`].
    pub fn has_packets(&self) -> bool {
        self.packets
    }

    /// A batch of datagrams has been handled: packets among them go on to their sinks, and timers that
    /// they moved are looked at once.
    pub fn end_of_batch(&mut self, at: Moment, out: &mut impl Outbox) {
        self.packets = false;
        self.busy.sort_unstable();
        self.busy.dedup();
        // One by one, so that those behind a pipeline that fails are still looked at.
        while let Some(key) = self.busy.pop() {
            let timed = self.pipelines.get(key).is_some_and(Pipeline::measures_latencies);
            if timed && !self.timed.contains(&key) {
                self.timed.push(key);
            }
            self.deliver(key, out);
            self.look_at(at, key, out);
        }
        self.settle(at, out);
    }

    fn deliver(&mut self, key: PipelineKey, out: &mut impl Outbox) {
        let Some(pipeline) = self.pipelines.get_mut(key) else { return };
        self.at_work = Some(key);
        let mut egress = sealed!(self, pipeline, out);
        pipeline.router.deliver_with(&mut egress, &mut *self.crew);
    }

    /// Whether [`Self::measured`] is to be called when what was handled has left.
    pub fn measures(&self) -> bool {
        !self.timed.is_empty()
    }

    /// A batch that arrived at `arrived` was handled at `routed`, and at `departed` all that came of it
    /// had been given to the network.
    pub fn measured(&mut self, arrived: Instant, routed: Instant, departed: Instant) {
        for key in self.timed.drain(..) {
            if let Some(pipeline) = self.pipelines.get_mut(key) {
                pipeline.router.measured(arrived, routed, departed);
            }
        }
    }

    /// Carries out a command; its events and its reply are among the notices afterwards.
    pub fn handle_command(
        &mut self,
        at: Moment,
        command: Command,
        ticket: Ticket,
        out: &mut impl Outbox,
    ) {
        let result = self.carry_out(at, command);
        self.end_of_batch(at, out);
        self.notices.push(Notice::Reply { ticket, result });
    }

    fn carry_out(
        &mut self,
        at: Moment,
        command: Command,
    ) -> Result<serde_json::Value, RemoteError> {
        match command {
            Command::Create { class, id, parent: None, .. } => {
                let key =
                    self.pipelines.insert_with_key(|key| Pipeline::new(key, at, class, id.clone()));
                self.ids.insert(id.clone(), key);
                self.notices.push(Notice::Created { id, class, parent: None, home: self.id });
                Ok(serde_json::Value::Null)
            }
            Command::Create { class, id, parent: Some(parent), args } => {
                let key = self.pipeline(&parent)?;
                let pipeline = &mut self.pipelines[key];
                pipeline.create(at, &mut self.net, &mut self.events, class, &id, &parent, args)?;
                let home = self.id;
                self.notices.push(Notice::Created { id, class, parent: Some(parent), home });
                Ok(serde_json::Value::Null)
            }
            Command::Invoke { object, method, args } => {
                let key = self.pipeline(&object)?;
                let pipeline = &mut self.pipelines[key];
                pipeline.invoke(at, &mut self.net, &mut self.events, &object, method, args)
            }
            Command::Release { object } => {
                if let Ok(key) = self.pipeline(&object) {
                    let pipeline = &mut self.pipelines[key];
                    let gone = pipeline.release(at, &mut self.net, &mut self.events, &object);
                    self.notices.extend(self.events.drain(..).map(Notice::Event));
                    self.notices.extend(gone.into_iter().map(|id| Notice::Destroyed { id }));
                    if self.ids.remove(&object).is_some() {
                        self.pipelines.remove(key);
                        self.ended += 1;
                    }
                }
                Ok(serde_json::Value::Null)
            }
        }
    }

    /// The pipeline that an object belongs to; it is at work from here on.
    fn pipeline(&mut self, object: &ObjectId) -> Result<PipelineKey, RemoteError> {
        let key = self.ids.get(object.pipeline()).copied();
        let key = key.ok_or_else(|| RemoteError::not_found(object))?;
        self.at_work = Some(key);
        self.busy.push(key);
        Ok(key)
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn handle_timeout(&mut self, at: Moment, out: &mut impl Outbox) {
        while let Some(due) = self.timers.pop(at.now) {
            match due {
                Timer::Session(key) => {
                    if let Some(leg) = self.net.legs.get_mut(key) {
                        self.at_work = Some(leg.owner.pipeline);
                        let pipeline = self.pipelines.get(leg.owner.pipeline);
                        let _named = pipeline.map(|it| it.span(leg.owner.object).entered());
                        leg.session.handle_timeout(at.now);
                        self.net.touched.push(key);
                    }
                }
                Timer::Pipeline(key) => {
                    self.at_work = Some(key);
                    if let Some(pipeline) = self.pipelines.get_mut(key) {
                        let mut egress = sealed!(self, pipeline, out);
                        pipeline.router.handle_timeout(at.now, at.ntp, &mut egress);
                        self.look_at(at, key, out);
                    }
                }
            }
        }
        self.settle(at, out);
    }

    /// Hands on what the router of a pipeline noticed, looks at flows that are due, plans its timer.
    fn look_at(&mut self, at: Moment, key: PipelineKey, out: &mut impl Outbox) {
        let Some(pipeline) = self.pipelines.get_mut(key) else { return };
        self.at_work = Some(key);
        while let Some(event) = pipeline.router.poll_event() {
            let peer = match event {
                RouterEvent::FirstRtcp(peer) | RouterEvent::Bye(peer) => peer,
            };
            let leg = pipeline.peers.get(peer).and_then(|leg| self.net.legs.get(*leg));
            let plain = pipeline.plain_peers.get(peer);
            let plain = plain.and_then(|leg| self.net.plain.legs.get(*leg));
            let owner = leg.map(|leg| leg.owner).or(plain.map(|leg| leg.owner));
            if let Some(Owner { object, .. }) = owner {
                pipeline.with_object(at, &mut self.net, &mut self.events, object, |node, cx| {
                    node.handle_router(cx, event);
                });
            }
        }
        if pipeline.flow_due.is_some_and(|due| due <= at.now) {
            pipeline.update_flow(at, &mut self.net, &mut self.events);
        }
        if pipeline.router.poll_timeout().is_some_and(|due| due <= at.now) {
            let mut egress = sealed!(self, pipeline, out);
            pipeline.router.handle_timeout(at.now, at.ntp, &mut egress);
        }
        let next = [pipeline.router.poll_timeout(), pipeline.flow_due].into_iter().flatten().min();
        if let Some(next) = next {
            self.timers.set(Timer::Pipeline(key), next);
        }
    }

    /// Drains the outputs of sessions that were touched, plans their timers and moves events on.
    fn settle(&mut self, at: Moment, out: &mut impl Outbox) {
        for (key, mut session) in std::mem::take(&mut self.net.closing) {
            session.close(at.now);
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Transmit { local, remote, bytes } => {
                        transmit(out, 0, local, remote, &bytes);
                    }
                    Output::Link(output) => out.link(key, output),
                    _ => {}
                }
            }
        }
        while let Some(key) = self.net.touched.pop() {
            self.at_work = self.net.legs.get(key).map(|leg| leg.owner.pipeline);
            if let Some(leg) = self.net.legs.get_mut(key) {
                leg.session.flush(at.now);
            }
            let mut told = None;
            while let Some(leg) = self.net.legs.get_mut(key)
                && let Some(output) = leg.session.poll_output()
            {
                self.at_work = Some(leg.owner.pipeline);
                match output {
                    Output::Transmit { local, remote, bytes } => {
                        transmit(out, leg.mark, local, remote, &bytes);
                    }
                    Output::Link(output) => out.link(key, output),
                    Output::Resolve { number, name } => {
                        out.resolve(Asker::Session(key, number), name);
                    }
                    Output::Expect(transaction) => self.net.demux.expect(transaction, key),
                    Output::Bind { remote, proven } => {
                        self.net.demux.bind(remote, key, proven);
                    }
                    Output::Live(remote) => self.net.demux.set_live(remote, key),
                    Output::Message { channel, message } => {
                        if let Some(pipeline) = self.pipelines.get_mut(leg.owner.pipeline) {
                            let dropped = &mut self.dropped_by_transport;
                            pipeline.carry_message(
                                at,
                                &mut self.net,
                                key,
                                channel,
                                &message,
                                dropped,
                            );
                        }
                    }
                    Output::Drained => {
                        if let Some(pipeline) = self.pipelines.get_mut(leg.owner.pipeline) {
                            pipeline.resume_data(at, &mut self.net, key);
                        }
                    }
                    Output::Dropped(reason) => {
                        *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
                    }
                    Output::Event(event) => {
                        self.shaken.note(&event);
                        let owner = leg.owner;
                        if let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) {
                            let (net, events) = (&mut self.net, &mut self.events);
                            pipeline.with_object(at, net, events, owner.object, |node, cx| {
                                node.handle_transport(cx, key, event);
                            });
                            pipeline.settle(at, &mut self.net, &mut self.events);
                            told = Some(owner.pipeline);
                        }
                    }
                }
            }
            if let Some(leg) = self.net.legs.get_mut(key)
                && let Some(next) = leg.session.poll_timeout()
            {
                self.timers.set(Timer::Session(key), next);
            }
            // When all is told that happened to the session: what follows from it is told after it.
            if let Some(pipeline) = told {
                self.look_at(at, pipeline, out);
            }
        }
        while let Some(key) = self.net.plain.touched.pop() {
            self.tell_plain(at, key);
        }
        for (key, name) in self.net.plain.questions.drain(..) {
            out.resolve(Asker::Plain(key), name);
        }
        self.notices.extend(self.events.drain(..).map(Notice::Event));
    }
}

/// By which way a packet came.
#[derive(Clone, Copy)]
enum Way {
    Session(LegKey),
    Plain(PlainKey),
}

impl Way {
    fn inbound(self, net: &mut Net) -> Option<(&mut Inbound, Owner)> {
        match self {
            Self::Session(key) => net.legs.get_mut(key).map(|leg| (&mut leg.inbound, leg.owner)),
            Self::Plain(key) => {
                net.plain.legs.get_mut(key).map(|leg| (&mut leg.inbound, leg.owner))
            }
        }
    }
}

fn transmit(out: &mut impl Outbox, mark: u8, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
    out.send_marked(mark, local, remote, |slot| {
        slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(bytes.len())
    });
}

/// Whose time has come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Timer {
    Session(LegKey),
    Pipeline(PipelineKey),
}

/// The next instant of each timer. A timer that moved leaves its old entry behind, which is skipped.
#[derive(Default)]
struct Timers {
    queue: BinaryHeap<Reverse<(Instant, Timer)>>,
    planned: HashMap<Timer, Instant>,
}

impl Timers {
    /// Moves a timer to `when`, unless it comes no later already: then it is asked again there.
    fn set(&mut self, timer: Timer, when: Instant) {
        match self.planned.get(&timer) {
            Some(&planned) if planned <= when => {}
            _ => {
                self.planned.insert(timer, when);
                self.queue.push(Reverse((when, timer)));
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((when, _))| *when)
    }

    /// A timer whose time has come by `now`.
    fn pop(&mut self, now: Instant) -> Option<Timer> {
        loop {
            let &Reverse((when, timer)) = self.queue.peek()?;
            if when > now {
                return None;
            }
            self.queue.pop();
            if self.planned.get(&timer) == Some(&when) {
                self.planned.remove(&timer);
                return Some(timer);
            }
        }
    }
}

//! Datagrams on their way in: whose they are, what session opens them, and what becomes of media and
//! reports that were in them.

use std::net::SocketAddr;
use std::time::Instant;

use super::Machine;
use super::outbox::{Outbox, sealed};
use crate::elements::{Inbound, LegKey, Moment, Net, Owner, PlainKey};
use crate::pipeline::setup::Waiting;
use crate::router::PeerKey;
use crate::rtp::packet::RtpPacket;
use crate::transport::demux::{Datagram, classify};
use crate::transport::path::{self, Path};
use crate::transport::webrtc::Received;

impl Machine {
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

    pub(super) fn handle_of(
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

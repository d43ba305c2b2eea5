//! RTP and RTCP of one media section over two ports of its own (RFC 3550 §11), in the clear or as SRTP
//! with keys from the session description (RFC 4568).
//!
//! Sans-IO. A description says where the peer *receives*; senders often use other ports, so a packet
//! may come from any port of the declared address, but from one sender at a time: the first whose
//! packet is valid holds the port until it falls silent. A peer that is learnt (COMEDIA) holds it for
//! good, and is sent to. What is sealed proves itself, so with keys the declared address does not
//! limit where packets come from. Media goes to the negotiated or the learnt address and to no other.
//!
//! Left out: RTCP over the port of RTP, ICE, DTLS.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::demux::{Datagram, classify};
use super::ports::Pair;
use super::srtp::{Profile, Receiver, Sender, SrtpError};
use super::webrtc::Received;
use super::{DropReason, Traffic};
use crate::rtp::RtpPacket;
use crate::rtp::rtcp::{Rtcp, packets};

/// After this long without a packet another sender of the declared address may take over.
const SILENCE: Duration = Duration::from_secs(5);

/// How many packets before the end of a key its successor is asked for, or an eighth of its life.
const NOTICE: u64 = 1 << 16;

/// Packets that any key may seal (RFC 3711 §9.2).
const LIFETIME: u64 = 1 << 48;

/// A key as it stands in a description.
#[derive(Clone)]
pub struct Key {
    pub profile: Profile,
    /// Master key and salt in one.
    pub material: Vec<u8>,
    /// Packets it may seal, if that is said.
    pub lifetime: Option<u64>,
}

/// What the descriptions say of the peer.
pub struct Remote {
    /// Where it says that it is; none when it does not know, and then it may be anywhere.
    pub address: Option<IpAddr>,
    pub rtp: Option<SocketAddr>,
    pub rtcp: Option<SocketAddr>,
    /// Its ports, if its address is still being looked up, for [`Session::handle_resolved`].
    pub awaited: Option<(u16, Option<u16>)>,
    /// Whether it is sent to where it sends from, whatever ports it names.
    pub learns: bool,
    /// Ours and the peer's.
    pub keys: Option<(Key, Key)>,
    /// Payload types that were agreed on.
    pub formats: Vec<u8>,
}

/// The two ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    Rtp,
    Rtcp,
}

/// What happened to the session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// It is known now where the peer is to be sent to.
    Learnt(Channel),
    /// A key has sealed nearly as many packets as it may.
    KeySoftLimit,
}

/// One section's way to its peer.
pub struct Session {
    pair: Pair,
    rtp: Path,
    rtcp: Path,
    /// None until the descriptions are exchanged.
    started: Option<Started>,
    events: VecDeque<Event>,
    /// Both ports together.
    sent: Traffic,
    received: Traffic,
}

struct Started {
    address: Option<IpAddr>,
    awaited: Option<(u16, Option<u16>)>,
    learns: bool,
    /// A bit for each payload type.
    formats: u128,
    sealing: Option<Sealing>,
}

struct Sealing {
    sender: Sender,
    receiver: Receiver,
    /// Packets opened, and how many of them the owner of the key is to hear of.
    opened: u64,
    worn_at: u64,
    told: bool,
}

#[derive(Default)]
struct Path {
    to: Option<SocketAddr>,
    /// Who sends, and when it last did.
    from: Option<(SocketAddr, Instant)>,
}

impl Session {
    /// A session at two local addresses.
    pub fn new(pair: Pair) -> Self {
        Self {
            pair,
            rtp: Path::default(),
            rtcp: Path::default(),
            started: None,
            events: VecDeque::new(),
            sent: Traffic::default(),
            received: Traffic::default(),
        }
    }

    /// What was sent and what was taken, RTP and RTCP together.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        (self.sent, self.received)
    }

    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// The descriptions are exchanged.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`]
    pub fn start(&mut self, remote: Remote) -> Result<(), SrtpError> {
        let sealing = match &remote.keys {
            Some((ours, theirs)) => Some(Sealing::new(ours, theirs)?),
            None => None,
        };
        if !remote.learns {
            self.rtp.to = remote.rtp;
            self.rtcp.to = remote.rtcp;
        }
        let bits = remote.formats.iter().map(|number| 1_u128 << (number & 127));
        self.started = Some(Started {
            address: remote.address,
            awaited: remote.awaited,
            learns: remote.learns,
            formats: bits.fold(0, |all, one| all | one),
            sealing,
        });
        Ok(())
    }

    /// The name of the peer has this address. None if nobody knows it: then the peer may be anywhere, as
    /// if its description had not said where, and is not sent to.
    pub fn handle_resolved(&mut self, ip: Option<IpAddr>) {
        let Some(started) = &mut self.started else { return };
        let Some((rtp, rtcp)) = started.awaited.take() else { return };
        // A name may lead to what a description may not say.
        let ip = ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        started.address = ip;
        let Some(ip) = ip.filter(|_| !started.learns) else { return };
        let both =
            [(&mut self.rtp, Some(rtp), Channel::Rtp), (&mut self.rtcp, rtcp, Channel::Rtcp)];
        for (path, port, channel) in both {
            if let Some(port) = port.filter(|port| *port > 0) {
                path.to = Some(SocketAddr::new(ip, port));
                self.events.push_back(Event::Learnt(channel));
            }
        }
    }

    /// Takes a datagram that arrived at `local` from `remote`; sealed media is opened in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
    ) -> Received {
        let channel = if local == self.pair.rtp { Channel::Rtp } else { Channel::Rtcp };
        match self.open(now, channel, remote, bytes) {
            Ok(len) if channel == Channel::Rtp => Received::Rtp(len),
            Ok(len) => Received::Rtcp(len),
            Err(reason) => Received::Dropped(reason),
        }
    }

    fn open(
        &mut self,
        now: Instant,
        channel: Channel,
        remote: SocketAddr,
        bytes: &mut [u8],
    ) -> Result<usize, DropReason> {
        let Some(started) = &mut self.started else { return Err(DropReason::NotStarted) };
        let path = match channel {
            Channel::Rtp => &mut self.rtp,
            Channel::Rtcp => &mut self.rtcp,
        };
        let sealed = started.sealing.is_some();
        if !path.admits(now, remote, started, self.pair.rtp.ip(), sealed) {
            return Err(DropReason::UnexpectedSender);
        }
        match (channel, classify(bytes)) {
            (Channel::Rtp, Datagram::Rtp) | (Channel::Rtcp, Datagram::Rtcp) => {}
            _ => return Err(DropReason::UnknownProtocol),
        }
        let len = match &mut started.sealing {
            Some(sealing) => sealing.open(channel, bytes)?,
            None => bytes.len(),
        };
        let holds = path.from.is_some_and(|(from, _)| from == remote);
        if !holds && let Err(reason) = started.check(channel, &bytes[..len]) {
            // A stranger that gets this far has still to make sense before it takes the port.
            return Err(reason);
        }
        path.from = Some((remote, now));
        self.received.count(bytes.len());
        if started.learns && path.to.is_none() {
            path.to = Some(remote);
            self.events.push_back(Event::Learnt(channel));
        }
        if started.sealing.as_mut().is_some_and(Sealing::wears) {
            self.events.push_back(Event::KeySoftLimit);
        }
        Ok(len)
    }

    /// From where RTP is sent and where to, once that is known.
    pub fn rtp_path(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.pair.rtp, self.rtp.to?))
    }

    /// From where RTCP is sent and where to, once that is known.
    pub fn rtcp_path(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.pair.rtcp, self.rtcp.to?))
    }

    /// Writes a packet as it goes over the network; none when there is no room or no key for it.
    pub fn write_rtp(
        &mut self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut [u8],
    ) -> Option<usize> {
        let started = self.started.as_mut()?;
        let Some(sealing) = &mut started.sealing else {
            let (head, rest) = out.split_at_mut_checked(header.len())?;
            head.copy_from_slice(header);
            rest.get_mut(..payload.len())?.copy_from_slice(payload);
            self.sent.count(header.len() + payload.len());
            return Some(header.len() + payload.len());
        };
        let len = sealing.sender.seal_rtp(header, payload, index, out).ok();
        if let Some(len) = len {
            self.sent.count(len);
        }
        if sealing.wears() {
            self.events.push_back(Event::KeySoftLimit);
        }
        len
    }

    /// As [`Self::write_rtp`], for a compound packet of RTCP.
    pub fn write_rtcp(&mut self, compound: &[u8], out: &mut [u8]) -> Option<usize> {
        let started = self.started.as_mut()?;
        let Some(sealing) = &mut started.sealing else {
            out.get_mut(..compound.len())?.copy_from_slice(compound);
            self.sent.count(compound.len());
            return Some(compound.len());
        };
        let len = sealing.sender.seal_rtcp(compound, out).ok();
        if let Some(len) = len {
            self.sent.count(len);
        }
        if sealing.wears() {
            self.events.push_back(Event::KeySoftLimit);
        }
        len
    }

    /// Whether [`Self::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

impl Path {
    /// Whether a packet from `remote` is looked at.
    fn admits(
        &self,
        now: Instant,
        remote: SocketAddr,
        started: &Started,
        own: IpAddr,
        sealed: bool,
    ) -> bool {
        if let Some((from, at)) = self.from {
            if from == remote {
                return true;
            }
            if started.learns || now.saturating_duration_since(at) < SILENCE {
                return false;
            }
        }
        sealed
            || match started.address {
                None => started.awaited.is_none(),
                // Who says "this machine" may be seen at any of its addresses.
                Some(address) if address.is_loopback() => {
                    remote.ip().is_loopback() || remote.ip() == own
                }
                Some(address) => remote.ip() == address,
            }
    }
}

impl Started {
    /// Whether a packet in the clear is what was agreed on (RFC 3550 appendix A.1 and A.2).
    fn check(&self, channel: Channel, bytes: &[u8]) -> Result<(), DropReason> {
        if channel == Channel::Rtp {
            let packet = RtpPacket::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
            let agreed = self.formats & 1 << packet.payload_type != 0;
            return if agreed { Ok(()) } else { Err(DropReason::RtpMalformed) };
        }
        let mut all = packets(bytes);
        match all.next() {
            Some(Ok(Rtcp::SenderReport { .. } | Rtcp::ReceiverReport { .. })) => {}
            _ => return Err(DropReason::RtcpMalformed),
        }
        if all.all(|packet| packet.is_ok()) { Ok(()) } else { Err(DropReason::RtcpMalformed) }
    }
}

impl Sealing {
    fn new(ours: &Key, theirs: &Key) -> Result<Self, SrtpError> {
        let split = |key: &Key| {
            let at = key.profile.key_len();
            key.material.split_at_checked(at).map(|(key, salt)| (key.to_vec(), salt.to_vec()))
        };
        let (key, salt) = split(ours).ok_or(SrtpError::KeyLength)?;
        let sender = Sender::new(ours.profile, &key, &salt)?;
        let (key, salt) = split(theirs).ok_or(SrtpError::KeyLength)?;
        let receiver = Receiver::new(theirs.profile, &key, &salt)?;
        let lifetime = theirs.lifetime.unwrap_or(LIFETIME).min(LIFETIME);
        let worn_at = lifetime - NOTICE.min(lifetime / 8);
        Ok(Self { sender, receiver, opened: 0, worn_at, told: false })
    }

    fn open(&mut self, channel: Channel, bytes: &mut [u8]) -> Result<usize, DropReason> {
        let len = match channel {
            Channel::Rtp => self.receiver.open_rtp(bytes),
            Channel::Rtcp => self.receiver.open_rtcp(bytes),
        }?;
        self.opened += 1;
        Ok(len)
    }

    /// Whether a key is nearly used up; true once.
    fn wears(&mut self) -> bool {
        let worn = self.opened >= self.worn_at || self.sender.is_worn();
        worn && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests;

//! A TURN client (RFC 8656): one allocation for UDP, a channel for each peer, both kept alive.
//!
//! Sees whole messages; how they are framed on a connection is not its business. Left out: IPv6
//! addresses for lease, alternate servers, permissions without a channel, and SHA-256 passwords.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};

use crate::config::modules::{TurnServer, TurnTransport};
use crate::transport::DropReason;
use crate::transport::stun::{self, Builder, Transaction};

const ALLOCATE: u16 = 0x0003;
const REFRESH: u16 = 0x0004;
const CHANNEL_BIND: u16 = 0x0009;
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;
/// The bits of a message's kind that make it an answer.
const SUCCESS: u16 = 0x0100;
const ERROR: u16 = 0x0110;

const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// The code of a server that has no address of the family that is asked for (RFC 8656 §19).
const WRONG_FAMILY: u16 = 440;

/// What a channel's header takes before a datagram.
pub const HEADROOM: usize = 4;
/// Channels of one allocation, and the number of the first (RFC 8656 §12).
const MAX_CHANNELS: usize = 64;
const FIRST_CHANNEL: u16 = 0x4000;
/// A binding holds for 10 minutes, but the permission in it for 5 only (§9, §12).
const REBIND: Duration = Duration::from_secs(240);
/// Of an allocation that the server says nothing else about.
const DEFAULT_LIFETIME: u32 = 600;
/// Before a request is sent again over UDP; each time twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_SENDS: u32 = 6;
/// How often the server may ask for other credentials in answer to one request.
const MAX_CHALLENGES: u32 = 3;
/// The longest realm and nonce that are taken.
const MAX_TEXT: usize = 763;

#[derive(Debug, Eq, PartialEq)]
pub(super) enum Event {
    Allocated(SocketAddr),
    /// There is no allocation any more, or never was.
    Lost(Option<SocketAddr>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Allocate,
    Refresh { lifetime: u32 },
    Bind { channel: u16, peer: SocketAddr },
}

struct Request {
    kind: Kind,
    transaction: Transaction,
    bytes: BytesMut,
    sends: u32,
    challenges: u32,
    next_at: Instant,
}

struct Channel {
    number: u16,
    peer: SocketAddr,
    bound: bool,
    refresh_at: Option<Instant>,
}

pub(super) struct Turn {
    config: TurnServer,
    provider: Arc<dyn RTCCryptoProvider>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: Option<stun::Key>,
    /// A connection delivers by itself.
    reliable: bool,
    relayed: Option<SocketAddr>,
    /// It has none of IPv4, which is asked for first, and so one of IPv6 is asked for.
    ipv6: bool,
    requests: Vec<Request>,
    channels: Vec<Channel>,
    refresh_at: Option<Instant>,
    refusal: Option<Refusal>,
    outgoing: VecDeque<BytesMut>,
    events: VecDeque<Event>,
}

/// Why a TURN server lends no address: its code, and what that means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub because: &'static str,
}

impl Refusal {
    fn new(code: u16) -> Self {
        let because = match code {
            401 => "user or password are wrong",
            403 => "forbidden by its rules",
            440 => "it has none of IPv4, nor of IPv6",
            437 | 486 => "this user has all that he may have",
            508 => "it has no port left",
            _ => "see its log",
        };
        Self { code, because }
    }
}

/// Borrows an address from a TURN server and gives it back: for those who only want to know whether it
/// would lend one. Messages that get lost are not its business.
pub struct Trial(Turn);

impl Trial {
    pub fn new(now: Instant, server: TurnServer) -> Self {
        let mut turn = Turn::new(server, Arc::new(AwsLcRsProvider::new()));
        turn.begin(now);
        Self(turn)
    }

    /// What is to be sent.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.0.poll_transmit()
    }

    /// Takes a message of the server; what it says about the address, once it does.
    pub fn handle_message(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Option<Result<SocketAddr, Refusal>> {
        // What does not belong to the question is no answer.
        let _ = self.0.handle_message(now, bytes);
        match self.0.poll_event()? {
            Event::Allocated(lent) => {
                self.0.close();
                Some(Ok(lent))
            }
            Event::Lost(_) => Some(Err(self.0.refusal.unwrap_or(Refusal::new(500)))),
        }
    }
}

impl Turn {
    pub(super) fn new(config: TurnServer, provider: Arc<dyn RTCCryptoProvider>) -> Self {
        Self {
            reliable: matches!(config.transport, Some(TurnTransport::Tcp | TurnTransport::Tls)),
            config,
            provider,
            realm: Vec::new(),
            nonce: Vec::new(),
            key: None,
            relayed: None,
            ipv6: false,
            requests: Vec::new(),
            channels: Vec::new(),
            refresh_at: None,
            refusal: None,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The way to the server is open.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.requests.is_empty() && self.relayed.is_none() {
            self.request(now, Kind::Allocate, 0);
        }
    }

    /// The address lent to us.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Takes a message of the server. Returns who sent the datagram in it, and where it lies.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<(SocketAddr, Range<usize>)>, DropReason> {
        if let [high @ 0x40..=0x4f, low, long, short, ..] = *bytes {
            let number = u16::from_be_bytes([high, low]);
            let len = usize::from(u16::from_be_bytes([long, short]));
            let channel = self.channels.iter().find(|channel| channel.number == number);
            let channel = channel.filter(|_| bytes.len() >= HEADROOM + len);
            let peer = channel.map(|channel| channel.peer).ok_or(DropReason::StunUnexpected)?;
            return Ok(Some((peer, HEADROOM..HEADROOM + len)));
        }
        let kind = stun::kind(bytes).ok_or(DropReason::StunMalformed)?;
        if kind == DATA_INDICATION {
            let peer = stun::xor_address(bytes, XOR_PEER_ADDRESS);
            let data = stun::attribute(bytes, DATA);
            let (Some(peer), Some(data)) = (peer, data) else {
                return Err(DropReason::StunMalformed);
            };
            let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
            return Ok(Some((peer, start..start + data.len())));
        }
        let transaction = stun::transaction(bytes).ok_or(DropReason::StunMalformed)?;
        let known = self.requests.iter().position(|known| known.transaction == transaction);
        let at = known.ok_or(DropReason::StunUnexpected)?;
        match kind & ERROR {
            SUCCESS => {
                let key = self.key.as_ref().ok_or(DropReason::StunIntegrity)?;
                stun::verify(bytes, key).ok_or(DropReason::StunIntegrity)?;
                let request = self.requests.swap_remove(at);
                self.granted(now, request.kind, bytes);
            }
            ERROR => {
                let request = self.requests.swap_remove(at);
                self.refused(now, &request, bytes);
            }
            _ => return Err(DropReason::StunUnexpected),
        }
        Ok(None)
    }

    fn granted(&mut self, now: Instant, kind: Kind, bytes: &[u8]) {
        let lifetime = || {
            let told = stun::attribute(bytes, LIFETIME).and_then(stun::number);
            let told = told.and_then(|seconds| u32::try_from(seconds).ok());
            Duration::from_secs(told.unwrap_or(DEFAULT_LIFETIME).clamp(10, 86_400).into())
        };
        match kind {
            Kind::Allocate => match stun::xor_addresses(bytes, XOR_RELAYED_ADDRESS).next() {
                Some(relayed) => {
                    self.relayed = Some(relayed);
                    self.refresh_at = Some(now + lifetime() / 2);
                    self.events.push_back(Event::Allocated(relayed));
                }
                None => self.lose(),
            },
            Kind::Refresh { lifetime: 0 } => {}
            Kind::Refresh { .. } => self.refresh_at = Some(now + lifetime() / 2),
            Kind::Bind { channel, .. } => {
                if let Some(channel) = self.channels.iter_mut().find(|one| one.number == channel) {
                    channel.bound = true;
                    channel.refresh_at = Some(now + REBIND);
                }
            }
        }
    }

    fn refused(&mut self, now: Instant, request: &Request, bytes: &[u8]) {
        let code = stun::error_code(bytes).unwrap_or(500);
        // Without credentials, or with a nonce that has become old.
        if matches!(code, 401 | 438) && request.challenges < MAX_CHALLENGES {
            let text = |kind| stun::attribute(bytes, kind).filter(|text| text.len() <= MAX_TEXT);
            let (realm, nonce) = (text(REALM), text(NONCE));
            let news = code == 438 || self.key.is_none();
            if let (Some(nonce), true) = (nonce, news) {
                self.nonce = nonce.to_vec();
                self.realm = realm.map_or_else(|| self.realm.clone(), <[u8]>::to_vec);
                self.key = self.make_key();
                self.request(now, request.kind, request.challenges + 1);
                return;
            }
        }
        if code == WRONG_FAMILY && request.kind == Kind::Allocate && !self.ipv6 {
            self.ipv6 = true;
            self.request(now, Kind::Allocate, request.challenges);
            return;
        }
        let server = &self.config;
        match request.kind {
            Kind::Allocate => {
                let Refusal { code, because } = *self.refusal.insert(Refusal::new(code));
                tracing::warn!(%server, code, because, "the TURN server lends no address");
                self.lose();
            }
            Kind::Refresh { lifetime } if lifetime > 0 => {
                tracing::warn!(%server, code, "the TURN server takes its address back");
                self.lose();
            }
            Kind::Refresh { .. } => {}
            // This peer cannot be reached over the relay; it is tried again when it would be refreshed.
            Kind::Bind { channel, peer } => {
                tracing::debug!(%server, code, %peer, "the TURN server does not reach a peer");
                if let Some(channel) = self.channels.iter_mut().find(|one| one.number == channel) {
                    channel.bound = false;
                    channel.refresh_at = Some(now + REBIND);
                }
            }
        }
    }

    /// RFC 8489 §9.2.2.
    fn make_key(&self) -> Option<stun::Key> {
        let (user, password) = (self.config.user.as_bytes(), self.config.password.expose());
        let text = [user, b":", &self.realm, b":", password.as_bytes()].concat();
        let hash = self.provider.crypto().hash(HashAlgorithm::Md5, &text).ok()?;
        Some(stun::key(hash.as_ref()))
    }

    fn lose(&mut self) {
        self.events.push_back(Event::Lost(self.relayed.take()));
        self.requests.clear();
        self.channels.clear();
        self.refresh_at = None;
    }

    /// Sends a datagram to a peer: over its channel, or as an indication until the channel is bound,
    /// which the server ignores as long as it knows no permission either.
    pub(super) fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if self.relayed.is_none() {
            return;
        }
        let Some(at) = self.channel(now, peer) else { return };
        let message = if self.channels[at].bound {
            let mut slot = BytesMut::zeroed(HEADROOM + bytes.len().next_multiple_of(4));
            slot[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
            let Some(range) = self.wrap(peer, &mut slot, bytes.len()) else { return };
            slot.truncate(range.end);
            slot
        } else {
            Builder::new(SEND_INDICATION, &stun::new_transaction())
                .xor_address(XOR_PEER_ADDRESS, peer)
                .attribute(DATA, bytes)
                .finish()
        };
        self.outgoing.push_back(message);
    }

    /// The channel of a peer, which is asked for if there is none.
    fn channel(&mut self, now: Instant, peer: SocketAddr) -> Option<usize> {
        if let Some(at) = self.channels.iter().position(|channel| channel.peer == peer) {
            return Some(at);
        }
        if self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        let number = FIRST_CHANNEL + self.channels.len() as u16;
        self.channels.push(Channel { number, peer, bound: false, refresh_at: None });
        self.request(now, Kind::Bind { channel: number, peer }, 0);
        Some(self.channels.len() - 1)
    }

    /// Puts a channel's header before the `len` bytes that follow the first [`HEADROOM`] of `slot`.
    pub(super) fn wrap(
        &self,
        peer: SocketAddr,
        slot: &mut [u8],
        len: usize,
    ) -> Option<Range<usize>> {
        let mut bound = self.channels.iter().filter(|channel| channel.bound);
        let channel = bound.find(|channel| channel.peer == peer)?;
        slot[..2].copy_from_slice(&channel.number.to_be_bytes());
        slot[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        // On a connection the next message begins at a multiple of four (RFC 8656 §12.5).
        let end = if self.reliable { HEADROOM + len.next_multiple_of(4) } else { HEADROOM + len };
        slot.get_mut(HEADROOM + len..end)?.fill(0);
        Some(0..end)
    }

    fn request(&mut self, now: Instant, kind: Kind, challenges: u32) {
        let transaction = stun::new_transaction();
        let method = match kind {
            Kind::Allocate => ALLOCATE,
            Kind::Refresh { .. } => REFRESH,
            Kind::Bind { .. } => CHANNEL_BIND,
        };
        let mut message = Builder::new(method, &transaction);
        message = match kind {
            // The number is that of UDP among the protocols over IP.
            Kind::Allocate => {
                let message = message.attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                let ipv6 = |one: Builder| one.attribute(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                if self.ipv6 { ipv6(message) } else { message }
            }
            Kind::Refresh { lifetime } => message.attribute(LIFETIME, &lifetime.to_be_bytes()),
            Kind::Bind { channel, peer } => {
                let [high, low] = channel.to_be_bytes();
                message
                    .attribute(CHANNEL_NUMBER, &[high, low, 0, 0])
                    .xor_address(XOR_PEER_ADDRESS, peer)
            }
        };
        if let Some(key) = &self.key {
            message = message
                .attribute(stun::USERNAME, self.config.user.as_bytes())
                .attribute(REALM, &self.realm)
                .attribute(NONCE, &self.nonce)
                .integrity(key);
        }
        let bytes = message.fingerprint();
        self.outgoing.push_back(bytes.clone());
        let next_at = now + self.wait(1);
        self.requests.push(Request { kind, transaction, bytes, sends: 1, challenges, next_at });
    }

    fn wait(&self, sends: u32) -> Duration {
        // A connection gets one try, for as long as all those of UDP together.
        FIRST_WAIT * 2_u32.pow(if self.reliable { MAX_SENDS } else { sends - 1 })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.iter().map(|request| request.next_at);
        let channels = self.channels.iter().filter_map(|channel| channel.refresh_at);
        requests.chain(channels).chain(self.refresh_at).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let mut given_up = Vec::new();
        for at in (0..self.requests.len()).rev() {
            if self.requests[at].next_at > now {
                continue;
            }
            if self.reliable || self.requests[at].sends >= MAX_SENDS {
                given_up.push(self.requests.swap_remove(at).kind);
                continue;
            }
            self.outgoing.push_back(self.requests[at].bytes.clone());
            self.requests[at].sends += 1;
            self.requests[at].next_at = now + self.wait(self.requests[at].sends);
        }
        for kind in given_up {
            match kind {
                Kind::Bind { channel, .. } => {
                    let channel = self.channels.iter_mut().find(|one| one.number == channel);
                    if let Some(channel) = channel {
                        channel.bound = false;
                        channel.refresh_at = Some(now + REBIND);
                    }
                }
                Kind::Allocate | Kind::Refresh { .. } => {
                    self.lose();
                    return;
                }
            }
        }
        if self.refresh_at.is_some_and(|due| due <= now) {
            self.refresh_at = None;
            self.request(now, Kind::Refresh { lifetime: DEFAULT_LIFETIME }, 0);
        }
        for at in 0..self.channels.len() {
            let channel = &mut self.channels[at];
            if channel.refresh_at.is_some_and(|due| due <= now) {
                channel.refresh_at = None;
                let (channel, peer) = (channel.number, channel.peer);
                self.request(now, Kind::Bind { channel, peer }, 0);
            }
        }
    }

    /// Gives the address back; nobody waits for the answer.
    pub(super) fn close(&mut self) {
        self.outgoing.clear();
        let Some(key) = self.key.as_ref().filter(|_| self.relayed.is_some()) else { return };
        let message = Builder::new(REFRESH, &stun::new_transaction())
            .attribute(LIFETIME, &[0; 4])
            .attribute(stun::USERNAME, self.config.user.as_bytes())
            .attribute(REALM, &self.realm)
            .attribute(NONCE, &self.nonce)
            .integrity(key)
            .fingerprint();
        self.outgoing.push_back(message);
    }

    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.outgoing.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

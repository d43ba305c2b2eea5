//! Candidates that servers know of: how a STUN server sees our sockets (RFC 8489), and an address that a
//! TURN server lends.
//!
//! Ends by itself: what no server answered within the time limit is left out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;

use super::turn::{self, Turn};
use crate::config::modules::{TurnServer, TurnTransport};
use crate::transport::DropReason;
use crate::transport::stun::{self, Builder, Transaction};

/// Numbers of names: those of servers, and the first for the owner's use.
const STUN_NAME: u32 = 0;
const TURN_NAME: u32 = 1;
pub(super) const FIRST_NAME: u32 = 2;

/// How long gathering may take in all.
const LIMIT: Duration = Duration::from_secs(5);
/// Before a request is sent again; each time twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_SENDS: u32 = 4;

/// The servers that are asked.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    /// Name or address, and port.
    pub stun: Option<(String, u16)>,
    pub turn: Option<TurnServer>,
}

/// What is wanted of the connection to the TURN server, of which a session has one at most.
#[derive(Debug, Eq, PartialEq)]
pub enum LinkOutput {
    /// Opens it; `name` is what a certificate must show.
    Open {
        server: SocketAddr,
        transport: TurnTransport,
        name: String,
    },
    /// Sends one message.
    Send(BytesMut),
    Close,
}

#[derive(Debug)]
pub(super) enum Output {
    Transmit(SocketAddr, SocketAddr, BytesMut),
    Expect(Transaction),
    Resolve(u32, String),
    /// A STUN server sees the socket at `base` as `seen`.
    Reflexive {
        base: SocketAddr,
        seen: SocketAddr,
    },
    Relayed(SocketAddr),
    RelayLost(SocketAddr),
    Link(LinkOutput),
    Done,
}

/// One socket's question to the STUN server.
struct Query {
    transaction: Transaction,
    base: SocketAddr,
    server: SocketAddr,
    sends: u32,
    next_at: Instant,
}

/// A name or an address, the latter in brackets where its colons would confuse.
fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

pub(super) struct Gathering {
    provider: Arc<dyn RTCCryptoProvider>,
    servers: Servers,
    bases: Vec<SocketAddr>,
    /// Names of servers whose addresses are awaited.
    resolving: Vec<u32>,
    queries: Vec<Query>,
    turn: Option<Box<Turn>>,
    /// Until when it may go on; none when it has not begun, or is done.
    until: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Gathering {
    pub(super) fn new(provider: Arc<dyn RTCCryptoProvider>) -> Self {
        Self {
            provider,
            servers: Servers::default(),
            bases: Vec::new(),
            resolving: Vec::new(),
            queries: Vec::new(),
            turn: None,
            until: None,
            outputs: VecDeque::new(),
        }
    }

    /// The server that tells of server-reflexive addresses, as a URI (RFC 7064).
    pub(super) fn stun_url(&self) -> String {
        let server = self.servers.stun.as_ref();
        server.map(|(host, port)| format!("stun:{}:{port}", in_url(host))).unwrap_or_default()
    }

    /// The server that lends addresses, as a URI (RFC 7065); it tells how it sees us, too.
    pub(super) fn turn_url(&self) -> String {
        let Some(server) = &self.servers.turn else { return String::new() };
        let (scheme, transport) = match server.transport {
            None | Some(TurnTransport::Udp) => ("turn", "udp"),
            Some(TurnTransport::Tcp) => ("turn", "tcp"),
            Some(TurnTransport::Tls) => ("turns", "tcp"),
        };
        format!("{scheme}:{}:{}?transport={transport}", in_url(&server.host), server.port)
    }

    pub(super) fn start(&mut self, now: Instant, servers: Servers, bases: Vec<SocketAddr>) {
        self.until = Some(now + LIMIT);
        let stun = servers.stun.as_ref().map(|(name, _)| (STUN_NAME, name.clone()));
        let turn = servers.turn.as_ref().map(|server| (TURN_NAME, server.host.clone()));
        (self.servers, self.bases) = (servers, bases);
        for (number, name) in stun.into_iter().chain(turn) {
            match name.parse() {
                Ok(ip) => self.begin(now, number, ip),
                Err(_) => {
                    self.resolving.push(number);
                    self.outputs.push_back(Output::Resolve(number, name));
                }
            }
        }
        self.finish(now);
    }

    pub(super) fn handle_resolved(&mut self, now: Instant, number: u32, ip: Option<IpAddr>) {
        let awaited = self.resolving.contains(&number);
        self.resolving.retain(|waiting| *waiting != number);
        match ip.filter(|_| awaited && self.until.is_some()) {
            Some(ip) => self.begin(now, number, ip),
            None if awaited => {
                let server = if number == TURN_NAME { "TURN" } else { "STUN" };
                tracing::warn!(server, "the server's name has no address");
            }
            None => {}
        }
        self.finish(now);
    }

    /// The address of a server is known.
    fn begin(&mut self, now: Instant, number: u32, ip: IpAddr) {
        if number == TURN_NAME {
            if let Some(config) = self.servers.turn.clone() {
                let transport = config.transport.unwrap_or(TurnTransport::Udp);
                let (name, server) = (config.host.clone(), SocketAddr::new(ip, config.port));
                self.turn = Some(Box::new(Turn::new(config, self.provider.clone())));
                let open = LinkOutput::Open { server, transport, name };
                self.outputs.push_back(Output::Link(open));
            }
            return;
        }
        let port = self.servers.stun.as_ref().map_or(0, |(_, port)| *port);
        let server = SocketAddr::new(ip, port);
        for &base in &self.bases {
            let local = base.ip().is_loopback() && !ip.is_loopback();
            if base.is_ipv4() != server.is_ipv4() || local {
                continue;
            }
            let transaction = stun::new_transaction();
            self.outputs.push_back(Output::Expect(transaction));
            self.queries.push(Query { transaction, base, server, sends: 0, next_at: now });
        }
        self.ask(now);
    }

    fn ask(&mut self, now: Instant) {
        for query in self.queries.iter_mut().filter(|query| query.next_at <= now) {
            if query.sends < MAX_SENDS {
                let request = Builder::new(stun::BINDING_REQUEST, &query.transaction).fingerprint();
                self.outputs.push_back(Output::Transmit(query.base, query.server, request));
            }
            query.next_at = now + FIRST_WAIT * 2_u32.pow(query.sends.min(MAX_SENDS));
            query.sends += 1;
        }
        self.queries.retain(|query| query.sends <= MAX_SENDS);
    }

    /// Whether the message answers a question of ours to a STUN server, of which nothing is left then.
    pub(super) fn handle_stun(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let Some(transaction) = stun::answered(bytes).filter(|_| !self.queries.is_empty()) else {
            return false;
        };
        let asked = |query: &Query| {
            query.transaction == transaction && (query.base, query.server) == (local, remote)
        };
        let Some(at) = self.queries.iter().position(asked) else { return false };
        let base = self.queries.swap_remove(at).base;
        let seen = stun::xor_address(bytes, stun::XOR_MAPPED_ADDRESS);
        let usable = |seen: &SocketAddr| {
            let ip = seen.ip();
            seen.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        };
        if let Some(seen) = seen.filter(usable) {
            self.outputs.push_back(Output::Reflexive { base, seen });
        }
        self.finish_quietly();
        true
    }

    pub(super) fn handle_link_open(&mut self, now: Instant) {
        if let Some(turn) = &mut self.turn {
            turn.begin(now);
        }
        self.drain_turn();
    }

    pub(super) fn handle_link_lost(&mut self) {
        if let Some(turn) = self.turn.take() {
            if let Some(server) = &self.servers.turn {
                tracing::warn!(%server, "the connection to the TURN server is gone");
            }
            self.outputs.extend(turn.relayed().map(Output::RelayLost));
        }
        self.finish_quietly();
    }

    pub(super) fn handle_link(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<(SocketAddr, Range<usize>)>, DropReason> {
        let turn = self.turn.as_mut().ok_or(DropReason::StunUnexpected)?;
        let relayed = turn.handle_message(now, bytes);
        self.drain_turn();
        relayed
    }

    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.turn.as_ref().and_then(|turn| turn.relayed())
    }

    /// Whether a relay is configured and neither there nor asked for.
    pub(super) fn lacks_relay(&self) -> bool {
        self.servers.turn.is_some() && self.turn.is_none() && self.until.is_none()
    }

    pub(super) fn send_relayed(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if let Some(turn) = &mut self.turn {
            turn.send(now, peer, bytes);
        }
        self.drain_turn();
    }

    pub(super) fn wrap(
        &self,
        peer: SocketAddr,
        slot: &mut [u8],
        len: usize,
    ) -> Option<Range<usize>> {
        self.turn.as_ref()?.wrap(peer, slot, len)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let queries = self.queries.iter().map(|query| query.next_at);
        let turn = self.turn.as_ref().and_then(|turn| turn.poll_timeout());
        queries.chain(turn).chain(self.until).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(turn) = &mut self.turn {
            turn.handle_timeout(now);
        }
        self.drain_turn();
        self.ask(now);
        self.finish(now);
    }

    /// Gives back what the TURN server lent.
    pub(super) fn close(&mut self) {
        self.outputs.clear();
        self.queries.clear();
        self.until = None;
        if let Some(mut turn) = self.turn.take() {
            turn.close();
            while let Some(bytes) = turn.poll_transmit() {
                self.outputs.push_back(Output::Link(LinkOutput::Send(bytes)));
            }
            self.outputs.push_back(Output::Link(LinkOutput::Close));
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn drain_turn(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        while let Some(bytes) = turn.poll_transmit() {
            self.outputs.push_back(Output::Link(LinkOutput::Send(bytes)));
        }
        let mut over = false;
        while let Some(event) = turn.poll_event() {
            match event {
                turn::Event::Allocated(addr) => self.outputs.push_back(Output::Relayed(addr)),
                turn::Event::Lost(addr) => {
                    self.outputs.extend(addr.map(Output::RelayLost));
                    over = true;
                }
            }
        }
        if over {
            self.turn = None;
            self.outputs.push_back(Output::Link(LinkOutput::Close));
        }
        self.finish_quietly();
    }

    /// Says so once nothing is awaited any more, or the time is over.
    fn finish(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.queries.clear();
            self.resolving.clear();
            if self.turn.as_ref().is_some_and(|turn| turn.relayed().is_none()) {
                if let Some(server) = &self.servers.turn {
                    tracing::warn!(%server, "the TURN server does not answer");
                }
                self.turn = None;
                self.outputs.push_back(Output::Link(LinkOutput::Close));
            }
        }
        self.finish_quietly();
    }

    fn finish_quietly(&mut self) {
        let waiting = !self.queries.is_empty()
            || !self.resolving.is_empty()
            || self.turn.as_ref().is_some_and(|turn| turn.relayed().is_none());
        if !waiting && self.until.take().is_some() {
            self.outputs.push_back(Output::Done);
        }
    }
}

//! ICE (RFC 8445): checks, nomination, consent (RFC 7675), over UDP, TCP (RFC 6544) and relays.
//!
//! An agent of our own over the messages of [`stun`]: it verifies a message before it believes any of
//! it, follows every nomination of the peer and not only the first, and goes on after silence, so that a
//! peer that comes back, or whose address changed, finds its session.
//!
//! This file is what the owner calls, and how the parts work together at a tick. Candidates are in
//! `local` and `remote`, what becomes of them in `pairs`; how a pair is tried and an answer is judged, in
//! `checks`; what the peer's silence means, in `consent`; which pair carries media, in `nomination`; what
//! a restart changes, and what goes on, in `generation`.
//!
//! Where it departs from the RFC: all pairs are checked at each tick, and the ticks slow down, in place
//! of a paced check list; as the controlling side it nominates the first pair that works, except that
//! TCP and relays wait a moment for something better; as the controlled side it follows the peer's last
//! nomination, unless a better pair was nominated at about the same time.

mod candidate;
mod checks;
mod consent;
mod gather;
mod generation;
mod local;
mod nomination;
mod pairs;
mod remote;
mod report;
mod turn;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;

use crate::prefetch;

use super::path::{self, Path};
use super::stun::{self, Class, Transaction};
use super::{DropReason, TransportError};
use candidate::{Kind, RemoteLine};
use checks::Check;
use consent::{REVIVAL, SILENCE};
use gather::Gathering;
use generation::{Generation, Old};
use local::Local;
use pairs::{Pair, Pairs};
use remote::Remote;

pub use gather::{LinkOutput, Servers};
pub use generation::Credentials;
pub use local::MAX_LOCAL_CANDIDATES;
pub use report::{
    Candidate, CandidateKind, IceReport, MAX_REPORTED_PAIRS, PairReport, PairState, Traffic,
};
pub use turn::{HEADROOM, Refusal, Trial};

/// The component's state, in Kurento's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IceState {
    Disconnected,
    Gathering,
    Connecting,
    Connected,
    Ready,
    Failed,
}

/// What happened, and what is wanted of the owner.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum IceEvent {
    State(IceState),
    Selected {
        local: String,
        remote: String,
    },
    /// The peer proved to hold the password at this address; `proven` if it also answered a check of
    /// ours, so that the address is not merely claimed.
    Validated {
        remote: SocketAddr,
        proven: bool,
    },
    /// A candidate was gathered after the first ones.
    Candidate(String),
    GatheringDone,
    /// The address of a name is wanted, to be told under the same number.
    Resolve {
        number: u32,
        name: String,
    },
    /// The answer to this transaction is for this session, although nothing in it says so.
    Expect(Transaction),
    /// Media goes to this address of the peer from now on; none if it goes by the relay.
    Live(Option<SocketAddr>),
    Link(LinkOutput),
}

/// What is looked at whenever a datagram leaves, in one place: of hundreds of sessions it comes from far
/// away each time.
#[derive(Default)]
struct Live {
    /// The pair that was selected.
    pair: Option<(SocketAddr, SocketAddr)>,
    /// What was sent over it and is not noted with it yet.
    sent: Traffic,
}

pub(super) struct Ice {
    /// The first user fragment of ours: it names the session for as long as that lives.
    name: String,
    current: Generation,
    /// What is in use until a pair of the current generation is.
    old: Option<Box<Old>>,
    controlling: bool,
    /// Settles who controls when both sides want to, or neither (RFC 8445 §7.3.1.1).
    tie_breaker: u64,
    role_switches: u32,
    locals: Vec<Local>,
    /// Lines so far, each a foundation of its own.
    lines: u32,
    remotes: Vec<Remote>,
    /// Names of candidates that are being looked up: what came with them, by number.
    names: Vec<RemoteLine>,
    /// How many names were looked up for earlier generations.
    past_names: u32,
    /// Candidates with a user fragment that may become the peer's.
    coming: Vec<RemoteLine>,
    pairs: Pairs,
    /// Over all pairs, forgotten ones among them.
    sent: Traffic,
    received: Traffic,
    checks: VecDeque<Check>,
    connects: usize,
    live: Live,
    /// In which generation it was selected.
    selected_in: u32,
    /// A nomination of ours is under way.
    nominating: Option<(SocketAddr, SocketAddr)>,
    nominating_since: Instant,
    state: IceState,
    gathering: Gathering,
    events: VecDeque<IceEvent>,
    transmits: VecDeque<(SocketAddr, SocketAddr, BytesMut)>,
    /// Since when the checks go on: the start, or the last candidate.
    checking_since: Instant,
    /// When the peer last answered over the selected pair.
    consent_at: Instant,
    /// When that pair is to be checked again.
    consent_due: Instant,
    round_trip: Option<Duration>,
    next_tick: Option<Instant>,
}

impl Ice {
    pub(super) fn new(
        now: Instant,
        controlling: bool,
        provider: Arc<dyn RTCCryptoProvider>,
    ) -> Result<Self, TransportError> {
        let credentials = Credentials::generate()?;
        let mut tie_breaker = [0; 8];
        rand::fill(&mut tie_breaker).map_err(|_| TransportError::Randomness)?;
        Ok(Self {
            name: credentials.ufrag.clone(),
            current: Generation::new(0, credentials),
            old: None,
            controlling,
            tie_breaker: u64::from_ne_bytes(tie_breaker),
            role_switches: 0,
            locals: Vec::new(),
            lines: 0,
            remotes: Vec::new(),
            names: Vec::new(),
            past_names: 0,
            coming: Vec::new(),
            pairs: Pairs::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
            checks: VecDeque::new(),
            connects: 0,
            live: Live::default(),
            selected_in: 0,
            nominating: None,
            nominating_since: now,
            state: IceState::Disconnected,
            gathering: Gathering::new(provider),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            checking_since: now,
            consent_at: now,
            consent_due: now,
            round_trip: None,
            next_tick: None,
        })
    }

    pub(super) fn ufrag(&self) -> &str {
        self.current.ufrag()
    }

    pub(super) fn pwd(&self) -> &str {
        self.current.pwd()
    }

    pub(super) fn state(&self) -> IceState {
        self.state
    }

    /// Of the last check that was answered.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Asks STUN and TURN servers for further candidates; [`IceEvent::GatheringDone`] follows.
    pub(super) fn gather(&mut self, now: Instant, servers: Servers) {
        let udp = |local: &&Local| path::of(local.addr) == Path::Udp && local.paired;
        let bases = self.locals.iter().filter(udp).map(|local| local.addr).collect();
        self.gathering.start(now, servers, bases);
        self.drain_gathering(now);
    }

    /// A name that was asked about has this address, or none that could be found.
    pub(super) fn handle_resolved(&mut self, now: Instant, number: u32, ip: Option<IpAddr>) {
        if number < gather::FIRST_NAME {
            self.gathering.handle_resolved(now, number, ip);
            self.drain_gathering(now);
            return;
        }
        if let Some(ip) = ip {
            self.add_resolved(now, number - gather::FIRST_NAME, ip);
        }
    }

    /// The connection to a TURN server is open.
    pub(super) fn handle_link_open(&mut self, now: Instant) {
        self.gathering.handle_link_open(now);
        self.drain_gathering(now);
    }

    /// The connection to a TURN server could not be opened, or is gone.
    pub(super) fn handle_link_lost(&mut self, now: Instant) {
        self.gathering.handle_link_lost();
        self.drain_gathering(now);
    }

    /// Takes a message from the TURN server. Returns the relayed datagram in it, if there is one: who
    /// sent it, and where in `bytes` it lies.
    pub(super) fn handle_link(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<(SocketAddr, std::ops::Range<usize>)>, DropReason> {
        let relayed = self.gathering.handle_link(now, bytes);
        self.drain_gathering(now);
        relayed
    }

    /// The relayed address of ours, as a path.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.gathering.relayed()
    }

    /// Whether a relay was wanted and there is none.
    pub(super) fn lacks_relay(&self) -> bool {
        self.gathering.lacks_relay()
    }

    /// Wraps the `len` bytes that follow the first [`HEADROOM`] of `slot` for the relay: where the result
    /// lies. None as long as the relay is not ready for that peer.
    pub(super) fn wrap(
        &self,
        remote: SocketAddr,
        slot: &mut [u8],
        len: usize,
    ) -> Option<std::ops::Range<usize>> {
        self.gathering.wrap(remote, slot, len)
    }

    pub(super) fn start(&mut self, now: Instant, ufrag: &str, pwd: &str) {
        self.current.meet(ufrag, pwd);
        self.checking_since = now;
        self.resume(now);
    }

    /// Takes a STUN message; nothing is learnt from it before its integrity is verified.
    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        if self.gathering.handle_stun(local, remote, bytes) {
            self.drain_gathering(now);
            return Ok(());
        }
        match stun::binding_class(bytes).ok_or(DropReason::StunMalformed)? {
            Class::Request => self.handle_request(now, local, remote, bytes),
            Class::Success | Class::Error => self.handle_answer(now, local, remote, bytes),
            Class::Indication => Err(DropReason::StunUnexpected),
        }
    }

    /// Whether authenticated STUN messages came over this pair.
    pub(super) fn is_validated(&mut self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.pairs.is_validated(local, remote)
    }

    /// Whether this address lately said something over a way that carries datagrams in both directions.
    pub(super) fn uses(&self, now: Instant, remote: SocketAddr) -> bool {
        let fresh = |pair: &Pair| pair.heard_at.is_some_and(|at| now < at + SILENCE);
        let direct = |pair: &Pair| pair.remote == remote && path::of(pair.local) != Path::Relay;
        let proven = |pair: &Pair| pair.answered || self.is_chosen(pair);
        self.pairs.iter().any(|pair| direct(pair) && proven(pair) && fresh(pair))
    }

    /// Counts a datagram that came over the pair that [`Self::is_validated`] was asked about last.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received.count(bytes);
        if let Some(pair) = self.pairs.last_asked() {
            pair.received.count(bytes);
        }
    }

    /// Counts a datagram that leaves over a pair, before a relay wraps it.
    pub(super) fn count_sent(&mut self, local: SocketAddr, remote: SocketAddr, sent: Traffic) {
        if self.live.pair == Some((local, remote)) {
            self.live.sent.add(sent);
        } else {
            self.note_sent((local, remote), sent);
        }
    }

    /// Media is sent next.
    #[inline]
    pub(super) fn expect_sending(&self) {
        prefetch::value(&self.live);
        prefetch::value(&self.state);
    }

    /// Notes with its pair what was sent over the selected one, which is about to change.
    fn settle_sent(&mut self) {
        let sent = std::mem::take(&mut self.live.sent);
        if let Some(pair) = self.live.pair {
            self.note_sent(pair, sent);
        }
    }

    fn note_sent(&mut self, over: (SocketAddr, SocketAddr), sent: Traffic) {
        self.sent.add(sent);
        if let Some(pair) = self.pairs.get_mut(over.0, over.1) {
            pair.sent.add(sent);
        }
    }

    /// The pair that carries what we send.
    pub(super) fn selected(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.live.pair.filter(|_| self.state != IceState::Failed)
    }

    /// A pair that carries datagrams both ways, selected or not yet.
    pub(super) fn usable(&self) -> Option<(SocketAddr, SocketAddr)> {
        let answered = || self.pairs.iter().find(|pair| pair.answered);
        self.selected().or_else(|| answered().map(|pair| (pair.local, pair.remote)))
    }

    /// The same, or one over which the peer has asked with our password. A handshake may begin there, half
    /// a round trip earlier: an answer to a check of ours is on no other way. Nothing else may.
    pub(super) fn asked_over(&self) -> Option<(SocketAddr, SocketAddr)> {
        let heard = |pair: &&Pair| pair.heard_at.is_some() && path::of(pair.local) != Path::Relay;
        self.usable().or_else(|| self.pairs.iter().find(heard).map(|one| (one.local, one.remote)))
    }

    pub(super) fn poll_event(&mut self) -> Option<IceEvent> {
        pop(&mut self.events)
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(SocketAddr, SocketAddr, BytesMut)> {
        pop(&mut self.transmits)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_tick.into_iter().chain(self.gathering.poll_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.gathering.handle_timeout(now);
        self.drain_gathering(now);
        if self.next_tick.is_none_or(|due| now < due) {
            return;
        }
        self.judge_silence(now);
        self.forget_old(now);
        if self.state == IceState::Failed {
            self.next_tick = None;
            self.checks.clear();
            return;
        }
        self.forget_late(now);
        if let Some((local, remote)) = self.live.pair
            && now >= self.consent_due
        {
            self.consent_due = now + REVIVAL;
            self.check_in(self.selected_in, now, local, remote, false);
        }
        if self.is_checking(now) {
            self.check_pairs(now);
        }
        self.consider(now);
        self.follow_last(now);
        self.next_tick = Some(self.after(now));
    }

    /// Stops checks and forgets the peer.
    pub(super) fn close(&mut self) {
        self.next_tick = None;
        self.settle_sent();
        self.live.pair = None;
        self.pairs.clear();
        self.checks.clear();
        self.transmits.clear();
        self.gathering.close();
        self.events.clear();
        while let Some(output) = self.gathering.poll_output() {
            if let gather::Output::Link(output) = output {
                self.events.push_back(IceEvent::Link(output));
            }
        }
    }

    /// Sends a message over its path, wrapped if that is the relay.
    fn transmit(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: BytesMut) {
        if path::of(local) == Path::Relay {
            self.gathering.send_relayed(now, remote, &bytes);
            self.drain_gathering(now);
        } else {
            self.transmits.push_back((local, remote, bytes));
        }
    }

    /// Sends any other datagram over a path.
    pub(super) fn send(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: BytesMut,
    ) {
        self.transmit(now, local, remote, bytes);
    }

    fn drain_gathering(&mut self, now: Instant) {
        while let Some(output) = self.gathering.poll_output() {
            match output {
                gather::Output::Transmit(local, remote, bytes) => {
                    self.transmits.push_back((local, remote, bytes));
                }
                gather::Output::Expect(transaction) => {
                    self.events.push_back(IceEvent::Expect(transaction));
                }
                gather::Output::Resolve(number, name) => {
                    self.events.push_back(IceEvent::Resolve { number, name });
                }
                gather::Output::Reflexive { base, seen } => {
                    self.gathered(now, Kind::ServerReflexive, base, seen);
                }
                gather::Output::Relayed(addr) => {
                    self.gathered(now, Kind::Relay, path::relay(addr), addr);
                }
                gather::Output::RelayLost(addr) => self.relay_lost(path::relay(addr)),
                gather::Output::Done => self.events.push_back(IceEvent::GatheringDone),
                gather::Output::Link(output) => self.events.push_back(IceEvent::Link(output)),
            }
        }
    }

    fn enter(&mut self, state: IceState) {
        if self.state != state {
            self.state = state;
            self.events.push_back(IceEvent::State(state));
        }
    }
}

/// Takes the first out of a queue that is empty for seconds, and then takes no memory.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}

#[cfg(test)]
mod tests;

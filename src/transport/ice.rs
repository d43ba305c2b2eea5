//! ICE (RFC 8445): checks, nomination, consent (RFC 7675), over UDP, TCP (RFC 6544) and relays.
//!
//! An agent of our own over the messages of [`stun`]: it verifies a message before it believes any of
//! it, follows every nomination of the peer and not only the first, and goes on after silence, so that a
//! peer that comes back, or whose address changed, finds its session.
//!
//! Where it departs from the RFC: all pairs are checked at each tick, and the ticks slow down, in place
//! of a paced check list; as the controlling side it nominates the first pair that works, except that
//! TCP and relays wait a moment for something better; as the controlled side it follows the peer's last
//! nomination, unless a better pair was nominated at about the same time. What a restart changes, and
//! what goes on, is told in `generation`.

mod candidate;
mod gather;
mod generation;
mod pairs;
mod report;
mod turn;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;

use super::path::{self, Path};
use super::stun::{self, Builder, Class, Transaction};
use super::{DropReason, TransportError};
use candidate::{Kind, RemoteLine, Target};
use gather::Gathering;
use generation::{Belongs, Generation, Old};
use pairs::{Pair, Pairs};

pub use gather::{LinkOutput, Servers};
pub use generation::Credentials;
pub use report::{
    Candidate, CandidateKind, IceReport, MAX_REPORTED_PAIRS, PairReport, PairState, Traffic,
};
pub use turn::{HEADROOM, Refusal, Trial};

/// How many candidates a peer may announce.
pub const MAX_REMOTE_CANDIDATES: usize = 64;
/// How many addresses of ours a session may announce.
pub const MAX_LOCAL_CANDIDATES: usize = 16;
/// How many addresses are learnt from the peer's checks; the oldest gives way.
const MAX_LEARNT: usize = 64;
/// How many checks wait for their answer.
const MAX_CHECKS: usize = 512;
/// How often a session changes its mind about who controls it; two agents that mean it need it once.
const MAX_ROLE_SWITCHES: u32 = 16;
/// TCP connections that a session opens to candidates of its peer.
const MAX_CONNECTS: usize = 8;

/// Between two checks of a connected pair, which are the keepalive and keep the consent fresh.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Between two checks towards a peer that fell silent, and before a check that keeps the consent is
/// repeated: lost ones are not to look like a peer that is gone.
const REVIVAL: Duration = Duration::from_millis(500);
/// Without an answer for this long the peer counts as disconnected.
const SILENCE: Duration = Duration::from_secs(5);
/// Without an answer for this long, the peer's consent is gone (RFC 7675 §5.1), or checking was in vain.
const FAILURE: Duration = Duration::from_secs(30);
/// Silence of the selected pair after which any nominated pair replaces it.
const STALE_PAIR: Duration = Duration::from_secs(3);
/// Nominations that lie no further apart are of one moment, and then the better pair counts (RFC 8445
/// §8.1.1): there are peers that nominate all pairs while they check them.
const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// How long TCP and relays wait for a better pair before we nominate them.
const SECOND_BEST: Duration = Duration::from_millis(400);
/// Without an answer to our nomination for this long the pair works no more.
const NOMINATION: Duration = Duration::from_secs(1);
/// An answer later than this is none.
const LATE: Duration = Duration::from_secs(10);

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

struct Local {
    /// Where datagrams arrive and leave, marked by its path.
    addr: SocketAddr,
    priority: u32,
    /// The address that peers are told, and the line; none if they know the place already.
    shown: SocketAddr,
    line: String,
    /// Pairs are made with it; a server-reflexive one is stood for by its base.
    paired: bool,
}

struct Remote {
    addr: SocketAddr,
    priority: u32,
    /// None if the address was learnt from a check.
    line: Option<String>,
    /// The number of the [`Generation`] it was told in.
    generation: u32,
}

/// A request of ours that may still be answered.
struct Check {
    transaction: Transaction,
    local: SocketAddr,
    remote: SocketAddr,
    sent_at: Instant,
    nominating: bool,
    /// With the credentials of this one.
    generation: u32,
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

    pub(super) fn local_candidates(&self) -> impl Iterator<Item = &str> {
        self.locals.iter().map(|local| local.line.as_str()).filter(|line| !line.is_empty())
    }

    /// Announces a UDP address of ours, as `shown` if others see it at another one.
    pub(super) fn add_local(
        &mut self,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.add_host(Kind::Host, addr, shown)
    }

    /// Announces that we accept TCP connections at an address, and that we may open some from it.
    pub(super) fn add_local_tcp(
        &mut self,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        let session = self.name.as_bytes().try_into().unwrap_or_default();
        self.add_host(Kind::TcpActive, path::outward(addr.ip(), session), shown)?;
        self.add_host(Kind::TcpPassive, path::tcp(addr), shown)
    }

    fn add_host(
        &mut self,
        kind: Kind,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        let known = |local: &&Local| path::of(local.addr) == path::of(addr);
        let at = self.locals.iter().filter(known).count();
        // Those of TCP come in pairs.
        let at = if path::of(addr) == Path::Tcp { at / 2 } else { at };
        if at >= MAX_LOCAL_CANDIDATES {
            return Err(TransportError::TooManyCandidates(MAX_LOCAL_CANDIDATES));
        }
        let base = path::plain(addr);
        let shown = SocketAddr::new(shown.unwrap_or(base.ip()), base.port());
        self.insert_local(kind, addr, shown, at as u32);
        if self.state == IceState::Disconnected && self.current.peer.is_none() {
            self.enter(IceState::Gathering);
        }
        Ok(())
    }

    /// Whether it was new; its line is empty if peers are told nothing new by it.
    fn insert_local(&mut self, kind: Kind, addr: SocketAddr, shown: SocketAddr, at: u32) -> bool {
        let paired = kind != Kind::ServerReflexive;
        if paired && self.locals.iter().any(|known| known.addr == addr && known.paired) {
            return false;
        }
        let again = |known: &Local| !known.paired && (known.addr, known.shown) == (addr, shown);
        if !paired && self.locals.iter().any(again) {
            return false;
        }
        let priority = candidate::local_priority(kind, at);
        let tcp = |addr| path::of(addr) == Path::Tcp;
        let known = self.locals.iter().any(|one| one.shown == shown && tcp(one.addr) == tcp(addr));
        let mut line = String::new();
        if !known {
            self.lines += 1;
            line = candidate::local_line(kind, self.lines, priority, shown, path::plain(addr));
        }
        self.locals.push(Local { addr, priority, shown, line, paired });
        if paired {
            let current = |remote: &&Remote| remote.generation == self.current.number;
            let remotes = self.remotes.iter().filter(current);
            let remotes: Vec<_> = remotes.map(|remote| (remote.addr, remote.priority)).collect();
            for (remote, remote_priority) in remotes {
                self.add_pair(addr, remote, priority, remote_priority);
            }
        }
        !known
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
        let at = (number - gather::FIRST_NAME).checked_sub(self.past_names);
        let known = at.and_then(|at| self.names.get(at as usize)).cloned();
        if let (Some(ip), Some(mut found)) = (ip, known)
            && let Target::Name(_, port) = found.target
        {
            found.target = Target::Address(SocketAddr::new(ip, port));
            // One too many is as good as one whose name nobody knows.
            let _ = self.add_remote_line(now, found);
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

    /// Takes a line that the peer trickled; those that lead nowhere are no error.
    pub(super) fn add_remote(&mut self, now: Instant, line: &str) -> Result<(), TransportError> {
        match candidate::parse(line)? {
            Some(remote) => match self.place(&remote)? {
                Belongs::Now => self.add_remote_line(now, remote),
                Belongs::Later => {
                    self.coming.push(remote);
                    Ok(())
                }
            },
            None => Ok(()),
        }
    }

    fn add_remote_line(&mut self, now: Instant, found: RemoteLine) -> Result<(), TransportError> {
        let addr = match &found.target {
            Target::Address(addr) => *addr,
            Target::Name(name, _) => {
                if self.names.iter().any(|known| known.target == found.target) {
                    return Ok(());
                }
                if self.names.len() >= MAX_REMOTE_CANDIDATES {
                    return Err(TransportError::TooManyCandidates(MAX_REMOTE_CANDIDATES));
                }
                let number = gather::FIRST_NAME + self.past_names + self.names.len() as u32;
                self.events.push_back(IceEvent::Resolve { number, name: name.clone() });
                self.names.push(found);
                return Ok(());
            }
        };
        let generation = self.current.number;
        let current = |known: &&mut Remote| known.generation == generation;
        if let Some(known) = self.remotes.iter_mut().filter(current).find(|one| one.addr == addr) {
            // The peer's own checks taught us that address.
            known.line.get_or_insert(found.line);
            return Ok(());
        }
        let told = |known: &&Remote| known.line.is_some() && known.generation == generation;
        let told = self.remotes.iter().filter(told).count();
        if told >= MAX_REMOTE_CANDIDATES {
            return Err(TransportError::TooManyCandidates(MAX_REMOTE_CANDIDATES));
        }
        self.insert_remote(addr, found.priority, Some(found.line));
        if self.is_searching() {
            self.checking_since = now;
            self.resume(now);
        }
        Ok(())
    }

    fn insert_remote(&mut self, addr: SocketAddr, priority: u32, line: Option<String>) {
        self.put_remote(addr, priority, line);
        let locals: Vec<_> = self
            .locals
            .iter()
            .filter(|local| local.paired)
            .map(|local| (local.addr, local.priority))
            .collect();
        for (local, local_priority) in locals {
            self.add_pair(local, addr, local_priority, priority);
        }
    }

    /// Notes an address of the peer; one of an earlier generation is of the current one then.
    fn put_remote(&mut self, addr: SocketAddr, priority: u32, line: Option<String>) {
        let remote = Remote { addr, priority, line, generation: self.current.number };
        match self.remotes.iter_mut().find(|known| known.addr == addr) {
            Some(known) => *known = remote,
            None => self.remotes.push(remote),
        }
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

    fn handle_request(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let username = stun::attribute(bytes, stun::USERNAME).ok_or(DropReason::StunUsername)?;
        let named = self.named(username).ok_or(DropReason::StunUsername)?;
        verify(bytes, &named.key)?;
        let peer = named.peer.as_ref().ok_or(DropReason::NotStarted)?;
        if username != peer.incoming.as_bytes() {
            return Err(DropReason::StunUsername);
        }
        if self.is_neighbour(local, remote) {
            return Err(DropReason::StunUnexpected);
        }
        let transaction = stun::transaction(bytes).ok_or(DropReason::StunMalformed)?;
        let use_candidate = stun::attribute(bytes, stun::USE_CANDIDATE).is_some();
        if named.number != self.current.number {
            self.handle_old_request(now, local, remote, &transaction);
            return Ok(());
        }
        if !self.settle_roles(now, local, remote, &transaction, bytes)? {
            return Ok(());
        }
        let number = |kind| stun::attribute(bytes, kind).and_then(stun::number);
        let priority = number(stun::PRIORITY).and_then(|number| u32::try_from(number).ok());
        self.learn(local, remote, priority.unwrap_or(1).max(1));

        let answer = Builder::new(stun::BINDING_SUCCESS, &transaction)
            .xor_address(stun::XOR_MAPPED_ADDRESS, path::plain(remote))
            .integrity(&self.current.key)
            .fingerprint();
        self.transmit(now, local, remote, answer);

        self.begin(now);
        self.heard(now, local, remote, None);
        let answered = self.pairs.get_mut(local, remote).is_some_and(|pair| {
            pair.nominated_at = if use_candidate { Some(now) } else { pair.nominated_at };
            pair.answered
        });
        if !answered || self.state != IceState::Ready {
            // A triggered check (RFC 8445 §7.3.1.4).
            self.check(now, local, remote, false);
        } else if use_candidate {
            self.follow_nomination(now, local, remote);
        }
        if self.next_tick.is_none() {
            self.resume(now);
        }
        Ok(())
    }

    /// Both sides may believe to be in the same role (RFC 8445 §7.3.1.1): whether the request is still to
    /// be answered.
    fn settle_roles(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        transaction: &Transaction,
        bytes: &[u8],
    ) -> Result<bool, DropReason> {
        let same = if self.controlling { stun::ICE_CONTROLLING } else { stun::ICE_CONTROLLED };
        let theirs = stun::attribute(bytes, same).and_then(stun::number);
        let Some(theirs) = theirs else { return Ok(true) };
        if (self.tie_breaker >= theirs) == self.controlling {
            let refusal = Builder::new(stun::BINDING_ERROR, transaction)
                .error(487, "Role Conflict")
                .integrity(&self.current.key)
                .fingerprint();
            self.transmit(now, local, remote, refusal);
            return Ok(false);
        }
        self.switch_role()?;
        Ok(true)
    }

    /// Takes the other role. A peer that goes on about it would keep both sides busy for ever.
    fn switch_role(&mut self) -> Result<(), DropReason> {
        if self.role_switches == MAX_ROLE_SWITCHES {
            return Err(DropReason::StunRoleConflict);
        }
        self.role_switches += 1;
        self.controlling = !self.controlling;
        self.nominating = None;
        Ok(())
    }

    /// Makes the pair that a request came over, with a candidate for an unknown address (§7.3.1.3).
    fn learn(&mut self, local: SocketAddr, remote: SocketAddr, priority: u32) {
        let generation = self.current.number;
        if self.pairs.get(local, remote).is_some_and(|pair| pair.generation == generation) {
            return;
        }
        let mut known = self.remotes.iter().filter(|known| known.generation == generation);
        let theirs = known.find(|known| known.addr == remote).map(|known| known.priority);
        if theirs.is_none() {
            self.forget_one();
            // Only the path that it came over is tried: the address may mean nothing on others.
            self.put_remote(remote, priority, None);
        }
        let ours = self.locals.iter().find(|known| known.addr == local).map(|known| known.priority);
        let priority = self.pair_priority(ours.unwrap_or(1), theirs.unwrap_or(priority));
        self.insert_pair(local, remote, priority);
    }

    /// Makes room for an address that is learnt.
    fn forget_one(&mut self) {
        let selected = self.live.pair;
        let mut learnt = self.remotes.iter().filter(|remote| remote.line.is_none());
        if learnt.by_ref().count() < MAX_LEARNT {
            return;
        }
        let gone = self.remotes.iter().position(|remote| {
            remote.line.is_none() && selected.is_none_or(|(_, current)| current != remote.addr)
        });
        if let Some(at) = gone {
            let addr = self.remotes.remove(at).addr;
            self.pairs.retain(|pair| pair.remote != addr);
        }
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let transaction = stun::transaction(bytes).ok_or(DropReason::StunMalformed)?;
        let known = self.checks.iter().position(|check| check.transaction == transaction);
        let generation = known.map_or(self.current.number, |at| self.checks[at].generation);
        let asked = self.generation(generation).ok_or(DropReason::StunUnexpected)?;
        let peer = asked.peer.as_ref().ok_or(DropReason::NotStarted)?;
        verify(bytes, &peer.key)?;
        let check = known.and_then(|at| self.checks.remove(at));
        // An answer over another path than its request proves nothing (RFC 8445 §7.2.5.2.1).
        let check = check
            .filter(|check| (check.local, check.remote) == (local, remote))
            .ok_or(DropReason::StunUnexpected)?;
        if stun::binding_class(bytes) == Some(Class::Error) {
            if stun::error_code(bytes) == Some(487) && generation == self.current.number {
                self.switch_role()?;
                self.check(now, local, remote, false);
            }
            return Ok(());
        }
        let round_trip = Some(now.saturating_duration_since(check.sent_at));
        self.round_trip = round_trip;
        if let Some(pair) = self.pairs.get_mut(local, remote) {
            pair.round_trip = round_trip;
        }
        self.heard(now, local, remote, Some(generation));
        if generation != self.current.number {
            return Ok(());
        }
        let nominated =
            self.pairs.get_mut(local, remote).is_some_and(|pair| pair.nominated_at.is_some());
        if self.controlling {
            if check.nominating {
                self.nominating = None;
                self.select(now, local, remote);
            } else {
                self.consider(now);
            }
        } else if nominated {
            self.follow_nomination(now, local, remote);
        }
        Ok(())
    }

    /// As the controlling side, nominates a pair that works if there is none, or none any more.
    fn consider(&mut self, now: Instant) {
        if now >= self.nominating_since + NOMINATION
            && let Some((local, remote)) = self.nominating.take()
            && let Some(pair) = self.pairs.get_mut(local, remote)
        {
            pair.answered = false;
        }
        let wanted = self.is_restarting() || self.is_stale(now);
        if !self.controlling || self.nominating.is_some() || !wanted {
            return;
        }
        let patient = now.saturating_duration_since(self.checking_since) < SECOND_BEST;
        let fresh = |pair: &&Pair| {
            let heard = pair.heard_at.is_some_and(|at| now < at + STALE_PAIR);
            let works = pair.answered && pair.generation == self.current.number;
            let other = self.is_restarting() || !self.is_chosen(pair);
            works && heard && other && !(patient && path::of(pair.local) != Path::Udp)
        };
        let best = self.pairs.iter().filter(fresh).max_by_key(|pair| pair.priority);
        if let Some((local, remote)) = best.map(|pair| (pair.local, pair.remote)) {
            self.nominating = Some((local, remote));
            self.nominating_since = now;
            self.check(now, local, remote, true);
        }
    }

    /// Whether there is no selected pair, or one that fell silent, or only asks and never answers.
    fn is_stale(&self, now: Instant) -> bool {
        let Some(pair) = self.pairs.iter().find(|pair| self.is_chosen(pair)) else { return true };
        let before = |at: Option<Instant>, limit| at.is_none_or(|at| now >= at + limit);
        before(pair.heard_at, STALE_PAIR)
            || before(pair.answered_at.max(Some(self.consent_at)), SILENCE)
    }

    /// Whether it was selected, though the peer may be lost since.
    fn is_chosen(&self, pair: &Pair) -> bool {
        self.live.pair == Some((pair.local, pair.remote))
    }

    /// Whether there is a pair to be found.
    fn is_searching(&self) -> bool {
        self.live.pair.is_none() || self.is_restarting()
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
        while self.checks.front().is_some_and(|check| now >= check.sent_at + LATE) {
            self.checks.pop_front();
        }
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

    /// Whether pairs other than the selected one are checked. A restart that leads nowhere ends, as long
    /// as there is the old pair.
    fn is_checking(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.checking_since);
        self.state != IceState::Ready || self.is_restarting() && since < FAILURE
    }

    fn check_pairs(&mut self, now: Instant) {
        if let Some((local, remote)) = self.nominating {
            self.check(now, local, remote, true);
        }
        let revive = self.live.pair.is_some() && self.state != IceState::Ready;
        let (number, restarting) = (self.current.number, self.is_restarting());
        let selected = self.live.pair;
        let due = |pair: &&Pair| {
            // The selected one is checked by itself.
            let other = restarting || selected != Some((pair.local, pair.remote));
            pair.generation == number && other && (revive || !pair.answered)
        };
        for (local, remote) in self.pairs.in_turn(due) {
            self.check(now, local, remote, false);
        }
    }

    /// When to look again: sooner in the beginning, and no later than silence is to be judged.
    fn after(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.checking_since);
        let search = now
            + match since.as_millis() {
                0..250 => Duration::from_millis(25),
                250..1_000 => Duration::from_millis(50),
                1_000..5_000 => Duration::from_millis(200),
                _ => REVIVAL,
            };
        if self.live.pair.is_none() {
            return search;
        }
        let search = if self.is_restarting() { search } else { now + REVIVAL };
        let search = Some(search).filter(|_| self.is_checking(now));
        let old = self.old.as_ref().and_then(|old| old.until);
        let limits = [self.consent_at + SILENCE, self.consent_at + FAILURE];
        let limits = limits.into_iter().chain(search).chain(old).filter(|limit| *limit > now);
        limits.fold(self.consent_due.max(now), Instant::min)
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

    /// Whether there is anybody to check.
    fn has_peer(&self) -> bool {
        let current = |remote: &Remote| remote.generation == self.current.number;
        self.current.peer.is_some() && self.remotes.iter().any(current)
    }

    /// Checks begin with the first candidate of the peer, trickled or seen in a check of its own.
    fn begin(&mut self, now: Instant) {
        let idle =
            matches!(self.state, IceState::Disconnected | IceState::Gathering | IceState::Failed);
        if idle && self.live.pair.is_none() && self.has_peer() {
            self.checking_since = now;
            self.enter(IceState::Connecting);
        }
    }

    /// Goes on with the checks, if there is anybody to check.
    fn resume(&mut self, now: Instant) {
        if self.has_peer() && (self.live.pair.is_none() || self.state != IceState::Failed) {
            self.next_tick = Some(now);
            self.begin(now);
        }
    }

    fn judge_silence(&mut self, now: Instant) {
        let fruitless_since = match self.live.pair {
            // A restart has its own time to find a way.
            Some(_) if self.is_restarting() => self.consent_at.max(self.checking_since),
            Some(_) => self.consent_at,
            None => self.checking_since,
        };
        if now.saturating_duration_since(fruitless_since) >= FAILURE {
            self.nominating = None;
            self.enter(IceState::Failed);
        } else if self.state == IceState::Ready
            && now.saturating_duration_since(self.consent_at) >= SILENCE
        {
            self.enter(IceState::Disconnected);
        }
    }

    /// Notes an authenticated message: a request, or the answer to a check with the credentials of
    /// `answered`. A request shows that the peer lives; only an answer shows that it hears us and still
    /// wants to. That is the consent (RFC 7675 §5.1), and it is for the pair that carries the media:
    /// another one revives it only by taking its place.
    fn heard(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        answered: Option<u32>,
    ) {
        let Some(pair) = self.pairs.get_mut(local, remote) else { return };
        let first = pair.heard_at.is_none();
        let works = answered == Some(pair.generation);
        let proven = works && !pair.answered;
        pair.heard_at = Some(now);
        pair.answered |= works;
        if answered.is_some() {
            pair.answered_at = Some(now);
        }
        // What comes by the relay comes by our connection to it: elsewhere the address may be another's.
        if (first || proven) && path::of(local) != Path::Relay {
            self.events.push_back(IceEvent::Validated { remote, proven });
        }
        if answered.is_some() && self.live.pair == Some((local, remote)) {
            self.consent_at = now;
            self.consent_due = now + KEEPALIVE;
            if self.state != IceState::Ready {
                self.enter(IceState::Connected);
                self.enter(IceState::Ready);
            }
            self.next_tick = Some(self.after(now));
        }
    }

    /// The controlling peer nominated this pair. It becomes the selected one if there is none, if that
    /// fell silent, or if this is not worse: behind a router that changed its address, the peer's
    /// candidate is the same as before, and the last nomination is the one that counts. A worse pair has
    /// to wait until no better one was nominated lately.
    fn follow_nomination(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let pair = self.pairs.get(local, remote).filter(|_| !self.controlling);
        let Some(pair) = pair else { return };
        let current = self.pairs.iter().find(|pair| self.is_chosen(pair));
        let follow = match current.filter(|_| pair.generation == self.selected_in) {
            None => true,
            Some(current) => {
                let lately =
                    |pair: &Pair| pair.nominated_at.is_some_and(|at| now < at + SIMULTANEOUS);
                let later = pair.nominated_at >= current.nominated_at;
                self.is_stale(now)
                    || match pair.priority.cmp(&current.priority) {
                        Ordering::Greater => later || lately(pair),
                        Ordering::Equal => later,
                        Ordering::Less => later && !lately(current),
                    }
            }
        };
        if follow {
            self.select(now, local, remote);
        }
    }

    /// The same for a nomination that had to wait.
    fn follow_last(&mut self, now: Instant) {
        let works = |pair: &&Pair| {
            let heard = pair.heard_at.is_some_and(|at| now < at + SILENCE);
            pair.answered && heard && pair.generation == self.current.number
        };
        let nominated = self.pairs.iter().filter(|pair| pair.nominated_at.is_some());
        let last = nominated.filter(works).max_by_key(|pair| (pair.nominated_at, pair.priority));
        let chosen = self.pairs.iter().find(|pair| self.is_chosen(pair));
        if let Some(last) = last
            && last.nominated_at > chosen.and_then(|pair| pair.nominated_at)
        {
            self.follow_nomination(now, last.local, last.remote);
        }
    }

    /// Sends over this pair of the current generation from now on.
    fn select(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        self.settle_sent();
        let before = self.live.pair.replace((local, remote));
        let restarted = std::mem::replace(&mut self.selected_in, self.current.number);
        if before == Some((local, remote)) && restarted == self.current.number {
            return;
        }
        self.consent_at = now;
        self.consent_due = now + KEEPALIVE;
        if let Some(old) = &mut self.old {
            old.until = Some(now + generation::GRACE);
        }
        let ours = self.locals.iter().find(|known| known.addr == local && !known.line.is_empty());
        let ours = ours.map(|known| known.line.clone());
        let theirs = self.remotes.iter().find(|known| known.addr == remote);
        let theirs = theirs.and_then(|known| known.line.clone());
        let direct = path::of(local) != Path::Relay;
        self.events.push_back(IceEvent::Live(Some(remote).filter(|_| direct)));
        self.events.push_back(IceEvent::Selected {
            local: ours.unwrap_or_else(|| candidate::reflexive_line(local)),
            remote: theirs.unwrap_or_else(|| candidate::reflexive_line(remote)),
        });
        if self.state != IceState::Ready {
            self.enter(IceState::Connected);
            self.enter(IceState::Ready);
        }
        self.next_tick = Some(self.after(now));
    }

    fn check(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, nominating: bool) {
        self.check_in(self.current.number, now, local, remote, nominating);
    }

    /// Checks a pair with the credentials of a generation.
    fn check_in(
        &mut self,
        number: u32,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        nominating: bool,
    ) {
        let outward = path::of(local) == Path::Tcp && path::plain(local).port() == 0;
        let pair = self.pairs.get(local, remote);
        if outward && pair.is_some_and(|pair| pair.heard_at.is_none()) {
            // Each of the first checks asks for a connection.
            let asked = self.checks.iter().any(|check| check.remote == remote);
            if !asked && self.connects >= MAX_CONNECTS {
                return;
            }
            self.connects += usize::from(!asked);
        }
        let Some(peer) = self.generation(number).and_then(|one| one.peer.as_ref()) else { return };
        let ours = self.locals.iter().find(|known| known.addr == local);
        let priority = match path::of(local) {
            Path::Udp => candidate::REFLEXIVE_PRIORITY,
            _ => ours.map_or(1, |known| known.priority),
        };
        let role = if self.controlling { stun::ICE_CONTROLLING } else { stun::ICE_CONTROLLED };
        let transaction = stun::own_transaction(&self.name);
        let mut message = Builder::new(stun::BINDING_REQUEST, &transaction)
            .attribute(stun::USERNAME, peer.outgoing.as_bytes())
            .attribute(role, &self.tie_breaker.to_be_bytes())
            .attribute(stun::PRIORITY, &priority.to_be_bytes());
        if nominating {
            message = message.attribute(stun::USE_CANDIDATE, &[]);
        }
        let message = message.integrity(&peer.key).fingerprint();
        if self.checks.len() >= MAX_CHECKS {
            self.checks.pop_front();
        }
        let (sent_at, generation) = (now, number);
        self.checks.push_back(Check {
            transaction,
            local,
            remote,
            sent_at,
            nominating,
            generation,
        });
        self.transmit(now, local, remote, message);
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

    fn gathered(&mut self, now: Instant, kind: Kind, addr: SocketAddr, shown: SocketAddr) {
        let at = self.locals.iter().filter(|local| !local.paired).count();
        let new = self.insert_local(kind, addr, shown, at as u32);
        if let Some(local) = self.locals.last().filter(|_| new) {
            self.events.push_back(IceEvent::Candidate(local.line.clone()));
        }
        if kind == Kind::Relay && self.is_searching() {
            self.checking_since = now;
            self.resume(now);
        }
    }

    fn relay_lost(&mut self, addr: SocketAddr) {
        self.locals.retain(|local| local.addr != addr);
        self.pairs.retain(|pair| pair.local != addr);
        self.nominating = self.nominating.filter(|(local, _)| *local != addr);
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

/// Whether a message comes from who knows the key, and as it was sent.
fn verify(bytes: &[u8], key: &stun::Key) -> Result<(), DropReason> {
    stun::verify(bytes, key).ok_or(DropReason::StunIntegrity)?;
    if stun::is_garbled(bytes) { Err(DropReason::StunFingerprint) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

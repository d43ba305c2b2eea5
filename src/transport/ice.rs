//! ICE (RFC 8445) over the agent of `rtc`: its checks and nomination, with our own judgement of what
//! may reach it, when it runs and whether the peer is still there.
//!
//! Where the agent is not enough:
//! * It believes role attributes before the integrity and attributes behind it; here a message is
//!   verified first and cut after its MESSAGE-INTEGRITY.
//! * It checks every pair at every tick; here the ticks slow down, so that a list of false candidates
//!   does not become a stream of datagrams.
//! * As controlled agent it keeps the first nominated pair for ever; here a later nomination moves the
//!   media if the pair is better or the old one fell silent.
//! * It drops all candidates when a peer falls silent; here a peer that returns finds its session.
//!
//! Left out: STUN and TURN servers, mDNS, TCP, ICE restarts.

mod candidate;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::ice::agent::agent_config::AgentConfig;
use rtc::ice::agent::{Agent, Event as AgentEvent};
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::candidate::candidate_pair::CandidatePairState;
use rtc::ice::candidate::{Candidate, CandidateConfig};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::stun::{self, Class};
use super::{DropReason, TransportError};
use candidate::RemoteLine;

/// How many candidates a peer may announce; addresses learnt from its checks count as well.
pub const MAX_REMOTE_CANDIDATES: usize = 64;
/// How many addresses of ours a session may announce.
pub const MAX_LOCAL_CANDIDATES: usize = 16;
/// How many address pairs a session accepts datagrams from.
const MAX_PAIRS: usize = 16;

/// Between two keepalives of a connected pair.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Between two checks towards a peer that fell silent.
const REVIVAL: Duration = Duration::from_millis(500);
/// Silence after which the peer counts as disconnected.
const SILENCE: Duration = Duration::from_secs(5);
/// Silence, or fruitless checking, after which the connection counts as failed (RFC 7675 §5.1).
const FAILURE: Duration = Duration::from_secs(30);
/// Silence of the selected pair after which any nominated pair replaces it.
const STALE_PAIR: Duration = Duration::from_secs(3);

const UFRAG_LEN: usize = 4;
const PWD_LEN: usize = 22;

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

/// What happened, for the session to tell.
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
}

/// A local and a remote address over which authenticated STUN messages came.
struct Pair {
    local: SocketAddr,
    remote: SocketAddr,
    /// A check of ours over this pair was answered.
    answered: bool,
    heard_at: Instant,
}

pub(super) struct Ice {
    agent: Agent,
    ufrag: String,
    pwd: String,
    local_key: hmac::Key,
    remote_key: Option<hmac::Key>,
    controlling: bool,
    locals: Vec<(SocketAddr, String)>,
    remotes: Vec<RemoteLine>,
    pairs: Vec<Pair>,
    last_pair: usize,
    selected: Option<(SocketAddr, SocketAddr)>,
    state: IceState,
    events: VecDeque<IceEvent>,
    /// Since when the checks go on: the start, or the last candidate.
    checking_since: Instant,
    heard_at: Instant,
    next_tick: Option<Instant>,
}

impl Ice {
    pub(super) fn new(
        now: Instant,
        controlling: bool,
        provider: Arc<dyn RTCCryptoProvider>,
    ) -> Result<Self, TransportError> {
        let (ufrag, pwd) = (random_text(UFRAG_LEN)?, random_text(PWD_LEN)?);
        let config = AgentConfig {
            local_ufrag: ufrag.clone(),
            local_pwd: pwd.clone(),
            multicast_dns_mode: MulticastDnsMode::Disabled,
            // Silence is judged here: the agent would forget its candidates.
            disconnected_timeout: Some(Duration::ZERO),
            failed_timeout: Some(Duration::ZERO),
            // The agent runs when it is woken, and it is woken here.
            keepalive_interval: Some(Duration::from_millis(100)),
            check_interval: Duration::from_millis(1),
            max_binding_requests: Some(u16::MAX - 1),
            is_controlling: controlling,
            host_acceptance_min_wait: Some(Duration::ZERO),
            srflx_acceptance_min_wait: Some(Duration::ZERO),
            prflx_acceptance_min_wait: Some(Duration::ZERO),
            relay_acceptance_min_wait: Some(Duration::ZERO),
            ..AgentConfig::default()
        };
        let agent = Agent::new(now, Arc::new(config), provider)
            .map_err(|error| TransportError::Ice(error.to_string()))?;
        Ok(Self {
            agent,
            local_key: stun::key(pwd.as_bytes()),
            ufrag,
            pwd,
            remote_key: None,
            controlling,
            locals: Vec::new(),
            remotes: Vec::new(),
            pairs: Vec::new(),
            last_pair: 0,
            selected: None,
            state: IceState::Disconnected,
            events: VecDeque::new(),
            checking_since: now,
            heard_at: now,
            next_tick: None,
        })
    }

    pub(super) fn ufrag(&self) -> &str {
        &self.ufrag
    }

    pub(super) fn pwd(&self) -> &str {
        &self.pwd
    }

    pub(super) fn state(&self) -> IceState {
        self.state
    }

    pub(super) fn local_candidates(&self) -> impl Iterator<Item = &str> {
        self.locals.iter().map(|(_, line)| line.as_str())
    }

    pub(super) fn add_local(&mut self, addr: SocketAddr) -> Result<(), TransportError> {
        if self.locals.iter().any(|&(known, _)| known == addr) {
            return Ok(());
        }
        if self.locals.len() >= MAX_LOCAL_CANDIDATES {
            return Err(TransportError::TooManyCandidates(MAX_LOCAL_CANDIDATES));
        }
        let at = self.locals.len() as u32;
        let priority = candidate::local_priority(at);
        let foundation = (at + 1).to_string();
        let host = host_candidate(addr, priority, foundation.clone())?;
        self.agent
            .add_local_candidate(host)
            .map_err(|error| TransportError::Ice(error.to_string()))?;
        self.locals.push((addr, candidate::host_line(&foundation, priority, addr)));
        if self.state == IceState::Disconnected && self.remote_key.is_none() {
            self.enter(IceState::Gathering);
        }
        Ok(())
    }

    /// Takes a line that the peer trickled; those that lead nowhere are no error.
    pub(super) fn add_remote(&mut self, now: Instant, line: &str) -> Result<(), TransportError> {
        let Some(remote) = candidate::parse(line)? else {
            return Ok(());
        };
        if self.remotes.iter().any(|known| known.addr == remote.addr) {
            return Ok(());
        }
        if self.remotes.len() >= MAX_REMOTE_CANDIDATES {
            return Err(TransportError::TooManyCandidates(MAX_REMOTE_CANDIDATES));
        }
        // An address the peer's own checks taught the agent needs no second candidate.
        if !self.agent.get_remote_candidates().iter().any(|known| known.addr() == remote.addr) {
            let foundation = remote.foundation.clone();
            let host = host_candidate(remote.addr, remote.priority, foundation)?;
            self.agent
                .add_remote_candidate(host)
                .map_err(|error| TransportError::Ice(error.to_string()))?;
        }
        self.remotes.push(remote);
        if self.selected.is_none() {
            self.checking_since = now;
            self.resume(now);
        }
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        now: Instant,
        ufrag: &str,
        pwd: &str,
    ) -> Result<(), TransportError> {
        self.agent
            .start_connectivity_checks(now, self.controlling, ufrag.to_owned(), pwd.to_owned())
            .map_err(|error| TransportError::Ice(error.to_string()))?;
        self.remote_key = Some(stun::key(pwd.as_bytes()));
        self.checking_since = now;
        self.resume(now);
        Ok(())
    }

    /// Takes a STUN message; nothing is learnt from it before its integrity is verified.
    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let class = stun::binding_class(bytes).ok_or(DropReason::StunMalformed)?;
        let key = match class {
            Class::Request => {
                let username =
                    stun::attribute(bytes, stun::USERNAME).ok_or(DropReason::StunUsername)?;
                let ours = username.strip_prefix(self.ufrag.as_bytes());
                if ours.and_then(<[u8]>::first) != Some(&b':') {
                    return Err(DropReason::StunUsername);
                }
                &self.local_key
            }
            Class::Success => self.remote_key.as_ref().ok_or(DropReason::NotStarted)?,
            Class::Indication | Class::Error => return Err(DropReason::StunUnexpected),
        };
        let end = stun::verify(bytes, key).ok_or(DropReason::StunIntegrity)?;
        if self.remote_key.is_none() {
            return Err(DropReason::NotStarted);
        }
        let known = self.agent.get_remote_candidates();
        if known.len() >= 2 * MAX_REMOTE_CANDIDATES
            && !known.iter().any(|known| known.addr() == remote)
        {
            return Err(DropReason::TooManyAddresses);
        }
        let nominated =
            class == Class::Request && stun::attribute(bytes, stun::USE_CANDIDATE).is_some();
        let mut message = BytesMut::from(&bytes[..end]);
        stun::set_end(&mut message, end);
        let transport = TransportContext {
            local_addr: local,
            peer_addr: remote,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        self.agent
            .handle_read(TaggedBytesMut { now, transport, message })
            .map_err(|_| DropReason::StunUnexpected)?;

        self.begin(now);
        self.heard(now, local, remote);
        self.drain_agent(now);
        if nominated {
            self.follow_nomination(now, local, remote);
        }
        if self.selected.is_none() && class == Class::Success && self.controlling {
            // The agent nominates at its next tick, and there is nothing to wait for.
            self.next_tick = Some(now);
        } else if self.next_tick.is_none() {
            self.resume(now);
        }
        Ok(())
    }

    /// Whether authenticated STUN messages came over this pair.
    pub(super) fn is_validated(&mut self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is = |pair: &Pair| pair.remote == remote && pair.local == local;
        if self.pairs.get(self.last_pair).is_some_and(is) {
            return true;
        }
        let found = self.pairs.iter().position(is);
        self.last_pair = found.unwrap_or(self.last_pair);
        found.is_some()
    }

    /// The pair that carries what we send.
    pub(super) fn selected(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.selected.filter(|_| self.state != IceState::Failed)
    }

    /// A pair that carries datagrams both ways, selected or not yet.
    pub(super) fn usable(&self) -> Option<(SocketAddr, SocketAddr)> {
        let answered = || self.pairs.iter().find(|pair| pair.answered);
        self.selected().or_else(|| answered().map(|pair| (pair.local, pair.remote)))
    }

    pub(super) fn poll_event(&mut self) -> Option<IceEvent> {
        self.events.pop_front()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(SocketAddr, SocketAddr, BytesMut)> {
        let TaggedBytesMut { transport, message, .. } = self.agent.poll_write()?;
        Some((transport.local_addr, transport.peer_addr, message))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_tick
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|due| now < due) {
            return;
        }
        self.judge_silence(now);
        if self.state == IceState::Failed {
            self.next_tick = None;
            return;
        }
        // An error would come from mDNS, which is off.
        let _ = self.agent.handle_timeout(now);
        self.drain_agent(now);
        self.next_tick = Some(now + self.interval(now));
    }

    /// Stops checks and forgets the peer.
    pub(super) fn close(&mut self) {
        self.next_tick = None;
        self.selected = None;
        self.pairs.clear();
        let _ = self.agent.close();
        while self.agent.poll_event().is_some() || self.agent.poll_write().is_some() {}
    }

    fn interval(&self, now: Instant) -> Duration {
        if self.selected.is_some() {
            return if self.state == IceState::Ready { KEEPALIVE } else { REVIVAL };
        }
        match now.saturating_duration_since(self.checking_since).as_millis() {
            0..250 => Duration::from_millis(25),
            250..1_000 => Duration::from_millis(50),
            1_000..5_000 => Duration::from_millis(200),
            _ => Duration::from_millis(500),
        }
    }

    /// Whether there is anybody to check.
    fn has_peer(&self) -> bool {
        self.remote_key.is_some() && !self.agent.get_remote_candidates().is_empty()
    }

    /// Checks begin with the first candidate of the peer, trickled or seen in a check of its own.
    fn begin(&mut self, now: Instant) {
        let idle =
            matches!(self.state, IceState::Disconnected | IceState::Gathering | IceState::Failed);
        if idle && self.selected.is_none() && self.has_peer() {
            self.checking_since = now;
            self.enter(IceState::Connecting);
        }
    }

    /// Goes on with the checks, if there is anybody to check.
    fn resume(&mut self, now: Instant) {
        if self.has_peer() {
            self.next_tick = Some(now);
            self.begin(now);
        }
    }

    fn judge_silence(&mut self, now: Instant) {
        let since = match self.selected {
            Some(_) => self.heard_at,
            None => self.checking_since,
        };
        let silence = now.saturating_duration_since(since);
        if silence >= FAILURE {
            self.enter(IceState::Failed);
        } else if silence >= SILENCE && self.state == IceState::Ready {
            self.enter(IceState::Disconnected);
        }
    }

    fn heard(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        self.heard_at = now;
        if self.selected.is_some() && self.state != IceState::Ready {
            self.enter(IceState::Connected);
            self.enter(IceState::Ready);
            self.next_tick = Some(now + KEEPALIVE);
        }
        let known = self.pairs.iter().position(|pair| pair.local == local && pair.remote == remote);
        let at = known.unwrap_or_else(|| self.make_room(now, local, remote));
        self.pairs[at].heard_at = now;
        let proven = !self.pairs[at].answered && self.agent_succeeded(local, remote);
        self.pairs[at].answered |= proven;
        if known.is_none() || proven {
            self.events.push_back(IceEvent::Validated { remote, proven });
        }
    }

    /// A place for a new pair; the one that was silent for longest gives way.
    fn make_room(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> usize {
        let pair = Pair { local, remote, answered: false, heard_at: now };
        if self.pairs.len() < MAX_PAIRS {
            self.pairs.push(pair);
            return self.pairs.len() - 1;
        }
        let selected = self.selected;
        let oldest = (0..self.pairs.len())
            .filter(|&at| selected != Some((self.pairs[at].local, self.pairs[at].remote)))
            .min_by_key(|&at| self.pairs[at].heard_at)
            .expect("at most one of the pairs is the selected one");
        self.pairs[oldest] = pair;
        oldest
    }

    fn drain_agent(&mut self, now: Instant) {
        while let Some(tagged) = self.agent.poll_event() {
            match tagged.event {
                AgentEvent::SelectedCandidatePairChange(local, remote) => {
                    self.select(now, local.addr(), remote.addr());
                }
                AgentEvent::RoleChange(controlling) => self.controlling = controlling,
                _ => {}
            }
        }
    }

    /// The controlling peer nominated this pair; the agent follows only the first time.
    fn follow_nomination(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let Some(current) = self.selected else {
            return;
        };
        if self.controlling || current == (local, remote) || !self.agent_succeeded(local, remote) {
            return;
        }
        let silent = self
            .pairs
            .iter()
            .find(|pair| (pair.local, pair.remote) == current)
            .is_none_or(|pair| now.saturating_duration_since(pair.heard_at) >= STALE_PAIR);
        if silent || self.priority(local, remote) > self.priority(current.0, current.1) {
            self.select(now, local, remote);
        }
    }

    fn select(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        self.selected = Some((local, remote));
        let line = |known: Option<&str>, addr| {
            known.map_or_else(|| candidate::reflexive_line(addr), str::to_owned)
        };
        let of_local = self.locals.iter().find(|&&(addr, _)| addr == local);
        let of_remote = self.remotes.iter().find(|known| known.addr == remote);
        self.events.push_back(IceEvent::Selected {
            local: line(of_local.map(|(_, line)| line.as_str()), local),
            remote: line(of_remote.map(|known| known.line.as_str()), remote),
        });
        if self.state != IceState::Ready {
            self.enter(IceState::Connected);
            self.enter(IceState::Ready);
        }
        self.next_tick = Some(now + KEEPALIVE);
    }

    /// The pair's priority (RFC 8445 §6.1.2.3), without the bit that breaks ties.
    fn priority(&self, local: SocketAddr, remote: SocketAddr) -> u64 {
        let of = |candidates: &[Candidate], addr| {
            let found = candidates.iter().find(|candidate| candidate.addr() == addr);
            found.map_or(0, |candidate| u64::from(candidate.priority()))
        };
        let local = of(self.agent.get_local_candidates(), local);
        let remote = of(self.agent.get_remote_candidates(), remote);
        (local.min(remote) << 32) + 2 * local.max(remote)
    }

    /// Whether a check of the agent over this pair was answered.
    fn agent_succeeded(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let id = |candidates: &[Candidate], addr| {
            let found = candidates.iter().find(|candidate| candidate.addr() == addr);
            found.map(|candidate| candidate.id().to_owned())
        };
        let Some(local) = id(self.agent.get_local_candidates(), local) else {
            return false;
        };
        let Some(remote) = id(self.agent.get_remote_candidates(), remote) else {
            return false;
        };
        self.agent.get_candidate_pairs_stats(self.heard_at).iter().any(|pair| {
            pair.state == CandidatePairState::Succeeded
                && pair.local_candidate_id == local
                && pair.remote_candidate_id == remote
        })
    }

    fn enter(&mut self, state: IceState) {
        if self.state != state {
            self.state = state;
            self.events.push_back(IceEvent::State(state));
        }
    }
}

/// A candidate for the agent. It treats all types alike once they have a priority.
fn host_candidate(
    addr: SocketAddr,
    priority: u32,
    foundation: String,
) -> Result<Candidate, TransportError> {
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: addr.ip().to_string(),
        port: addr.port(),
        component: 1,
        priority,
        foundation,
        ..CandidateConfig::default()
    };
    CandidateHostConfig { base_config, ..CandidateHostConfig::default() }
        .new_candidate_host()
        .map_err(|error| TransportError::Ice(error.to_string()))
}

/// Random characters of the ICE alphabet (RFC 8839 §5.4), 6 bits each.
fn random_text(len: usize) -> Result<String, TransportError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; len];
    rand::fill(&mut bytes).map_err(|_| TransportError::Randomness)?;
    Ok(bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
}

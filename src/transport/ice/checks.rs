//! Connectivity checks (RFC 8445 §7): which pairs are checked at a tick, what is asked and answered.
//!
//! Nothing is believed before its integrity is verified, and an answer only over the way of its request.
//! A check is not sent again with the same transaction, as STUN would (RFC 8489 §6.2.1): the next tick
//! asks anew. Checks with the credentials of before a restart are answered in `generation`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pairs::Pair;
use super::{Ice, IceState, candidate};
use crate::transport::DropReason;
use crate::transport::path::{self, Path};
use crate::transport::stun::{self, Builder, Class, Transaction};

/// How many checks wait for their answer.
pub(super) const MAX_CHECKS: usize = 512;
/// How often a session changes its mind about who controls it; two agents that mean it need it once.
const MAX_ROLE_SWITCHES: u32 = 16;
/// TCP connections that a session opens to candidates of its peer.
const MAX_CONNECTS: usize = 8;
/// An answer later than this is none.
const LATE: Duration = Duration::from_secs(10);

/// A request of ours that may still be answered.
pub(super) struct Check {
    transaction: Transaction,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    sent_at: Instant,
    nominating: bool,
    /// With the credentials of this one.
    pub(super) generation: u32,
}

impl Ice {
    pub(super) fn check_pairs(&mut self, now: Instant) {
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

    pub(super) fn check(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        nominating: bool,
    ) {
        self.check_in(self.current.number, now, local, remote, nominating);
    }

    /// Checks a pair with the credentials of a generation.
    pub(super) fn check_in(
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

    /// Forgets those that wait for their answer for too long.
    pub(super) fn forget_late(&mut self, now: Instant) {
        while self.checks.front().is_some_and(|check| now >= check.sent_at + LATE) {
            self.checks.pop_front();
        }
    }

    pub(super) fn handle_answer(
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

    pub(super) fn handle_request(
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
}

/// Whether a message comes from who knows the key, and as it was sent.
fn verify(bytes: &[u8], key: &stun::Key) -> Result<(), DropReason> {
    stun::verify(bytes, key).ok_or(DropReason::StunIntegrity)?;
    if stun::is_garbled(bytes) { Err(DropReason::StunFingerprint) } else { Ok(()) }
}

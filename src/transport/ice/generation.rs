//! Credentials, and what becomes of a session when they change (RFC 8445 §9, RFC 8839 §4.4).
//!
//! A restart begins a new generation: new credentials of both sides, and the peer's candidates anew.
//! Media goes on over the selected pair, whose consent is kept with the credentials of before, until a
//! pair of the new generation is nominated; so a restart of a call that works disturbs nobody, and one
//! that leads nowhere costs nothing. What may still be on its way then is taken for a moment more. Our
//! own candidates stay the same, for they are the worker's sockets, and so do the roles.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;

use super::candidate::RemoteLine;
use super::pairs::Pair;
use super::remote::MAX_REMOTE_CANDIDATES;
use super::{Ice, IceState};
use crate::transport::stun::{self, Builder, Transaction};
use crate::transport::{TransportError, path};

/// For how long what belongs to the old generation is taken after a pair of the new one is in use.
pub(super) const GRACE: Duration = Duration::from_secs(3);

const UFRAG_LEN: usize = 4;
const PWD_LEN: usize = 22;

/// A user fragment and its password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// New ones, of the lengths that the original has.
    ///
    /// # Errors
    /// [`TransportError::Randomness`]
    pub fn generate() -> Result<Self, TransportError> {
        let mut ufrag = random_text(UFRAG_LEN + PWD_LEN)?;
        let pwd = ufrag.split_off(UFRAG_LEN);
        Ok(Self { ufrag, pwd })
    }
}

/// The peer's credentials as they are used.
pub(super) struct Peer {
    /// What its requests to us are addressed with.
    pub(super) incoming: String,
    /// And ours to it.
    pub(super) outgoing: String,
    pub(super) key: stun::Key,
    ufrag: String,
}

/// The credentials of both sides between two restarts.
pub(super) struct Generation {
    /// How many restarts there were before.
    pub(super) number: u32,
    ours: Credentials,
    pub(super) key: stun::Key,
    pub(super) peer: Option<Peer>,
}

/// A generation that was replaced.
pub(super) struct Old {
    generation: Generation,
    /// Until when it counts; for as long as it takes, if its pair is still in use.
    pub(super) until: Option<Instant>,
}

/// Where a candidate of the peer belongs.
pub(super) enum Belongs {
    Now,
    /// To credentials that we may be told of.
    Later,
}

impl Generation {
    pub(super) fn new(number: u32, ours: Credentials) -> Self {
        Self { number, key: stun::key(ours.pwd.as_bytes()), ours, peer: None }
    }

    pub(super) fn ufrag(&self) -> &str {
        &self.ours.ufrag
    }

    pub(super) fn pwd(&self) -> &str {
        &self.ours.pwd
    }

    /// Learns the peer's credentials.
    pub(super) fn meet(&mut self, ufrag: &str, pwd: &str) {
        let ours = &self.ours.ufrag;
        self.peer = Some(Peer {
            incoming: format!("{ours}:{ufrag}"),
            outgoing: format!("{ufrag}:{ours}"),
            key: stun::key(pwd.as_bytes()),
            ufrag: ufrag.to_owned(),
        });
    }

    /// Whether a user name begins with our fragment.
    fn is_named(&self, username: &[u8]) -> bool {
        let rest = username.strip_prefix(self.ours.ufrag.as_bytes());
        rest.and_then(<[u8]>::first) == Some(&b':')
    }
}

impl Ice {
    /// Both sides have new credentials. Before the checks began there is nothing to keep, and the peer's
    /// are told by [`Ice::start`].
    pub(in crate::transport) fn restart(
        &mut self,
        now: Instant,
        ours: Credentials,
        ufrag: &str,
        pwd: &str,
    ) {
        if self.current.peer.is_none() {
            self.current = Generation::new(self.current.number, ours);
            return;
        }
        let next = Generation::new(self.current.number + 1, ours);
        let before = std::mem::replace(&mut self.current, next);
        self.current.meet(ufrag, pwd);
        if self.state == IceState::Failed {
            self.settle_sent();
            self.live.pair = None;
        }
        if self.live.pair.is_none() || self.selected_in == before.number {
            self.old = Some(Box::new(Old { generation: before, until: None }));
        }
        let old = self.old.as_ref().map(|old| old.generation.number);
        let selected = self.live.pair;
        let keep = |pair: &Pair| {
            let known = Some(pair.generation) == old && pair.heard_at.is_some();
            known || selected == Some((pair.local, pair.remote))
        };
        self.pairs.retain(keep);
        for pair in self.pairs.iter_mut() {
            pair.generation = old.unwrap_or(pair.generation);
        }
        let pairs = &self.pairs;
        self.remotes.retain(|remote| pairs.iter().any(|pair| pair.remote == remote.addr));
        self.checks.retain(|check| Some(check.generation) == old);
        self.past_names += self.names.len() as u32;
        self.names.clear();
        self.nominating = None;
        self.role_switches = 0;
        self.connects = 0;
        self.checking_since = now;
        for found in std::mem::take(&mut self.coming) {
            if found.ufrag.as_deref() == Some(ufrag) {
                // There are no more of them than there may be candidates.
                let _ = self.add_remote_line(now, found);
            }
        }
        self.resume(now);
    }

    /// Whether media still goes over a pair of before the last restart.
    pub(super) fn is_restarting(&self) -> bool {
        self.live.pair.is_some() && self.selected_in != self.current.number
    }

    /// The credentials with this number, if they still count.
    pub(super) fn generation(&self, number: u32) -> Option<&Generation> {
        self.generations().find(|one| one.number == number)
    }

    /// Those that a request with this user name is for.
    pub(super) fn named(&self, username: &[u8]) -> Option<&Generation> {
        self.generations().find(|one| one.is_named(username))
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        [&self.current].into_iter().chain(self.old.as_ref().map(|old| &old.generation))
    }

    /// Whether a candidate of the peer is for the current generation.
    ///
    /// # Errors
    /// [`TransportError::OldCandidate`] if it is for an earlier one, and
    /// [`TransportError::TooManyCandidates`].
    pub(super) fn place(&self, found: &RemoteLine) -> Result<Belongs, TransportError> {
        let (number, peer) = (self.current.number, self.current.peer.as_ref());
        // Before there was a restart there is nothing to confuse, and not every client keeps to the
        // fragment it was given.
        let Some(peer) = peer.filter(|_| number > 0) else { return Ok(Belongs::Now) };
        let old = self.old.as_ref().and_then(|old| old.generation.peer.as_ref());
        match (&found.ufrag, found.generation) {
            (Some(ufrag), _) if *ufrag == peer.ufrag => Ok(Belongs::Now),
            (Some(ufrag), _) if old.is_some_and(|old| old.ufrag == *ufrag) => {
                Err(TransportError::OldCandidate)
            }
            (Some(_), _) if self.coming.len() < MAX_REMOTE_CANDIDATES => Ok(Belongs::Later),
            (Some(_), _) => Err(TransportError::TooManyCandidates(MAX_REMOTE_CANDIDATES)),
            // Restarts that we were not told of count there, too.
            (None, Some(generation)) if generation < number => Err(TransportError::OldCandidate),
            (None, _) => Ok(Belongs::Now),
        }
    }

    /// Answers a check with the credentials of before, by which the peer keeps our consent. Such a check
    /// teaches no new address and nominates nothing any more.
    pub(super) fn handle_old_request(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        transaction: &Transaction,
    ) {
        let Some(old) = &self.old else { return };
        let answer = Builder::new(stun::BINDING_SUCCESS, transaction)
            .xor_address(stun::XOR_MAPPED_ADDRESS, path::plain(remote))
            .integrity(&old.generation.key)
            .fingerprint();
        self.transmit(now, local, remote, answer);
        self.heard(now, local, remote, None);
    }

    /// Forgets what belongs to the old generation when its time is over.
    pub(super) fn forget_old(&mut self, now: Instant) {
        let until = self.old.as_ref().and_then(|old| old.until);
        if until.is_none_or(|until| now < until) {
            return;
        }
        self.old = None;
        let (number, selected) = (self.current.number, self.live.pair);
        self.pairs.retain(|pair| {
            pair.generation == number || selected == Some((pair.local, pair.remote))
        });
        let pairs = &self.pairs;
        self.remotes.retain(|remote| {
            remote.generation == number || pairs.iter().any(|pair| pair.remote == remote.addr)
        });
        self.checks.retain(|check| check.generation == number);
    }
}

/// Random characters of the ICE alphabet (RFC 8839 §5.4), 6 bits each.
fn random_text(len: usize) -> Result<String, TransportError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; len];
    rand::fill(&mut bytes).map_err(|_| TransportError::Randomness)?;
    Ok(bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
}

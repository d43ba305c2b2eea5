//! Candidates of ours (RFC 8445 §5.1): addresses of the worker's sockets, and what servers told of them.
//!
//! Each is a place that checks are sent from, a line that the peer is told, or both. How lines and
//! priorities are made is in `candidate`, how servers are asked in `gather`.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::candidate::{self, Kind};
use super::remote::Remote;
use super::{Ice, IceEvent, IceState};
use crate::transport::TransportError;
use crate::transport::path::{self, Path};

/// How many addresses of ours a session may announce.
pub const MAX_LOCAL_CANDIDATES: usize = 16;

pub(super) struct Local {
    /// Where datagrams arrive and leave, marked by its path.
    pub(super) addr: SocketAddr,
    pub(super) priority: u32,
    /// The address that peers are told, and the line; none if they know the place already.
    pub(super) shown: SocketAddr,
    pub(super) line: String,
    /// Pairs are made with it; a server-reflexive one is stood for by its base.
    pub(super) paired: bool,
}

impl Ice {
    pub(in crate::transport) fn local_candidates(&self) -> impl Iterator<Item = &str> {
        self.locals.iter().map(|local| local.line.as_str()).filter(|line| !line.is_empty())
    }

    /// Announces a UDP address of ours, as `shown` if others see it at another one.
    pub(in crate::transport) fn add_local(
        &mut self,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.add_host(Kind::Host, addr, shown)
    }

    /// Announces that we accept TCP connections at an address, and that we may open some from it.
    pub(in crate::transport) fn add_local_tcp(
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

    pub(super) fn gathered(
        &mut self,
        now: Instant,
        kind: Kind,
        addr: SocketAddr,
        shown: SocketAddr,
    ) {
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

    pub(super) fn relay_lost(&mut self, addr: SocketAddr) {
        self.locals.retain(|local| local.addr != addr);
        self.pairs.retain(|pair| pair.local != addr);
        self.nominating = self.nominating.filter(|(local, _)| *local != addr);
    }
}

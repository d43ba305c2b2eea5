//! Candidates of the peer (RFC 8445 §5.3, RFC 8838): told in lines, or learnt from its checks
//! (§7.3.1.3).
//!
//! Both kinds are bounded, each by itself, so that neither takes the other's place. A line may name its
//! address instead of telling it; who looks names up is the owner's business.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::candidate::{self, RemoteLine, Target};
use super::gather;
use super::generation::Belongs;
use super::{Ice, IceEvent};
use crate::transport::TransportError;

/// How many candidates a peer may announce.
pub(super) const MAX_REMOTE_CANDIDATES: usize = 64;
/// How many addresses are learnt from the peer's checks; the oldest gives way.
pub(super) const MAX_LEARNT: usize = 64;

pub(super) struct Remote {
    pub(super) addr: SocketAddr,
    pub(super) priority: u32,
    /// None if the address was learnt from a check.
    pub(super) line: Option<String>,
    /// The number of the generation it was told in.
    pub(super) generation: u32,
}

impl Ice {
    /// Takes a line that the peer trickled; those that lead nowhere are no error.
    pub(in crate::transport) fn add_remote(
        &mut self,
        now: Instant,
        line: &str,
    ) -> Result<(), TransportError> {
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

    pub(super) fn add_remote_line(
        &mut self,
        now: Instant,
        found: RemoteLine,
    ) -> Result<(), TransportError> {
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

    /// The name with this number among those of candidates has this address.
    pub(super) fn add_resolved(&mut self, now: Instant, number: u32, ip: IpAddr) {
        let at = number.checked_sub(self.past_names);
        let known = at.and_then(|at| self.names.get(at as usize)).cloned();
        if let Some(mut found) = known
            && let Target::Name(_, port) = found.target
        {
            found.target = Target::Address(SocketAddr::new(ip, port));
            // One too many is as good as one whose name nobody knows.
            let _ = self.add_remote_line(now, found);
        }
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

    /// Makes the pair that a request came over, with a candidate for an unknown address (§7.3.1.3).
    pub(super) fn learn(&mut self, local: SocketAddr, remote: SocketAddr, priority: u32) {
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
}

//! The pairs of candidates (RFC 8445 §6.1.2): which are made, what is known of each, whose turn it is.
//!
//! Departs from the RFC in that the list is not sorted, frozen or paced: a tick takes the next few of
//! those that are due. Which of them carries the media is decided in `nomination`.

use std::net::SocketAddr;
use std::slice;
use std::time::{Duration, Instant};

use super::{Ice, Traffic};
use crate::transport::path::{self, Path};

/// How many pairs are checked; those of lower priority are left out.
pub(super) const MAX_PAIRS: usize = 256;
/// How many pairs are checked at one tick, so that a description with many addresses makes nobody send
/// a flood to them (RFC 8445 §19.5.1); the others have their turn at the next.
const CHECKS_AT_ONCE: usize = 16;

pub(super) struct Pair {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) priority: u64,
    /// The number of the generation whose checks count for it.
    pub(super) generation: u32,
    /// An authenticated message came over it.
    pub(super) heard_at: Option<Instant>,
    /// A check of ours was answered.
    pub(super) answered: bool,
    pub(super) answered_at: Option<Instant>,
    /// When the controlling peer last wanted it.
    pub(super) nominated_at: Option<Instant>,
    /// Of the last check that was answered.
    pub(super) round_trip: Option<Duration>,
    /// What is not STUN.
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
}

/// All pairs of a session.
#[derive(Default)]
pub(super) struct Pairs {
    list: Vec<Pair>,
    /// Where the one lies that [`Self::is_validated`] found last.
    last: usize,
    /// Which one is checked first at the next tick.
    turn: usize,
}

impl Pairs {
    /// Whether authenticated STUN messages came over this pair. Asked for each datagram, mostly about the
    /// same pair.
    #[inline]
    pub(super) fn is_validated(&mut self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is =
            |pair: &Pair| pair.remote == remote && pair.local == local && pair.heard_at.is_some();
        if self.list.get(self.last).is_some_and(is) {
            return true;
        }
        let found = self.list.iter().position(is);
        self.last = found.unwrap_or(self.last);
        found.is_some()
    }

    /// The one that [`Self::is_validated`] found last.
    #[inline]
    pub(super) fn last_asked(&mut self) -> Option<&mut Pair> {
        self.list.get_mut(self.last)
    }

    pub(super) fn get(&self, local: SocketAddr, remote: SocketAddr) -> Option<&Pair> {
        self.list.iter().find(|pair| pair.local == local && pair.remote == remote)
    }

    pub(super) fn get_mut(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<&mut Pair> {
        self.list.iter_mut().find(|pair| pair.local == local && pair.remote == remote)
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, Pair> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> slice::IterMut<'_, Pair> {
        self.list.iter_mut()
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Pair) -> bool) {
        self.list.retain(keep);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Adds one. If there is no room it takes the place of the one that was heard of least lately, but
    /// not that of the `selected` one.
    fn push(&mut self, pair: Pair, selected: Option<(SocketAddr, SocketAddr)>) {
        if self.list.len() < MAX_PAIRS {
            self.list.push(pair);
            return;
        }
        let spare = (0..self.list.len())
            .filter(|&at| selected != Some((self.list[at].local, self.list[at].remote)))
            .min_by_key(|&at| (self.list[at].heard_at, self.list[at].priority))
            .expect("at most one of the pairs is the selected one");
        self.list[spare] = pair;
    }

    /// The next few of those that are due; the others have their turn later.
    pub(super) fn in_turn(
        &mut self,
        due: impl Fn(&&Pair) -> bool,
    ) -> Vec<(SocketAddr, SocketAddr)> {
        let (before, behind) = self.list.split_at(self.turn.min(self.list.len()));
        let pairs: Vec<_> = behind.iter().chain(before).filter(due).collect();
        let many = pairs.len() > CHECKS_AT_ONCE;
        let pairs: Vec<_> = pairs[..pairs.len().min(CHECKS_AT_ONCE)]
            .iter()
            .map(|pair| (pair.local, pair.remote))
            .collect();
        if let Some(&last) = pairs.last().filter(|_| many) {
            let is_last = |pair: &Pair| (pair.local, pair.remote) == last;
            self.turn = self.list.iter().position(is_last).map_or(0, |at| at + 1);
        }
        pairs
    }
}

impl Ice {
    /// Makes a pair if datagrams can go between the two.
    pub(super) fn add_pair(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        ours: u32,
        theirs: u32,
    ) {
        let (own, other) = (path::plain(local), path::plain(remote));
        let tcp = path::of(remote) == Path::Tcp;
        let fits = match path::of(local) {
            Path::Tcp => tcp && own.port() == 0,
            Path::Udp | Path::Relay => !tcp,
        };
        if !fits || own.is_ipv4() != other.is_ipv4() || self.is_neighbour(local, remote) {
            return;
        }
        let priority = self.pair_priority(ours, theirs);
        self.insert_pair(local, remote, priority);
    }

    /// Whether a datagram between the two would come back to the sockets it left by: the peer is another
    /// session that shares them. Who an answer is for could not be told, and one of the two would take
    /// the pair for a good one. Over TCP such sessions have connections of their own.
    pub(super) fn is_neighbour(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        path::of(local) == Path::Udp && self.locals.iter().any(|own| own.addr == remote)
    }

    pub(super) fn insert_pair(&mut self, local: SocketAddr, remote: SocketAddr, priority: u64) {
        let generation = self.current.number;
        if let Some(known) = self.pairs.get_mut(local, remote) {
            if known.generation != generation {
                // The way is known, and what came over it stays; whether the peer is behind it with its
                // new credentials has to be seen.
                (known.generation, known.priority) = (generation, priority);
                (known.answered, known.nominated_at) = (false, None);
            }
            return;
        }
        let pair = Pair {
            local,
            remote,
            priority,
            generation,
            heard_at: None,
            answered: false,
            answered_at: None,
            nominated_at: None,
            round_trip: None,
            sent: Traffic::default(),
            received: Traffic::default(),
        };
        self.pairs.push(pair, self.live.pair);
    }

    /// RFC 8445 §6.1.2.3, where G is the priority of the controlling side.
    pub(super) fn pair_priority(&self, ours: u32, theirs: u32) -> u64 {
        let (g, d) = if self.controlling { (ours, theirs) } else { (theirs, ours) };
        (u64::from(g.min(d)) << 32) + 2 * u64::from(g.max(d)) + u64::from(g > d)
    }
}

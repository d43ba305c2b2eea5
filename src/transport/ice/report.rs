//! What there is to tell of candidates and pairs (RFC 8445 §5.1, §6.1.2.6), and what went over them.
//!
//! Datagrams are counted whole, as they lie behind the header of UDP or the frame of TCP, and without
//! STUN: media, its control and DTLS.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use super::checks::Check;
use super::local::Local;
use super::pairs::Pair;
use super::{Ice, IceState};
use crate::transport::path::{self, Path};

/// Pairs that are told of; a session has up to 256, and the rest never mattered.
pub const MAX_REPORTED_PAIRS: usize = 64;

/// Datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(in crate::transport) fn count(&mut self, bytes: usize) {
        self.add(Self { packets: 1, bytes: bytes as u64 });
    }

    pub(in crate::transport) fn add(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { packets: self.packets + more.packets, bytes: self.bytes + more.bytes }
    }
}

/// Where a candidate comes from (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CandidateKind {
    Host,
    ServerReflexive,
    /// Only checks told of it.
    PeerReflexive,
    Relayed,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// As the other side is told it.
    pub address: SocketAddr,
    pub path: Path,
    pub kind: CandidateKind,
    pub priority: u32,
    /// The server that told of it; empty if none did.
    pub url: String,
}

/// How far the check of a pair is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PairState {
    Waiting,
    InProgress,
    Failed,
    Succeeded,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairReport {
    /// Positions among the local and the remote candidates.
    pub local: usize,
    pub remote: usize,
    pub state: PairState,
    pub priority: u64,
    pub nominated: bool,
    /// It carries what we send.
    pub selected: bool,
    /// A check of ours was answered.
    pub writable: bool,
    /// The peer's checks came.
    pub readable: bool,
    pub round_trip: Option<Duration>,
    pub sent: Traffic,
    pub received: Traffic,
}

/// One session's.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IceReport {
    pub locals: Vec<Candidate>,
    pub remotes: Vec<Candidate>,
    /// The most important first, at most [`MAX_REPORTED_PAIRS`].
    pub pairs: Vec<PairReport>,
    /// Over all pairs, forgotten ones among them.
    pub sent: Traffic,
    pub received: Traffic,
}

impl Ice {
    pub(in crate::transport) fn report(&self) -> IceReport {
        let locals = self.locals.iter().map(|local| {
            let kind = match path::of(local.addr) {
                Path::Relay => CandidateKind::Relayed,
                _ if local.paired => CandidateKind::Host,
                _ => CandidateKind::ServerReflexive,
            };
            Candidate {
                address: local.shown,
                path: path::of(local.addr),
                kind,
                priority: local.priority,
                url: self.url_of(kind),
            }
        });
        let remotes = self.remotes.iter().map(|remote| Candidate {
            address: path::plain(remote.addr),
            path: path::of(remote.addr),
            kind: remote.line.as_deref().map_or(CandidateKind::PeerReflexive, kind_of_line),
            priority: remote.priority,
            url: String::new(),
        });
        let mut pairs: Vec<&Pair> = self.pairs.iter().collect();
        pairs.sort_by_key(|pair| {
            let heard = pair.heard_at.is_some();
            Reverse((self.is_selected(pair), pair.answered, heard, pair.priority))
        });
        let pairs = pairs.into_iter().filter_map(|pair| {
            let local = |local: &Local| local.addr == pair.local && local.paired;
            Some(PairReport {
                local: self.locals.iter().position(local)?,
                remote: self.remotes.iter().position(|remote| remote.addr == pair.remote)?,
                state: self.state_of(pair),
                priority: pair.priority,
                nominated: pair.nominated_at.is_some() || self.is_selected(pair),
                selected: self.is_selected(pair),
                writable: pair.answered && self.state != IceState::Failed,
                readable: pair.heard_at.is_some(),
                round_trip: pair.round_trip,
                sent: self.sent_over(pair),
                received: pair.received,
            })
        });
        IceReport {
            pairs: pairs.take(MAX_REPORTED_PAIRS).collect(),
            locals: locals.collect(),
            remotes: remotes.collect(),
            sent: self.sent + self.live.sent,
            received: self.received,
        }
    }

    fn url_of(&self, kind: CandidateKind) -> String {
        match kind {
            CandidateKind::Host | CandidateKind::PeerReflexive => String::new(),
            CandidateKind::Relayed => self.gathering.turn_url(),
            CandidateKind::ServerReflexive => {
                let stun = self.gathering.stun_url();
                if stun.is_empty() { self.gathering.turn_url() } else { stun }
            }
        }
    }

    fn sent_over(&self, pair: &Pair) -> Traffic {
        let is_live = self.live.pair == Some((pair.local, pair.remote));
        if is_live { pair.sent + self.live.sent } else { pair.sent }
    }

    fn is_selected(&self, pair: &Pair) -> bool {
        self.selected() == Some((pair.local, pair.remote))
    }

    fn state_of(&self, pair: &Pair) -> PairState {
        let same = |check: &Check| (check.local, check.remote) == (pair.local, pair.remote);
        if self.state == IceState::Failed {
            PairState::Failed
        } else if pair.answered {
            PairState::Succeeded
        } else if self.checks.iter().any(same) {
            PairState::InProgress
        } else {
            PairState::Waiting
        }
    }
}

/// What a line of the peer says behind `typ`.
fn kind_of_line(line: &str) -> CandidateKind {
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "typ");
    match words.nth(1) {
        Some("srflx") => CandidateKind::ServerReflexive,
        Some("relay") => CandidateKind::Relayed,
        Some("prflx") => CandidateKind::PeerReflexive,
        _ => CandidateKind::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_where_a_candidate_comes_from() {
        for (line, kind) in [
            ("candidate:1 1 udp 1 192.0.2.7 9 typ host generation 0", CandidateKind::Host),
            (
                "candidate:1 1 udp 1 192.0.2.7 9 typ srflx raddr 10.0.0.1",
                CandidateKind::ServerReflexive,
            ),
            ("candidate:1 1 udp 1 192.0.2.7 9 typ relay", CandidateKind::Relayed),
            ("candidate:1 1 udp 1 192.0.2.7 9 typ", CandidateKind::Host),
        ] {
            assert_eq!(kind_of_line(line), kind, "{line}");
        }
    }
}

//! Which pair carries what we send (RFC 8445 §8): nominated by us, or by the peer if it controls.
//!
//! Departs from the RFC in that nominations go on for as long as the session does. As the controlling
//! side we nominate the first pair that works, and another when that fell silent; as the controlled one
//! we follow the peer's last nomination, unless a better pair was nominated at about the same time.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::consent::{KEEPALIVE, SILENCE, STALE_PAIR};
use super::pairs::Pair;
use super::{Ice, IceEvent, IceState, candidate, generation};
use crate::transport::path::{self, Path};

/// Nominations that lie no further apart are of one moment, and then the better pair counts (RFC 8445
/// §8.1.1): there are peers that nominate all pairs while they check them.
pub(super) const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// How long TCP and relays wait for a better pair before we nominate them.
const SECOND_BEST: Duration = Duration::from_millis(400);
/// Without an answer to our nomination for this long the pair works no more.
const NOMINATION: Duration = Duration::from_secs(1);

impl Ice {
    /// As the controlling side, nominates a pair that works if there is none, or none any more.
    pub(super) fn consider(&mut self, now: Instant) {
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

    /// The controlling peer nominated this pair. It becomes the selected one if there is none, if that
    /// fell silent, or if this is not worse: behind a router that changed its address, the peer's
    /// candidate is the same as before, and the last nomination is the one that counts. A worse pair has
    /// to wait until no better one was nominated lately.
    pub(super) fn follow_nomination(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
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
    pub(super) fn follow_last(&mut self, now: Instant) {
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
    pub(super) fn select(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
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

    /// Whether it was selected, though the peer may be lost since.
    pub(super) fn is_chosen(&self, pair: &Pair) -> bool {
        self.live.pair == Some((pair.local, pair.remote))
    }
}

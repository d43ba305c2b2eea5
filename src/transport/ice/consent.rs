//! What is heard of the peer, and what its silence means: the consent (RFC 7675), the state, and when
//! there is something to do next.
//!
//! Departs from RFC 7675 in that checks of the selected pair keep their pace of 2 s, not randomised; and
//! a consent that is gone is given again by the next answer, for the credentials are still the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::remote::Remote;
use super::{Ice, IceEvent, IceState};
use crate::transport::path::{self, Path};

/// Between two checks of a connected pair, which are the keepalive and keep the consent fresh.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(2);
/// Between two checks towards a peer that fell silent, and before a check that keeps the consent is
/// repeated: lost ones are not to look like a peer that is gone.
pub(super) const REVIVAL: Duration = Duration::from_millis(500);
/// Without an answer for this long the peer counts as disconnected.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Without an answer for this long, the peer's consent is gone (RFC 7675 §5.1), or checking was in vain.
pub(super) const FAILURE: Duration = Duration::from_secs(30);
/// Silence of the selected pair after which any nominated pair replaces it.
pub(super) const STALE_PAIR: Duration = Duration::from_secs(3);

impl Ice {
    /// Checks begin with the first candidate of the peer, trickled or seen in a check of its own.
    pub(super) fn begin(&mut self, now: Instant) {
        let idle =
            matches!(self.state, IceState::Disconnected | IceState::Gathering | IceState::Failed);
        if idle && self.live.pair.is_none() && self.has_peer() {
            self.checking_since = now;
            self.enter(IceState::Connecting);
        }
    }

    /// Goes on with the checks, if there is anybody to check.
    pub(super) fn resume(&mut self, now: Instant) {
        if self.has_peer() && (self.live.pair.is_none() || self.state != IceState::Failed) {
            self.next_tick = Some(now);
            self.begin(now);
        }
    }

    /// Whether there is anybody to check.
    fn has_peer(&self) -> bool {
        let current = |remote: &Remote| remote.generation == self.current.number;
        self.current.peer.is_some() && self.remotes.iter().any(current)
    }

    /// Whether there is a pair to be found.
    pub(super) fn is_searching(&self) -> bool {
        self.live.pair.is_none() || self.is_restarting()
    }

    /// Whether pairs other than the selected one are checked. A restart that leads nowhere ends, as long
    /// as there is the old pair.
    pub(super) fn is_checking(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.checking_since);
        self.state != IceState::Ready || self.is_restarting() && since < FAILURE
    }

    /// When to look again: sooner in the beginning, and no later than silence is to be judged.
    pub(super) fn after(&self, now: Instant) -> Instant {
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

    /// Notes an authenticated message: a request, or the answer to a check with the credentials of
    /// `answered`. A request shows that the peer lives; only an answer shows that it hears us and still
    /// wants to. That is the consent (RFC 7675 §5.1), and it is for the pair that carries the media:
    /// another one revives it only by taking its place.
    pub(super) fn heard(
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

    /// Whether there is no selected pair, or one that fell silent, or only asks and never answers.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let Some(pair) = self.pairs.iter().find(|pair| self.is_chosen(pair)) else { return true };
        let before = |at: Option<Instant>, limit| at.is_none_or(|at| now >= at + limit);
        before(pair.heard_at, STALE_PAIR)
            || before(pair.answered_at.max(Some(self.consent_at)), SILENCE)
    }

    pub(super) fn judge_silence(&mut self, now: Instant) {
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
}

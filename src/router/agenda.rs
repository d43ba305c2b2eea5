//! Which peer or source is to be looked at next, and when: a heap, so that nobody else is looked at.
//!
//! Each of them carries its own appointment. One that is moved to an earlier time leaves the later entry
//! behind, which is skipped when its time comes; when most entries are such, the heap is made anew.

use super::{PeerKey, SourceKey};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// So many entries are kept in any case before the heap is looked through for those left behind.
const AT_LEAST: usize = 256;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Whose {
    Peer(PeerKey),
    Source(SourceKey),
    /// What sinks choose among encodings and layers.
    Layers,
}

/// When somebody is looked at next, if at all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Appointment(Option<Instant>);

impl Appointment {
    pub const fn is_made(self) -> bool {
        self.0.is_some()
    }

    /// Whether this is the entry that counts; then its time has come, and there is no other.
    pub fn keep(&mut self, at: Instant) -> bool {
        let kept = self.0 == Some(at);
        if kept {
            self.0 = None;
        }
        kept
    }
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, Whose)>>,
    /// Peers and sources there are.
    members: usize,
}

impl Agenda {
    pub fn joined(&mut self) {
        self.members += 1;
    }

    pub fn left(&mut self) {
        self.members = self.members.saturating_sub(1);
    }

    /// Looks at `whose` at that time, unless that happens earlier anyway.
    #[inline]
    pub fn plan(&mut self, appointment: &mut Appointment, whose: Whose, at: Instant) {
        if appointment.0.is_none_or(|before| at < before) {
            appointment.0 = Some(at);
            self.heap.push(Reverse((at, whose)));
        }
    }

    /// No later than the first appointment.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// An entry whose time has come, whether it counts or was left behind.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, Whose)> {
        let &Reverse((at, whose)) = self.heap.peek()?;
        (at <= now).then(|| {
            self.heap.pop();
            (at, whose)
        })
    }

    /// Forgets what was left behind, if that is most: `counts` tells what is not.
    pub fn tidy(&mut self, counts: impl Fn(Whose, Appointment) -> bool) {
        if self.heap.len() > AT_LEAST.max(4 * self.members) {
            self.heap.retain(|Reverse((at, whose))| counts(*whose, Appointment(Some(*at))));
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

/// The end of the grid's step that `at` lies in, counted from `origin`: what need not be exact happens
/// together.
pub(super) fn on_grid(origin: Instant, at: Instant, step: Duration) -> Instant {
    let (since, step) = (at.saturating_duration_since(origin), step.as_micros().max(1));
    let steps = since.as_micros().div_ceil(step);
    origin + Duration::from_micros(u64::try_from(steps * step).unwrap_or(u64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
    fn an_appointment_is_kept_once_and_what_was_left_behind_is_forgotten() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let whose = Whose::Peer(SlotMap::with_key().insert(()));
        let (mut agenda, mut appointment) = (Agenda::default(), Appointment::default());
        agenda.joined();
        agenda.plan(&mut appointment, whose, ms(50));
        agenda.plan(&mut appointment, whose, ms(90));
        agenda.plan(&mut appointment, whose, ms(20));
        assert_eq!((agenda.next(), agenda.len()), (Some(ms(20)), 2));
        assert_eq!(agenda.pop(ms(19)), None);
        assert!(agenda.pop(ms(60)).is_some_and(|(at, _)| appointment.keep(at)));
        assert!(agenda.pop(ms(60)).is_some_and(|(at, _)| !appointment.keep(at)));
        assert_eq!(agenda.pop(ms(60)), None);
        for n in 0..10_000 {
            agenda.plan(&mut appointment, whose, ms(100_000 - n));
            let now = appointment;
            agenda.tidy(|_, entry| entry == now);
        }
        assert!(agenda.len() <= AT_LEAST + 1);
        assert_eq!(agenda.next(), Some(ms(100_000 - 9_999)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
    fn the_grid_is_never_early() {
        let start = Instant::now();
        let (ms, step) = (|ms| start + Duration::from_millis(ms), Duration::from_millis(20));
        for (at, expected) in [(0, 0), (1, 20), (20, 20), (21, 40)] {
            assert_eq!(on_grid(start, ms(at), step), ms(expected));
        }
    }
}

//! When sessions and pipelines want to be asked again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use slotmap::SecondaryMap;

use crate::elements::{LegKey, PipelineKey};

/// Whose time has come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    Session(LegKey),
    Pipeline(PipelineKey),
}

/// The next instant of each timer. A timer that moved leaves its old entry behind, which is skipped.
#[derive(Default)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<(Instant, Timer)>>,
    sessions: SecondaryMap<LegKey, Instant>,
    pipelines: SecondaryMap<PipelineKey, Instant>,
}

impl Timers {
    /// Moves a timer to `when`, unless it comes no later already: then it is asked again there.
    pub(super) fn set(&mut self, timer: Timer, when: Instant) {
        match self.planned(timer) {
            Some(planned) if planned <= when => return,
            _ => {}
        }
        // A session or pipeline that is gone already has no place here, and nothing to do.
        match timer {
            Timer::Session(key) => self.sessions.insert(key, when),
            Timer::Pipeline(key) => self.pipelines.insert(key, when),
        };
        self.queue.push(Reverse((when, timer)));
    }

    fn planned(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::Session(key) => self.sessions.get(key).copied(),
            Timer::Pipeline(key) => self.pipelines.get(key).copied(),
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((when, _))| *when)
    }

    /// A timer whose time has come by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        loop {
            let &Reverse((when, timer)) = self.queue.peek()?;
            if when > now {
                return None;
            }
            self.queue.pop();
            if self.planned(timer) == Some(when) {
                match timer {
                    Timer::Session(key) => self.sessions.remove(key),
                    Timer::Pipeline(key) => self.pipelines.remove(key),
                };
                return Some(timer);
            }
        }
    }
}

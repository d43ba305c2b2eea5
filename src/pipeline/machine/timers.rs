//! When sessions and pipelines want to be asked again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

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
    planned: HashMap<Timer, Instant>,
}

impl Timers {
    /// Moves a timer to `when`, unless it comes no later already: then it is asked again there.
    pub(super) fn set(&mut self, timer: Timer, when: Instant) {
        match self.planned.get(&timer) {
            Some(&planned) if planned <= when => {}
            _ => {
                self.planned.insert(timer, when);
                self.queue.push(Reverse((when, timer)));
            }
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
            if self.planned.get(&timer) == Some(&when) {
                self.planned.remove(&timer);
                return Some(timer);
            }
        }
    }
}

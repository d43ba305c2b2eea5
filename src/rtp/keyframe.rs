//! Asking one source for a keyframe on behalf of many: asks are merged, at least [`INTERVAL`] apart,
//! and repeated until a keyframe comes (RFC 4585 §6.3.1 leaves the pace to the sender of PLI).

use std::time::{Duration, Instant};

/// At most one request in this time, and a repetition after it.
pub const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    /// Somebody cannot go on without a keyframe.
    Wanted,
    /// The first packet of a keyframe came.
    Arrived,
    Timeout,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Satisfied,
    Wanting { ask_at: Instant },
}

/// The requests towards one source.
#[derive(Clone, Copy, Debug)]
pub struct KeyframeRequests {
    state: State,
    /// No request leaves before this.
    not_before: Option<Instant>,
    due: bool,
}

impl Default for KeyframeRequests {
    fn default() -> Self {
        Self { state: State::Satisfied, not_before: None, due: false }
    }
}

impl KeyframeRequests {
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            (State::Satisfied, Input::Wanted) => {
                let ask_at = self.not_before.map_or(now, |at| at.max(now));
                self.state = State::Wanting { ask_at };
            }
            (_, Input::Arrived) => {
                self.state = State::Satisfied;
                self.due = false;
            }
            (State::Wanting { .. }, Input::Wanted) | (_, Input::Timeout) => {}
        }
        if let State::Wanting { ask_at } = self.state
            && ask_at <= now
        {
            let next = now + INTERVAL;
            self.due = true;
            self.not_before = Some(next);
            self.state = State::Wanting { ask_at: next };
        }
    }

    /// True once for each request that is to be sent now. The pace counts from here: a request may
    /// have had to wait until it was known whom to ask.
    pub fn poll_output(&mut self, now: Instant) -> bool {
        let due = std::mem::take(&mut self.due);
        if due {
            let next = now + INTERVAL;
            self.not_before = Some(next);
            if let State::Wanting { ask_at } = &mut self.state {
                *ask_at = next;
            }
        }
        due
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Satisfied => None,
            State::Wanting { ask_at } => Some(ask_at),
        }
    }

    /// Whether a request waits to be taken with [`Self::poll_output`].
    pub fn is_due(&self) -> bool {
        self.due
    }

    pub fn is_wanting(&self) -> bool {
        matches!(self.state, State::Wanting { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::{Input::*, *};

    /// Plays inputs at their milliseconds, with the timeouts between them; when requests left.
    fn requests(inputs: &[(u64, Input)]) -> Vec<u64> {
        let start = start();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut machine, mut sent) = (KeyframeRequests::default(), Vec::new());
        for &(ms, input) in inputs {
            while let Some(due) = machine.poll_timeout().filter(|due| *due < at(ms)) {
                machine.handle_input(due, Timeout);
                if machine.poll_output(due) {
                    sent.push((due - start).as_millis() as u64);
                }
            }
            machine.handle_input(at(ms), input);
            if machine.poll_output(at(ms)) {
                sent.push(ms);
            }
        }
        sent
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn many_asks_make_one_request() {
        assert_eq!(requests(&[(0, Wanted), (1, Wanted), (80, Wanted), (90, Arrived)]), [0]);
    }

    #[test]
    fn a_request_is_repeated_until_the_keyframe_comes() {
        assert_eq!(requests(&[(0, Wanted), (1_200, Arrived), (9_000, Timeout)]), [0, 500, 1_000]);
    }

    #[test]
    fn an_ask_soon_after_an_answered_one_waits_its_turn() {
        let inputs = [(0, Wanted), (100, Arrived), (150, Wanted), (700, Arrived)];
        assert_eq!(requests(&inputs), [0, 500]);
        assert_eq!(requests(&[(0, Wanted), (100, Arrived), (2_000, Wanted)]), [0, 2_000]);
    }

    #[test]
    fn a_request_that_had_to_wait_is_not_repeated_too_soon() {
        let start = start();
        let at = |ms| start + Duration::from_millis(ms);
        let mut machine = KeyframeRequests::default();
        machine.handle_input(at(0), Wanted);
        machine.handle_input(at(500), Timeout);
        assert!(machine.poll_output(at(890)));
        machine.handle_input(at(1_000), Timeout);
        assert!(!machine.is_due());
        assert_eq!(machine.poll_timeout(), Some(at(1_390)));
    }

    #[test]
    fn a_keyframe_nobody_asked_for_changes_nothing() {
        assert_eq!(requests(&[(0, Arrived), (600, Timeout)]), [0u64; 0]);
    }
}

//! Who is speaking: sessions, and which connection each is bound to.
//!
//! A session is known from the first object it names until it is closed or collected. A connection
//! is bound to the session that its latest reply carried, whether or not that session is known yet:
//! requests without a session id take the bound one, and events go to the bound connection. A
//! session has one connection; another one that speaks for it takes over.
//!
//! Sessions outlive connections. A round of the collector ends those that gave no sign of life
//! since the round before; being bound to an open connection is such a sign, looked at four times
//! per round.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client calls itself. Any text will do.
pub type SessionId = Arc<str>;

/// A WebSocket, numbered in the order of arrival.
pub type ConnectionId = u64;

/// All sessions and their connections.
#[derive(Debug)]
pub struct Sessions {
    /// Whether each known session showed itself since the last round of the collector.
    known: HashMap<SessionId, bool>,
    of_connection: HashMap<ConnectionId, SessionId>,
    connection_of: HashMap<SessionId, ConnectionId>,
    period: Duration,
    mark_at: Instant,
    collect_at: Instant,
    ended: VecDeque<SessionId>,
    capacity: usize,
}

impl Sessions {
    /// At most `capacity` known sessions, collected every `period`.
    pub fn new(now: Instant, period: Duration, capacity: usize) -> Self {
        Self {
            known: HashMap::new(),
            of_connection: HashMap::new(),
            connection_of: HashMap::new(),
            period,
            mark_at: now + period / 4,
            collect_at: now + period,
            ended: VecDeque::new(),
            capacity,
        }
    }

    /// A sign of life that makes the session known; false when there is no room for one more.
    pub fn touch(&mut self, session: &SessionId) -> bool {
        if let Some(marked) = self.known.get_mut(session) {
            *marked = true;
        } else if self.known.len() < self.capacity {
            self.known.insert(session.clone(), true);
        } else {
            return false;
        }
        true
    }

    /// A sign of life of a session that must be known already; false when it is not.
    pub fn keep_alive(&mut self, session: &str) -> bool {
        self.known.get_mut(session).map(|marked| *marked = true).is_some()
    }

    /// Forgets a session. Its connection stays bound, so that it can come back under its name.
    pub fn close(&mut self, session: &str) {
        self.known.remove(session);
    }

    /// Binds a connection to the session that its reply carries; the empty name is no session.
    pub fn bind(&mut self, connection: ConnectionId, session: &SessionId) {
        if session.is_empty() || self.connection_of.get(session) == Some(&connection) {
            return;
        }
        self.unbind(connection);
        if let Some(other) = self.connection_of.insert(session.clone(), connection) {
            self.of_connection.remove(&other);
        }
        self.of_connection.insert(connection, session.clone());
    }

    /// The connection is gone, or turns to another session.
    pub fn unbind(&mut self, connection: ConnectionId) {
        if let Some(session) = self.of_connection.remove(&connection) {
            self.connection_of.remove(&session);
        }
    }

    /// The session a connection is bound to.
    pub fn bound_to(&self, connection: ConnectionId) -> Option<&SessionId> {
        self.of_connection.get(&connection)
    }

    /// Where a session's events go.
    pub fn connection_of(&self, session: &str) -> Option<ConnectionId> {
        self.connection_of.get(session).copied()
    }

    /// Known sessions, in no order.
    pub fn known(&self) -> impl Iterator<Item = &SessionId> {
        self.known.keys()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        self.mark_at.min(self.collect_at)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.mark_at <= now {
            for session in self.connection_of.keys() {
                if let Some(marked) = self.known.get_mut(session) {
                    *marked = true;
                }
            }
            self.mark_at = now + self.period / 4;
        }
        if self.collect_at <= now {
            let ended = &mut self.ended;
            self.known.retain(|session, marked| {
                let keep = std::mem::take(marked);
                if !keep {
                    ended.push_back(session.clone());
                }
                keep
            });
            self.collect_at = now + self.period;
        }
    }

    /// The next session that the collector ended.
    pub fn poll_ended(&mut self) -> Option<SessionId> {
        self.ended.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const PERIOD: Duration = Duration::from_secs(8);

    fn sessions() -> (Sessions, Instant) {
        let now = Clock::start().now();
        (Sessions::new(now, PERIOD, 3), now)
    }

    fn id(name: &str) -> SessionId {
        name.into()
    }

    /// Lets time pass until `to`, in seconds after `start`; the seconds in which sessions ended.
    fn run(sessions: &mut Sessions, start: Instant, to: u64) -> Vec<(u64, String)> {
        let mut ended = Vec::new();
        let end = start + Duration::from_secs(to);
        while sessions.poll_timeout() <= end {
            let now = sessions.poll_timeout();
            sessions.handle_timeout(now);
            while let Some(session) = sessions.poll_ended() {
                ended.push(((now - start).as_secs(), session.to_string()));
            }
        }
        ended
    }

    #[test]
    fn a_session_without_a_connection_lives_for_one_to_two_periods() {
        let (mut sessions, start) = sessions();
        assert!(sessions.touch(&id("a")));
        sessions.bind(1, &id("a"));
        assert_eq!(run(&mut sessions, start, 3), []);
        sessions.unbind(1);
        assert_eq!(run(&mut sessions, start, 60), [(16, "a".to_owned())]);
        assert!(!sessions.keep_alive("a"));
    }

    #[test]
    fn an_idle_open_connection_keeps_its_session_for_ever() {
        let (mut sessions, start) = sessions();
        sessions.touch(&id("a"));
        sessions.bind(1, &id("a"));
        assert_eq!(run(&mut sessions, start, 3_600), []);
    }

    #[test]
    fn a_connection_that_was_replaced_keeps_nothing_alive() {
        let (mut sessions, start) = sessions();
        sessions.touch(&id("a"));
        sessions.bind(1, &id("a"));
        sessions.bind(2, &id("a"));
        assert_eq!(sessions.bound_to(1), None);
        assert_eq!(sessions.connection_of("a"), Some(2));
        sessions.unbind(2);
        assert_eq!(run(&mut sessions, start, 60), [(16, "a".to_owned())]);
    }

    #[test]
    fn events_follow_the_connection_that_spoke_last() {
        let (mut sessions, _) = sessions();
        for connection in [1, 2, 1] {
            sessions.bind(connection, &id("a"));
            assert_eq!(sessions.connection_of("a"), Some(connection));
        }
    }

    #[test]
    fn a_connection_leaves_its_session_for_another() {
        let (mut sessions, _) = sessions();
        sessions.bind(1, &id("a"));
        sessions.bind(1, &id("b"));
        assert_eq!(sessions.connection_of("a"), None);
        assert_eq!(sessions.bound_to(1).map(|id| &**id), Some("b"));
    }

    #[test]
    fn closing_forgets_the_session_but_not_the_binding() {
        let (mut sessions, _) = sessions();
        sessions.touch(&id("a"));
        sessions.bind(1, &id("a"));
        sessions.close("a");
        assert!(!sessions.keep_alive("a"));
        assert_eq!(sessions.bound_to(1).map(|id| &**id), Some("a"));
    }

    #[test]
    fn one_session_too_many_is_refused_and_known_ones_are_not() {
        let (mut sessions, _) = sessions();
        for name in ["a", "b", "c"] {
            assert!(sessions.touch(&id(name)));
        }
        assert!(!sessions.touch(&id("d")));
        assert!(sessions.touch(&id("a")));
    }
}

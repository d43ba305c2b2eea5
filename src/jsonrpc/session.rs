//! Who is speaking: sessions, and which connection each is bound to.
//!
//! A session is known from the first object it names until it is closed or collected. A connection
//! is bound to the session that its latest reply carried, whether or not that session is known yet:
//! requests without a session id take the bound one, and events go to the bound connection. A
//! session has one connection; another one that speaks for it takes over.
//!
//! Sessions outlive connections; [`Expiry`] says for how long.
//!
//! A connection that promised to ping is watched, and overdue when three pings in a row are missing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client calls itself. Any text will do.
pub type SessionId = Arc<str>;

/// A WebSocket, numbered in the order of arrival.
pub type ConnectionId = u64;

/// How long a session lives without a connection.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// Until the second round of a collector that comes so often. A round ends those sessions that
    /// gave no sign of life since the round before; being bound to an open connection is such a sign,
    /// looked at four times per round.
    Rounds(Duration),
    /// So long after its connection was gone.
    After(Duration),
}

/// Pings that may be missing before a connection is overdue.
const MISSED_PINGS: u32 = 3;
/// How often a client pings that does not say.
const USUAL_PING: Duration = Duration::from_secs(20);

/// All sessions and their connections.
#[derive(Debug)]
pub struct Sessions {
    known: HashMap<SessionId, Known>,
    /// How many known sessions began on each connection that is open.
    begun: HashMap<ConnectionId, usize>,
    of_connection: HashMap<ConnectionId, SessionId>,
    connection_of: HashMap<SessionId, ConnectionId>,
    expiry: Expiry,
    mark_at: Option<Instant>,
    collect_at: Option<Instant>,
    /// When those without a connection end, and the same the other way round.
    ends_at: HashMap<SessionId, Instant>,
    ends: BTreeSet<(Instant, SessionId)>,
    ended: VecDeque<SessionId>,
    /// Interval of a watched connection's pings, and when it is overdue.
    watched: HashMap<ConnectionId, (Duration, Instant)>,
    capacity: usize,
    capacity_of_connection: usize,
}

#[derive(Debug)]
struct Known {
    /// Whether it showed itself since the last round of the collector.
    marked: bool,
    /// The connection it began on.
    begun_on: Option<ConnectionId>,
}

/// Why a session is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    Sessions,
    /// Too many began on this connection.
    OfConnection,
}

impl Sessions {
    /// At most `capacity` known sessions, and so many that began on one connection.
    pub fn new(
        now: Instant,
        expiry: Expiry,
        capacity: usize,
        capacity_of_connection: usize,
    ) -> Self {
        let period = match expiry {
            Expiry::Rounds(period) => Some(period),
            Expiry::After(_) => None,
        };
        Self {
            known: HashMap::new(),
            begun: HashMap::new(),
            of_connection: HashMap::new(),
            connection_of: HashMap::new(),
            expiry,
            mark_at: period.map(|period| now + period / 4),
            collect_at: period.map(|period| now + period),
            ends_at: HashMap::new(),
            ends: BTreeSet::new(),
            ended: VecDeque::new(),
            watched: HashMap::new(),
            capacity,
            capacity_of_connection,
        }
    }

    /// A sign of life that makes the session known, as one that began on `connection`.
    ///
    /// # Errors
    /// [`Full`]
    pub fn touch(
        &mut self,
        session: &SessionId,
        connection: Option<ConnectionId>,
    ) -> Result<(), Full> {
        if let Some(known) = self.known.get_mut(session) {
            known.marked = true;
            return Ok(());
        }
        if self.known.len() >= self.capacity {
            return Err(Full::Sessions);
        }
        if let Some(connection) = connection {
            let begun = self.begun.entry(connection).or_default();
            if *begun >= self.capacity_of_connection {
                return Err(Full::OfConnection);
            }
            *begun += 1;
        }
        self.known.insert(session.clone(), Known { marked: true, begun_on: connection });
        Ok(())
    }

    fn forget(&mut self, session: &str) {
        let begun_on = self.known.remove(session).and_then(|known| known.begun_on);
        discount(&mut self.begun, begun_on);
    }

    /// A sign of life of a session that must be known already; false when it is not.
    pub fn keep_alive(&mut self, session: &str) -> bool {
        self.known.get_mut(session).map(|known| known.marked = true).is_some()
    }

    /// Forgets a session. Its connection stays bound, so that it can come back under its name.
    pub fn close(&mut self, session: &str) {
        self.forget(session);
        self.stay(session);
    }

    /// Binds a connection to the session that its reply carries; the empty name is no session.
    pub fn bind(&mut self, now: Instant, connection: ConnectionId, session: &SessionId) {
        if session.is_empty() || self.connection_of.get(session) == Some(&connection) {
            return;
        }
        self.unbind(now, connection);
        self.stay(session);
        if let Some(other) = self.connection_of.insert(session.clone(), connection) {
            self.of_connection.remove(&other);
        }
        self.of_connection.insert(connection, session.clone());
    }

    /// The connection is gone.
    pub fn leave(&mut self, now: Instant, connection: ConnectionId) {
        self.unbind(now, connection);
        self.watched.remove(&connection);
        self.begun.remove(&connection);
    }

    fn unbind(&mut self, now: Instant, connection: ConnectionId) {
        if let Some(session) = self.of_connection.remove(&connection) {
            self.connection_of.remove(&session);
            self.abandon(now, &session);
        }
    }

    /// The session has no connection from now on, or has never had one.
    pub fn abandon(&mut self, now: Instant, session: &SessionId) {
        if let Expiry::After(duration) = self.expiry
            && self.known.contains_key(session)
            && !self.connection_of.contains_key(session)
            && !self.ends_at.contains_key(session)
        {
            self.ends_at.insert(session.clone(), now + duration);
            self.ends.insert((now + duration, session.clone()));
        }
    }

    /// The session has a connection again, or is over.
    fn stay(&mut self, session: &str) {
        if let Some((session, at)) = self.ends_at.remove_entry(session) {
            self.ends.remove(&(at, session));
        }
    }

    /// A ping: from the first one on the connection is expected to send one every `interval`.
    pub fn pinged(&mut self, now: Instant, connection: ConnectionId, interval: Option<Duration>) {
        let known = self.watched.get(&connection).map(|(interval, _)| *interval);
        let interval = known.or(interval).unwrap_or(USUAL_PING);
        self.watched.insert(connection, (interval, now + MISSED_PINGS * interval));
    }

    /// Connections that are overdue, each once.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<ConnectionId> {
        let overdue = self.watched.extract_if(|_, (_, at)| *at <= now);
        overdue.map(|(connection, _)| connection).collect()
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

    /// How many sessions are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// When [`Self::handle_timeout`] has something to do, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let overdue = self.watched.values().map(|(_, at)| *at).min();
        let end = self.ends.first().map(|(at, _)| *at);
        [self.mark_at, self.collect_at, overdue, end].into_iter().flatten().min()
    }

    /// Ends sessions whose time has come; see [`Self::poll_ended`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Expiry::Rounds(period) = self.expiry {
            self.mark(now, period);
            self.collect(now, period);
        }
        while self.ends.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, session)) = self.ends.pop_first() else { break };
            self.ends_at.remove(&session);
            self.forget(&session);
            self.ended.push_back(session);
        }
    }

    fn mark(&mut self, now: Instant, period: Duration) {
        if self.mark_at.is_some_and(|at| at <= now) {
            for session in self.connection_of.keys() {
                if let Some(known) = self.known.get_mut(session) {
                    known.marked = true;
                }
            }
            self.mark_at = Some(now + period / 4);
        }
    }

    fn collect(&mut self, now: Instant, period: Duration) {
        if self.collect_at.is_some_and(|at| at <= now) {
            let (ended, begun) = (&mut self.ended, &mut self.begun);
            self.known.retain(|session, known| {
                let keep = std::mem::take(&mut known.marked);
                if !keep {
                    ended.push_back(session.clone());
                    discount(begun, known.begun_on);
                }
                keep
            });
            self.collect_at = Some(now + period);
        }
    }

    /// The next session that the collector ended.
    pub fn poll_ended(&mut self) -> Option<SessionId> {
        self.ended.pop_front()
    }
}

/// One session fewer of those that began there.
fn discount(begun: &mut HashMap<ConnectionId, usize>, on: Option<ConnectionId>) {
    if let Some(count) = on.and_then(|connection| begun.get_mut(&connection)) {
        *count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const PERIOD: Duration = Duration::from_secs(8);

    fn sessions() -> (Sessions, Instant) {
        let now = Clock::start().now();
        (Sessions::new(now, Expiry::Rounds(PERIOD), 3, 2), now)
    }

    fn id(name: &str) -> SessionId {
        name.into()
    }

    /// Lets time pass until `to`, in seconds after `start`; the seconds in which sessions ended.
    fn run(sessions: &mut Sessions, start: Instant, to: u64) -> Vec<(u64, String)> {
        let mut ended = Vec::new();
        let end = start + Duration::from_secs(to);
        while let Some(now) = sessions.poll_timeout().filter(|at| *at <= end) {
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
        sessions.touch(&id("a"), Some(1)).expect("room");
        sessions.bind(start, 1, &id("a"));
        assert_eq!(run(&mut sessions, start, 3), []);
        sessions.leave(start, 1);
        assert_eq!(run(&mut sessions, start, 60), [(16, "a".to_owned())]);
        assert!(!sessions.keep_alive("a"));
    }

    #[test]
    fn an_idle_open_connection_keeps_its_session_for_ever() {
        let (mut sessions, start) = sessions();
        sessions.touch(&id("a"), Some(1)).expect("room");
        sessions.bind(start, 1, &id("a"));
        assert_eq!(run(&mut sessions, start, 3_600), []);
    }

    #[test]
    fn a_connection_that_was_replaced_keeps_nothing_alive() {
        let (mut sessions, start) = sessions();
        sessions.touch(&id("a"), Some(1)).expect("room");
        sessions.bind(start, 1, &id("a"));
        sessions.bind(start, 2, &id("a"));
        assert_eq!(sessions.bound_to(1), None);
        assert_eq!(sessions.connection_of("a"), Some(2));
        sessions.leave(start, 2);
        assert_eq!(run(&mut sessions, start, 60), [(16, "a".to_owned())]);
    }

    #[test]
    fn events_follow_the_connection_that_spoke_last() {
        let (mut sessions, start) = sessions();
        for connection in [1, 2, 1] {
            sessions.bind(start, connection, &id("a"));
            assert_eq!(sessions.connection_of("a"), Some(connection));
        }
    }

    #[test]
    fn a_connection_leaves_its_session_for_another() {
        let (mut sessions, start) = sessions();
        sessions.bind(start, 1, &id("a"));
        sessions.bind(start, 1, &id("b"));
        assert_eq!(sessions.connection_of("a"), None);
        assert_eq!(sessions.bound_to(1).map(|id| &**id), Some("b"));
    }

    #[test]
    fn closing_forgets_the_session_but_not_the_binding() {
        let (mut sessions, start) = sessions();
        sessions.touch(&id("a"), Some(1)).expect("room");
        sessions.bind(start, 1, &id("a"));
        sessions.close("a");
        assert!(!sessions.keep_alive("a"));
        assert_eq!(sessions.bound_to(1).map(|id| &**id), Some("a"));
    }

    #[test]
    fn one_session_too_many_is_refused_and_known_ones_are_not() {
        let (mut sessions, _) = sessions();
        for name in ["a", "b", "c"] {
            sessions.touch(&id(name), None).expect("room");
        }
        assert_eq!(sessions.touch(&id("d"), None), Err(Full::Sessions));
        assert_eq!(sessions.touch(&id("a"), None), Ok(()));
    }

    #[test]
    fn a_session_may_come_back_within_its_time_and_ends_after_it() {
        let start = Clock::start().now();
        let mut sessions = Sessions::new(start, Expiry::After(PERIOD), 3, 3);
        for name in ["a", "b"] {
            sessions.touch(&id(name), None).expect("room");
        }
        sessions.bind(start, 1, &id("a"));
        sessions.bind(start, 2, &id("b"));
        assert_eq!(run(&mut sessions, start, 3_600), []);
        sessions.leave(start, 1);
        sessions.leave(start, 2);
        sessions.bind(start + PERIOD / 2, 3, &id("a"));
        assert_eq!(run(&mut sessions, start, 60), [(8, "b".to_owned())]);
        sessions.leave(start + PERIOD, 3);
        sessions.close("a");
        assert_eq!(run(&mut sessions, start, 60), []);
    }

    #[test]
    fn a_connection_that_promised_to_ping_is_overdue_after_three_missing_ones() {
        let (mut sessions, start) = sessions();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        sessions.pinged(start, 1, Some(Duration::from_secs(5)));
        sessions.pinged(at(10), 1, None);
        sessions.pinged(start, 2, None);
        sessions.pinged(start, 3, Some(Duration::from_secs(1)));
        sessions.leave(at(1), 3);
        assert!(sessions.take_overdue(at(24)).is_empty());
        assert_eq!(sessions.take_overdue(at(25)), [1]);
        assert!(sessions.take_overdue(at(59)).is_empty());
        assert_eq!(sessions.take_overdue(at(60)), [2]);
    }

    #[test]
    fn a_connection_begins_so_many_sessions_and_may_begin_more_when_some_ended() {
        let (mut sessions, start) = sessions();
        for name in ["a", "b"] {
            assert_eq!(sessions.touch(&id(name), Some(1)), Ok(()));
        }
        assert_eq!(sessions.touch(&id("c"), Some(1)), Err(Full::OfConnection));
        assert_eq!(sessions.touch(&id("a"), Some(1)), Ok(()));
        sessions.close("a");
        assert_eq!(sessions.touch(&id("c"), Some(1)), Ok(()));
        run(&mut sessions, start, 60);
        assert_eq!(sessions.begun[&1], 0);
        sessions.leave(start, 1);
        assert!(sessions.begun.is_empty());
    }
}

//! Texts in, replies and notifications out, for all connections of one protocol.

use std::collections::HashMap;
use std::hash::RandomState;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::answers::{Answers, Fingerprint, KEPT_FOR, Known, Reply};
use super::message::{self, Error, Params, Request, as_text};
use super::queue::{self, Farewell, Inbox, Outbox};
use super::session::{ConnectionId, Expiry, Full, SessionId, Sessions};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// What a protocol chooses, and what clients can make the server hold.
#[derive(Clone, Debug)]
pub struct Policy {
    pub expiry: Expiry,
    pub sessions: usize,
    /// Of them, those that began on one connection.
    pub connection_sessions: usize,
    /// Bytes of a session id that a client chose.
    pub session_id_bytes: usize,
    /// Messages waiting for a client that does not read; one more closes its connection.
    pub queued_messages: usize,
    /// Bytes of those messages.
    pub queued_bytes: usize,
    pub message: message::Limits,
    /// Answers kept for those who ask again, per session; none switches that off.
    pub kept_answers: usize,
    /// Bytes of all those answers.
    pub kept_bytes: usize,
    /// Requests that go on after their connection was cut.
    pub orphaned_requests: usize,
}

/// Who asks for something.
#[derive(Clone, Debug)]
pub struct Caller {
    pub connection: ConnectionId,
    /// Named in the request, or bound to the connection.
    pub session: Option<SessionId>,
}

/// What stands behind a server.
pub trait Handler: Send + Sync + 'static {
    /// Carries a request out. Called for one request of a connection after the other, and finished
    /// also when the connection is gone: its client may come back and ask for the answer.
    fn call(
        self: Arc<Self>,
        caller: Caller,
        method: String,
        params: Params,
    ) -> impl Future<Output = Result<Value, Error>> + Send;

    /// A text that is no request was answered with this error.
    fn refused(&self, error: &Error);
}

/// Connections, sessions and kept answers of one protocol.
pub struct Server {
    policy: Policy,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Makes fingerprints that nobody outside can foresee.
    hasher: RandomState,
    orphans: AtomicUsize,
}

struct State {
    sessions: Sessions,
    outboxes: HashMap<ConnectionId, Outbox>,
    last_connection: ConnectionId,
    answers: Answers,
    forget_at: Instant,
}

/// Bytes of a text that is read aside.
const LONG_TEXT: usize = 64 << 10;

/// Connections that did not ping as they promised.
const NO_PING: Farewell = Farewell { code: 1000, reason: "Close for not receive ping from client" };

impl Server {
    pub fn new(policy: Policy, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let now = clock.now();
        let state = Mutex::new(State {
            sessions: Sessions::new(
                now,
                policy.expiry,
                policy.sessions,
                policy.connection_sessions,
            ),
            outboxes: HashMap::new(),
            last_connection: 0,
            answers: Answers::new(policy.kept_answers, policy.kept_bytes),
            forget_at: now + KEPT_FOR,
        });
        Self {
            policy,
            clock,
            metrics,
            state,
            hasher: RandomState::new(),
            orphans: AtomicUsize::new(0),
        }
    }

    /// A connection opened: its number, and the queue of what is to be sent to it beside replies.
    pub fn open(&self) -> (ConnectionId, Inbox) {
        let (outbox, inbox) = queue::queue(self.policy.queued_messages, self.policy.queued_bytes);
        let mut state = self.lock();
        state.last_connection += 1;
        let connection = state.last_connection;
        state.outboxes.insert(connection, outbox);
        self.metrics.set_connections(state.outboxes.len());
        (connection, inbox)
    }

    /// A connection is gone. Its session lives on for a while.
    pub fn close(&self, connection: ConnectionId) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.outboxes.remove(&connection);
        state.sessions.leave(now, connection);
        self.metrics.set_connections(state.outboxes.len());
    }

    /// Has a text of a connection answered; the reply, if there is something to say. To be called for
    /// one text of a connection after the other.
    pub async fn request<H: Handler>(
        self: &Arc<Self>,
        handler: &Arc<H>,
        connection: ConnectionId,
        text: &str,
    ) -> Option<Reply> {
        let refuse = |id, error: Error| {
            handler.refused(&error);
            message::reply(id, Err(error)).map(Reply::from)
        };
        let (request, fingerprint) = match self.read(text).await {
            Ok(read) => read,
            Err((id, error)) => return refuse(id, error),
        };
        let session = match self.session_of(connection, &request.params) {
            Ok(session) => session,
            Err(error) => return refuse(request.id, error),
        };
        let ticket = request.id.clone().zip(fingerprint);
        if let (Some(session), Some((id, fingerprint))) = (&session, &ticket) {
            let known = self.lock().answers.begin(self.clock.now(), session, id, *fingerprint);
            match known {
                Known::Answered(reply) => {
                    self.metrics.answer_repeated();
                    self.bind(connection, session);
                    return Some(reply);
                }
                Known::UnderWay(answer) => {
                    if let Ok(reply) = answer.await {
                        self.metrics.answer_repeated();
                        self.bind(connection, session);
                        return Some(reply);
                    }
                }
                Known::New => {}
            }
        }
        let caller = Caller { connection, session };
        let (server, handler) = (self.clone(), handler.clone());
        let answer = async move { server.carry_out(handler, caller, request, ticket).await };
        ToTheEnd { future: Some(Box::pin(answer)), server: self.clone() }.await
    }

    async fn carry_out<H: Handler>(
        self: Arc<Self>,
        handler: Arc<H>,
        caller: Caller,
        request: Request,
        ticket: Option<(Value, Fingerprint)>,
    ) -> Option<Reply> {
        let awaited = Awaited { server: &self, session: caller.session.clone(), ticket };
        let Request { id, method, mut params } = request;
        if caller.session.is_some() && params == Params::None {
            // A connection that is bound has said all there is to say.
            params = Params::Members(Map::new());
        }
        let connection = caller.connection;
        let result = handler.call(caller, method, params).await;
        let named = result.as_ref().ok().and_then(|result| result.get("sessionId"));
        let named = named.and_then(Value::as_str).map(SessionId::from);
        if let Some(session) = &named {
            self.bind(connection, session);
        }
        let reply = message::reply(id, result).map(Reply::from);
        awaited.answered(named, reply.as_ref());
        reply
    }

    /// Reads a request, and what identifies it when it comes again. A long text takes its time, and
    /// others' requests are not to wait for that.
    async fn read(
        &self,
        text: &str,
    ) -> Result<(Request, Option<Fingerprint>), (Option<Value>, Error)> {
        let limits = self.policy.message;
        let hasher = (self.policy.kept_answers > 0).then(|| self.hasher.clone());
        let read = move |text: &str| {
            let request = message::parse(text, &limits)?;
            let fingerprint = hasher.map(|hasher| Fingerprint::of(&request, &hasher));
            Ok((request, fingerprint))
        };
        if text.len() <= LONG_TEXT {
            return read(text);
        }
        let text = text.to_owned();
        let reading = tokio::task::spawn_blocking(move || read(&text)).await;
        // It ends early only when the server does.
        reading.unwrap_or(Err((None, Error::Parse)))
    }

    /// The session a request speaks for: the one it names, or the one its connection is bound to.
    fn session_of(
        &self,
        connection: ConnectionId,
        params: &Params,
    ) -> Result<Option<SessionId>, Error> {
        if *params == Params::Other {
            return Err(Error::WrongParams);
        }
        let Some(named) = params.get("sessionId").and_then(as_text) else {
            return Ok(self.lock().sessions.bound_to(connection).cloned());
        };
        let limit = self.policy.session_id_bytes;
        if named.len() > limit {
            return Err(Error::TooMuch { what: "session id bytes", limit });
        }
        Ok(Some(named.into()))
    }

    /// Makes a session known, and binds the connection to it, so that what happens from now on is
    /// told to it.
    ///
    /// # Errors
    /// [`Error::TooMuch`]
    pub fn touch(&self, caller: &Caller, session: &SessionId) -> Result<(), Error> {
        let mut state = self.lock();
        state.sessions.touch(session, Some(caller.connection)).map_err(|full| match full {
            Full::Sessions => Error::TooMuch { what: "sessions", limit: self.policy.sessions },
            Full::OfConnection => Error::TooMuch {
                what: "connection sessions",
                limit: self.policy.connection_sessions,
            },
        })?;
        drop(state);
        self.bind(caller.connection, session);
        Ok(())
    }

    /// Makes a session known that has no connection at the moment; false when there is no room.
    pub fn remember(&self, session: &SessionId) -> bool {
        let now = self.clock.now();
        let mut state = self.lock();
        let known = state.sessions.touch(session, None).is_ok();
        state.sessions.abandon(now, session);
        known
    }

    /// A sign of life of a session; false when it is not known.
    pub fn keep_alive(&self, session: &str) -> bool {
        self.lock().sessions.keep_alive(session)
    }

    /// The client said that the session is over.
    pub fn end_session(&self, session: &str) {
        let mut state = self.lock();
        state.sessions.close(session);
        state.answers.remove_session(session);
    }

    /// A ping, with the interval that the client promises to keep.
    pub fn pinged(&self, connection: ConnectionId, interval: Option<std::time::Duration>) {
        let now = self.clock.now();
        self.lock().sessions.pinged(now, connection, interval);
    }

    /// Ids of all sessions that are known, sorted.
    pub fn sessions(&self) -> Vec<String> {
        let mut sessions: Vec<_> = self.lock().sessions.known().map(ToString::to_string).collect();
        sessions.sort_unstable();
        sessions
    }

    /// How many sessions are known.
    pub fn session_count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Queues a notification for the connection that a session is bound to; lost without one.
    pub fn notify(&self, session: &str, message: Bytes) {
        let mut state = self.lock();
        let State { sessions, outboxes, .. } = &mut *state;
        let connection = sessions.connection_of(session);
        match connection.and_then(|connection| outboxes.get_mut(&connection)) {
            Some(outbox) => outbox.push(message, &self.metrics),
            None => self.metrics.events_dropped("nobody_bound", 1),
        }
    }

    /// When [`Self::handle_timeout`] has something to do. May be asked again at any time: what
    /// clients do brings the time forward.
    pub fn poll_timeout(&self) -> Instant {
        let state = self.lock();
        state.sessions.poll_timeout().map_or(state.forget_at, |at| at.min(state.forget_at))
    }

    /// Looks after sessions and connections; the sessions that ended.
    pub fn handle_timeout(&self, now: Instant) -> Vec<SessionId> {
        let mut state = self.lock();
        state.sessions.handle_timeout(now);
        let ended: Vec<_> = std::iter::from_fn(|| state.sessions.poll_ended()).collect();
        for session in &ended {
            state.answers.remove_session(session);
        }
        for connection in state.sessions.take_overdue(now) {
            if let Some(outbox) = state.outboxes.get_mut(&connection)
                && outbox.close(NO_PING)
            {
                self.metrics.connection_cut("no_ping");
            }
        }
        if state.forget_at <= now {
            state.answers.handle_timeout(now);
            state.forget_at = now + KEPT_FOR;
        }
        self.metrics.answers_forgotten(state.answers.take_forgotten());
        self.metrics.set_kept_bytes(state.answers.bytes());
        ended
    }

    /// Binds a connection that is still open; a session whose connection left stays without one.
    fn bind(&self, connection: ConnectionId, session: &SessionId) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.outboxes.contains_key(&connection) {
            state.sessions.bind(now, connection, session);
        } else {
            state.sessions.abandon(now, session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held may have lost one change, not the sense of the rest.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that others may wait for. Dropped without an answer, it lets them go.
struct Awaited<'a> {
    server: &'a Server,
    session: Option<SessionId>,
    ticket: Option<(Value, Fingerprint)>,
}

impl Awaited<'_> {
    /// Keeps the reply under the session that it named, or else the one that asked.
    fn answered(mut self, named: Option<SessionId>, reply: Option<&Reply>) {
        let Some((id, fingerprint)) = self.ticket.take() else { return };
        let now = self.server.clock.now();
        let mut state = self.server.lock();
        if let Some(session) = &self.session {
            state.answers.finish(session, &id, fingerprint, reply);
        }
        if let (Some(session), Some(reply)) = (named.or(self.session.take()), reply) {
            state.answers.keep(now, &session, &id, fingerprint, reply.clone());
        }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let (Some(session), Some((id, fingerprint))) = (&self.session, &self.ticket) {
            self.server.lock().answers.finish(session, id, *fingerprint, None);
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Option<Reply>> + Send>>;

/// A request that goes on when nobody waits for it any more, as far as there is room.
struct ToTheEnd {
    future: Option<Answering>,
    server: Arc<Server>,
}

impl Future for ToTheEnd {
    type Output = Option<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        let poll = future.as_mut().poll(cx);
        if poll.is_ready() {
            self.future = None;
        }
        poll
    }
}

impl Drop for ToTheEnd {
    fn drop(&mut self) {
        let (Some(future), Ok(runtime)) =
            (self.future.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let server = self.server.clone();
        if server.orphans.fetch_add(1, Ordering::Relaxed) < server.policy.orphaned_requests {
            runtime.spawn(async move {
                future.await;
                server.orphans.fetch_sub(1, Ordering::Relaxed);
            });
        } else {
            server.orphans.fetch_sub(1, Ordering::Relaxed);
            server.metrics.request_abandoned();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;

    const TIME_TO_RETURN: Duration = Duration::from_secs(10);

    /// A protocol whose sessions begin with the first request and end soon after the connection.
    struct Protocol {
        server: Arc<Server>,
        proceed: Notify,
    }

    impl Handler for Protocol {
        async fn call(
            self: Arc<Self>,
            caller: Caller,
            method: String,
            _: Params,
        ) -> Result<Value, Error> {
            let session = caller.session.clone().unwrap_or_else(|| "made".into());
            self.server.touch(&caller, &session)?;
            match method.as_str() {
                "ping" => {
                    self.server.pinged(caller.connection, Some(Duration::from_secs(5)));
                    Ok(json!({"value": "pong"}))
                }
                "wait" => {
                    self.proceed.notified().await;
                    Ok(json!({"value": "at last", "sessionId": &*session}))
                }
                "name" => Ok(json!({"value": &*session, "sessionId": &*session})),
                _ => Err(Error::MethodNotFound),
            }
        }

        fn refused(&self, _: &Error) {}
    }

    fn start(change: impl FnOnce(&mut Policy)) -> Arc<Protocol> {
        let mut policy = Policy {
            expiry: Expiry::After(TIME_TO_RETURN),
            sessions: 3,
            session_id_bytes: 10,
            queued_messages: 4,
            queued_bytes: 1_000,
            connection_sessions: 2,
            message: message::Limits::default(),
            kept_answers: 10,
            kept_bytes: 10_000,
            orphaned_requests: 1,
        };
        change(&mut policy);
        let server = Arc::new(Server::new(policy, Clock::start(), Arc::new(Metrics::new())));
        Arc::new(Protocol { server, proceed: Notify::new() })
    }

    impl Protocol {
        async fn ask(self: &Arc<Self>, connection: ConnectionId, id: u64, method: &str) -> Value {
            self.ask_as(connection, id, method, json!({})).await
        }

        async fn ask_as(
            self: &Arc<Self>,
            connection: ConnectionId,
            id: u64,
            method: &str,
            params: Value,
        ) -> Value {
            let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            let reply = self.server.request(self, connection, &text.to_string()).await;
            serde_json::from_slice(&reply.expect("it had an id")).expect("JSON")
        }

        fn ended(&self, after: Duration) -> Vec<SessionId> {
            self.server.handle_timeout(self.server.clock.now() + after)
        }
    }

    #[tokio::test]
    async fn a_session_that_returns_in_time_goes_on_and_hears_over_its_new_connection() {
        let protocol = start(|_| ());
        let (first, _inbox) = protocol.server.open();
        assert_eq!(protocol.ask(first, 1, "name").await["result"]["value"], "made");
        protocol.server.close(first);
        assert_eq!(protocol.ended(TIME_TO_RETURN / 2), []);
        let (second, mut inbox) = protocol.server.open();
        let again = protocol.ask_as(second, 2, "name", json!({"sessionId": "made"})).await;
        assert_eq!(again["result"]["value"], "made");
        assert_eq!(protocol.ended(3 * TIME_TO_RETURN), []);
        protocol.server.notify("made", Bytes::from_static(b"{}"));
        assert!(inbox.messages.try_recv().is_some());
        protocol.server.close(second);
        assert_eq!(protocol.ended(2 * TIME_TO_RETURN), [SessionId::from("made")]);
        assert_eq!(protocol.server.session_count(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_stops_pinging_is_closed_and_one_that_never_did_is_not() {
        let protocol = start(|_| ());
        let (silent, mut silent_inbox) = protocol.server.open();
        let (pinging, mut inbox) = protocol.server.open();
        protocol.ask(silent, 1, "name").await;
        protocol.ask_as(pinging, 1, "ping", json!({"sessionId": "other"})).await;
        protocol.ended(Duration::from_secs(14));
        assert!(inbox.close.try_recv().is_err());
        protocol.ended(Duration::from_secs(16));
        assert_eq!(inbox.close.try_recv(), Ok(NO_PING));
        assert!(silent_inbox.close.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_answer_that_takes_its_time_holds_up_no_other_connection() {
        let protocol = start(|_| ());
        let ((slow, _a), (quick, _b)) = (protocol.server.open(), protocol.server.open());
        let asking = protocol.clone();
        let waiting = tokio::spawn(async move { asking.ask(slow, 1, "wait").await });
        assert_eq!(protocol.ask(quick, 1, "name").await["id"], 1);
        protocol.proceed.notify_one();
        assert_eq!(waiting.await.expect("no panic")["result"]["value"], "at last");
    }

    #[tokio::test]
    async fn what_was_asked_over_a_connection_that_is_gone_is_finished_as_far_as_there_is_room() {
        let protocol = start(|_| ());
        let session = json!({"sessionId": "a"});
        let mut asked = Vec::new();
        for id in [1, 2] {
            let (connection, _inbox) = protocol.server.open();
            let (asking, session) = (protocol.clone(), session.clone());
            let task =
                tokio::spawn(async move { asking.ask_as(connection, id, "wait", session).await });
            tokio::task::yield_now().await;
            asked.push((connection, task));
        }
        for (connection, task) in asked {
            task.abort();
            assert!(task.await.is_err());
            protocol.server.close(connection);
        }
        assert_eq!(protocol.server.orphans.load(Ordering::Relaxed), 1);
        let (again, _inbox) = protocol.server.open();
        let asking = protocol.clone();
        let answer = tokio::spawn(async move { asking.ask_as(again, 1, "wait", session).await });
        tokio::task::yield_now().await;
        protocol.proceed.notify_one();
        assert_eq!(answer.await.expect("no panic")["result"]["value"], "at last");
    }

    #[tokio::test]
    async fn a_long_request_is_read_as_a_short_one_is() {
        let protocol = start(|policy| policy.message.values = 1_000_000);
        let (connection, _inbox) = protocol.server.open();
        let params = json!({"sessionId": "a", "filling": vec![0; 100_000]});
        let reply = protocol.ask_as(connection, 1, "name", params).await;
        assert_eq!(reply["result"]["value"], "a");
        let too_many = json!({"filling": vec![0; 1_000_001]});
        let reply = protocol.ask_as(connection, 2, "name", too_many).await;
        assert_eq!(reply["id"], 2);
        assert_eq!(reply["error"]["message"], "Reached values limit: 1000000");
    }

    #[tokio::test]
    async fn limits_are_named() {
        let protocol = start(|_| ());
        let (connection, _inbox) = protocol.server.open();
        let (other, _other) = protocol.server.open();
        for (session, text) in [
            ("a", None),
            ("b", None),
            ("c", Some("Reached connection sessions limit: 2")),
            ("12345678901", Some("Reached session id bytes limit: 10")),
        ] {
            let named = json!({"sessionId": session});
            let reply = protocol.ask_as(connection, 1, "name", named).await;
            assert_eq!(reply["error"]["message"].as_str(), text, "{session}");
        }
        for (session, text) in [("c", None), ("d", Some("Reached sessions limit: 3"))] {
            let reply = protocol.ask_as(other, 2, "name", json!({"sessionId": session})).await;
            assert_eq!(reply["error"]["message"].as_str(), text, "{session}");
        }
    }
}

//! What decides in a client: when to dial, what to send, whom an answer belongs to, when to give up.
//!
//! A connection begins with `connect`, which names the session of the connection before it, so that
//! the session survives. Then pings go out, the first with the interval between them, as servers
//! with a watchdog expect. A connection that is cut, or does not answer its ping, is dialled again
//! after a pause that doubles.
//!
//! Ids are never used again before the 31 bits have run out, whichever connection they went over:
//! servers answer an id that they saw a short while ago from memory. They start at random, as the
//! session may be an older client's. With `retry` that memory is made use of.
//!
//! Nothing here is a clock, a socket or a task; see `connection`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::error::ClientError;
use super::message::{self, Incoming, Notification};
use super::options::Options;

/// The code of servers that do not know a session.
const INVALID_SESSION: i64 = 40007;
/// The code of servers that do not know a method.
const NO_SUCH_METHOD: i64 = -32601;
/// Some servers keep ids in 31 bits.
const LAST_ID: u32 = i32::MAX as u32;

/// As good as for ever, and still a time that can be reckoned with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Texts on their way to a server that does not read, before requests wait instead.
pub const FULL: usize = 8_192;

/// Late answers that are waited for.
const LATE: usize = 1_024;

/// What happened. `T` is where the answer to a request is to go.
#[derive(Debug)]
pub enum Input<T> {
    /// The application wants something. Without `to` it is a notification. An answer that comes after
    /// the time-out goes to `late`.
    Request {
        to: Option<T>,
        late: Option<T>,
        method: String,
        params: Value,
        timeout: Option<Duration>,
    },
    /// The WebSocket that [`Output::Dial`] asked for is open.
    Open,
    /// It could not be opened, or is gone.
    Down(String),
    /// It brought a text.
    Text(String),
    /// How writing goes: texts that are not with the system yet, and whether any byte of them went
    /// there since this was said last. To be said before any other input, and when it changes.
    Writing { unwritten: usize, moved: bool },
    /// The time of [`Machine::poll_timeout`] has come.
    Timeout,
    /// The application is done; the session may be closed with it.
    Close { session: bool },
}

/// What is to be done about it.
#[derive(Debug, PartialEq)]
pub enum Output<T> {
    /// Open a WebSocket; there is none at this moment.
    Dial,
    /// Send a text over it.
    Send(String),
    /// Drop it, or the attempt to open it.
    Drop,
    /// Answer a request, or give its late answer.
    Answer(T, Result<Value, ClientError>),
    /// How the very first connection went.
    Started(Result<(), ClientError>),
    Tell(ConnectionEvent),
    Notify(Notification),
    /// Close the WebSocket, if there is one, and stop. Only answers to later requests come after it.
    End,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEvent {
    /// The client is connected for the first time.
    Connected,
    /// The connection is lost.
    Disconnected,
    /// An attempt to connect again begins.
    Reconnecting,
    /// There is a connection again. With `same_server` it is the process and the session of before:
    /// objects and subscriptions are there still. Without, they are gone.
    Reconnected { same_server: bool },
}

/// What happened how often since the client was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Requests and notifications handed to the connection, those sent again included.
    pub sent: u64,
    /// Requests answered, with a result or an error of the server.
    pub answered: u64,
    /// Requests that ran out of time.
    pub timed_out: u64,
    /// Requests that were under way when the connection was cut.
    pub interrupted: u64,
    /// Requests sent again after that.
    pub sent_again: u64,
    /// Requests refused because too many were waiting.
    pub busy: u64,
    /// Answers to nothing that was asked, or that came too late.
    pub unmatched: u64,
    /// Late answers no longer waited for, because there were too many.
    pub forgotten: u64,
    /// Texts that are no message.
    pub unreadable: u64,
    /// Notifications of the server.
    pub notified: u64,
    /// Connections lost.
    pub lost: u64,
    /// Connections lost for want of an answer to a ping, or of any traffic, or because the server
    /// did not read.
    pub silent: u64,
}

#[derive(Debug)]
enum State {
    Dialling {
        until: Instant,
    },
    /// `connect` is under way.
    Greeting {
        until: Instant,
        id: u32,
    },
    Up {
        since: Instant,
    },
    /// Before the next attempt.
    Pausing {
        until: Instant,
    },
    /// `closeSession` is under way.
    Leaving {
        until: Instant,
        id: u32,
    },
    Ended,
}

#[derive(Debug)]
enum Ping {
    Off,
    At(Instant),
    /// Behind requests that went over the connection before it, by their deadlines.
    Awaited {
        id: u32,
        until: Instant,
        before: BTreeSet<(Instant, u32)>,
    },
}

#[derive(Debug)]
struct Request<T> {
    to: Option<T>,
    late: Option<T>,
    /// In which order requests were made.
    order: u64,
    method: String,
    params: Value,
    deadline: Instant,
    /// Whether it is under way, or was before the connection was cut.
    sent: bool,
}

/// The state of one client.
#[derive(Debug)]
pub struct Machine<T> {
    options: Options,
    state: State,
    ping: Ping,
    /// When something last came from the server.
    heard: Instant,
    /// Until when something has to be written, if anything is to be.
    write_until: Option<Instant>,
    /// Requests that may be sent before the texts on their way are [`FULL`].
    room: usize,
    session: Option<String>,
    server: Option<String>,
    /// Whether the session did anything: servers forget sessions that did not.
    used: bool,
    /// Whether the server closed the session because it was asked to.
    session_closed: bool,
    /// Whether the server forgot the session of the connection before.
    session_lost: bool,
    /// Whether there ever was a connection.
    started: bool,
    /// Attempts since the last connection, and doublings of the pause.
    failures: u32,
    doublings: u32,
    last_id: u32,
    made: u64,
    random: u64,
    requests: HashMap<u32, Request<T>>,
    /// Requests that are not under way, in order.
    waiting: BTreeMap<u64, u32>,
    deadlines: BTreeSet<(Instant, u32)>,
    /// Where the late answers of requests go that ran out of time on this connection.
    late: VecDeque<(u32, T)>,
    outputs: VecDeque<Output<T>>,
    counters: Counters,
}

impl<T> Machine<T> {
    /// Begins to dial. `seed` decides about ids and pauses.
    pub fn new(now: Instant, mut options: Options, seed: u64) -> Self {
        options.queue = options.queue.max(1);
        options.in_flight = options.in_flight.max(1);
        let mut machine = Self {
            state: State::Dialling { until: after(now, options.connection_timeout) },
            ping: Ping::Off,
            heard: now,
            write_until: None,
            room: FULL,
            session: options.session.clone(),
            server: None,
            used: options.session.is_some(),
            session_closed: false,
            session_lost: false,
            started: false,
            failures: 0,
            doublings: 0,
            last_id: 0,
            made: 0,
            random: seed,
            requests: HashMap::new(),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            late: VecDeque::new(),
            outputs: VecDeque::from([Output::Dial]),
            counters: Counters::default(),
            options,
        };
        machine.last_id = (machine.random() % u64::from(LAST_ID / 2)) as u32;
        machine
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<T>) {
        if matches!(self.state, State::Ended) {
            if let Input::Request { to: Some(to), .. } = input {
                self.outputs.push_back(Output::Answer(to, Err(ClientError::Closed)));
            }
            return;
        }
        match input {
            Input::Request { to, late, method, params, timeout } => {
                let deadline = after(now, timeout.unwrap_or(self.options.request_timeout));
                let order = self.made;
                self.request(Request { to, late, order, method, params, deadline, sent: false });
            }
            Input::Open => self.open(now),
            Input::Down(reason) => self.down(now, ClientError::Connect(reason)),
            Input::Text(text) => self.text(now, &text),
            Input::Writing { unwritten, moved } => self.writing(now, unwritten, moved),
            Input::Timeout => self.timeout(now),
            Input::Close { session } => self.close(now, session),
        }
        self.pump();
    }

    pub fn poll_output(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_state = match self.state {
            State::Dialling { until }
            | State::Greeting { until, .. }
            | State::Pausing { until }
            | State::Leaving { until, .. } => Some(until),
            State::Up { .. } => [self.idle_until(), self.write_until].into_iter().flatten().min(),
            State::Ended => return None,
        };
        let of_ping = match self.ping {
            Ping::At(at) | Ping::Awaited { until: at, .. } => Some(at),
            Ping::Off => None,
        };
        let of_requests = self.deadlines.first().map(|(at, _)| *at);
        [of_state, of_ping, of_requests].into_iter().flatten().min()
    }

    /// The session that requests go with.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Whether the server said that the session is closed. It is not asked while there is no
    /// connection, and may not answer.
    pub fn session_closed(&self) -> bool {
        self.session_closed
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn request(&mut self, request: Request<T>) {
        let refusal = match self.state {
            State::Leaving { .. } => Some(ClientError::Closed),
            _ if self.waiting.len() >= self.options.queue => {
                self.counters.busy += 1;
                Some(ClientError::Busy)
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.outputs.extend(request.to.map(|to| Output::Answer(to, Err(refusal))));
            return;
        }
        let id = self.next_id();
        self.made += 1;
        self.waiting.insert(request.order, id);
        self.deadlines.insert((request.deadline, id));
        self.requests.insert(id, request);
    }

    /// Sends what waits, as far as there is room under way.
    fn pump(&mut self) {
        while self.is_up()
            && self.room > 0
            && self.requests.len() - self.waiting.len() < self.options.in_flight
        {
            let Some((_, id)) = self.waiting.pop_first() else { return };
            let retry = self.options.retry;
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let params =
                if retry { request.params.clone() } else { std::mem::take(&mut request.params) };
            let params = with_session(params, self.session.as_deref());
            let wire_id = request.to.is_some().then_some(id);
            let text = message::request(wire_id, &request.method, &params);
            self.counters.sent_again += u64::from(request.sent);
            request.sent = true;
            let limit = self.options.message_bytes;
            if text.len() > limit {
                let error = ClientError::TooLong { bytes: text.len(), limit };
                self.answer(id, Err(error));
                continue;
            }
            self.counters.sent += 1;
            self.room -= 1;
            self.outputs.push_back(Output::Send(text));
            if wire_id.is_none() {
                self.forget(id);
            }
        }
    }

    fn writing(&mut self, now: Instant, unwritten: usize, moved: bool) {
        self.room = FULL.saturating_sub(unwritten);
        if unwritten == 0 {
            self.write_until = None;
        } else if moved || self.write_until.is_none() {
            self.write_until = Some(after(now, self.options.request_timeout));
        }
    }

    fn open(&mut self, now: Instant) {
        let State::Dialling { until } = self.state else { return };
        self.heard = now;
        self.greet(until);
    }

    fn greet(&mut self, until: Instant) {
        let id = self.next_id();
        let params = with_session(Value::Null, self.session.as_deref());
        self.send(id, "connect", &params);
        self.state = State::Greeting { until, id };
    }

    fn greeted(&mut self, now: Instant, until: Instant, result: Result<Value, ClientError>) {
        let text = |value: &Value, member: &str| value[member].as_str().map(str::to_owned);
        let server = match &result {
            Ok(value) => {
                if let Some(session) = text(value, "sessionId") {
                    self.session = Some(session);
                }
                text(value, "serverId")
            }
            Err(error) => match error.code() {
                Some(INVALID_SESSION) if self.session.take().is_some() => {
                    self.session_lost = true;
                    return self.greet(until);
                }
                // A server without sessions.
                Some(NO_SUCH_METHOD) => None,
                _ => return self.down(now, error.clone()),
            },
        };
        let same_process = self.server == server;
        // A session that did nothing is forgotten at once, and nothing is lost with it.
        let same_session = !self.session_lost || (!self.used && server.is_some());
        self.server = server;
        self.failures = 0;
        if !self.started {
            self.started = true;
            self.outputs.push_back(Output::Started(Ok(())));
            self.outputs.push_back(Output::Tell(ConnectionEvent::Connected));
        } else {
            let same_server = same_process && same_session;
            if !same_server {
                self.interrupt();
                self.used = false;
            }
            self.outputs.push_back(Output::Tell(ConnectionEvent::Reconnected { same_server }));
        }
        self.session_lost = false;
        self.state = State::Up { since: now };
        if let Some(interval) = self.options.heartbeat {
            self.ping(now, json!({"interval": interval.as_millis() as u64}));
        }
    }

    fn ping(&mut self, now: Instant, params: Value) {
        let id = self.next_id();
        self.send(id, "ping", &with_session(params, self.session.as_deref()));
        let under_way =
            |request: &Request<T>| request.sent && !self.waiting.contains_key(&request.order);
        let before = self.requests.iter().filter(|(_, request)| under_way(request));
        let before = before.map(|(id, request)| (request.deadline, *id)).collect();
        let until = patience(&self.options, now, &before);
        self.ping = Ping::Awaited { id, until, before };
    }

    fn send(&mut self, id: u32, method: &str, params: &Value) {
        self.outputs.push_back(Output::Send(message::request(Some(id), method, params)));
    }

    fn text(&mut self, now: Instant, text: &str) {
        self.heard = now;
        match message::read(text, self.options.message_bytes) {
            Ok(Incoming::Reply { id: Some(id), result }) => self.reply(now, id, result),
            Ok(Incoming::Reply { id: None, .. }) => self.counters.unmatched += 1,
            Ok(Incoming::Notification(notification)) => {
                self.counters.notified += 1;
                self.outputs.push_back(Output::Notify(notification));
            }
            Ok(Incoming::Request { id, .. }) => {
                self.outputs.push_back(Output::Send(message::no_such_method(&id)));
            }
            Err(_) => self.counters.unreadable += 1,
        }
    }

    fn reply(&mut self, now: Instant, id: u32, result: Result<Value, ClientError>) {
        match (&self.state, &self.ping) {
            (State::Greeting { id: greeting, until }, _) if *greeting == id => {
                return self.greeted(now, *until, result);
            }
            (State::Leaving { id: leaving, .. }, _) if *leaving == id => {
                // One that the server does not know is no more, either.
                let unknown = |error: &ClientError| error.code() == Some(INVALID_SESSION);
                self.session_closed = result.as_ref().map_or_else(unknown, |_| true);
                return self.end();
            }
            (_, Ping::Awaited { id: ping, .. }) if *ping == id => {
                // Whatever it says, somebody is there.
                let interval = self.options.heartbeat.unwrap_or_default();
                self.ping = Ping::At(after(now, interval));
                return;
            }
            _ => {}
        }
        let Some(deadline) = self.requests.get(&id).map(|request| request.deadline) else {
            self.counters.unmatched += 1;
            if let Some(at) = self.late.iter().position(|(late, _)| *late == id) {
                let late = self.late.remove(at);
                self.outputs.extend(late.map(|(_, to)| Output::Answer(to, result)));
            }
            return;
        };
        if let Ping::Awaited { until, before, .. } = &mut self.ping
            && before.remove(&(deadline, id))
        {
            // The server lives, and has less to do before the ping.
            *until = patience(&self.options, now, before);
        }
        if let Ok(value) = &result {
            self.used = true;
            if self.session.is_none() {
                self.session = value["sessionId"].as_str().map(str::to_owned);
            }
        }
        self.counters.answered += 1;
        self.answer(id, result);
    }

    fn timeout(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.counters.timed_out += 1;
            self.expect_late(id);
            self.answer(id, Err(ClientError::Timeout));
        }
        match self.state {
            State::Dialling { until } | State::Greeting { until, .. } if until <= now => {
                self.outputs.push_back(Output::Drop);
                self.down(now, ClientError::Connect("no answer in time".to_owned()));
            }
            State::Pausing { until } if until <= now => {
                self.state = State::Dialling { until: after(now, self.options.connection_timeout) };
                self.outputs.push_back(Output::Tell(ConnectionEvent::Reconnecting));
                self.outputs.push_back(Output::Dial);
            }
            State::Leaving { until, .. } if until <= now => self.end(),
            State::Up { .. } => {
                let silent = matches!(self.ping, Ping::Awaited { until, .. } if until <= now);
                let ends = [self.idle_until(), self.write_until];
                if silent || ends.into_iter().flatten().any(|until| until <= now) {
                    self.counters.silent += 1;
                    self.outputs.push_back(Output::Drop);
                    self.down(now, ClientError::Connect("no answer in time".to_owned()));
                } else if matches!(self.ping, Ping::At(at) if at <= now) {
                    self.ping(now, Value::Null);
                }
            }
            _ => {}
        }
    }

    /// Remembers whom a late answer matters to, if the server may give one.
    fn expect_late(&mut self, id: u32) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.sent
            && let Some(late) = request.late.take()
        {
            self.late.push_back((id, late));
        }
        if self.late.len() > LATE {
            self.late.pop_front();
            self.counters.forgotten += 1;
        }
    }

    fn idle_until(&self) -> Option<Instant> {
        self.options.idle_timeout.map(|idle| after(self.heard, idle))
    }

    /// There is no socket any more, or never was.
    fn down(&mut self, now: Instant, reason: ClientError) {
        let after_greeting = matches!(self.state, State::Greeting { .. })
            && matches!(reason, ClientError::Server { .. });
        match self.state {
            State::Pausing { .. } | State::Ended => return,
            State::Leaving { .. } => return self.end(),
            State::Up { since } => {
                self.counters.lost += 1;
                self.outputs.push_back(Output::Tell(ConnectionEvent::Disconnected));
                let longest = self.options.reconnect.unwrap_or_default().longest;
                if after(since, longest) <= now {
                    self.doublings = 0;
                }
            }
            State::Dialling { .. } | State::Greeting { .. } => {}
        }
        self.ping = Ping::Off;
        (self.write_until, self.room) = (None, FULL);
        // Answers come over the connection that the question went over.
        self.late.clear();
        if after_greeting {
            self.outputs.push_back(Output::Drop);
        }
        if !self.started {
            self.outputs.push_back(Output::Started(Err(reason)));
            return self.end();
        }
        if self.options.retry {
            let sent = self.requests.iter().filter(|(_, request)| request.sent);
            self.waiting.extend(sent.map(|(id, request)| (request.order, *id)));
        } else {
            self.interrupt();
        }
        let allowed = self.options.reconnect;
        let attempts = allowed.and_then(|reconnect| reconnect.attempts).unwrap_or(u32::MAX);
        match allowed {
            Some(reconnect) if self.failures < attempts => {
                self.failures += 1;
                let pause = reconnect.first.saturating_mul(1 << self.doublings.min(30));
                let pause = pause.min(reconnect.longest);
                self.doublings += 1;
                let shorter = pause.mul_f64((self.random() >> 11) as f64 / (1u64 << 54) as f64);
                self.state = State::Pausing { until: after(now, pause - shorter) };
            }
            _ => self.end(),
        }
    }

    /// Requests that were sent over a connection, or in a session, that is gone fail.
    fn interrupt(&mut self) {
        let sent = self.requests.iter().filter(|(_, request)| request.sent);
        let mut ids: Vec<_> = sent.map(|(id, request)| (request.order, *id)).collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.counters.interrupted += 1;
            self.answer(id, Err(ClientError::Interrupted));
        }
    }

    fn close(&mut self, now: Instant, session: bool) {
        if matches!(self.state, State::Leaving { .. }) {
            return;
        }
        self.close_requests();
        self.ping = Ping::Off;
        match &self.session {
            Some(name) if session && self.is_up() => {
                let params = json!({"sessionId": name});
                let id = self.next_id();
                self.send(id, "closeSession", &params);
                self.state =
                    State::Leaving { until: after(now, self.options.connection_timeout), id };
            }
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        self.close_requests();
        self.ping = Ping::Off;
        self.late.clear();
        self.state = State::Ended;
        self.outputs.push_back(Output::End);
    }

    fn close_requests(&mut self) {
        let mut ids: Vec<_> =
            self.requests.iter().map(|(id, request)| (request.order, *id)).collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.answer(id, Err(ClientError::Closed));
        }
    }

    fn answer(&mut self, id: u32, result: Result<Value, ClientError>) {
        if let Some(to) = self.forget(id) {
            self.outputs.push_back(Output::Answer(to, result));
        }
    }

    fn forget(&mut self, id: u32) -> Option<T> {
        let request = self.requests.remove(&id)?;
        self.waiting.remove(&request.order);
        self.deadlines.remove(&(request.deadline, id));
        request.to
    }

    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = if self.last_id >= LAST_ID { 1 } else { self.last_id + 1 };
            if !self.requests.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// SplitMix64: spread out, and the same for the same seed.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A while later, where "for ever" may be meant.
fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
}

/// Until when a ping is waited for if nothing is heard from `now` on. Servers answer in order, so what
/// was asked `before` may take its time first, but no single answer takes all the time there is.
fn patience(options: &Options, now: Instant, before: &BTreeSet<(Instant, u32)>) -> Instant {
    let until = after(now, options.heartbeat_timeout);
    let longest = after(now, options.longest_answer);
    before.last().map_or(until, |(deadline, _)| until.max(longest.min(*deadline)))
}

/// Parameters that name the session, unless they do already or have no members.
fn with_session(params: Value, session: Option<&str>) -> Value {
    let (mut members, session) = match (params, session) {
        (Value::Null, Some(session)) => (Map::new(), session),
        (Value::Object(members), Some(session)) => (members, session),
        (params, _) => return params,
    };
    members.entry("sessionId").or_insert_with(|| Value::from(session));
    Value::Object(members)
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;

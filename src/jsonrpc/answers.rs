//! Answers kept for those who ask again.
//!
//! A client that lost its connection, or its patience, sends its request once more under the same id.
//! It gets the first answer, and nothing is done twice: neither what was answered within the last
//! twenty seconds, nor what is still under way. Requests are the same when session, id, method and
//! parameters are. The original compares only session and id, and so gives a client that counts from
//! one again the answers to other questions.
//!
//! What is kept has bounds per session and in all; the oldest give way. No session has more than a
//! sixteenth of all, and what is longer is not kept.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::message::{Params, Request, as_text};
use super::session::SessionId;

/// How long an answer is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(20);

/// What a kept answer takes beside texts, about: its places in map and orders.
const OVERHEAD: usize = 250;
/// The part of all bytes that one session may have.
const SHARE: usize = 16;

/// The text of a reply.
pub type Reply = Bytes;

/// What makes two requests of a session the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// What the request asks. The session's name is no part of it: it may be given or left to the
    /// connection.
    pub fn of(request: &Request, hasher: &RandomState) -> Self {
        let mut hasher = hasher.build_hasher();
        request.id.hash(&mut hasher);
        request.method.hash(&mut hasher);
        if let Params::Members(members) = &request.params {
            for (name, value) in members.iter().filter(|(name, _)| *name != "sessionId") {
                name.hash(&mut hasher);
                value.hash(&mut hasher);
            }
        }
        Self(hasher.finish())
    }
}

/// What is known of a request.
#[derive(Debug)]
pub enum Known {
    /// Nothing: it is to be carried out.
    New,
    Answered(Reply),
    /// The same request is being carried out; its answer comes here, or nothing when that failed.
    UnderWay(oneshot::Receiver<Reply>),
}

#[derive(Debug)]
struct Kept {
    serial: u64,
    fingerprint: Fingerprint,
    /// Bytes of memory, about.
    weight: usize,
    reply: Reply,
}

#[derive(Debug, Default)]
struct OfSession {
    kept: HashMap<String, Kept>,
    /// Oldest first. An id that was used again has a kept answer of another serial number.
    order: VecDeque<(Instant, u64, String)>,
    bytes: usize,
}

/// Requests without an answer yet: each connection has one at most.
type UnderWay = HashMap<(SessionId, String), (Fingerprint, Vec<oneshot::Sender<Reply>>)>;

/// All answers that are kept, and all that are awaited.
#[derive(Debug)]
pub struct Answers {
    sessions: HashMap<SessionId, OfSession>,
    under_way: UnderWay,
    /// In the order of their answers, all sessions together; some may be gone already.
    order: VecDeque<(SessionId, u64, String)>,
    serial: u64,
    bytes: usize,
    per_session: usize,
    capacity: usize,
    /// Answers that gave way before their time.
    forgotten: u64,
}

/// The id is there once in the map and once in each order.
fn weight(id: &str, reply: &Reply) -> usize {
    reply.len() + 3 * id.len() + OVERHEAD
}

impl Answers {
    /// At most `per_session` answers of one session, and `capacity` bytes of memory in all.
    pub fn new(per_session: usize, capacity: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            under_way: HashMap::new(),
            order: VecDeque::new(),
            serial: 0,
            bytes: 0,
            per_session,
            capacity,
            forgotten: 0,
        }
    }

    /// Whether the request was made before. A new one counts as under way from now on, until
    /// [`Self::finish`].
    pub fn begin(
        &mut self,
        now: Instant,
        session: &SessionId,
        id: &Value,
        fingerprint: Fingerprint,
    ) -> Known {
        let id = as_text(id).unwrap_or_default();
        if let Some(of_session) = self.sessions.get_mut(session) {
            self.bytes -= of_session.expire(now);
            match of_session.kept.get(&id) {
                Some(kept) if kept.fingerprint == fingerprint => {
                    return Known::Answered(kept.reply.clone());
                }
                _ => {}
            }
        }
        match self.under_way.entry((session.clone(), id)) {
            Slot::Vacant(slot) => {
                slot.insert((fingerprint, Vec::new()));
            }
            Slot::Occupied(mut slot) if slot.get().0 == fingerprint => {
                let (sender, receiver) = oneshot::channel();
                slot.get_mut().1.push(sender);
                return Known::UnderWay(receiver);
            }
            // Another question under an id that is in use: carried out, and not waited for.
            Slot::Occupied(_) => {}
        }
        Known::New
    }

    /// A request that [`Self::begin`] called new has its reply, or failed without one.
    pub fn finish(
        &mut self,
        session: &SessionId,
        id: &Value,
        fingerprint: Fingerprint,
        reply: Option<&Reply>,
    ) {
        let key = (session.clone(), as_text(id).unwrap_or_default());
        if self.under_way.get(&key).is_some_and(|(known, _)| *known == fingerprint) {
            let (_, waiting) = self.under_way.remove(&key).unwrap_or((fingerprint, Vec::new()));
            for waiting in waiting {
                if let Some(reply) = reply {
                    // Who asked again may have left again.
                    let _ = waiting.send(reply.clone());
                }
            }
        }
    }

    /// Keeps a reply.
    pub fn keep(
        &mut self,
        now: Instant,
        session: &SessionId,
        id: &Value,
        fingerprint: Fingerprint,
        reply: Reply,
    ) {
        let id = as_text(id).unwrap_or_default();
        let share = self.capacity / SHARE;
        let weight = weight(&id, &reply);
        if weight > share {
            self.forgotten += 1;
            return;
        }
        self.serial += 1;
        let serial = self.serial;
        self.order.push_back((session.clone(), serial, id.clone()));
        let of_session = self.sessions.entry(session.clone()).or_default();
        self.bytes -= of_session.expire(now);
        of_session.order.push_back((now, serial, id.clone()));
        self.bytes += weight;
        of_session.bytes += weight;
        self.bytes -= of_session.insert(id, Kept { serial, fingerprint, weight, reply });
        while of_session.order.len() > self.per_session || of_session.bytes > share {
            let Some((_, serial, id)) = of_session.order.pop_front() else { break };
            let freed = of_session.forget(serial, &id);
            self.forgotten += u64::from(freed > 0);
            self.bytes -= freed;
        }
        // Beyond the bound for all, the oldest of all give way.
        while self.bytes > self.capacity || self.order.len() > 2 * self.capacity / OVERHEAD {
            let Some((session, serial, id)) = self.order.pop_front() else { break };
            let of_session = self.sessions.get_mut(&session);
            let freed = of_session.map_or(0, |of_session| of_session.forget(serial, &id));
            self.forgotten += u64::from(freed > 0);
            self.bytes -= freed;
        }
    }

    /// The session is over.
    pub fn remove_session(&mut self, session: &str) {
        if let Some(of_session) = self.sessions.remove(session) {
            self.bytes -= of_session.bytes;
        }
    }

    /// Drops what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.sessions.retain(|_, of_session| {
            *bytes -= of_session.expire(now);
            !of_session.order.is_empty()
        });
        self.sessions.shrink_to(2 * self.sessions.len());
        let sessions = &self.sessions;
        self.order.retain(|(session, serial, id)| {
            let kept = sessions.get(session).and_then(|of_session| of_session.kept.get(id));
            kept.is_some_and(|kept| kept.serial == *serial)
        });
    }

    /// Answers that gave way before their time, since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// Bytes that all kept replies take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl OfSession {
    /// Bytes that became free.
    fn expire(&mut self, now: Instant) -> usize {
        let mut freed = 0;
        while self.order.front().is_some_and(|(at, ..)| *at + KEPT_FOR <= now) {
            let Some((_, serial, id)) = self.order.pop_front() else { break };
            freed += self.forget(serial, &id);
        }
        freed
    }

    /// Bytes of what stood in its place.
    fn insert(&mut self, id: String, kept: Kept) -> usize {
        let freed = self.kept.insert(id, kept).map_or(0, |old| old.weight);
        self.bytes -= freed;
        freed
    }

    /// Bytes that became free.
    fn forget(&mut self, serial: u64, id: &str) -> usize {
        let freed = match self.kept.get(id) {
            Some(kept) if kept.serial == serial => {
                self.kept.remove(id).map_or(0, |kept| kept.weight)
            }
            _ => 0,
        };
        self.bytes -= freed;
        freed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::message;
    use super::*;
    use crate::clock::Clock;

    struct House {
        answers: Answers,
        hasher: RandomState,
        now: Instant,
    }

    impl House {
        fn new(per_session: usize, capacity: usize) -> Self {
            Self {
                answers: Answers::new(per_session, capacity),
                hasher: RandomState::new(),
                now: Clock::start().now(),
            }
        }

        fn ask(&mut self, session: &str, id: Value, method: &str) -> Known {
            let (id, fingerprint) = self.request(id, method);
            self.answers.begin(self.now, &session.into(), &id, fingerprint)
        }

        fn answer(&mut self, session: &str, id: Value, method: &str, reply: &str) {
            let (id, fingerprint) = self.request(id, method);
            let (session, reply) = (session.into(), Reply::copy_from_slice(reply.as_bytes()));
            self.answers.finish(&session, &id, fingerprint, Some(&reply));
            self.answers.keep(self.now, &session, &id, fingerprint, reply);
        }

        fn request(&self, id: Value, method: &str) -> (Value, Fingerprint) {
            let text = json!({"jsonrpc": "2.0", "id": id, "method": method}).to_string();
            let limits = message::Limits::default();
            let request = message::parse(&text, &limits).expect("a request");
            (id, Fingerprint::of(&request, &self.hasher))
        }

        fn known(&mut self, session: &str, id: Value, method: &str) -> Option<String> {
            match self.ask(session, id, method) {
                Known::Answered(reply) => Some(String::from_utf8_lossy(&reply).into_owned()),
                Known::New | Known::UnderWay(_) => None,
            }
        }
    }

    #[test]
    fn the_same_request_has_the_same_answer_for_twenty_seconds() {
        let mut house = House::new(10, 100_000);
        assert!(matches!(house.ask("a", json!(1), "create"), Known::New));
        house.answer("a", json!(1), "create", "first");
        house.now += KEPT_FOR - Duration::from_millis(1);
        assert_eq!(house.known("a", json!(1), "create").as_deref(), Some("first"));
        house.now += Duration::from_millis(1);
        assert_eq!(house.known("a", json!(1), "create"), None);
        assert_eq!(house.answers.bytes(), 0);
    }

    #[test]
    fn another_session_id_or_method_is_another_request() {
        let mut house = House::new(10, 100_000);
        house.answer("a", json!(1), "create", "first");
        assert_eq!(house.known("b", json!(1), "create"), None);
        assert_eq!(house.known("a", json!(2), "create"), None);
        assert_eq!(house.known("a", json!("1"), "create"), None);
        assert_eq!(house.known("a", json!(1), "release"), None);
        assert_eq!(house.known("a", json!(1), "create").as_deref(), Some("first"));
    }

    #[test]
    fn who_asks_again_before_the_answer_gets_the_same_one() {
        let mut house = House::new(10, 100_000);
        assert!(matches!(house.ask("a", json!(1), "create"), Known::New));
        let Known::UnderWay(mut waiting) = house.ask("a", json!(1), "create") else {
            panic!("it is under way")
        };
        house.answer("a", json!(1), "create", "only");
        assert_eq!(waiting.try_recv().as_deref(), Ok(&b"only"[..]));
    }

    #[test]
    fn the_oldest_answers_of_a_session_give_way_and_those_of_others_do_not() {
        let mut house = House::new(2, 100_000);
        house.answer("b", json!(0), "m", "other");
        for id in 0..4 {
            house.answer("a", json!(id), "m", "answer");
        }
        assert_eq!(house.known("a", json!(1), "m"), None);
        assert_eq!(house.known("a", json!(2), "m").as_deref(), Some("answer"));
        assert_eq!(house.known("b", json!(0), "m").as_deref(), Some("other"));
        assert_eq!(house.answers.take_forgotten(), 2);
    }

    #[test]
    fn an_answer_beyond_all_bounds_is_not_kept_and_nothing_is_miscounted() {
        let mut house = House::new(10, SHARE * (OVERHEAD + 13));
        house.answer("a", json!(1), "m", "12345");
        house.answer("a", json!(1), "n", "1234567");
        house.answer("a", json!(2), "m", "12345678901");
        assert_eq!(house.answers.bytes(), OVERHEAD + 10);
        assert_eq!(house.known("a", json!(1), "n").as_deref(), Some("1234567"));
        assert_eq!(house.known("a", json!(2), "m"), None);
        house.answer("a", json!(3), "m", "123");
        house.answers.remove_session("a");
        assert_eq!(house.answers.bytes(), 0);
        house.answer("a", json!(4), "m", "123");
        house.now += KEPT_FOR;
        house.answers.handle_timeout(house.now);
        assert!(house.answers.sessions.is_empty() && house.answers.bytes() == 0);
    }

    #[test]
    fn when_all_is_full_the_oldest_answer_of_anybody_gives_way() {
        let mut house = House::new(100, 20 * (OVERHEAD + 13));
        for session in 0..20 {
            house.answer(&session.to_string(), json!(1), "m", "1234567890");
        }
        assert_eq!(house.known("0", json!(1), "m").as_deref(), Some("1234567890"));
        house.answer("20", json!(1), "m", "1234567890");
        assert_eq!(house.known("0", json!(1), "m"), None);
        assert_eq!(house.known("1", json!(1), "m").as_deref(), Some("1234567890"));
        assert_eq!(house.known("20", json!(1), "m").as_deref(), Some("1234567890"));
        house.now += KEPT_FOR;
        house.answers.handle_timeout(house.now);
        assert!(house.answers.order.is_empty() && house.answers.bytes() == 0);
    }
}

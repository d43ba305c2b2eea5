//! Who hears of what: subscriptions, and the way of an event into the queues of connections.
//!
//! A session that subscribed several times to the same event of an object gets one message for it.
//! Names of 6.x are events of their own to their subscribers; their message goes out first. A
//! session without a connection misses what happens meanwhile, as with the original.
//!
//! Each connection has a queue with a bound. A client that does not read loses its connection when
//! the queue is full, never its session.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::message;
use super::session::{ConnectionId, SessionId, Sessions};
use crate::metrics::Metrics;
use crate::model::{Event, ObjectId};

/// The sending end of a connection's queue.
#[derive(Debug)]
pub struct Outbox {
    messages: mpsc::Sender<Bytes>,
    /// Taken when the connection is told to close.
    close: Option<oneshot::Sender<&'static str>>,
}

/// The receiving end: messages in order, and the reason to close should there be one.
#[derive(Debug)]
pub struct Inbox {
    pub messages: mpsc::Receiver<Bytes>,
    pub close: oneshot::Receiver<&'static str>,
}

/// A queue for at most `capacity` messages.
pub fn queue(capacity: usize) -> (Outbox, Inbox) {
    let (messages, receiver) = mpsc::channel(capacity.max(1));
    let (close, closed) = oneshot::channel();
    (Outbox { messages, close: Some(close) }, Inbox { messages: receiver, close: closed })
}

impl Outbox {
    /// Queues a message, or tells the connection to close.
    fn push(&mut self, message: Bytes, metrics: &Metrics) {
        match self.messages.try_send(message) {
            Ok(()) => metrics.event_sent(),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics.events_dropped("slow_reader", 1);
                if let Some(close) = self.close.take() {
                    metrics.connection_cut("slow_reader");
                    // The connection may be gone by itself, which is as good.
                    let _ = close.send("Events are not read fast enough");
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => metrics.events_dropped("closing", 1),
        }
    }
}

#[derive(Debug)]
struct Subscription {
    id: String,
    session: SessionId,
    /// The name that the client used, one of those the event has.
    name: &'static str,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    of_object: HashMap<ObjectId, Vec<Subscription>>,
    count_of: HashMap<SessionId, usize>,
}

impl Subscriptions {
    /// How many a session has.
    pub fn count(&self, session: &str) -> usize {
        self.count_of.get(session).copied().unwrap_or(0)
    }

    /// Subscribes a session to the event `name` of an object; the subscription's id.
    pub fn add(&mut self, session: &SessionId, object: &str, name: &'static str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        *self.count_of.entry(session.clone()).or_default() += 1;
        self.of_object.entry(ObjectId::from(object)).or_default().push(Subscription {
            id: id.clone(),
            session: session.clone(),
            name,
        });
        id
    }

    /// Takes back one subscription to `object`; an unknown one is no error.
    pub fn remove(&mut self, object: &str, id: &str) {
        if let Some(list) = self.of_object.get_mut(object) {
            list.retain(|subscription| {
                let keep = subscription.id != id;
                if !keep {
                    discount(&mut self.count_of, &subscription.session);
                }
                keep
            });
            if list.is_empty() {
                self.of_object.remove(object);
            }
        }
    }

    /// The object is no more.
    pub fn remove_object(&mut self, object: &str) {
        for subscription in self.of_object.remove(object).unwrap_or_default() {
            discount(&mut self.count_of, &subscription.session);
        }
    }

    /// The session is no more.
    pub fn remove_session(&mut self, session: &str) {
        if self.count_of.remove(session).is_some() {
            self.of_object.retain(|_, list| {
                list.retain(|subscription| &*subscription.session != session);
                !list.is_empty()
            });
        }
    }

    /// Puts an event into the queues of those who subscribed to it.
    pub fn deliver(
        &self,
        event: Event,
        sessions: &Sessions,
        outboxes: &mut HashMap<ConnectionId, Outbox>,
        metrics: &Metrics,
    ) {
        let Some(list) = self.of_object.get(event.source.as_str()) else { return };
        let mut data = Value::Object(event.data);
        let names = event.class.legacy.iter().copied().chain([event.class.name]);
        for name in names {
            // Sorted, so that sessions hear in the same order every time; each hears once.
            let hearers: BTreeSet<&SessionId> = list
                .iter()
                .filter(|subscription| subscription.name == name)
                .map(|subscription| &subscription.session)
                .collect();
            if hearers.is_empty() {
                continue;
            }
            if event.class.media {
                data["type"] = Value::from(name);
            }
            let text = Bytes::from(message::event(event.source.as_str(), name, &data));
            for session in hearers {
                let connection = sessions.connection_of(session);
                match connection.and_then(|connection| outboxes.get_mut(&connection)) {
                    Some(outbox) => outbox.push(text.clone(), metrics),
                    None => metrics.events_dropped("nobody_bound", 1),
                }
            }
        }
    }
}

fn discount(count_of: &mut HashMap<SessionId, usize>, session: &SessionId) {
    if let Some(count) = count_of.get_mut(session) {
        *count -= 1;
        if *count == 0 {
            count_of.remove(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Map, json};

    use super::*;
    use crate::clock::Clock;
    use crate::model::EventClass;

    static FOUND: EventClass =
        EventClass { name: "IceCandidateFound", legacy: &["OnIceCandidate"], media: true };

    struct House {
        subscriptions: Subscriptions,
        sessions: Sessions,
        outboxes: HashMap<ConnectionId, Outbox>,
        metrics: Metrics,
    }

    impl House {
        fn new() -> Self {
            Self {
                subscriptions: Subscriptions::default(),
                sessions: Sessions::new(Clock::start().now(), Duration::from_secs(240), 10),
                outboxes: HashMap::new(),
                metrics: Metrics::new(),
            }
        }

        fn connect(&mut self, connection: ConnectionId, session: &str, capacity: usize) -> Inbox {
            let (outbox, inbox) = queue(capacity);
            self.outboxes.insert(connection, outbox);
            self.sessions.bind(connection, &session.into());
            inbox
        }

        fn raise(&mut self) {
            let mut data = Map::new();
            data.insert("type".to_owned(), Value::from("IceCandidateFound"));
            let event = Event { source: ObjectId::from("p/e"), class: &FOUND, data };
            let Self { subscriptions, sessions, outboxes, metrics } = self;
            subscriptions.deliver(event, sessions, outboxes, metrics);
        }
    }

    fn heard(inbox: &mut Inbox) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(text) = inbox.messages.try_recv() {
            let message: Value = serde_json::from_slice(&text).expect("json");
            let value = &message["params"]["value"];
            assert_eq!(value["type"], value["data"]["type"]);
            assert_eq!(value["object"], json!("p/e"));
            names.push(value["type"].as_str().expect("a name").to_owned());
        }
        names
    }

    #[test]
    fn several_subscriptions_of_a_session_cause_one_message_until_the_last_is_taken_back() {
        let mut house = House::new();
        let mut inbox = house.connect(1, "a", 8);
        let first = house.subscriptions.add(&"a".into(), "p/e", FOUND.name);
        let second = house.subscriptions.add(&"a".into(), "p/e", FOUND.name);
        assert_ne!(first, second);
        house.raise();
        assert_eq!(heard(&mut inbox), ["IceCandidateFound"]);
        house.subscriptions.remove("p/e", &first);
        house.subscriptions.remove("p/e", "unknown");
        house.raise();
        assert_eq!(heard(&mut inbox).len(), 1);
        house.subscriptions.remove("p/e", &second);
        house.raise();
        assert_eq!(heard(&mut inbox).len(), 0);
        assert_eq!(house.subscriptions.count("a"), 0);
    }

    #[test]
    fn a_name_of_6_is_heard_first_and_by_its_own_subscribers_only() {
        let mut house = House::new();
        let (mut a, mut b) = (house.connect(1, "a", 8), house.connect(2, "b", 8));
        house.subscriptions.add(&"a".into(), "p/e", FOUND.name);
        house.subscriptions.add(&"a".into(), "p/e", "OnIceCandidate");
        house.subscriptions.add(&"b".into(), "p/e", "OnIceCandidate");
        house.raise();
        assert_eq!(heard(&mut a), ["OnIceCandidate", "IceCandidateFound"]);
        assert_eq!(heard(&mut b), ["OnIceCandidate"]);
    }

    #[test]
    fn who_does_not_read_loses_the_connection_and_nobody_else_does() {
        let mut house = House::new();
        let (mut slow, mut quick) = (house.connect(1, "a", 2), house.connect(2, "b", 8));
        for session in ["a", "b"] {
            house.subscriptions.add(&session.into(), "p/e", FOUND.name);
        }
        for _ in 0..4 {
            house.raise();
        }
        assert!(slow.close.try_recv().is_ok());
        assert!(quick.close.try_recv().is_err());
        assert_eq!(heard(&mut quick).len(), 4);
        assert_eq!(house.sessions.connection_of("a"), Some(1));
    }

    #[test]
    fn subscriptions_end_with_their_object_and_with_their_session() {
        let mut house = House::new();
        let mut inbox = house.connect(1, "a", 8);
        house.subscriptions.add(&"a".into(), "p/e", FOUND.name);
        house.subscriptions.remove_object("p/e");
        house.raise();
        house.subscriptions.add(&"a".into(), "p/e", FOUND.name);
        house.subscriptions.remove_session("a");
        house.raise();
        assert_eq!(heard(&mut inbox).len(), 0);
        assert!(
            house.subscriptions.of_object.is_empty() && house.subscriptions.count_of.is_empty()
        );
    }
}

//! Who hears of what: subscriptions, and the way of an event to the sessions that have one.
//!
//! A session that subscribed several times to the same event of an object gets one message for it.
//! Names of 6.x are events of their own to their subscribers; their message goes out first. A
//! session without a connection misses what happens meanwhile, as with the original.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde_json::Value;

use crate::jsonrpc::{SessionId, message};
use crate::model::{Event, ObjectId};

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
    all: usize,
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all
    }

    pub fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// How many a session has.
    pub fn count(&self, session: &str) -> usize {
        self.count_of.get(session).copied().unwrap_or(0)
    }

    /// Subscribes a session to the event `name` of an object; the subscription's id.
    pub fn add(&mut self, session: &SessionId, object: &str, name: &'static str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        *self.count_of.entry(session.clone()).or_default() += 1;
        self.all += 1;
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
                    self.all -= 1;
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
            self.all -= 1;
            discount(&mut self.count_of, &subscription.session);
        }
    }

    /// The session is no more.
    pub fn remove_session(&mut self, session: &str) {
        if let Some(count) = self.count_of.remove(session) {
            self.all -= count;
            self.of_object.retain(|_, list| {
                list.retain(|subscription| &*subscription.session != session);
                !list.is_empty()
            });
        }
    }

    /// Tells an event to those who subscribed to it.
    pub fn deliver(&self, event: Event, mut notify: impl FnMut(&SessionId, Bytes)) {
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
                notify(session, text.clone());
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
    use serde_json::{Map, json};

    use super::*;
    use crate::model::EventClass;

    static FOUND: EventClass =
        EventClass { name: "IceCandidateFound", legacy: &["OnIceCandidate"], media: true };

    /// What each session heard of one event, in order.
    fn raise(subscriptions: &Subscriptions) -> Vec<(String, String)> {
        let mut data = Map::new();
        data.insert("type".to_owned(), Value::from("IceCandidateFound"));
        let event = Event { source: ObjectId::from("p/e"), class: &FOUND, data };
        let mut heard = Vec::new();
        subscriptions.deliver(event, |session, text| {
            let message: Value = serde_json::from_slice(&text).expect("json");
            let value = &message["params"]["value"];
            assert_eq!(value["type"], value["data"]["type"]);
            assert_eq!(value["object"], json!("p/e"));
            heard.push((session.to_string(), value["type"].as_str().expect("a name").to_owned()));
        });
        heard
    }

    fn heard(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(session, name)| (session.to_string(), name.to_string())).collect()
    }

    #[test]
    fn several_subscriptions_of_a_session_cause_one_message_until_the_last_is_taken_back() {
        let mut all = Subscriptions::default();
        let first = all.add(&"a".into(), "p/e", FOUND.name);
        let second = all.add(&"a".into(), "p/e", FOUND.name);
        assert_ne!(first, second);
        assert_eq!(raise(&all), heard(&[("a", "IceCandidateFound")]));
        all.remove("p/e", &first);
        all.remove("p/e", "unknown");
        assert_eq!(raise(&all).len(), 1);
        all.remove("p/e", &second);
        assert_eq!(raise(&all), []);
        assert_eq!((all.count("a"), all.len()), (0, 0));
    }

    #[test]
    fn a_name_of_6_is_heard_first_and_by_its_own_subscribers_only() {
        let mut all = Subscriptions::default();
        all.add(&"a".into(), "p/e", FOUND.name);
        all.add(&"a".into(), "p/e", "OnIceCandidate");
        all.add(&"b".into(), "p/e", "OnIceCandidate");
        assert_eq!(
            raise(&all),
            heard(&[("a", "OnIceCandidate"), ("b", "OnIceCandidate"), ("a", "IceCandidateFound")])
        );
    }

    #[test]
    fn subscriptions_end_with_their_object_and_with_their_session() {
        let mut all = Subscriptions::default();
        all.add(&"a".into(), "p/e", FOUND.name);
        all.remove_object("p/e");
        assert_eq!(raise(&all), []);
        all.add(&"a".into(), "p/e", FOUND.name);
        all.remove_session("a");
        assert_eq!(raise(&all), []);
        assert!(all.of_object.is_empty() && all.count_of.is_empty() && all.is_empty());
    }
}

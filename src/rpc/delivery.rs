//! Who hears of what: subscriptions, and the way of an event to the sessions that have one.
//!
//! A session that subscribed several times to the same event of an object gets one message for it.
//! Names of 6.x are events of their own to their subscribers; their message goes out first. A
//! session without a connection misses what happens meanwhile, as with the original.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::jsonrpc::{SessionId, message};
use crate::model::{Event, ObjectId, Wanted};

/// What a subscription is to: an object, and the name the client used for the event.
#[derive(Debug)]
struct Subscription {
    object: ObjectId,
    name: &'static str,
    session: SessionId,
}

/// How many subscriptions each session has to one event of an object. Sorted, so that sessions hear
/// in the same order every time.
type Hearers = BTreeMap<SessionId, usize>;

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    by_id: HashMap<Arc<str>, Subscription>,
    of_object: HashMap<ObjectId, HashMap<&'static str, Hearers>>,
    /// Ids, so that those of an object or of a session are found when it ends.
    ids_of_object: HashMap<ObjectId, HashSet<Arc<str>>>,
    ids_of_session: HashMap<SessionId, HashSet<Arc<str>>>,
    /// What of it workers look at.
    wanted: Arc<Wanted>,
}

impl Subscriptions {
    /// None yet; workers see in `wanted` what becomes of that.
    pub fn new(wanted: Arc<Wanted>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many a session has.
    pub fn count(&self, session: &str) -> usize {
        self.ids_of_session.get(session).map_or(0, HashSet::len)
    }

    /// Subscribes a session to the event `name` of an object; the subscription's id.
    pub fn add(&mut self, session: &SessionId, object: &str, name: &'static str) -> Arc<str> {
        let id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        let object = ObjectId::from(object);
        let hearers = self.of_object.entry(object.clone()).or_default().entry(name).or_default();
        if hearers.is_empty() {
            self.wanted.add(&object, name);
        }
        *hearers.entry(session.clone()).or_default() += 1;
        self.ids_of_object.entry(object.clone()).or_default().insert(id.clone());
        self.ids_of_session.entry(session.clone()).or_default().insert(id.clone());
        self.by_id.insert(id.clone(), Subscription { object, name, session: session.clone() });
        id
    }

    /// Takes back one subscription to `object`; an unknown one is no error.
    pub fn remove(&mut self, object: &str, id: &str) {
        if self.by_id.get(id).is_some_and(|known| known.object.as_str() == object) {
            self.forget(id);
        }
    }

    /// The object is no more.
    pub fn remove_object(&mut self, object: &str) {
        for id in self.ids_of_object.remove(object).unwrap_or_default() {
            self.forget(&id);
        }
    }

    /// The session is no more.
    pub fn remove_session(&mut self, session: &str) {
        for id in self.ids_of_session.remove(session).unwrap_or_default() {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(Subscription { object, name, session }) = self.by_id.remove(id) else { return };
        if let Some(events) = self.of_object.get_mut(&object) {
            if let Some(hearers) = events.get_mut(name) {
                if let Some(count) = hearers.get_mut(&session) {
                    *count -= 1;
                    if *count == 0 {
                        hearers.remove(&session);
                    }
                }
                if hearers.is_empty() {
                    self.wanted.remove(&object, name);
                    events.remove(name);
                }
            }
            if events.is_empty() {
                self.of_object.remove(&object);
            }
        }
        remove_id(&mut self.ids_of_object, &object, id);
        remove_id(&mut self.ids_of_session, &session, id);
    }

    /// Tells an event to those who subscribed to it.
    pub fn deliver(&self, event: Event, mut notify: impl FnMut(&SessionId, Bytes)) {
        let Some(events) = self.of_object.get(event.source.as_str()) else { return };
        let class = event.class;
        let names = class.legacy.iter().copied().chain([class.name]);
        let mut heard = names.filter_map(|name| Some((name, events.get(name)?))).peekable();
        if heard.peek().is_none() {
            return;
        }
        let source = event.source.clone();
        let mut data = event.into_data();
        for (name, hearers) in heard {
            if class.media {
                data.insert("type".to_owned(), Value::from(name));
            }
            let text = Bytes::from(message::event(source.as_str(), name, &data));
            for session in hearers.keys() {
                notify(session, text.clone());
            }
        }
    }
}

fn remove_id<K: Eq + Hash>(ids: &mut HashMap<K, HashSet<Arc<str>>>, of: &K, id: &str) {
    if let Some(known) = ids.get_mut(of) {
        known.remove(id);
        if known.is_empty() {
            ids.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::model::{EventClass, EventData, Object, class};

    static FOUND: EventClass =
        EventClass { name: "IceCandidateFound", legacy: &["OnIceCandidate"], media: true };

    #[derive(Debug)]
    struct Found;

    impl EventData for Found {
        const CLASS: &'static EventClass = &FOUND;

        fn into_members(self) -> Map<String, Value> {
            Map::new()
        }
    }

    /// What each session heard of one event, in order.
    fn raise(subscriptions: &Subscriptions) -> Vec<(String, String)> {
        let class = class::find("PassThrough").expect("described");
        let event = Object::new(ObjectId::from("p/e"), class, None, 0).event(0, Found);
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
        assert!(all.is_empty() && all.ids_of_session.is_empty());
        assert!(all.of_object.is_empty() && all.ids_of_object.is_empty());
    }
}

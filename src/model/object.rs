//! What every remote object has: a name, tags, a time of creation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::class::Class;
use super::error::RemoteError;
use super::event::{Event, EventData};
use super::id::ObjectId;
use super::types::Tag;
use crate::config::Limits;

/// How much clients may attach to objects.
#[derive(Clone, Debug)]
pub struct ObjectLimits {
    /// Tags of one object; one more is refused.
    tags: usize,
    /// Bytes of a name, of a tag's key and of its value.
    text_bytes: usize,
    /// Bytes of all those texts of one object.
    object_bytes: usize,
    /// Bytes of all those texts of all objects, and how many there are.
    all_bytes: usize,
    attached: Arc<AtomicUsize>,
}

impl From<&Limits> for ObjectLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            tags: limits.tags,
            text_bytes: limits.text_bytes,
            object_bytes: limits.object_bytes,
            all_bytes: limits.attached_bytes,
            attached: Arc::default(),
        }
    }
}

/// The bytes that an object's texts take, given back when it ends.
#[derive(Debug, Default)]
struct Attached {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Attached {
    /// Makes room for `more` bytes where `less` go.
    fn exchange(
        &mut self,
        less: usize,
        more: usize,
        limits: &ObjectLimits,
    ) -> Result<(), RemoteError> {
        let bytes = self.bytes - less + more;
        if bytes > limits.object_bytes {
            return Err(reached("object bytes", limits.object_bytes));
        }
        if more > less {
            let grown = limits.attached.fetch_add(more - less, Ordering::Relaxed) + more - less;
            if grown > limits.all_bytes {
                limits.attached.fetch_sub(more - less, Ordering::Relaxed);
                return Err(reached("attached bytes", limits.all_bytes));
            }
        } else {
            limits.attached.fetch_sub(less - more, Ordering::Relaxed);
        }
        self.bytes = bytes;
        self.all = limits.attached.clone();
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn reached(what: &str, limit: usize) -> RemoteError {
    RemoteError::NotEnoughResources(format!("Reached {what} limit: {limit}"))
}

/// The part of a remote object that does not depend on its class.
#[derive(Debug)]
pub struct Object {
    pub id: ObjectId,
    pub class: &'static Class,
    /// None for pipelines and the server manager.
    pub parent: Option<ObjectId>,
    name: Option<String>,
    tags: Vec<(String, String)>,
    attached: Attached,
    pub send_tags_in_events: bool,
    /// Seconds since the Unix epoch.
    pub creation_time: i32,
}

impl Object {
    /// A new object; `unix_millis` is the time of its creation.
    pub fn new(
        id: ObjectId,
        class: &'static Class,
        parent: Option<ObjectId>,
        unix_millis: u64,
    ) -> Self {
        Self {
            id,
            class,
            parent,
            name: None,
            tags: Vec::new(),
            attached: Attached::default(),
            send_tags_in_events: false,
            creation_time: i32::try_from(unix_millis / 1_000).unwrap_or(i32::MAX),
        }
    }

    /// Its name: the id until another one was set.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }

    /// An empty name brings the default back.
    ///
    /// # Errors
    /// [`RemoteError::NotEnoughResources`] beyond the limit.
    pub fn set_name(&mut self, name: String, limits: &ObjectLimits) -> Result<(), RemoteError> {
        check_length(&name, limits)?;
        let before = self.name.as_ref().map_or(0, String::len);
        self.attached.exchange(before, name.len(), limits)?;
        self.name = (!name.is_empty()).then_some(name);
        Ok(())
    }

    /// Sets the tag `key`, replacing its value.
    ///
    /// # Errors
    /// [`RemoteError::NotEnoughResources`] beyond a limit.
    pub fn add_tag(
        &mut self,
        key: String,
        value: String,
        limits: &ObjectLimits,
    ) -> Result<(), RemoteError> {
        check_length(&key, limits)?;
        check_length(&value, limits)?;
        if let Some(tag) = self.tags.iter_mut().find(|(known, _)| *known == key) {
            self.attached.exchange(tag.1.len(), value.len(), limits)?;
            tag.1 = value;
        } else if self.tags.len() < limits.tags {
            self.attached.exchange(0, key.len() + value.len(), limits)?;
            self.tags.push((key, value));
        } else {
            return Err(reached("tags", limits.tags));
        }
        Ok(())
    }

    /// Removes a tag; an unknown key is no error.
    pub fn remove_tag(&mut self, key: &str, limits: &ObjectLimits) {
        if let Some(at) = self.tags.iter().position(|(known, _)| known == key) {
            let (key, value) = self.tags.remove(at);
            // To give back needs no room.
            let _ = self.attached.exchange(key.len() + value.len(), 0, limits);
        }
    }

    /// # Errors
    /// [`RemoteError::TagNotFound`]
    pub fn tag(&self, key: &str) -> Result<String, RemoteError> {
        let tag = self.tags.iter().find(|(known, _)| known == key);
        tag.map(|(_, value)| value.clone()).ok_or(RemoteError::TagNotFound)
    }

    /// All tags, ordered by key.
    pub fn tags(&self) -> Vec<Tag> {
        let mut tags: Vec<_> = self
            .tags
            .iter()
            .map(|(key, value)| Tag { key: key.clone(), value: value.clone() })
            .collect();
        tags.sort_by(|a, b| a.key.cmp(&b.key));
        tags
    }

    /// The event with the members that all events share; `unix_millis` is when it happened.
    pub fn event<E: EventData>(&self, unix_millis: u64, event: E) -> Event {
        let tags = if self.send_tags_in_events { self.tags() } else { Vec::new() };
        Event { source: self.id.clone(), class: E::CLASS, unix_millis, tags, own: Box::new(event) }
    }
}

fn check_length(text: &str, limits: &ObjectLimits) -> Result<(), RemoteError> {
    let limit = limits.text_bytes;
    if text.len() > limit { Err(reached("text bytes", limit)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::class;
    use super::super::types::event::MediaSessionStarted;
    use super::*;

    fn limits() -> ObjectLimits {
        ObjectLimits {
            tags: 100,
            text_bytes: 1_000,
            object_bytes: 2_000,
            all_bytes: 3_000,
            attached: Arc::default(),
        }
    }

    fn object() -> Object {
        let class = class::find("PassThrough").expect("described");
        Object::new(ObjectId::from("p/e"), class, Some(ObjectId::from("p")), 1_234_567)
    }

    #[test]
    fn a_name_is_the_id_until_it_is_set_and_after_it_is_emptied() {
        let (mut object, limits) = (object(), limits());
        assert_eq!(object.name(), "p/e");
        object.set_name("camera".to_owned(), &limits).expect("short");
        assert_eq!(object.name(), "camera");
        object.set_name(String::new(), &limits).expect("short");
        assert!(object.set_name("x".repeat(1_001), &limits).is_err());
        assert_eq!(object.name(), "p/e");
    }

    #[test]
    fn tags_are_bounded_replaced_and_missed() {
        let (mut object, limits) = (object(), limits());
        for n in 0..100 {
            object.add_tag(n.to_string(), "x".to_owned(), &limits).expect("below the limit");
        }
        assert_eq!(
            object.add_tag("more".into(), "x".into(), &limits).map_err(|e| e.code()),
            Err(40009)
        );
        object.add_tag("7".into(), "y".into(), &limits).expect("replaces");
        assert_eq!(object.tag("7").as_deref(), Ok("y"));
        object.remove_tag("7", &limits);
        assert_eq!(object.tag("7"), Err(RemoteError::TagNotFound));
    }

    #[test]
    fn the_texts_of_an_object_and_of_all_are_bounded_and_given_back() {
        let limits = limits();
        let text = |length: usize| "x".repeat(length);
        let refused = |result: Result<(), RemoteError>| result.expect_err("full").to_string();
        let (mut first, mut second) = (object(), object());
        first.add_tag("a".into(), text(999), &limits).expect("room");
        first.set_name(text(1_000), &limits).expect("room");
        let more = first.add_tag("b".into(), text(1), &limits);
        assert_eq!(refused(more), "Reached object bytes limit: 2000");
        second.set_name(text(1_000), &limits).expect("room");
        let more = second.add_tag("b".into(), text(1), &limits);
        assert_eq!(refused(more), "Reached attached bytes limit: 3000");
        first.remove_tag("a", &limits);
        second.add_tag("b".into(), text(1), &limits).expect("room again");
        drop((first, second));
        assert_eq!(limits.attached.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn events_carry_both_timestamps_and_tags_on_request_only() {
        let mut object = object();
        object.add_tag("k".into(), "v".into(), &limits()).expect("room");
        let event = object.event(1_234_567, MediaSessionStarted {});
        assert_eq!(
            Value::Object(event.into_data()),
            serde_json::json!({"source": "p/e", "tags": [], "timestamp": "1234",
                "timestampMillis": "1234567", "type": "MediaSessionStarted"})
        );
        object.send_tags_in_events = true;
        assert_eq!(
            object.event(0, MediaSessionStarted {}).into_data()["tags"],
            serde_json::json!([{"__module__": "kurento", "__type__": "Tag", "key": "k", "value": "v"}])
        );
    }
}

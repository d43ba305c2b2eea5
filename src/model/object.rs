//! What every remote object has: a name, tags, a time of creation.

use serde_json::{Map, Value};

use super::class::Class;
use super::error::RemoteError;
use super::event::{Event, EventData};
use super::id::ObjectId;
use super::types::Tag;
use super::value::IntoValue;
use crate::config::Limits;

/// How much a client may attach to an object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectLimits {
    /// Tags; one more is refused.
    pub tags: usize,
    /// Bytes of a name, of a tag's key and of its value.
    pub text_bytes: usize,
}

impl From<&Limits> for ObjectLimits {
    fn from(limits: &Limits) -> Self {
        Self { tags: limits.tags, text_bytes: limits.text_bytes }
    }
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
            tag.1 = value;
        } else if self.tags.len() < limits.tags {
            self.tags.push((key, value));
        } else {
            let text = format!("Reached tags limit: {}", limits.tags);
            return Err(RemoteError::NotEnoughResources(text));
        }
        Ok(())
    }

    /// Removes a tag; an unknown key is no error.
    pub fn remove_tag(&mut self, key: &str) {
        self.tags.retain(|(known, _)| known != key);
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
        let mut data: Map<String, Value> = event.into_members();
        data.insert("source".to_owned(), Value::from(self.id.as_str()));
        let tags = if self.send_tags_in_events { self.tags() } else { Vec::new() };
        data.insert("tags".to_owned(), tags.into_value());
        data.insert("timestamp".to_owned(), Value::from((unix_millis / 1_000).to_string()));
        data.insert("timestampMillis".to_owned(), Value::from(unix_millis.to_string()));
        if E::CLASS.media {
            data.insert("type".to_owned(), Value::from(E::CLASS.name));
        }
        Event { source: self.id.clone(), class: E::CLASS, data }
    }
}

fn check_length(text: &str, limits: &ObjectLimits) -> Result<(), RemoteError> {
    let limit = limits.text_bytes;
    if text.len() > limit {
        return Err(RemoteError::NotEnoughResources(format!("Reached text bytes limit: {limit}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::class;
    use super::super::types::event::MediaSessionStarted;
    use super::*;

    const LIMITS: ObjectLimits = ObjectLimits { tags: 100, text_bytes: 1_000 };

    fn object() -> Object {
        let class = class::find("PassThrough").expect("described");
        Object::new(ObjectId::from("p/e"), class, Some(ObjectId::from("p")), 1_234_567)
    }

    #[test]
    fn a_name_is_the_id_until_it_is_set_and_after_it_is_emptied() {
        let mut object = object();
        assert_eq!(object.name(), "p/e");
        object.set_name("camera".to_owned(), &LIMITS).expect("short");
        assert_eq!(object.name(), "camera");
        object.set_name(String::new(), &LIMITS).expect("short");
        assert!(object.set_name("x".repeat(1_001), &LIMITS).is_err());
        assert_eq!(object.name(), "p/e");
    }

    #[test]
    fn tags_are_bounded_replaced_and_missed() {
        let mut object = object();
        for n in 0..100 {
            object.add_tag(n.to_string(), "x".to_owned(), &LIMITS).expect("below the limit");
        }
        assert_eq!(
            object.add_tag("more".into(), "x".into(), &LIMITS).map_err(|e| e.code()),
            Err(40009)
        );
        object.add_tag("7".into(), "y".into(), &LIMITS).expect("replaces");
        assert_eq!(object.tag("7").as_deref(), Ok("y"));
        object.remove_tag("7");
        assert_eq!(object.tag("7"), Err(RemoteError::TagNotFound));
    }

    #[test]
    fn events_carry_both_timestamps_and_tags_on_request_only() {
        let mut object = object();
        object.add_tag("k".into(), "v".into(), &LIMITS).expect("room");
        let event = object.event(1_234_567, MediaSessionStarted {});
        assert_eq!(
            Value::Object(event.data),
            serde_json::json!({"source": "p/e", "tags": [], "timestamp": "1234",
                "timestampMillis": "1234567", "type": "MediaSessionStarted"})
        );
        object.send_tags_in_events = true;
        assert_eq!(
            object.event(0, MediaSessionStarted {}).data["tags"],
            serde_json::json!([{"__module__": "kurento", "__type__": "Tag", "key": "k", "value": "v"}])
        );
    }
}

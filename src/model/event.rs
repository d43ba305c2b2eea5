//! What objects raise.

use std::fmt;

use serde_json::{Map, Value};

use super::class::EventClass;
use super::id::ObjectId;
use super::types::Tag;
use super::value::IntoValue;

/// An event as its source raised it. Most are raised for nobody, so it is kept as it is until somebody
/// turns out to have subscribed to it: only then it becomes what stands in a message.
#[derive(Debug)]
pub struct Event {
    pub source: ObjectId,
    pub class: &'static EventClass,
    pub(super) unix_millis: u64,
    pub(super) tags: Vec<Tag>,
    pub(super) own: Box<dyn OwnMembers>,
}

impl Event {
    /// All members; who delivers them adds nothing but the envelope.
    pub fn into_data(self) -> Map<String, Value> {
        let Self { source, class, unix_millis, tags, own } = self;
        let mut data = own.into_members();
        data.insert("source".to_owned(), Value::from(source.as_str()));
        data.insert("tags".to_owned(), tags.into_value());
        data.insert("timestamp".to_owned(), Value::from((unix_millis / 1_000).to_string()));
        data.insert("timestampMillis".to_owned(), Value::from(unix_millis.to_string()));
        if class.media {
            data.insert("type".to_owned(), Value::from(class.name));
        }
        data
    }
}

/// What an event says beyond what all events say; `build/` writes one type for each.
pub trait EventData: fmt::Debug + Send + 'static {
    const CLASS: &'static EventClass;
    fn into_members(self) -> Map<String, Value>;
}

/// The same, of whatever class.
pub(super) trait OwnMembers: fmt::Debug + Send {
    fn into_members(self: Box<Self>) -> Map<String, Value>;
}

impl<E: EventData> OwnMembers for E {
    fn into_members(self: Box<Self>) -> Map<String, Value> {
        E::into_members(*self)
    }
}

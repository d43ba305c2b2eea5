//! What objects raise.

use serde_json::{Map, Value};

use super::class::EventClass;
use super::id::ObjectId;

/// An event as its source raised it. `data` holds its own members; who delivers it adds nothing but
/// the envelope.
#[derive(Clone, Debug)]
pub struct Event {
    pub source: ObjectId,
    pub class: &'static EventClass,
    pub data: Map<String, Value>,
}

/// What an event says beyond what all events say; `build/` writes one type for each.
pub trait EventData {
    const CLASS: &'static EventClass;
    fn into_members(self) -> Map<String, Value>;
}

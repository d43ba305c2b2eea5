//! Which events anybody wants to hear of. Control notes what clients subscribed to; workers keep the rest to
//! themselves, so that nobody is woken for it. An endpoint that is being connected raises twenty events, and
//! most applications hear some candidates.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::event::Event;
use super::id::ObjectId;

/// By object, the names of events as clients used them. Bounded by the subscriptions that there may be.
#[derive(Debug, Default)]
pub struct Wanted(RwLock<HashMap<ObjectId, Vec<&'static str>>>);

impl Wanted {
    /// Somebody wants to hear of it, from now on.
    pub fn add(&self, object: &ObjectId, name: &'static str) {
        let mut wanted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let names = wanted.entry(object.clone()).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }

    /// Nobody does any more.
    pub fn remove(&self, object: &ObjectId, name: &str) {
        let mut wanted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = wanted.get_mut(object) {
            names.retain(|known| *known != name);
            if names.is_empty() {
                wanted.remove(object);
            }
        }
    }

    /// Whether anybody wants to hear of an event, under any of its names.
    pub fn includes(&self, event: &Event) -> bool {
        let wanted = self.0.read().unwrap_or_else(PoisonError::into_inner);
        wanted.get(&event.source).is_some_and(|names| {
            names.iter().any(|name| event.class.name == *name || event.class.legacy.contains(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::event::{IceGatheringDone, MediaSessionStarted};
    use crate::model::{EventData, Object, class};

    #[test]
    fn an_event_is_wanted_under_each_of_its_names_until_the_last_is_taken_back() {
        let class = class::find("PassThrough").expect("described");
        let [one, other] = ["p/a", "p/b"].map(ObjectId::from);
        let raise =
            |id: &ObjectId| Object::new(id.clone(), class, None, 0).event(0, IceGatheringDone {});
        let legacy = raise(&one).class.legacy[0];
        let wanted = Wanted::default();
        assert!(!wanted.includes(&raise(&one)));
        wanted.add(&one, IceGatheringDone::CLASS.name);
        wanted.add(&one, legacy);
        wanted.add(&one, legacy);
        wanted.add(&other, MediaSessionStarted::CLASS.name);
        assert!(wanted.includes(&raise(&one)) && !wanted.includes(&raise(&other)));
        wanted.remove(&one, IceGatheringDone::CLASS.name);
        assert!(wanted.includes(&raise(&one)));
        wanted.remove(&one, legacy);
        assert!(!wanted.includes(&raise(&one)));
        wanted.remove(&one, legacy);
        wanted.remove(&other, MediaSessionStarted::CLASS.name);
        assert!(wanted.0.read().expect("whole").is_empty());
    }
}

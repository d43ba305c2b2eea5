//! One operation under way: the object it is about and all that it may touch.

use super::Pipeline;
use super::classes::Body;
use crate::elements::{Context, Moment, Net, ObjectKey, Owner};
use crate::model::{Event, EventData, ObjectId, RemoteError};

pub(super) struct Call<'a> {
    pub pipeline: &'a mut Pipeline,
    pub at: Moment,
    pub net: &'a mut Net,
    pub events: &'a mut Vec<Event>,
    pub key: ObjectKey,
    pub owner: Owner,
}

impl Call<'_> {
    /// Runs `f` on the body of the object, with what a body may touch.
    pub fn with_body<R>(&mut self, f: impl FnOnce(&mut Body, &mut Context<'_>) -> R) -> R {
        let Pipeline { objects, router, peers, plain_peers, ids, stale, .. } = &mut *self.pipeline;
        let entry = &mut objects[self.key];
        let mut changed = false;
        let mut cx = Context {
            at: self.at,
            owner: self.owner,
            object: &mut entry.object,
            router,
            peers,
            plain_peers,
            net: self.net,
            events: self.events,
            ids,
            stale: &mut changed,
        };
        let result = f(&mut entry.body, &mut cx);
        if changed {
            stale.changed(self.key);
        }
        result
    }

    /// Raises an event of the object.
    pub fn raise<E: EventData>(&mut self, event: E) {
        let object = &self.pipeline.objects[self.key].object;
        self.events.push(object.event(self.at.unix_millis, event));
    }

    /// Another object of the same pipeline.
    ///
    /// # Errors
    /// [`RemoteError::OtherPipeline`]
    pub fn neighbour(&self, id: &ObjectId) -> Result<ObjectKey, RemoteError> {
        self.pipeline.ids.get(id).copied().ok_or(RemoteError::OtherPipeline)
    }
}

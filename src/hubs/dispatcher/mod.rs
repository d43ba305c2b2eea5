//! Connects its ports one by one: everything that enters one port leaves by another.

use std::collections::HashMap;

use crate::elements::{Context, Node, ObjectKey};
use crate::model::{ObjectId, RemoteError};

#[derive(Default)]
pub struct Dispatcher {
    /// Sink port → the port that feeds it.
    sources: HashMap<ObjectKey, ObjectKey>,
}

impl Dispatcher {
    /// # Errors
    /// None.
    pub fn new(_: &mut Context<'_>) -> Result<Self, RemoteError> {
        Ok(Self::default())
    }

    /// Gives the media of `source` to `sink`, in place of what `sink` got before.
    ///
    /// # Errors
    /// [`RemoteError::Connect`] unless both are ports of this hub.
    pub fn connect(
        &mut self,
        cx: &mut Context<'_>,
        source: ObjectId,
        sink: ObjectId,
    ) -> Result<(), RemoteError> {
        match (cx.child(&source), cx.child(&sink)) {
            (Some(source), Some(sink)) => {
                self.sources.insert(sink, source);
                *cx.stale = true;
                Ok(())
            }
            _ => Err(RemoteError::Connect("Can not connect ports")),
        }
    }
}

impl Node for Dispatcher {
    fn feeds(&self, port: ObjectKey) -> Option<ObjectKey> {
        self.sources.get(&port).copied()
    }

    fn forget(&mut self, port: ObjectKey) {
        self.sources.retain(|sink, source| *sink != port && *source != port);
    }
}

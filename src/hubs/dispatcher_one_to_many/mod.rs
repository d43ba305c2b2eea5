//! Gives the media of one port to all ports, itself included.

use crate::elements::{Context, Node, ObjectKey};
use crate::model::{ObjectId, RemoteError};

#[derive(Default)]
pub struct DispatcherOneToMany {
    source: Option<ObjectKey>,
}

impl DispatcherOneToMany {
    /// # Errors
    /// None.
    pub fn new(_: &mut Context<'_>) -> Result<Self, RemoteError> {
        Ok(Self::default())
    }

    /// Gives the media of `source` to all ports.
    ///
    /// # Errors
    /// [`RemoteError::Connect`] unless it is a port of this hub.
    pub fn set_source(
        &mut self,
        cx: &mut Context<'_>,
        source: ObjectId,
    ) -> Result<(), RemoteError> {
        let port = cx.child(&source).ok_or(RemoteError::Connect("Can not connect ports"))?;
        self.source = Some(port);
        *cx.stale = true;
        Ok(())
    }

    /// Gives no media to anybody.
    ///
    /// # Errors
    /// None.
    pub fn remove_source(&mut self, cx: &mut Context<'_>) -> Result<(), RemoteError> {
        self.source = None;
        *cx.stale = true;
        Ok(())
    }
}

impl Node for DispatcherOneToMany {
    fn feeds(&self, _: ObjectKey) -> Option<ObjectKey> {
        self.source
    }

    fn forget(&mut self, port: ObjectKey) {
        if self.source == Some(port) {
            self.source = None;
        }
    }
}

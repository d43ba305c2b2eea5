//! Names of remote objects.
//!
//! A pipeline is `<uuid>_kurento.MediaPipeline`; whatever lives below it is
//! `<id of its parent>/<uuid>_<qualified class>`. Clients rely on both forms.

use std::fmt;
use std::sync::Arc;

use super::class::Class;

/// The id of a remote object. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectId(Arc<str>);

impl ObjectId {
    /// The one server manager.
    pub const SERVER_MANAGER: &'static str = "manager_ServerManager";

    /// A new id for an object of `class` below `parent`.
    pub fn new(class: &Class, parent: Option<&ObjectId>) -> Self {
        let uuid = uuid::Uuid::new_v4();
        Self(match parent {
            Some(parent) => format!("{parent}/{uuid}_{}", class.qualified).into(),
            None => format!("{uuid}_{}", class.qualified).into(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the pipeline it belongs to: its own for a pipeline.
    pub fn pipeline(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

impl From<&str> for ObjectId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ObjectId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

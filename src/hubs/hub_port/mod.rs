//! The door of a hub: an element whose sink feeds the hub and whose source gives what the hub has
//! for it.

use crate::elements::{Context, Gives, Node};
use crate::model::RemoteError;

pub struct HubPort;

impl HubPort {
    /// # Errors
    /// None.
    pub fn new(_: &mut Context<'_>) -> Result<Self, RemoteError> {
        Ok(Self)
    }
}

impl Node for HubPort {
    fn gives(&self) -> Gives {
        Gives::OfHub
    }
}

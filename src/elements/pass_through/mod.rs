//! Hands on whatever it receives. The graph looks through it: a packet never stops here.

use super::{Context, Gives, Node};
use crate::model::RemoteError;

pub struct PassThrough;

impl PassThrough {
    /// # Errors
    /// None.
    pub fn new(_: &mut Context<'_>) -> Result<Self, RemoteError> {
        Ok(Self)
    }
}

impl Node for PassThrough {
    fn gives(&self) -> Gives {
        Gives::Received
    }
}

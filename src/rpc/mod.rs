//! The Kurento Protocol: requests in, replies and events out.
//!
//! [`jsonrpc`](crate::jsonrpc) has read a request and knows who speaks. `dispatch` finds out what is
//! wanted, and either answers at once, asks the server manager, or sends a command to the worker that
//! owns the object and waits; `transaction` does so for several requests. What workers tell comes back
//! through [`Control::handle_notice`] in order, so that events a request caused are queued to its
//! connection before its reply. Sockets and the clock are not here; see `web` and `server`.

pub mod delivery;
pub mod server_manager;
pub mod transaction;

mod control;
mod dispatch;
mod resources;

pub use control::{Control, Media};

//! The Kurento Protocol: JSON-RPC requests in, replies and events out.
//!
//! A request takes this way: `message` reads it, `dispatch` finds out who speaks (`session`) and
//! what is wanted, and either answers at once, asks the server manager, or sends a command to the
//! worker that owns the object and waits. What workers tell comes back through
//! [`Control::handle_notice`] in order, so that events a request caused are queued to its
//! connection before its reply. Sockets and the clock are not here; see `web` and `server`.

pub mod delivery;
pub mod message;
pub mod server_manager;
pub mod session;

mod control;
mod dispatch;

pub use control::{Control, Media};

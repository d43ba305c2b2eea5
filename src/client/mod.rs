//! The other end of the wire: a client of this server, and of any that speaks the same protocol.
//!
//! [`Client`] is JSON-RPC 2.0 over a WebSocket with sessions that outlive it: requests from many
//! tasks over one connection, time-outs, a heartbeat, and reconnection under the same session.
//! [`Kurento`] stands on it and has a Rust type for each remote class, written by the build script
//! from the same descriptors that the server is written from.
//!
//! What decides is [`machine::Machine`], which is told the time and does no I/O; `connection` is the
//! shell with the socket and the timer. Left out: JSON-RPC batches, compression, subprotocols.

pub mod kurento;
pub mod machine;
pub mod message;

mod connection;
mod error;
mod options;
mod queue;
mod tls;

pub use connection::{Client, Listener, Notifications};
pub use error::ClientError;
pub use kurento::Kurento;
pub use machine::{ConnectionEvent, Counters};
pub use message::Notification;
pub use options::{Options, Reconnect, Token, Trust};

//! JSON-RPC 2.0 over a connection that carries texts, the server's side: what the Kurento Protocol
//! and other protocols of its family have in common.
//!
//! A text takes this way through [`Server::request`]: `message` reads it within its limits, `session`
//! says who speaks, `answers` knows whether the same was asked and answered before, the [`Handler`]
//! carries it out and may take its time, and the reply binds the connection to the session it names.
//! [`Server::notify`] goes the other way, into the bounded `queue` of the connection that a session is
//! bound to. Sessions outlive connections; how long, and whether a connection must ping, is the
//! protocol's to choose.
//!
//! Left out: batches, and requests from the server to the client. Sockets and the clock are not here;
//! who may open a connection at all (tokens, origins, their number) is decided at the door, in `web`.

pub mod answers;
pub mod message;
pub mod queue;
pub mod session;

mod server;

pub use message::{Error, Params, Request};
pub use queue::{Farewell, Inbox, Messages};
pub use server::{Caller, Handler, Policy, Server};
pub use session::{ConnectionId, Expiry, SessionId};

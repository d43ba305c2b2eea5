//! `rivero bench`: fills a live server with calls and says what it made of them.
//!
//! It is a client like any other: it speaks the Kurento Protocol over [`rivero::client`] and media over
//! sessions of [`rivero::transport`], so it can be pointed at any server of that protocol. Nothing of
//! the server imports it; it lies beside the benchmarks and is part of the program alone.
//!
//! * [`scenario`] is what is done: who joins, who watches whom. [`crowd`] are those who do it,
//!   [`churn`] lets them come and go, and [`search`] looks for how many of them a server bears.
//! * [`suite`] is all of it, several times each, and a table of what came of it.
//! * [`stage`] is what scenarios stand on: the connection, the media threads, the readings.
//! * [`join`] brings one client into a call; [`offer`] is what it says of itself.
//! * [`media`] is the thread that carries the clients, [`client`] one of them, [`publisher`] what it
//!   sends, [`stream`] what it makes of what it gets, [`feedback`] what it tells of that, [`stamp`] the
//!   payload, and [`chat`] what it says over data channels.
//! * [`process`] watches the server's process; [`own`] is one that is started for the run; [`floor`] is what
//!   the machine itself takes.
//! * [`report`] is the result, [`page`] the same to look at.
//!
//! Left out so far: IPv6 for media, asking for lost packets again, recording and mixing.

mod chat;
mod churn;
mod client;
mod command;
mod crowd;
mod feedback;
mod floor;
mod histogram;
mod join;
mod media;
mod offer;
mod own;
mod page;
mod plot;
mod process;
mod progress;
mod publisher;
mod report;
mod scenario;
mod search;
mod sockets;
mod stage;
mod stamp;
mod stream;
mod suite;
#[cfg(test)]
mod tests;

pub use command::{command, main};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("no server at {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("the server refuses to {what}: {reason}")]
    Refused { what: &'static str, reason: String },
    #[error("not even the smallest load is borne: {0}")]
    Overloaded(String),
    #[error("nobody could join: {0}")]
    NobodyJoined(String),
    #[error("this machine does not bear it: {0}")]
    Machine(#[from] std::io::Error),
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
}

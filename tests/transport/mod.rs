//! The transport over real sockets: against itself, and against a peer of other making.

mod driver;
mod independent_peer;
mod loopback;
mod network;
mod whole_server;

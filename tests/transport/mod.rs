//! The transport over real sockets: against itself, and against a peer of other making.

mod driver;
mod hostile;
mod ice_restart;
mod independent_data;
mod independent_peer;
mod loopback;
mod network;
mod plain_rtp;
mod whole_server;

//! Rivero: a WebRTC media server that speaks the Kurento Protocol.
//!
//! The folders in reading order, from the bytes on the wire to the words of the remote API. A folder
//! imports from those above it in this list only; `tests/house.rs` checks that.

pub mod clock;
pub mod config;
pub mod metrics;
pub mod prefetch;
pub mod rtp;

pub mod bandwidth;
pub mod jsonrpc;
pub mod logs;
pub mod model;
pub mod sdp;

pub mod router;
pub mod transport;

pub mod elements;
pub mod hubs;

pub mod pipeline;

pub mod client;
pub mod registrar;
pub mod rpc;
pub mod web;

pub mod doctor;
pub mod server;

//! What tests of more than one module share.

pub mod client;
pub mod link;
pub mod memory;
pub mod outside;
pub mod peer;
pub mod program;
pub mod proxy;
pub mod rtp_peer;
pub mod server;
pub mod stun;
pub mod turn;

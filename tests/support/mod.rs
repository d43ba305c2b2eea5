//! What several tests lean on.

pub mod link;
//! What tests of more than one module share.

pub mod client;
pub mod server;

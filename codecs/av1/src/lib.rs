//! AV1 as it travels in RTP (RTP Payload Format For AV1, Alliance for Open Media).
//!
//! Only what forwarding needs: the payload descriptor, where a decoder can start, and which layer a packet
//! is of. Pictures are neither decoded nor encoded here.

#![forbid(unsafe_code)]

pub mod dependency;
pub mod payload;

pub use dependency::Structure;
pub use payload::starts_keyframe;

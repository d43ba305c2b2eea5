//! AV1 as it travels in RTP (RTP Payload Format For AV1, Alliance for Open Media).
//!
//! Only what forwarding needs: the payload descriptor and where a decoder can start. Pictures are
//! neither decoded nor encoded here.

#![forbid(unsafe_code)]

pub mod payload;

pub use payload::starts_keyframe;

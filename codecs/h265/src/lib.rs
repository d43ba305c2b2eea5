//! H.265 as it travels in RTP (RFC 7798).
//!
//! Only what forwarding needs: the payload structures and where a decoder can start. Pictures are
//! neither decoded nor encoded here.

#![forbid(unsafe_code)]

pub mod payload;

pub use payload::starts_keyframe;

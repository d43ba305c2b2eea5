//! VP9 as it travels in RTP (RFC 9628).
//!
//! Only what forwarding needs: the payload descriptor and where a decoder can start. Pictures are
//! neither decoded nor encoded here.

#![forbid(unsafe_code)]

pub mod payload;

pub use payload::{Descriptor, keyframe_size, starts_keyframe};

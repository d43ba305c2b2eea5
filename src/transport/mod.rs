//! Datagrams ↔ RTP.

pub mod srtp;

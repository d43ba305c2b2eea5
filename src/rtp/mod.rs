//! RFC 3550 as numbers: packets, sequence numbers, statistics and control packets, without sockets,
//! clocks or codecs.

pub mod format;

pub use format::{Codec, Format, Kind};

//! Everything that needs more than one module: one binary, so that it links once.

mod api;
mod bandwidth;
mod house;
mod media;
mod operate;
mod protocol;
mod replay;
mod support;
mod transport;

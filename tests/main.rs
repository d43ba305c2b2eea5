//! Everything that needs more than one module: one binary, so that it links once.

mod api;
mod house;
mod media;
mod protocol;
mod replay;
mod operate;
mod support;
mod transport;

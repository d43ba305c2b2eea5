//! What a remote object is: classes, values, ids, errors and events. No media, no I/O.
//!
//! Everything here is driven by descriptors; see `descriptor.rs` for their format.

pub mod class;
pub mod error;
pub mod event;
pub mod id;
pub mod object;
pub mod registry;
pub mod types;
pub mod value;
pub mod wanted;

#[cfg(test)]
mod tests;

pub use class::{Class, EventClass, Method};
pub use error::{RemoteError, SdpFailure};
pub use event::{Event, EventData};
pub use id::ObjectId;
pub use object::{Object, ObjectLimits};
pub use registry::Registry;
pub use value::{Arg, Args, FromArg, IntoValue, reply};
pub use wanted::Wanted;

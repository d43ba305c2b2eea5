//! The Kurento client: a Rust type for each remote class, method, event and value.
//!
//! ```no_run
//! # async fn example(offer: &str) -> Result<(), rivero::client::ClientError> {
//! use rivero::client::{Kurento, kurento::events::IceCandidateFound};
//!
//! let kurento = Kurento::connect("ws://localhost:8888/kurento").await?;
//! let pipeline = kurento.create_media_pipeline().await?;
//! let endpoint = pipeline.create_web_rtc_endpoint().use_data_channels(true).await?;
//! let mut candidates = endpoint.on::<IceCandidateFound>().await?;
//! let answer = endpoint.process_offer(offer).await?;
//! endpoint.gather_candidates().await?;
//! while let Some(found) = candidates.next().await {
//!     println!("{}", found.candidate.candidate);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Classes, builders of calls with optional parameters, events and the reading of values are written
//! by the build script from the descriptors. A class dereferences to the one it extends, so methods
//! are inherited, and a `&WebRtcEndpoint` passes for a `&MediaElement`. What is dropped here is not
//! released there: an object lives on the server until it is released, or its last session ends.
//!
//! A register that refers to objects does so by their ids; [`Kurento::object`] makes a handle of one.

mod decode;
mod event;
mod handle;
mod transaction;

pub use decode::Decode;
pub use event::{Event, EventCounters, EventKind, Events};
pub use handle::{Handle, Kurento, RemoteClass};
pub use transaction::{Committed, Step, Transaction};

/// Enums and registers.
pub use crate::model::types;

pub use generated::*;

/// What the build script wrote.
mod generated {
    // Written from the descriptors, with every path in full.
    #![allow(unused_qualifications)]

    use std::collections::BTreeMap;
    use std::ops::Deref;
    use std::pin::Pin;
    use std::sync::Arc;

    use serde_json::{Map, Value};

    use super::decode::{Decode, Members, unknown};
    use super::handle::{Call, Create, Handle, Link, RemoteClass};
    use crate::client::error::ClientError;
    use crate::model::IntoValue;
    use crate::model::class::{self, Class};

    include!(concat!(env!("OUT_DIR"), "/client.rs"));
}

#[cfg(test)]
mod tests;

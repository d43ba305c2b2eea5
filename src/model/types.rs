//! Complex types and events of the remote API, written by `build/` from the descriptors.
//!
//! A register's members carry its ancestors' too. On the wire it names itself with `__type__` and
//! `__module__`, and optional members that are not set are left out.

use serde_json::{Map, Value};

use super::class::{self, EventClass};
use super::event::EventData;
use super::id::ObjectId;
use super::value::{Arg, FromArg, IntoValue};

include!(concat!(env!("OUT_DIR"), "/types.rs"));

//! What `build/` writes from the descriptors: the bodies an object can have, how they are made, and
//! which function carries out which operation.

use serde_json::Value;

use super::call::Call;
use crate::elements::{Context, Node};
use crate::model::{Arg, Args, Class, FromArg, Method, RemoteError, reply};

include!(concat!(env!("OUT_DIR"), "/classes.rs"));

/// What a pipeline is to the graph inside it.
struct NoMedia;

impl Node for NoMedia {}

fn next<T: FromArg>(args: &mut std::vec::IntoIter<Option<Arg>>) -> T {
    T::from_arg(args.next().flatten())
}

fn undeclared(method: &'static Method) -> ! {
    unreachable!("{} was looked up in the table that this match is written from", method.name)
}

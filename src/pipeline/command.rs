//! What a worker accepts and what it tells: the whole seam between control and media.

use serde_json::Value;
use tokio::sync::oneshot;

use crate::model::{Args, Class, Event, Method, ObjectId, RemoteError};

/// Which media worker a pipeline lives on.
pub type WorkerId = usize;

/// What control asks of the worker that owns a pipeline. Arguments have been checked against the
/// descriptors, and objects named in them existed when they were.
#[derive(Debug)]
pub enum Command {
    /// Makes an object under an id of control's choice. A pipeline has no parent.
    Create { class: &'static Class, id: ObjectId, parent: Option<ObjectId>, args: Args },
    /// Carries out an operation of an object.
    Invoke { object: ObjectId, method: &'static Method, args: Args },
    /// Destroys an object with its children; an unknown one is no error.
    Release { object: ObjectId },
}

/// Where the answer to a command goes. Dropped without an answer only when the worker is gone.
pub type Ticket = oneshot::Sender<Result<Value, RemoteError>>;

/// What workers tell control, in the order in which it happened on that worker: events that a
/// command caused come before its reply.
#[derive(Debug)]
pub enum Notice {
    Created { id: ObjectId, class: &'static Class, parent: Option<ObjectId>, home: WorkerId },
    Destroyed { id: ObjectId },
    Event(Event),
    Reply { ticket: Ticket, result: Result<Value, RemoteError> },
}

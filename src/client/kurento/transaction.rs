//! Several operations in one request, later ones naming what earlier ones made.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::handle::{Handle, Kurento, RemoteClass, value_of};
use crate::client::error::ClientError;
use crate::client::message::{self, Incoming};
use crate::model::ObjectId;

/// Operations that go to the server together with [`Self::commit`]. The server stops at the first
/// that fails; what came before it stays.
#[derive(Debug)]
pub struct Transaction {
    kurento: Kurento,
    operations: Vec<Value>,
}

/// What an operation of a transaction will answer. In the parameters of later ones it stands for the
/// object that it creates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step(usize);

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("newref:{}", self.0))
    }
}

impl Transaction {
    pub(super) fn new(kurento: Kurento) -> Self {
        Self { kurento, operations: Vec::new() }
    }

    /// Any method with its parameters.
    pub fn add(&mut self, method: &str, params: Value) -> Step {
        let id = self.operations.len();
        let operation = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.operations.push(operation);
        Step(id)
    }

    /// Creates an object of class `T`, with its constructor's parameters.
    pub fn create<T: RemoteClass>(&mut self, params: Value) -> Step {
        self.add("create", json!({"type": T::CLASS.qualified, "constructorParams": params}))
    }

    /// Invokes an operation; `object` is an id, or the step that creates it.
    pub fn invoke(&mut self, object: impl Serialize, operation: &str, params: Value) -> Step {
        let params = json!({"object": object, "operation": operation, "operationParams": params});
        self.add("invoke", params)
    }

    /// Carries the operations out.
    ///
    /// # Errors
    /// Any [`ClientError`]; that of the first operation that failed, if one did.
    pub async fn commit(self) -> Result<Committed, ClientError> {
        let params = json!({"operations": self.operations});
        let result = self.kurento.client().call("transaction", params).await?;
        Ok(Committed { values: read(value_of(result))?, kurento: self.kurento })
    }
}

/// The `value` of each operation's result.
fn read(replies: Value) -> Result<Vec<Value>, ClientError> {
    let Value::Array(replies) = replies else {
        return Err(ClientError::Decode("a transaction without replies".to_owned()));
    };
    let value = |reply: Value| match message::take(reply) {
        Ok(Incoming::Reply { result, .. }) => result.map(value_of),
        _ => Err(ClientError::Decode("an operation without a reply".to_owned())),
    };
    replies.into_iter().map(value).collect()
}

/// What the operations of a transaction answered.
#[derive(Debug)]
pub struct Committed {
    kurento: Kurento,
    values: Vec<Value>,
}

impl Committed {
    /// What a step answered; null where it answered nothing.
    pub fn value(&self, step: Step) -> &Value {
        self.values.get(step.0).unwrap_or(&Value::Null)
    }

    /// The object that a step created.
    ///
    /// # Errors
    /// [`ClientError::Decode`] when it created none.
    pub fn object<T: RemoteClass>(&self, step: Step) -> Result<T, ClientError> {
        let id = self.value(step).as_str();
        let id = id.ok_or_else(|| ClientError::Decode("a step that created nothing".to_owned()))?;
        let link = self.kurento.link();
        Ok(T::from_handle(Handle::new(link, ObjectId::from(id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_the_operation_that_failed_is_the_error_of_all() {
        let first = json!({"id": 0, "jsonrpc": "2.0", "result": {"value": "a", "sessionId": "s"}});
        let void = json!({"id": 1, "jsonrpc": "2.0", "result": {"sessionId": "s"}});
        let failed = json!({"id": 2, "error": {"code": 40101, "message": "gone"}});
        assert_eq!(read(json!([first, void])), Ok(vec![json!("a"), Value::Null]));
        let error = read(json!([first, failed])).expect_err("it failed");
        assert_eq!(error.code(), Some(40101));
        assert!(matches!(read(Value::Null), Err(ClientError::Decode(_))));
        assert!(matches!(read(json!([1])), Err(ClientError::Decode(_))));
    }

    #[test]
    fn a_step_stands_for_what_it_creates() {
        assert_eq!(json!({"sink": Step(3)}), json!({"sink": "newref:3"}));
    }
}

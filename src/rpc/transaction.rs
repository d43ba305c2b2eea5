//! Several requests in one, and one answer.
//!
//! Operation `n` has the id `n`, or none. A text `newref:m` anywhere in its parameters stands for the
//! value that operation `m` answered. The first operation that fails is the last one; what was done
//! until then stays done. A reference to nothing fails the whole transaction.

use serde_json::{Map, Value};

use super::control::Control;
use super::dispatch::{Answer, SessionOf, valued};
use crate::jsonrpc::{Caller, Error, Params, Request, message};
use crate::model::RemoteError;

const REFERENCE: &str = "newref:";

/// What a transaction may still do, those inside it included.
#[derive(Debug)]
pub(super) struct Budget {
    pub operations: usize,
    /// Bytes of answers, and of what references put in their place.
    pub bytes: usize,
}

impl Control {
    /// # Errors
    /// [`RemoteError::Malformed`] for ids out of order and for references to nothing,
    /// [`RemoteError::NotEnoughResources`] beyond a limit.
    pub(super) async fn transaction(
        &self,
        caller: &Caller,
        params: Params,
        budget: &mut Budget,
    ) -> Answer {
        let operations = match params {
            Params::Members(mut members) => match members.remove("operations") {
                Some(Value::Array(operations)) => operations,
                Some(_) => return Err(Error::WrongType("operations", "an array")),
                None => return Err(Error::Missing("operations")),
            },
            Params::None => return Err(Error::NoParams),
            Params::Other => return Err(Error::WrongParams),
        };
        let left = budget.operations.checked_sub(operations.len());
        let limit = self.limits.operations;
        budget.operations = left.ok_or(Error::TooMuch { what: "operations", limit })?;
        check_ids(&operations)?;
        let session = caller.session_or_new();
        let caller = Caller { connection: caller.connection, session: Some(session.clone()) };
        let mut replies: Vec<Value> = Vec::with_capacity(operations.len());
        for (id, mut operation) in operations.into_iter().enumerate() {
            if let Some(params) = operation.get_mut("params") {
                substitute(params, &replies, &mut budget.bytes).map_err(|error| match error {
                    Failure::Reference(text) => RemoteError::Malformed(text).into(),
                    Failure::Bytes => self.too_long(),
                })?;
            }
            let result = match message::request(operation) {
                Ok(Request { method, params, .. }) => {
                    let params = match params {
                        Params::None => Params::Members(Map::new()),
                        given => given,
                    };
                    Box::pin(self.answer(&caller, &method, params, budget)).await
                }
                Err(error) => Err(error),
            };
            let failed = result.is_err();
            let reply = message::envelope(Value::from(id), result);
            budget.bytes =
                budget.bytes.checked_sub(weight(&reply)).ok_or_else(|| self.too_long())?;
            replies.push(reply);
            if failed {
                break;
            }
        }
        Ok(valued(&session, Value::Array(replies)))
    }

    fn too_long(&self) -> Error {
        Error::TooMuch { what: "transaction bytes", limit: self.limits.message_bytes }
    }
}

/// Ids are the positions, where there are any.
fn check_ids(operations: &[Value]) -> Result<(), RemoteError> {
    let wrong = operations.iter().enumerate().find(|(position, operation)| {
        let id = operation.get("id").filter(|id| !id.is_null());
        id.is_some_and(|id| id.as_u64() != Some(*position as u64))
    });
    match wrong {
        Some((position, _)) => Err(RemoteError::Malformed(format!(
            "Id of request '{position}' should be '{position}'"
        ))),
        None => Ok(()),
    }
}

/// Why references could not be put in place.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// What is wrong with one of them.
    Reference(String),
    /// The values they stand for are too long together.
    Bytes,
}

/// Puts the values of earlier replies in the place of all references inside `value`; `bytes` is how
/// much may still be put in.
///
/// # Errors
/// [`Failure`]
pub fn substitute(value: &mut Value, replies: &[Value], bytes: &mut usize) -> Result<(), Failure> {
    match value {
        Value::String(text) => {
            let Some(position) = text.strip_prefix(REFERENCE).filter(|rest| !rest.is_empty())
            else {
                return Ok(());
            };
            let number: i64 = position
                .parse()
                .map_err(|_| Failure::Reference(format!("Invalid index of newref '{position}'")))?;
            let reply = usize::try_from(number).ok().and_then(|position| replies.get(position));
            let referred = reply.and_then(|reply| reply.get("result")?.get("value"));
            let referred = referred.filter(|value| !value.is_null()).ok_or_else(|| {
                Failure::Reference(format!("Result not found on request {number}"))
            })?;
            *bytes = bytes.checked_sub(weight(referred)).ok_or(Failure::Bytes)?;
            *value = referred.clone();
            Ok(())
        }
        Value::Array(items) => {
            items.iter_mut().try_for_each(|item| substitute(item, replies, bytes))
        }
        Value::Object(members) => {
            members.values_mut().try_for_each(|member| substitute(member, replies, bytes))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// About as many bytes as the value takes, in memory or as text.
fn weight(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| name.len() + weight(member)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    inside + size_of::<Value>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn put(mut value: Value, replies: &[Value]) -> Result<Value, Failure> {
        let mut bytes = 10_000;
        substitute(&mut value, replies, &mut bytes).map(|()| value)
    }

    fn replies() -> Vec<Value> {
        vec![
            json!({"id": 0, "result": {"value": "p"}}),
            json!({"id": 1, "result": {"value": {"a": [1]}}}),
            json!({"id": 2, "result": {"value": null}}),
        ]
    }

    fn failure(text: &str) -> Result<Value, Failure> {
        Err(Failure::Reference(text.to_owned()))
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        let given =
            json!({"a": "newref:0", "b": [{"c": "newref:1"}], "d": "x newref:0", "newref:0": 1});
        let expected =
            json!({"a": "p", "b": [{"c": {"a": [1]}}], "d": "x newref:0", "newref:0": 1});
        assert_eq!(put(given, &replies()), Ok(expected));
        assert_eq!(put(json!("newref:"), &replies()), Ok(json!("newref:")));
    }

    #[test]
    fn references_to_nothing_are_named() {
        assert_eq!(put(json!("newref:abc"), &replies()), failure("Invalid index of newref 'abc'"));
        for nothing in [2, 3, -1] {
            assert_eq!(
                put(json!(format!("newref:{nothing}")), &replies()),
                failure(&format!("Result not found on request {nothing}"))
            );
        }
    }

    #[test]
    fn what_references_put_in_is_bounded() {
        let long = json!({"result": {"value": "x".repeat(1_000)}});
        let many = Value::from(vec!["newref:0"; 11]);
        assert_eq!(put(many, &[long]), Err(Failure::Bytes));
    }

    #[test]
    fn ids_are_positions() {
        let with =
            |ids: &[Value]| -> Vec<Value> { ids.iter().map(|id| json!({ "id": id })).collect() };
        assert!(check_ids(&with(&[json!(0), json!(null), json!(2)])).is_ok());
        assert!(check_ids(&[json!({}), json!(5)]).is_ok());
        for wrong in [json!(5), json!("0"), json!(0.5), json!([])] {
            let error = check_ids(&with(&[wrong])).expect_err("out of order");
            assert_eq!(error.to_string(), "Id of request '0' should be '0'");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z:0-9]{0,12}".prop_map(Value::from),
            "newref:[0-9a-]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-z]{0,4}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn has_reference(value: &Value) -> bool {
        match value {
            Value::String(text) => text.len() > REFERENCE.len() && text.starts_with(REFERENCE),
            Value::Array(items) => items.iter().any(has_reference),
            Value::Object(members) => members.values().any(has_reference),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn what_was_put_in_leaves_no_reference_and_changes_nothing_else(value in any_json()) {
            match put(value.clone(), &replies()) {
                Ok(done) => {
                    prop_assert!(!has_reference(&done));
                    prop_assert!(has_reference(&value) || done == value);
                }
                Err(Failure::Reference(_)) => prop_assert!(has_reference(&value)),
                Err(Failure::Bytes) => prop_assert!(weight(&value) > 100),
            }
        }
    }
}

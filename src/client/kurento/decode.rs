//! From what a server answers to Rust.
//!
//! Servers write numbers as text here and there, and the other way round, so scalars are read
//! generously. A member that is missing, or an enum's value that is not known, is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::handle::Link;
use crate::client::error::ClientError;
use crate::model::ObjectId;

/// A Rust type that a value of the remote API is read into.
pub trait Decode: Sized {
    /// Reads a value; objects it refers to are reached over `link`.
    ///
    /// # Errors
    /// [`ClientError::Decode`].
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError>;
}

fn wrong(wanted: &str, value: &Value) -> ClientError {
    let shown: String = value.to_string().chars().take(80).collect();
    ClientError::Decode(format!("{wanted} expected, not {shown}"))
}

/// The error for an enum's value that is not in its descriptor.
pub(super) fn unknown(name: &str, value: &Value) -> ClientError {
    wrong(&format!("one of {name}"), value)
}

impl Decode for () {
    fn decode(_: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        Ok(())
    }
}

impl Decode for Value {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        Ok(value)
    }
}

impl Decode for String {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        match value {
            Value::String(text) => Ok(text),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            Value::Null => Ok(String::new()),
            _ => Err(wrong("text", &value)),
        }
    }
}

impl Decode for ObjectId {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        value.as_str().map(ObjectId::from).ok_or_else(|| wrong("an object's id", &value))
    }
}

impl Decode for bool {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        match &value {
            Value::Bool(flag) => Ok(*flag),
            Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
            _ => Err(wrong("a boolean", &value)),
        }
    }
}

impl Decode for i64 {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        let number = match &value {
            Value::Number(number) => number.as_i64().or_else(|| {
                number.as_f64().filter(|real| real.abs() < 9e18).map(|real| real as i64)
            }),
            Value::String(text) => text.parse().ok(),
            Value::Bool(flag) => Some(i64::from(*flag)),
            _ => None,
        };
        number.ok_or_else(|| wrong("an integer", &value))
    }
}

impl Decode for i32 {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        let number = i64::decode(value, link)?;
        number.try_into().map_err(|_| wrong("an integer of 32 bits", &Value::from(number)))
    }
}

impl Decode for f64 {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            // JSON has no other word for what is no number.
            Value::Null => Some(f64::NAN),
            _ => None,
        };
        number.ok_or_else(|| wrong("a number", &value))
    }
}

impl Decode for f32 {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        f64::decode(value, link).map(|number| number as f32)
    }
}

/// A reference to no object is null, or an id without letters.
impl<T: Decode> Decode for Option<T> {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            value => T::decode(value, link).map(Some),
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        match value {
            Value::Array(items) => items.into_iter().map(|item| T::decode(item, link)).collect(),
            Value::Null => Ok(Self::new()),
            other => Err(wrong("a list", &other)),
        }
    }
}

/// Some servers send null for an empty map.
impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {
        let members = Map::decode(value, link)?;
        members.into_iter().map(|(key, value)| Ok((key, T::decode(value, link)?))).collect()
    }
}

impl Decode for Map<String, Value> {
    fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {
        match value {
            Value::Object(members) => Ok(members),
            Value::Null => Ok(Self::new()),
            other => Err(wrong("a map", &other)),
        }
    }
}

/// The members of a register or of an event.
pub struct Members {
    name: &'static str,
    members: Map<String, Value>,
}

impl Members {
    /// # Errors
    /// [`ClientError::Decode`] when the value has no members.
    pub fn of(name: &'static str, value: Value) -> Result<Self, ClientError> {
        match value {
            Value::Object(members) => Ok(Self { name, members }),
            other => Err(wrong(name, &other)),
        }
    }

    /// # Errors
    /// [`ClientError::Decode`] when it is missing or of another kind.
    pub fn take<T: Decode>(&mut self, member: &str, link: &Arc<Link>) -> Result<T, ClientError> {
        match self.members.remove(member) {
            Some(value) => T::decode(value, link).map_err(|error| self.inside(member, &error)),
            None => Err(ClientError::Decode(format!("{} without {member}", self.name))),
        }
    }

    /// # Errors
    /// [`ClientError::Decode`] when it is there and of another kind.
    pub fn take_optional<T: Decode>(
        &mut self,
        member: &str,
        link: &Arc<Link>,
    ) -> Result<Option<T>, ClientError> {
        match self.members.remove(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                T::decode(value, link).map(Some).map_err(|error| self.inside(member, &error))
            }
        }
    }

    fn inside(&self, member: &str, error: &ClientError) -> ClientError {
        match error {
            ClientError::Decode(text) => {
                ClientError::Decode(format!("{}.{member}: {text}", self.name))
            }
            other => other.clone(),
        }
    }
}

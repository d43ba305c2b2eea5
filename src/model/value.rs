//! Values between JSON and Rust: parameters are checked against the descriptors once, where a
//! request comes in, and travel as typed [`Arg`]s from there.
//!
//! What converts into what follows the original: numbers, booleans and null pass for strings; any
//! number inside 32 bits passes for an integer and is truncated; strings never pass for numbers.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::class::{self, Class, Enum, Kind, Literal, Method, Param, Register};
use super::error::RemoteError;
use super::id::ObjectId;

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Text(String),
    Int(i32),
    Int64(i64),
    Boolean(bool),
    Double(f64),
    Object(ObjectId),
    /// Its position in [`Enum::values`].
    Enum(usize),
    /// In the order of [`Register::members`].
    Register(Vec<Option<Arg>>),
    List(Vec<Arg>),
    Map(BTreeMap<String, Arg>),
}

/// Arguments in the order of the descriptor; optional ones may be missing.
pub type Args = Vec<Option<Arg>>;

/// Answers the class of an object, or none when there is no such object.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'static Class>;

/// Checks `operationParams` for `method`.
///
/// An optional parameter counts only while all optional ones before it are given too.
///
/// # Errors
/// [`RemoteError::Required`] without parameters when some are needed; the others name the parameter.
pub fn operation_args(
    method: &'static Method,
    given: Option<&Value>,
    objects: Lookup<'_>,
) -> Result<Args, RemoteError> {
    let empty = Map::new();
    let given = match given {
        Some(Value::Object(map)) => map,
        _ if method.is_setter || method.params.iter().all(|param| param.optional) => &empty,
        _ => return Err(RemoteError::Required("operationParams")),
    };
    let mut positional = true;
    method
        .params
        .iter()
        .map(|param| {
            let value = given.get(param.name);
            if param.optional {
                positional &= value.is_some();
            }
            argument(param, value.filter(|_| positional || !param.optional), objects)
        })
        .collect()
}

/// Checks `constructorParams` for `class`.
///
/// # Errors
/// As [`operation_args`], and [`RemoteError::NotAnObject`].
pub fn constructor_args(
    class: &'static Class,
    given: Option<&Value>,
    objects: Lookup<'_>,
) -> Result<Args, RemoteError> {
    let empty = Map::new();
    let given = match given {
        Some(Value::Object(map)) => map,
        None | Some(Value::Null) if class.constructor.iter().all(|param| param.optional) => &empty,
        None | Some(Value::Null) => return Err(RemoteError::Required("constructorParams")),
        Some(_) => return Err(RemoteError::NotAnObject("constructorParams")),
    };
    class.constructor.iter().map(|param| argument(param, given.get(param.name), objects)).collect()
}

fn argument(
    param: &Param,
    value: Option<&Value>,
    objects: Lookup<'_>,
) -> Result<Option<Arg>, RemoteError> {
    match value {
        None if param.optional => Ok(param.default.map(|literal| default_of(param.kind, literal))),
        None => Err(RemoteError::Parameter { name: param.name.to_owned(), kind: word(param.kind) }),
        Some(value) => convert(param.kind, value, objects).map(Some).map_err(|mismatch| {
            mismatch.unwrap_or_else(|| RemoteError::Parameter {
                name: param.name.to_owned(),
                kind: word(param.kind),
            })
        }),
    }
}

/// The value of `kind` in `value`; `Err(None)` when it is of another type.
fn convert(kind: Kind, value: &Value, objects: Lookup<'_>) -> Result<Arg, Option<RemoteError>> {
    Ok(match kind {
        Kind::Text => Arg::Text(text(value).ok_or(None)?),
        Kind::Int => Arg::Int(integer(value, f64::from(i32::MIN), f64::from(i32::MAX))? as i32),
        Kind::Int64 => match value.as_i64() {
            Some(number) => Arg::Int64(number),
            None => Arg::Int64(integer(value, -9.2e18, 9.2e18)? as i64),
        },
        Kind::Boolean => Arg::Boolean(match value {
            Value::Bool(flag) => *flag,
            Value::Null => false,
            Value::Number(number) => number.as_f64() != Some(0.0),
            _ => return Err(None),
        }),
        Kind::Float | Kind::Double => Arg::Double(match value {
            Value::Number(number) => number.as_f64().ok_or(None)?,
            Value::Bool(flag) => f64::from(u8::from(*flag)),
            Value::Null => 0.0,
            _ => return Err(None),
        }),
        Kind::Object(wanted) => {
            let id = reference(value).ok_or(None)?;
            match objects(&id) {
                Some(class) if class.is_a(wanted) => Arg::Object(ObjectId::from(id.as_str())),
                Some(class) => {
                    return Err(Some(RemoteError::IllegalParameter(format!(
                        "Object '{id}' is a {}, not a {wanted}",
                        class.name
                    ))));
                }
                None => return Err(Some(missing(&id))),
            }
        }
        Kind::Enum(of) => {
            let name = text(value).ok_or(None)?;
            let position = of.values.iter().position(|known| *known == name);
            Arg::Enum(position.ok_or(Some(RemoteError::EnumValue(of.name)))?)
        }
        Kind::Register(of) => match value {
            Value::Object(members) => Arg::Register(register(of, members, objects)?),
            Value::Null => Arg::Register(register(of, &Map::new(), objects)?),
            _ => return Err(None),
        },
        Kind::List(item) => match value {
            Value::Array(items) => Arg::List(
                items
                    .iter()
                    .map(|value| convert(*item, value, objects))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Null => Arg::List(Vec::new()),
            _ => return Err(None),
        },
        Kind::Map(item) => match value {
            Value::Object(members) => Arg::Map(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), convert(*item, value, objects)?)))
                    .collect::<Result<_, Option<RemoteError>>>()?,
            ),
            Value::Null => Arg::Map(BTreeMap::new()),
            _ => return Err(None),
        },
    })
}

/// The error for an object id nobody has: clients of transactions are told what they forgot.
pub fn missing(id: &str) -> RemoteError {
    if id.strip_prefix("newref:").is_some_and(|position| !position.is_empty()) {
        RemoteError::Uncommitted(id.to_owned())
    } else {
        RemoteError::ObjectNotFound(id.to_owned())
    }
}

fn register(
    of: &'static Register,
    given: &Map<String, Value>,
    objects: Lookup<'_>,
) -> Result<Vec<Option<Arg>>, Option<RemoteError>> {
    if let (Some(Value::String(name)), Some(Value::String(module))) =
        (given.get("__type__"), given.get("__module__"))
    {
        let known = class::REGISTERS.iter().find(|known| {
            known.name == name
                && (known.namespace == module || (known.namespace == "kurento" && is_core(module)))
        });
        match known {
            None => {
                return Err(Some(RemoteError::UnknownType {
                    name: name.clone(),
                    module: module.clone(),
                }));
            }
            Some(known) if !std::ptr::eq(*known, of) && !known.ancestors.contains(&of.name) => {
                return Err(Some(RemoteError::IncompatibleType(name.clone())));
            }
            Some(_) => {}
        }
    }
    of.members
        .iter()
        .map(|member| {
            let wrong = || {
                Some(RemoteError::Member { name: member.name.to_owned(), kind: word(member.kind) })
            };
            match given.get(member.name) {
                None if member.optional => {
                    Ok(member.default.map(|literal| default_of(member.kind, literal)))
                }
                None => Err(wrong()),
                Some(value) => convert(member.kind, value, objects)
                    .map(Some)
                    .map_err(|mismatch| mismatch.or_else(wrong)),
            }
        })
        .collect()
}

/// Old clients name the module of a core type by its module, not by its namespace.
fn is_core(module: &str) -> bool {
    matches!(module, "core" | "elements" | "filters")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        _ => None,
    }
}

/// The id of an object. The JavaScript client sends the whole object in place of its id when an
/// application has that library installed twice; the id is in it.
fn reference(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => members.get("id").and_then(Value::as_str).map(str::to_owned),
        other => text(other),
    }
}

fn integer(value: &Value, min: f64, max: f64) -> Result<f64, Option<RemoteError>> {
    let number = match value {
        Value::Number(number) => number.as_f64().ok_or(None)?,
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::Null => 0.0,
        _ => return Err(None),
    };
    if (min..=max).contains(&number) { Ok(number.trunc()) } else { Err(None) }
}

/// The word for a type in an error's text.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Object(_) | Kind::Enum(_) => "string",
        Kind::Int => "integer",
        Kind::Int64 => "int64",
        Kind::Boolean => "boolean",
        Kind::Float | Kind::Double => "double",
        Kind::Register(_) => "object",
        Kind::List(_) => "list",
        Kind::Map(_) => "map",
    }
}

fn default_of(kind: Kind, literal: Literal) -> Arg {
    match (kind, literal) {
        (Kind::Enum(Enum { values, .. }), Literal::Text(name)) => Arg::Enum(
            values.iter().position(|value| *value == name).expect("a default is one of the values"),
        ),
        (_, Literal::Text(text)) => Arg::Text(text.to_owned()),
        (Kind::Int64, Literal::Int(number)) => Arg::Int64(number),
        (Kind::Float | Kind::Double, Literal::Int(number)) => Arg::Double(number as f64),
        (_, Literal::Int(number)) => Arg::Int(number as i32),
        (_, Literal::Double(number)) => Arg::Double(number),
        (_, Literal::Boolean(flag)) => Arg::Boolean(flag),
        (_, Literal::EmptyList) => Arg::List(Vec::new()),
        (Kind::Register(of), Literal::EmptyRegister) => Arg::Register(
            of.members
                .iter()
                .map(|member| member.default.map(|literal| default_of(member.kind, literal)))
                .collect(),
        ),
        (_, Literal::EmptyRegister) => Arg::Map(BTreeMap::new()),
    }
}

/// A Rust type that a checked argument turns into.
pub trait FromArg: Sized {
    /// The value. A mismatch is a bug of ours: arguments were checked against the descriptor that
    /// the signature was written from.
    fn from_arg(arg: Option<Arg>) -> Self;
}

macro_rules! from_arg {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {$(
        impl FromArg for $type {
            fn from_arg(arg: Option<Arg>) -> Self {
                match arg {
                    Some($pattern) => $value,
                    other => unreachable!("the descriptor promised a {}, not {other:?}", stringify!($type)),
                }
            }
        }
    )*};
}

from_arg! {
    String: Arg::Text(text) => text;
    i32: Arg::Int(number) => number;
    i64: Arg::Int64(number) => number;
    bool: Arg::Boolean(flag) => flag;
    f32: Arg::Double(number) => number as f32;
    f64: Arg::Double(number) => number;
    ObjectId: Arg::Object(id) => id;
}

impl<T: FromArg> FromArg for Option<T> {
    fn from_arg(arg: Option<Arg>) -> Self {
        arg.map(|arg| T::from_arg(Some(arg)))
    }
}

impl<T: FromArg> FromArg for Vec<T> {
    fn from_arg(arg: Option<Arg>) -> Self {
        match arg {
            Some(Arg::List(items)) => {
                items.into_iter().map(|item| T::from_arg(Some(item))).collect()
            }
            other => unreachable!("the descriptor promised a list, not {other:?}"),
        }
    }
}

/// A Rust type that goes onto the wire.
pub trait IntoValue {
    fn into_value(self) -> Value;
}

macro_rules! into_value {
    ($($type:ty),*) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Value {
                Value::from(self)
            }
        }
    )*};
}

into_value!(String, &str, bool, i32, i64, Value, Map<String, Value>);

impl IntoValue for () {
    fn into_value(self) -> Value {
        Value::Null
    }
}

impl IntoValue for f64 {
    fn into_value(self) -> Value {
        Number::from_f64(self).map_or(Value::Null, Value::Number)
    }
}

/// 32-bit floats are widened, as the original prints them: 0.8 reads 0.800000011920929.
impl IntoValue for f32 {
    fn into_value(self) -> Value {
        f64::from(self).into_value()
    }
}

impl IntoValue for ObjectId {
    fn into_value(self) -> Value {
        Value::from(self.as_str())
    }
}

impl<T: IntoValue> IntoValue for Option<T> {
    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }
}

impl<T: IntoValue> IntoValue for Vec<T> {
    fn into_value(self) -> Value {
        self.into_iter().map(T::into_value).collect()
    }
}

/// What an operation answers: `value` of the reply. The type parameter is the descriptor's word.
pub fn reply<T: IntoValue>(result: Result<T, RemoteError>) -> Result<Value, RemoteError> {
    result.map(T::into_value)
}

/// What checked arguments turn into, for operations that nothing carries out too.
#[cfg(any(test, fuzzing))]
pub mod typed {
    use super::{Arg, Args, FromArg};
    use crate::model::{Class, Method};

    fn next<T: FromArg>(args: &mut std::vec::IntoIter<Option<Arg>>) {
        T::from_arg(args.next().flatten());
    }

    include!(concat!(env!("OUT_DIR"), "/typed.rs"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nobody(_: &str) -> Option<&'static Class> {
        None
    }

    fn args(operation: &str, given: Value) -> Result<Args, RemoteError> {
        let class = class::find("WebRtcEndpoint").expect("described");
        operation_args(class.method(operation).expect("described"), Some(&given), &nobody)
    }

    #[test]
    fn numbers_inside_32_bits_pass_for_integers_and_are_truncated() {
        let set = |value: Value| args("setMtu", json!({ "mtu": value }));
        assert_eq!(set(json!(5.7)), Ok(vec![Some(Arg::Int(5))]));
        assert_eq!(set(json!(true)), Ok(vec![Some(Arg::Int(1))]));
        assert_eq!(set(json!(null)), Ok(vec![Some(Arg::Int(0))]));
        for wrong in [json!("5"), json!(3_000_000_000_u32), json!(1e30), json!([]), json!({})] {
            let error = set(wrong).expect_err("refused");
            assert_eq!(error.to_string(), "'mtu' parameter should be a integer");
            assert_eq!(error.code(), 40001);
        }
    }

    #[test]
    fn strings_never_pass_for_booleans() {
        let set = |value: Value| args("setIceTcp", json!({ "iceTcp": value }));
        assert_eq!(set(json!(1.5)), Ok(vec![Some(Arg::Boolean(true))]));
        assert_eq!(set(json!(null)), Ok(vec![Some(Arg::Boolean(false))]));
        assert!(set(json!("true")).is_err());
    }

    #[test]
    fn an_optional_argument_counts_only_after_all_before_it() {
        let given = args("createDataChannel", json!({"label": "a", "protocol": "b"}));
        assert_eq!(given.expect("accepted")[4], Some(Arg::Text(String::new())));
    }

    #[test]
    fn missing_parameters_are_named() {
        let class = class::find("WebRtcEndpoint").expect("described");
        let offer = class.method("processOffer").expect("described");
        let without =
            |given: Option<&Value>| operation_args(offer, given, &nobody).expect_err("refused");
        assert_eq!(without(None).to_string(), "'operationParams' is required");
        assert_eq!(without(Some(&json!([]))).to_string(), "'operationParams' is required");
        assert_eq!(without(Some(&json!({}))).to_string(), "'offer' parameter should be a string");
        let candidate = json!({"candidate": {"candidate": "x", "sdpMLineIndex": 0}});
        assert_eq!(
            args("addIceCandidate", candidate).expect_err("refused").to_string(),
            "'sdpMid' property should be a string"
        );
    }

    #[test]
    fn an_object_sent_whole_stands_for_its_id() {
        let class = class::find("DispatcherOneToMany").expect("described");
        let method = class.method("setSource").expect("described");
        let port = |id: &str| (id == "p/h/port").then(|| class::find("HubPort")).flatten();
        let given = json!({"source": {"_events": {}, "id": "p/h/port"}});
        let args = operation_args(method, Some(&given), &port);
        assert_eq!(args, Ok(vec![Some(Arg::Object(ObjectId::from("p/h/port")))]));
        let error = operation_args(method, Some(&json!({"source": {}})), &port);
        assert_eq!(
            error.expect_err("refused").to_string(),
            "'source' parameter should be a string"
        );
    }

    #[test]
    fn registers_name_types_that_exist_and_fit() {
        let set = |name: &str| {
            args(
                "setRembParams",
                json!({"rembParams": {"__type__": name, "__module__": "kurento"}}),
            )
        };
        assert!(set("RembParams").is_ok());
        assert_eq!(
            set("Nothing").expect_err("refused").to_string(),
            "Type Nothing does not exist in module kurento"
        );
        assert_eq!(set("Tag").expect_err("refused").to_string(), "Type Tag is not compatible");
    }
}

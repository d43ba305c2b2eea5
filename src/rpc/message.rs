//! JSON-RPC 2.0 as the Kurento Protocol has it: requests, replies and notifications as text.
//!
//! Where the original cuts the connection over a text it cannot read, this answers with the error
//! that JSON-RPC names for the case, and the connection goes on. Batches are refused. Text after
//! the first value is ignored, as clients of the original may send comments there.
//!
//! Output is compact, its members are sorted by name, and everything outside ASCII is escaped.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Value, json};

use crate::model::RemoteError;

/// A request that is well formed as JSON-RPC; its method may still be unknown.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// As the client sent it; none for a notification.
    pub id: Option<Value>,
    pub method: String,
    pub params: Params,
}

/// The `params` of a request.
#[derive(Debug, PartialEq)]
pub enum Params {
    /// Absent or null.
    None,
    Members(Map<String, Value>),
    /// An array, a string, a number or a boolean.
    Other,
}

impl Params {
    /// A member that is to be text; numbers, booleans and null pass for it.
    ///
    /// # Errors
    /// [`RpcError::NoParams`], [`RpcError::WrongParams`], [`RpcError::Missing`] and
    /// [`RpcError::WrongType`].
    pub fn text(&self, name: &'static str) -> Result<String, RpcError> {
        match self {
            Self::None => Err(RpcError::NoParams),
            Self::Other => Err(RpcError::WrongParams),
            Self::Members(members) => {
                let value = members.get(name).ok_or(RpcError::Missing(name))?;
                as_text(value).ok_or(RpcError::WrongType(name, "a string"))
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Members(members) => members.get(name),
            _ => None,
        }
    }
}

/// A scalar as text, as the original converts it.
pub fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Why a request failed, with what the reply's `error` says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RpcError {
    #[error("Parse error.")]
    Parse,
    #[error("Invalid JSON-RPC request.")]
    InvalidRequest,
    #[error("Method not found.")]
    MethodNotFound,
    #[error("'params' is required")]
    NoParams,
    #[error("'params' should be an object")]
    WrongParams,
    #[error("'{0}' parameter is required")]
    Missing(&'static str),
    #[error("'{0}' parameter should be {1}")]
    WrongType(&'static str, &'static str),
    /// The request had no id, so its result has no place to go.
    #[error("Ignoring response because of a notification request")]
    Notification(Value),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl RpcError {
    /// The code on the wire.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::NoParams | Self::WrongParams => -32602,
            Self::Missing(_) | Self::WrongType(..) | Self::Notification(_) => -32000,
            Self::Remote(error) => error.code(),
        }
    }

    /// The `error` member of a reply.
    pub fn to_json(&self) -> Value {
        let message = self.to_string();
        match self {
            Self::Remote(error) => error.to_json(),
            Self::NoParams | Self::WrongParams => {
                json!({"code": self.code(), "data": {"type": "INVALID_PARAMS"}, "message": message})
            }
            Self::Notification(result) => {
                json!({"code": self.code(), "data": result, "message": message})
            }
            _ => json!({"code": self.code(), "message": message}),
        }
    }
}

/// Reads one request. Nesting beyond 128 levels is refused like any other unreadable text.
///
/// # Errors
/// [`RpcError::Parse`] for what is no JSON, [`RpcError::InvalidRequest`] for what is no request.
pub fn parse(text: &str) -> Result<Request, RpcError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let Some(Ok(value)) = values.next() else { return Err(RpcError::Parse) };
    let Value::Object(mut members) = value else { return Err(RpcError::InvalidRequest) };
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(RpcError::InvalidRequest);
    }
    let id = match members.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::Array(_) | Value::Object(_)) => return Err(RpcError::InvalidRequest),
        scalar => scalar,
    };
    let Some(Value::String(method)) = members.remove("method") else {
        return Err(RpcError::InvalidRequest);
    };
    let params = match members.remove("params") {
        None | Some(Value::Null) => Params::None,
        Some(Value::Object(params)) => Params::Members(params),
        Some(_) => Params::Other,
    };
    Ok(Request { id, method, params })
}

/// The reply to the request with that `id`; none when a notification has nothing to say.
pub fn reply(id: Option<Value>, result: Result<Value, RpcError>) -> Option<String> {
    let (member, content) = match (&id, result) {
        (Some(_), Ok(result)) => ("result", result),
        (None, Ok(Value::Null)) => return None,
        (None, Ok(result)) => ("error", RpcError::Notification(result).to_json()),
        (_, Err(error)) => ("error", error.to_json()),
    };
    let mut members = Map::new();
    members.insert("jsonrpc".to_owned(), Value::from("2.0"));
    members.insert("id".to_owned(), id.unwrap_or(Value::Null));
    members.insert(member.to_owned(), content);
    Some(write(&Value::Object(members)))
}

/// The message that tells of an event: of object `source`, called `name`, with `data`.
pub fn event(source: &str, name: &str, data: &Value) -> String {
    write(&json!({
        "jsonrpc": "2.0",
        "method": "onEvent",
        "params": {"value": {"data": data, "object": source, "type": name}},
    }))
}

fn write(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
    value.serialize(&mut serializer).expect("writing a value into memory does not fail");
    String::from_utf8(bytes).expect("all that is written is ASCII")
}

/// Compact JSON with `\u` escapes for every character outside ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !c.is_ascii()) {
            let (plain, foreign) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let end = foreign.find(|c: char| c.is_ascii()).unwrap_or(foreign.len());
            for unit in foreign[..end].encode_utf16() {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &foreign[end..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> i32 {
        parse(text).expect_err(text).code()
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in
            ["", " ", "not json", "{\"jsonrpc\":", "\u{0}", "{\"a\":NaN}", "\"\\ud800\"", &deep]
        {
            assert_eq!(error(text), -32700, "{text:.40}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_invalid_one() {
        for text in [
            "[]",
            "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            "\"x\"",
            "5",
            "null",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#,
        ] {
            assert_eq!(error(text), -32600, "{text}");
        }
    }

    #[test]
    fn text_after_the_first_value_is_ignored() {
        for rest in ["// comment", "{\"jsonrpc\":\"2.0\",\"id\":18,\"method\":\"x\"}", " \n"] {
            let request = parse(&format!(r#"{{"jsonrpc":"2.0","id":17,"method":"ping"}}{rest}"#));
            assert_eq!(request.map(|request| request.method).as_deref(), Ok("ping"), "{rest}");
        }
    }

    #[test]
    fn ids_come_back_as_they_were_sent() {
        for id in ["1", "-1", "1.5", "true", "\"abc\"", "12345678901234567890"] {
            let request = parse(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
            let request = request.expect("a request");
            assert_eq!(
                reply(request.id, Ok(json!({"value": "pong"}))).as_deref(),
                Some(
                    format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{{"value":"pong"}}}}"#)
                        .as_str()
                )
            );
        }
    }

    #[test]
    fn a_notification_hears_of_its_result_only_in_an_error() {
        assert_eq!(
            reply(None, Ok(json!({"value": "pong"}))).as_deref(),
            Some(concat!(
                r#"{"error":{"code":-32000,"data":{"value":"pong"},"message":"Ignoring response "#,
                r#"because of a notification request"},"id":null,"jsonrpc":"2.0"}"#
            ))
        );
        assert_eq!(reply(None, Ok(Value::Null)), None);
    }

    #[test]
    fn errors_of_the_protocol_carry_no_data_and_those_of_objects_their_name() {
        let of = |error: RpcError| reply(Some(json!(1)), Err(error)).expect("has an id");
        assert_eq!(
            of(RpcError::Missing("type")),
            r#"{"error":{"code":-32000,"message":"'type' parameter is required"},"id":1,"jsonrpc":"2.0"}"#
        );
        assert_eq!(
            of(RemoteError::InvalidSession.into()),
            concat!(
                r#"{"error":{"code":40007,"data":{"type":"INVALID_SESSION"},"#,
                r#""message":"Invalid session"},"id":1,"jsonrpc":"2.0"}"#
            )
        );
    }

    #[test]
    fn characters_outside_ascii_are_escaped() {
        assert_eq!(
            write(&json!("é/<\u{7f}\u{1}😀x\n")),
            "\"\\u00e9/<\u{7f}\\u0001\\ud83d\\ude00x\\n\""
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_ascii_and_reads_back(text in any::<String>()) {
            let written = write(&json!({"a": text}));
            prop_assert!(written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<Value>(&written).expect("json"), json!({"a": text}));
        }

        #[test]
        fn no_text_is_too_strange_to_be_answered(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}

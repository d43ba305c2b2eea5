//! Requests, replies and notifications as text.
//!
//! Where the original cuts the connection over a text it cannot read, this answers with the error
//! that JSON-RPC names for the case, and the connection goes on. Batches are refused. Text after
//! the first value is ignored, as clients of the original may send comments there.
//!
//! Output is compact, its members are sorted by name, and everything outside ASCII is escaped.

use std::{fmt, io};

use serde::Serialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::ser::Formatter;
use serde_json::{Map, Number, Value, json};

/// Of JSON-RPC.
const VERSION: &str = "2.0";

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
    /// [`Error::NoParams`], [`Error::WrongParams`], [`Error::Missing`] and [`Error::WrongType`].
    pub fn text(&self, name: &'static str) -> Result<String, Error> {
        match self {
            Self::None => Err(Error::NoParams),
            Self::Other => Err(Error::WrongParams),
            Self::Members(members) => {
                let value = members.get(name).ok_or(Error::Missing(name))?;
                as_text(value).ok_or(Error::WrongType(name, "a string"))
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
pub enum Error {
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
    /// Something has more of `what` than the server takes.
    #[error("Reached {what} limit: {limit}")]
    TooMuch { what: &'static str, limit: usize },
    /// What the application has to say, in its own catalogue of codes.
    #[error("{message}")]
    Application { code: i32, kind: Option<&'static str>, message: String },
}

impl Error {
    /// The code on the wire.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::NoParams | Self::WrongParams => -32602,
            Self::Missing(_) | Self::WrongType(..) | Self::Notification(_) => -32000,
            // The one code of Kurento's catalogue that is needed here.
            Self::TooMuch { .. } => 40009,
            Self::Application { code, .. } => *code,
        }
    }

    /// The `error` member of a reply.
    pub fn to_json(&self) -> Value {
        let message = self.to_string();
        match self {
            Self::NoParams | Self::WrongParams => typed(self.code(), "INVALID_PARAMS", message),
            Self::TooMuch { .. } => typed(self.code(), "NOT_ENOUGH_RESOURCES", message),
            Self::Application { code, kind: Some(kind), .. } => typed(*code, kind, message),
            Self::Notification(result) => {
                json!({"code": self.code(), "data": result, "message": message})
            }
            _ => json!({"code": self.code(), "message": message}),
        }
    }
}

fn typed(code: i32, kind: &str, message: String) -> Value {
    json!({"code": code, "data": {"type": kind}, "message": message})
}

/// What a text may contain before it is no longer read into memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arrays and objects inside each other; reading stops at 127 in any case.
    pub nesting: usize,
    /// Values of any kind. Each takes 32 bytes and more, however short it is in the text.
    pub values: usize,
    /// Bytes of a request's id.
    pub id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nesting: 64, values: 100_000, id_bytes: 1_024 }
    }
}

/// Reads one request.
///
/// # Errors
/// The error, and the id it belongs to where that stood before what is wrong: [`Error::Parse`] for what is no
/// JSON, [`Error::InvalidRequest`] for what is no request, [`Error::TooMuch`] beyond a limit.
pub fn parse(text: &str, limits: &Limits) -> Result<Request, (Option<Value>, Error)> {
    let mut budget = Budget { values: limits.values, exceeded: None, id: None };
    let mut json = serde_json::Deserializer::from_str(text);
    let seed = Bounded { budget: &mut budget, nesting: limits.nesting, outermost: true };
    let value = seed.deserialize(&mut json);
    let id_fits = |id: &Value| id.as_str().is_none_or(|id| id.len() <= limits.id_bytes);
    match (value, budget.exceeded) {
        (Err(_), Some(what)) => {
            let limit = if what == NESTING { limits.nesting } else { limits.values };
            let id = budget.id.filter(|id| !id.is_null() && id_fits(id));
            Err((id, Error::TooMuch { what, limit }))
        }
        (Err(_), None) => Err((None, Error::Parse)),
        (Ok(value), _) => match request(value).map_err(|error| (None, error))? {
            Request { id: Some(id), .. } if !id_fits(&id) => {
                Err((None, Error::TooMuch { what: "id bytes", limit: limits.id_bytes }))
            }
            request => Ok(request),
        },
    }
}

/// A request out of a value that was read.
///
/// # Errors
/// [`Error::InvalidRequest`]
pub fn request(value: Value) -> Result<Request, Error> {
    let Value::Object(mut members) = value else { return Err(Error::InvalidRequest) };
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Error::InvalidRequest);
    }
    let id = match members.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::Array(_) | Value::Object(_)) => return Err(Error::InvalidRequest),
        scalar => scalar,
    };
    let Some(Value::String(method)) = members.remove("method") else {
        return Err(Error::InvalidRequest);
    };
    let params = match members.remove("params") {
        None | Some(Value::Null) => Params::None,
        Some(Value::Object(params)) => Params::Members(params),
        Some(_) => Params::Other,
    };
    Ok(Request { id, method, params })
}

const NESTING: &str = "nesting";

/// What is left of the limits while a text is read.
struct Budget {
    values: usize,
    /// What was exceeded. Reading ends there.
    exceeded: Option<&'static str>,
    /// The request's id, where it stood before that.
    id: Option<Value>,
}

/// Reads a value within a budget.
struct Bounded<'a> {
    budget: &'a mut Budget,
    /// Levels that may still open.
    nesting: usize,
    /// Whether this is the whole text.
    outermost: bool,
}

impl Bounded<'_> {
    fn below(&mut self) -> Bounded<'_> {
        Bounded { budget: self.budget, nesting: self.nesting - 1, outermost: false }
    }

    /// An array or object begins.
    fn open<E: de::Error>(&mut self) -> Result<(), E> {
        if self.nesting == 0 { self.stop(NESTING) } else { Ok(()) }
    }

    /// There is one more value inside it.
    fn count<E: de::Error>(&mut self) -> Result<(), E> {
        match self.budget.values.checked_sub(1) {
            Some(left) => {
                self.budget.values = left;
                Ok(())
            }
            None => self.stop("values"),
        }
    }

    fn stop<E: de::Error>(&mut self, what: &'static str) -> Result<(), E> {
        self.budget.exceeded = Some(what);
        Err(E::custom(what))
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.open()?;
        let mut kept = Vec::new();
        while let Some(item) = items.next_element_seed(self.below())? {
            self.count()?;
            kept.push(item);
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        self.open()?;
        let mut kept = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.below())?;
            self.count()?;
            if self.outermost
                && name == "id"
                && !matches!(value, Value::Array(_) | Value::Object(_))
            {
                self.budget.id = Some(value.clone());
            }
            kept.insert(name, value);
        }
        Ok(Value::Object(kept))
    }
}

/// The reply to the request with that `id`; none when a notification has nothing to say.
pub fn reply(id: Option<Value>, result: Result<Value, Error>) -> Option<String> {
    let (id, result) = match (id, result) {
        (Some(id), result) => (id, result),
        (None, Ok(Value::Null)) => return None,
        (None, Ok(result)) => (Value::Null, Err(Error::Notification(result))),
        (None, Err(error)) => (Value::Null, Err(error)),
    };
    let (error, result) = match &result {
        Ok(result) => (None, Some(result)),
        Err(error) => (Some(error.to_json()), None),
    };
    Some(write(&Written { error, id: &id, jsonrpc: VERSION, result }))
}

/// What [`envelope`] makes, without making it.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    id: &'a Value,
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
}

/// A reply that is not written yet.
pub fn envelope(id: Value, result: Result<Value, Error>) -> Value {
    let (member, content) = match result {
        Ok(result) => ("result", result),
        Err(error) => ("error", error.to_json()),
    };
    let mut members = Map::new();
    members.insert("jsonrpc".to_owned(), Value::from(VERSION));
    members.insert("id".to_owned(), id);
    members.insert(member.to_owned(), content);
    Value::Object(members)
}

/// The message that tells of an event: of object `source`, called `name`, with `data`.
pub fn event(source: &str, name: &str, data: &Map<String, Value>) -> String {
    // Members are written in the order in which they stand here, which is by name.
    #[derive(Serialize)]
    struct Message<'a> {
        jsonrpc: &'static str,
        method: &'static str,
        params: Params<'a>,
    }
    #[derive(Serialize)]
    struct Params<'a> {
        value: Told<'a>,
    }
    #[derive(Serialize)]
    struct Told<'a> {
        data: &'a Map<String, Value>,
        object: &'a str,
        r#type: &'a str,
    }
    let value = Told { data, object: source, r#type: name };
    write(&Message { jsonrpc: VERSION, method: "onEvent", params: Params { value } })
}

fn write(value: &impl Serialize) -> String {
    let mut bytes = Vec::with_capacity(512);
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

    fn read(text: &str) -> Result<Request, (Option<Value>, Error)> {
        parse(text, &Limits::default())
    }

    fn error(text: &str) -> i32 {
        read(text).expect_err(text).1.code()
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        let deep = "[".repeat(100_000);
        for text in ["", " ", "not json", "{\"jsonrpc\":", "\u{0}", "{\"a\":NaN}", "\"\\ud800\""] {
            assert_eq!(error(text), -32700, "{text:.40}");
        }
        assert_eq!(error(&deep), 40009);
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

    fn refused(text: &str, limits: Limits) -> (Option<Value>, String) {
        let (id, error) = parse(text, &limits).expect_err("beyond a limit");
        assert_eq!(error.code(), 40009);
        (id, error.to_string())
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_under_its_id_and_not_kept() {
        let limits = Limits { nesting: 3, values: 12, id_bytes: 4 };
        let with =
            |params: &str| format!(r#"{{"id":7,"jsonrpc":"2.0","method":"m","params":{params}}}"#);
        assert!(parse(&with(r#"{"a":[1,2,3,4,5,6,7]}"#), &limits).is_ok());
        for many in [r#"{"a":[1,2,3,4,5,6,7,8,9,10,11,12,13]}"#.to_owned(), {
            let members: Vec<_> = (0..20).map(|n| format!(r#""{n}":{{}}"#)).collect();
            format!("{{{}}}", members.join(","))
        }] {
            let (id, text) = refused(&with(&many), limits);
            assert_eq!((id, text.as_str()), (Some(json!(7)), "Reached values limit: 12"));
        }
        assert!(parse(&with(r#"{"a":[]}"#), &limits).is_ok());
        let (id, text) = refused(&with(r#"{"a":[[]]}"#), limits);
        assert_eq!((id, text.as_str()), (Some(json!(7)), "Reached nesting limit: 3"));
        let (id, text) = refused(r#"{"jsonrpc":"2.0","id":"abcde","method":"m"}"#, limits);
        assert_eq!((id, text.as_str()), (None, "Reached id bytes limit: 4"));
    }

    #[test]
    fn text_after_the_first_value_is_ignored() {
        for rest in ["// comment", "{\"jsonrpc\":\"2.0\",\"id\":18,\"method\":\"x\"}", " \n"] {
            let request = read(&format!(r#"{{"jsonrpc":"2.0","id":17,"method":"ping"}}{rest}"#));
            assert_eq!(request.map(|request| request.method).as_deref(), Ok("ping"), "{rest}");
        }
    }

    #[test]
    fn ids_come_back_as_they_were_sent() {
        for id in ["1", "-1", "1.5", "true", "\"abc\"", "12345678901234567890"] {
            let request = read(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
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
        let of = |error: Error| reply(Some(json!(1)), Err(error)).expect("has an id");
        assert_eq!(
            of(Error::Missing("type")),
            r#"{"error":{"code":-32000,"message":"'type' parameter is required"},"id":1,"jsonrpc":"2.0"}"#
        );
        assert_eq!(
            of(Error::Application {
                code: 40007,
                kind: Some("INVALID_SESSION"),
                message: "Invalid session".to_owned(),
            }),
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
        fn within_the_limits_all_json_is_read_as_it_stands(depth in 0..20_usize, text in any::<String>(), number in any::<i32>().prop_map(|number| f64::from(number) / 8.0)) {
            let mut value = json!([text, number, -5, u64::MAX, null, true]);
            for _ in 0..depth {
                value = json!({"a": [value], "": 0.5});
            }
            let request = json!({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"x": value}});
            let read = read(&request.to_string()).expect("a request");
            prop_assert_eq!(read.params.get("x"), Some(&value));
        }

        #[test]
        fn no_text_is_too_strange_to_be_answered(text in any::<String>()) {
            let _ = read(&text);
        }
    }
}

//! What a client writes and reads: JSON-RPC 2.0, one text for each message.
//!
//! [`read`] is the only place that looks at what a server sent. It knows nothing of who asked; the
//! machine finds the request an answer belongs to. Answers to batches do not exist here.

use serde_json::{Value, json};

use super::error::ClientError;

/// A message of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The answer to the request with that id. `None` where the server could not read an id.
    Reply { id: Option<u32>, result: Result<Value, ClientError> },
    /// A message that wants no answer.
    Notification(Notification),
    /// A request of the server, with its id as it stands on the wire.
    Request { id: Value, method: String },
}

/// What a server says unasked: of an event, for example.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub method: String,
    /// Null where there are none.
    pub params: Value,
}

/// Why a text is no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreadable {
    #[error("too long")]
    TooLong,
    #[error("no JSON")]
    NoJson,
    #[error("no message of JSON-RPC")]
    NoMessage,
}

/// Reads one message of at most `limit` bytes. Nesting beyond 128 levels is no JSON either. The
/// member `jsonrpc` is not insisted on.
///
/// # Errors
/// [`Unreadable`]; the connection can go on.
pub fn read(text: &str, limit: usize) -> Result<Incoming, Unreadable> {
    if text.len() > limit {
        return Err(Unreadable::TooLong);
    }
    take(serde_json::from_str(text).map_err(|_| Unreadable::NoJson)?)
}

/// The message that a value is.
///
/// # Errors
/// [`Unreadable::NoMessage`].
pub fn take(value: Value) -> Result<Incoming, Unreadable> {
    let Value::Object(mut members) = value else { return Err(Unreadable::NoMessage) };
    let id = members.remove("id");
    if let Some(method) = members.remove("method") {
        let Value::String(method) = method else { return Err(Unreadable::NoMessage) };
        return Ok(match id {
            None | Some(Value::Null) => {
                let params = members.remove("params").unwrap_or_default();
                Incoming::Notification(Notification { method, params })
            }
            Some(id) => Incoming::Request { id, method },
        });
    }
    let id = id.as_ref().and_then(number);
    let result = match (members.remove("error"), members.remove("result")) {
        (Some(error), _) if !error.is_null() => Err(refusal(error)),
        (_, Some(result)) => Ok(result),
        // A null in place of an error says that there is none.
        (Some(_), None) => Ok(Value::Null),
        (None, None) => return Err(Unreadable::NoMessage),
    };
    Ok(Incoming::Reply { id, result })
}

/// An id of ours; some servers make text of it.
fn number(id: &Value) -> Option<u32> {
    match id {
        Value::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn refusal(mut error: Value) -> ClientError {
    ClientError::Server {
        code: error["code"].as_i64().unwrap_or(0),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        data: error.get_mut("data").map(Value::take).unwrap_or_default(),
    }
}

/// The text of a request; of a notification when there is no `id`.
pub fn request(id: Option<u32>, method: &str, params: &Value) -> String {
    let mut text = String::from("{\"jsonrpc\":\"2.0\"");
    if let Some(id) = id {
        text += &format!(",\"id\":{id}");
    }
    text += &format!(",\"method\":{}", Value::from(method));
    if !params.is_null() {
        text += &format!(",\"params\":{params}");
    }
    text + "}"
}

/// The answer to a request of the server: there are no methods here.
pub fn no_such_method(id: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found."}})
        .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000;

    #[test]
    fn an_answer_is_a_result_or_an_error_of_the_server() {
        for id in ["7", "\"7\""] {
            let text = format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{{"value":1}}}}"#);
            let reply = Incoming::Reply { id: Some(7), result: Ok(json!({"value": 1})) };
            assert_eq!(read(&text, LIMIT), Ok(reply));
        }
        let text = r#"{"error":{"code":40007,"data":{"type":"X"},"message":"Invalid session"},"id":3,"jsonrpc":"2.0"}"#;
        let error = ClientError::Server {
            code: 40007,
            message: "Invalid session".to_owned(),
            data: json!({"type": "X"}),
        };
        assert_eq!(read(text, LIMIT), Ok(Incoming::Reply { id: Some(3), result: Err(error) }));
        let text = r#"{"id":3,"error":null,"result":null}"#;
        assert_eq!(read(text, LIMIT), Ok(Incoming::Reply { id: Some(3), result: Ok(Value::Null) }));
    }

    #[test]
    fn what_has_a_method_asks_or_tells() {
        let told = Notification { method: "onEvent".to_owned(), params: json!({"a": 1}) };
        assert_eq!(
            read(r#"{"jsonrpc":"2.0","method":"onEvent","params":{"a":1}}"#, LIMIT),
            Ok(Incoming::Notification(told))
        );
        assert_eq!(
            read(r#"{"jsonrpc":"2.0","id":"q","method":"poll"}"#, LIMIT),
            Ok(Incoming::Request { id: json!("q"), method: "poll".to_owned() })
        );
    }

    #[test]
    fn what_is_no_message_is_named() {
        let deep = format!("{{\"id\":1,\"result\":{}1{}}}", "[".repeat(300), "]".repeat(300));
        for (text, reason) in [
            ("", Unreadable::NoJson),
            ("{", Unreadable::NoJson),
            (&deep, Unreadable::NoJson),
            ("[]", Unreadable::NoMessage),
            ("{}", Unreadable::NoMessage),
            (r#"{"id":1}"#, Unreadable::NoMessage),
            (r#"{"method":1}"#, Unreadable::NoMessage),
            (&"x".repeat(LIMIT + 1), Unreadable::TooLong),
        ] {
            assert_eq!(read(text, LIMIT), Err(reason), "{text:.40}");
        }
    }

    #[test]
    fn errors_of_any_shape_are_errors() {
        for (error, code) in [("7", 0), ("{}", 0), (r#"{"code":"x"}"#, 0), (r#"{"code":-1}"#, -1)] {
            let reply = read(&format!(r#"{{"id":1,"error":{error}}}"#), LIMIT).expect("a reply");
            let Incoming::Reply { result: Err(error), .. } = reply else { panic!("{reply:?}") };
            assert_eq!(error.code(), Some(code));
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let _ = read(&text, LIMIT);
        }

        #[test]
        fn requests_read_back_as_they_were_meant(id in any::<u32>(), method in any::<String>(), text in any::<String>()) {
            let written = request(Some(id), &method, &json!({"a": text}));
            let value: Value = serde_json::from_str(&written).expect("json");
            prop_assert_eq!(value, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"a": text}}));
        }
    }
}

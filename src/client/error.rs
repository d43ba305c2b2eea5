//! What can go wrong between an application and a server.

use serde_json::Value;

/// Why a request, or the connection, came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The server refused; the codes of Kurento's catalogue are 40000 to 49999.
    #[error("{message} ({code})")]
    Server {
        code: i64,
        message: String,
        /// `error.data`; null when the server sent none.
        data: Value,
    },
    #[error("'{0}' is no address of a WebSocket")]
    Url(String),
    #[error("an option is not usable: {0}")]
    Option(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nothing came in time. The server may still carry the request out.
    #[error("no answer in time")]
    Timeout,
    /// The connection was cut while the request was under way. Whether it was carried out is unknown.
    #[error("the connection was cut before the answer came")]
    Interrupted,
    /// The client was closed, or has given up reconnecting.
    #[error("the client is closed")]
    Closed,
    /// As many requests as the options allow are waiting already.
    #[error("too many requests are waiting")]
    Busy,
    /// A message longer than the options allow.
    #[error("a message of {bytes} bytes is beyond the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// What was to be sent cannot be written as JSON.
    #[error("cannot be sent: {0}")]
    Encode(String),
    /// The server's answer is not what was asked for.
    #[error("the answer is not understood: {0}")]
    Decode(String),
    /// Optional parameters count only while all before them are given, and this one has no default.
    #[error("'{0}' is needed for the parameters after it")]
    MissingArgument(&'static str),
}

impl ClientError {
    /// The code of an error that the server answered.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }
}

//! How a client connects, how long it waits, and how much it keeps.

use std::fmt;
use std::time::Duration;

/// Settings of a [`super::Client`]; the defaults suit a server nearby.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Token>,
    /// Sent as `Origin`.
    pub origin: Option<String>,
    /// Whose certificates are believed, for addresses that begin with `wss`.
    pub trust: Trust,
    /// A session of an earlier client to go on with.
    pub session: Option<String>,
    /// How long a request waits for its answer, the time it spends in the queue included. A server
    /// that reads nothing for so long while there is something to be read is given up.
    pub request_timeout: Duration,
    /// How long dialling, TLS, the WebSocket's handshake and `connect` may take together.
    pub connection_timeout: Duration,
    /// A connection over which nothing came for so long is given up. `None` leaves it open for ever.
    pub idle_timeout: Option<Duration>,
    /// How often the server is pinged. `None` for never.
    pub heartbeat: Option<Duration>,
    /// How long a ping waits for its answer before the connection is given up. Servers may answer
    /// one request after the other, so a ping also waits for the requests that were sent before it
    /// over the same connection, as long as they do and [`Self::longest_answer`] allows.
    pub heartbeat_timeout: Duration,
    /// How long a ping waits for any one answer before its own, even if the request waits longer.
    /// Raise it for servers that answer in order and may take longer over a single request: the
    /// heartbeat would cut their connection. A server that is gone is noticed so much later.
    pub longest_answer: Duration,
    /// What happens after a connection was lost. `None` to close the client then.
    pub reconnect: Option<Reconnect>,
    /// Whether requests that were under way when the connection was cut are sent again under the
    /// same id and session, instead of failing as interrupted. Servers answer a repeated id from
    /// memory; one whose first execution is not over yet may be carried out twice.
    pub retry: bool,
    /// Requests under way at one time; further ones wait in the queue.
    pub in_flight: usize,
    /// Requests in the queue; further ones fail as busy.
    pub queue: usize,
    /// Bytes of a message, in either direction.
    pub message_bytes: usize,
    /// What each listener, receiver of notifications and receiver of events keeps for a slow
    /// reader, which then loses the oldest.
    pub event_queue: usize,
    /// Typed subscriptions that receive at one time.
    pub subscriptions: usize,
}

/// A secret; it is not shown where options are.
#[derive(Clone)]
pub struct Token(pub String);

/// Waiting before each attempt to connect again: from `first`, doubling, to `longest`, each made up
/// to a half shorter at random so that many clients do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    pub first: Duration,
    pub longest: Duration,
    /// Attempts in a row before the client closes itself. `None` for no end.
    pub attempts: Option<u32>,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The root certificates that this machine is set up with.
    #[default]
    System,
    /// The certificates in this PEM text and no others.
    OwnAuthority(Vec<u8>),
    /// Anybody's: whoever stands between can read and change everything. For tests.
    DangerouslyTrustAnyone,
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            origin: None,
            trust: Trust::default(),
            session: None,
            request_timeout: Duration::from_secs(10),
            connection_timeout: Duration::from_secs(5),
            idle_timeout: None,
            heartbeat: Some(Duration::from_secs(5)),
            heartbeat_timeout: Duration::from_secs(10),
            longest_answer: Duration::from_secs(60),
            reconnect: Some(Reconnect::default()),
            retry: false,
            in_flight: 1_024,
            queue: 4_096,
            message_bytes: 32_000_000,
            event_queue: 1_024,
            subscriptions: 10_000,
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(10), attempts: None }
    }
}

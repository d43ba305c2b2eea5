//! Settings of the server, typed, with the values that hold when nobody says otherwise.
//!
//! Reading them from flags is `main`'s; nothing here looks at the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Everything that can be set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub control: ControlConfig,
    pub sessions: SessionConfig,
    pub resources: ResourceConfig,
    pub limits: Limits,
    pub media: MediaConfig,
}

/// The port that clients, browsers and monitors talk to.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Loopback, because the protocol knows no authentication: a public address is the operator's
    /// decision, and earns a warning.
    pub bind: IpAddr,
    /// 0 takes a free one.
    pub port: u16,
    /// The WebSocket's path, without the leading slash.
    pub path: String,
}

/// How long clients are remembered.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// A session that gave no sign of life between two rounds of the collector ends; so it lives
    /// for one to two periods after its connection is gone.
    pub collector_period: Duration,
}

/// What of the system's limits may be used, as the original names it.
#[derive(Clone, Debug)]
pub struct ResourceConfig {
    /// The share of files and threads beyond which nothing more is created.
    pub exception_limit: f64,
    /// The share of files and threads beyond which the server ends itself once it is empty.
    pub kill_limit: Option<f64>,
    /// No answers are kept for those who ask again.
    pub disable_request_cache: bool,
}

/// What clients can make the server hold. Each limit is answered or counted when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open TCP connections to the control port; further ones are closed at once.
    pub connections: usize,
    /// Bytes of one WebSocket message; a longer one closes its connection with 1009.
    pub message_bytes: usize,
    /// Messages waiting for a client that does not read; one more closes its connection.
    pub queued_messages: usize,
    /// Time a client has to send the head of an HTTP request.
    pub handshake: Duration,
    /// Arrays and objects inside each other in one message, 127 at most.
    pub nesting: usize,
    /// JSON values in one message.
    pub values: usize,
    /// Bytes of a request's id.
    pub id_bytes: usize,
    pub sessions: usize,
    /// Bytes of a session id that a client chose.
    pub session_id_bytes: usize,
    /// Objects of all sessions.
    pub objects: usize,
    /// Objects that one session holds.
    pub session_objects: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Subscriptions of one session.
    pub session_subscriptions: usize,
    /// Operations of one transaction, those of transactions inside it included.
    pub operations: usize,
    /// Tags of one object.
    pub tags: usize,
    /// Bytes of an object's name, of a tag's key and of its value.
    pub text_bytes: usize,
    /// Answers of one session that are kept for it to ask again; none switches that off.
    pub kept_answers: usize,
    /// Bytes of memory that all answers take that are kept.
    pub kept_bytes: usize,
    /// Requests that are finished after their connection was cut.
    pub orphaned_requests: usize,
}

/// Where media comes in and who handles it.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Threads that move media; one per core when none is given.
    pub workers: Option<usize>,
    /// Local addresses to receive media at and to announce; all usable ones when empty.
    pub addresses: Vec<IpAddr>,
    /// First UDP port; worker n takes the n-th after it. 0 lets the system choose.
    pub port: u16,
    /// Where endpoints of plain RTP get their ports.
    pub rtp_ports: PortRange,
    /// Pairs of such ports that there may be; each is two sockets. No more than take half of the files
    /// that the system allows, in any case.
    pub rtp_pairs: usize,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            workers: None,
            addresses: Vec::new(),
            port: 0,
            rtp_ports: PortRange { first: 1_024, last: 65_535 },
            rtp_pairs: 16_384,
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { bind: Ipv4Addr::LOCALHOST.into(), port: 8888, path: "kurento".to_owned() }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { collector_period: Duration::from_secs(240) }
    }
}

impl Default for ResourceConfig {
    fn default() -> Self {
        Self { exception_limit: 0.8, kill_limit: None, disable_request_cache: false }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            message_bytes: 32_000_000,
            queued_messages: 4_096,
            handshake: Duration::from_secs(10),
            nesting: 64,
            values: 100_000,
            id_bytes: 1_024,
            sessions: 50_000,
            session_id_bytes: 1_024,
            objects: 100_000,
            session_objects: 50_000,
            subscriptions: 200_000,
            session_subscriptions: 50_000,
            operations: 10_000,
            tags: 1_024,
            text_bytes: 64 << 10,
            kept_answers: 1_024,
            kept_bytes: 32 << 20,
            orphaned_requests: 1_024,
        }
    }
}

impl Config {
    /// What an operator should hear about these settings, in the log and on `/health`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.control.bind.is_loopback() {
            warnings.push(format!(
                "the control port is bound to {}, and whoever can reach it can use every pipeline: \
                 the protocol has no authentication",
                self.control.bind
            ));
        }
        warnings
    }

    /// Where the control port listens.
    pub fn control_address(&self) -> SocketAddr {
        SocketAddr::new(self.control.bind, self.control.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_beyond_loopback_earns_a_warning() {
        let mut config = Config::default();
        assert!(config.warnings().is_empty());
        config.control.bind = Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(config.warnings().len(), 1);
    }
}

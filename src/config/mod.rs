//! Settings of the server, typed, with the values that hold when nobody says otherwise.
//!
//! `settings` is the table of all that can be set; `load` fills a [`Config`] from files, environment
//! and flags and remembers where each value came from. The disk is read in `files` alone.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

mod files;
mod load;
mod settings;

pub mod modules;
pub mod tree;
pub mod value;

pub use files::{CONF_FILE, Sources, read};
pub use load::{ConfigError, Loaded, Loader, Origin, variable};
pub use modules::ModuleConfig;
pub use settings::{SETTINGS, Setting, find};
pub use value::{PrivateUrl, Secret};

/// Everything that can be set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub control: ControlConfig,
    pub sessions: SessionConfig,
    pub resources: ResourceConfig,
    pub limits: Limits,
    pub media: MediaConfig,
    pub modules: ModuleConfig,
    pub logs: LogConfig,
    /// What the operator wants clients to know of this server.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// The ports that clients, browsers and monitors talk to.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Loopback, because the protocol knows no authentication: a public address is the operator's
    /// decision, and earns a warning. None is every address.
    pub bind: Option<IpAddr>,
    /// Whether every address means those of IPv6 too.
    pub ipv6: bool,
    /// Whether `ws://` is spoken.
    pub plain: bool,
    /// 0 takes a free one.
    pub port: u16,
    /// Connections that the system holds until they are accepted; as many as it lets when none.
    pub backlog: Option<u32>,
    /// The WebSocket's path, without the leading slash.
    pub path: String,
    /// Requests that the original carries out at the same time. Here there is no such number.
    pub threads: u32,
    pub secure: SecureConfig,
    pub registrar: RegistrarConfig,
    /// Who wants to use the server must say it.
    pub token: Option<Secret>,
    /// Pages that may open a WebSocket.
    pub origins: Origins,
    /// Time for pipelines and connections to end when the server stops.
    pub stop: Duration,
}

/// The port that speaks TLS.
#[derive(Clone, Debug, Default)]
pub struct SecureConfig {
    /// 0 takes a free one.
    pub port: Option<u16>,
    /// PEM: certificate, what is between it and its root, and private key.
    pub certificate: Option<PathBuf>,
    pub password: Option<Secret>,
}

/// Where the server announces itself.
#[derive(Clone, Debug)]
pub struct RegistrarConfig {
    /// A WebSocket.
    pub address: Option<PrivateUrl>,
    /// The name or address that the server calls itself by.
    pub local_address: String,
}

/// The pages that browsers may connect from (RFC 6454). Who sends no `Origin` is no browser and
/// always welcome.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origins {
    #[default]
    Any,
    /// In small letters.
    Only(Vec<String>),
}

/// When the server refuses work for the sake of the machine.
#[derive(Clone, Debug)]
pub struct ResourceConfig {
    /// Fraction of the process's limits of threads and files beyond which nothing is created.
    pub exception_limit: f64,
    /// Fraction beyond which the server ends itself once its last object is gone.
    pub kill_limit: Option<f64>,
    /// Whether a request that comes twice is carried out twice.
    pub disable_request_cache: bool,
}

/// What is logged and where to.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Targets and levels as `RUST_LOG` names them.
    pub level: Option<String>,
    /// Categories and levels as `GST_DEBUG` names them.
    pub gst_debug: Option<String>,
    /// The level of all categories that `gst_debug` does not name.
    pub gst_debug_level: Option<u32>,
    /// Folder of files; standard error when there is none.
    pub folder: Option<PathBuf>,
    /// Megabytes of one file.
    pub file_megabytes: u32,
    /// Files that are kept.
    pub files: u32,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
    /// As the original writes it.
    Kurento,
}

/// How long clients are remembered.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// A session that gave no sign of life between two rounds of the collector ends; so it lives
    /// for one to two periods after its connection is gone.
    pub collector_period: Duration,
}

/// What clients can make the server hold. Each limit is answered or counted when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open TCP connections to the control port; further ones are closed at once.
    pub connections: usize,
    /// Of them, those from one address.
    pub connections_per_address: Option<usize>,
    /// Bytes of one WebSocket message; a longer one closes its connection with 1009.
    pub message_bytes: usize,
    /// Bytes of one frame of a message; a longer one closes its connection with 1009.
    pub frame_bytes: usize,
    /// Time for a message from its first byte to its last; then its connection closes with 1008.
    pub message: Duration,
    /// Bytes of messages that are not answered yet, of all connections together, 64 KiB of each
    /// not counted; the connection that brings more closes with 1013.
    pub receiving_bytes: usize,
    /// Messages waiting for a client that does not read; one more closes its connection.
    pub queued_messages: usize,
    /// Bytes of those messages.
    pub queued_bytes: usize,
    /// Time a client has for its part of TLS, and to send the head of an HTTP request.
    pub handshake: Duration,
    /// TLS handshakes at the same time; further ones wait for their turn.
    pub tls_handshakes: usize,
    /// Time in which a client takes something of what is sent to it; then its connection is cut.
    pub write: Duration,
    /// Time in which a client says something over its WebSocket; then it closes with 1001.
    pub idle: Option<Duration>,
    /// Arrays and objects inside each other in one message, 127 at most.
    pub nesting: usize,
    /// JSON values in one message.
    pub values: usize,
    /// Bytes of a request's id.
    pub id_bytes: usize,
    pub sessions: usize,
    /// Of them, those that began on one connection.
    pub connection_sessions: usize,
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
    /// Bytes of all those texts of one object.
    pub object_bytes: usize,
    /// Bytes of all those texts of all objects.
    pub attached_bytes: usize,
    /// Answers of one session that are kept for it to ask again.
    pub kept_answers: usize,
    /// Bytes of memory that all answers take that are kept.
    pub kept_bytes: usize,
    /// Requests that are finished after their connection was cut.
    pub orphaned_requests: usize,
    /// Pairs of ports for plain RTP, each of which is two sockets. No more than take half of the files
    /// that the system allows, in any case.
    pub rtp_pairs: usize,
}

/// Where media comes in and who handles it.
#[derive(Clone, Debug, Default)]
pub struct MediaConfig {
    /// Threads that move media; one per core when none is given.
    pub workers: Option<usize>,
    /// Whether each of them stays on a core of its own.
    pub pin: bool,
    /// Local addresses to receive media at and to announce; all usable ones when empty.
    pub addresses: Vec<IpAddr>,
    /// First UDP port; worker n takes the n-th after it. 0 lets the system choose.
    pub port: u16,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            ipv6: true,
            plain: true,
            port: 8888,
            backlog: None,
            path: "kurento".to_owned(),
            threads: 10,
            secure: SecureConfig::default(),
            registrar: RegistrarConfig::default(),
            token: None,
            origins: Origins::Any,
            stop: Duration::from_secs(10),
        }
    }
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self { address: None, local_address: "localhost".to_owned() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: None,
            gst_debug: None,
            gst_debug_level: None,
            folder: None,
            file_megabytes: 100,
            files: 10,
        }
    }
}

impl Default for ResourceConfig {
    fn default() -> Self {
        Self { exception_limit: 0.8, kill_limit: None, disable_request_cache: false }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { collector_period: Duration::from_secs(240) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: None,
            message_bytes: 32_000_000,
            frame_bytes: 32_000_000,
            message: Duration::from_secs(30),
            receiving_bytes: 256 << 20,
            queued_messages: 4_096,
            queued_bytes: 8 << 20,
            handshake: Duration::from_secs(10),
            tls_handshakes: 1_024,
            write: Duration::from_secs(30),
            idle: None,
            nesting: 64,
            values: 100_000,
            id_bytes: 1_024,
            sessions: 50_000,
            connection_sessions: 1_000,
            session_id_bytes: 1_024,
            objects: 100_000,
            session_objects: 50_000,
            subscriptions: 200_000,
            session_subscriptions: 50_000,
            operations: 10_000,
            tags: 1_024,
            text_bytes: 64 << 10,
            object_bytes: 256 << 10,
            attached_bytes: 256 << 20,
            kept_answers: 1_024,
            kept_bytes: 32 << 20,
            orphaned_requests: 1_024,
            rtp_pairs: 16_384,
        }
    }
}

impl ControlConfig {
    /// Whether only this machine can reach the control ports.
    pub fn is_local(&self) -> bool {
        self.bind.is_some_and(|address| address.is_loopback())
    }
}

impl Config {
    /// What an operator should hear about these settings, in the log and on `/health`.
    pub fn warnings(&self) -> Vec<String> {
        let control = &self.control;
        let mut warnings = Vec::new();
        if !control.is_local() && control.token.is_none() {
            let place = control.bind.map_or("every address".to_owned(), |bind| bind.to_string());
            let pages = match control.origins {
                Origins::Any => ", and any page in a browser that can",
                Origins::Only(_) => "",
            };
            warnings.push(format!(
                "the control port is bound to {place} without a token: whoever can reach \
                 it{pages}, can use every pipeline"
            ));
        }
        if control.secure.port.is_some() && control.secure.certificate.is_none() {
            warnings.push("there is a port for TLS, and no certificate for it".to_owned());
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_beyond_loopback_without_a_token_earns_a_warning() {
        let mut config = Config::default();
        assert!(config.warnings().is_empty());
        for bind in [None, Some(Ipv4Addr::UNSPECIFIED.into())] {
            config.control.bind = bind;
            config.control.token = None;
            assert_eq!(config.warnings().len(), 1);
            config.control.token = Some(Secret::new("key"));
            assert!(config.warnings().is_empty());
        }
    }
}

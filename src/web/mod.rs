//! Shell: the control ports, where HTTP and WebSockets are spoken, over TLS too.
//!
//! `/kurento` (or what it was named) is a WebSocket (RFC 6455) that carries one JSON text per
//! message; `/` is the demonstration page, `/health` and `/metrics` are for monitors. What is said
//! over a WebSocket is the business of the [`Service`]. Left out: compression, subprotocols.
//!
//! What a stranger can hold is bounded: connections, those of one address, TLS handshakes, the time
//! for a handshake and for the head of a request, the time in which something that is sent must be
//! taken, the bytes of a message and the time for it, the bytes of all messages that are not answered
//! yet. What falls out is counted under its reason.
//!
//! As in the original, a WebSocket on another path is opened and closed with 1002, a plain request
//! for the WebSocket's path is answered 426, and an upgrade without a key 500: the original's own
//! health check sends that and takes 500 for a sign of health.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FusedStream;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use self::guard::{Crowd, Member};
use self::receiving::{Allowance, Budget, Receiving, Refusal};
use self::stream::{Impatient, Stream};
use crate::config::Config;
use crate::jsonrpc::{Farewell, Messages};
use crate::metrics::Metrics;

mod guard;
mod listen;
mod receiving;
mod stream;
mod tls;

pub use self::guard::Rules;
pub use self::listen::{Listener, Listeners, listen};
pub use self::tls::{Identity, TlsError};

/// Buffer per connection; most messages are smaller, and thousands of connections are idle.
const BUFFER: usize = 8 * 1024;
/// How long a connection that is being closed has for its part of it.
const LINGER: Duration = Duration::from_secs(1);
/// For whom there is no place.
const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

const PAGE: &str = include_str!("../../web/index.html");
const SCRIPT: &str = include_str!("../../web/demo.js");
const STYLE: &str = include_str!("../../web/demo.css");

/// What answers on the control port.
pub trait Service: Send + Sync + 'static {
    /// A WebSocket opened.
    fn open(&self) -> (u64, Outgoing);
    /// The reply to a text, if there is one. Called for one text of a connection after the other.
    fn request(&self, connection: u64, text: &str) -> impl Future<Output = Option<Bytes>> + Send;
    /// The WebSocket is gone.
    fn close(&self, connection: u64);
    /// For `/health`.
    fn health(&self) -> Health;
    /// Text for `/metrics`.
    fn metrics(&self) -> String;
}

/// What monitors are told.
#[derive(Debug)]
pub struct Health {
    /// Whether work can be done.
    pub well: bool,
    /// JSON.
    pub text: String,
}

/// What goes out over a WebSocket beside replies. What was queued before a reply goes out before it.
#[derive(Debug)]
pub struct Outgoing {
    /// JSON texts.
    pub messages: Messages,
    /// Tells the connection to close, and why.
    pub close: oneshot::Receiver<Farewell>,
}

struct Door<S> {
    service: Arc<S>,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    /// For TLS handshakes.
    turns: Semaphore,
    /// For messages that are not answered yet.
    budget: Arc<Budget>,
    stop: watch::Receiver<bool>,
}

/// What a connection holds as long as it is open.
struct Place {
    _permit: OwnedSemaphorePermit,
    _member: Member,
}

/// Serves until `stop` turns true. Connections that are open then are told so.
pub async fn serve<S: Service>(
    listeners: Vec<Listener>,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    service: Arc<S>,
    stop: watch::Receiver<bool>,
) {
    let config = rules.get();
    let places = Arc::new(Semaphore::new(config.limits.connections));
    let crowd = Arc::new(Crowd::default());
    let turns = Semaphore::new(config.limits.tls_handshakes);
    let door = Arc::new(Door { service, rules, metrics, turns, budget: Arc::default(), stop });
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        accepting.spawn(door.clone().accept(listener, places.clone(), crowd.clone()));
    }
    // Not the door itself, which waits for the end as well.
    drop(door);
    while accepting.join_next().await.is_some() {}
}

impl<S: Service> Door<S> {
    async fn accept(
        self: Arc<Self>,
        listener: Listener,
        places: Arc<Semaphore>,
        crowd: Arc<Crowd>,
    ) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let limit = self.rules.get().limits.connections_per_address;
            let place = match (places.clone().try_acquire_owned(), crowd.join(peer.ip(), limit)) {
                (Ok(permit), Some(member)) => Place { _permit: permit, _member: member },
                (permit, _) => {
                    let all = permit.is_err();
                    let reason = if all { "connections" } else { "connections_per_address" };
                    self.metrics.connection_refused(reason);
                    if !listener.is_secure() {
                        // As much as the system takes at once, which is all of it.
                        let _ = stream.try_write(NO_PLACE);
                    }
                    continue;
                }
            };
            tracing::debug!(%peer, "connection");
            tokio::spawn(self.clone().welcome(stream, listener.tls.clone(), place));
        }
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, tls: Option<TlsAcceptor>, place: Place) {
        // Without it, what follows a reply waits for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let config = self.rules.get();
        let metrics = self.metrics.clone();
        let impatient = |stream| Impatient::new(stream, config.limits.write, metrics);
        let Some(tls) = tls else {
            return self.speak_http(Stream::Plain(impatient(stream)), &config, place).await;
        };
        let patience = config.limits.handshake;
        let handshake = async {
            // Who has said nothing yet does not need a turn, and the time until one is free is not
            // the client's.
            match tokio::time::timeout(patience, stream.peek(&mut [0])).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Ok(Err(error)),
                Err(late) => return Err(late),
            }
            let _turn = self.turns.acquire().await;
            tokio::time::timeout(patience, tls.accept(impatient(stream))).await
        };
        let mut stop = self.stop.clone();
        let secured = tokio::select! {
            secured = handshake => secured,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match secured {
            Ok(Ok(stream)) => {
                self.speak_http(Stream::Secure(Box::new(stream)), &config, place).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                self.metrics.connection_cut("tls_failed");
            }
            Err(_) => self.metrics.connection_cut("slow_handshake"),
        }
    }

    async fn speak_http(self: Arc<Self>, stream: Stream, config: &Config, place: Place) {
        let place = Arc::new(place);
        let door = self.clone();
        let service = service_fn(move |request| {
            let reply = door.clone().answer(request, place.clone());
            async move { Ok::<_, Infallible>(reply) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.limits.handshake);
        http.max_buf_size(2 * BUFFER);
        let conversation = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut stop = self.stop.clone();
        tokio::select! {
            result = conversation => if let Err(error) = result {
                tracing::debug!(%error, "HTTP ended");
                if error.is_timeout() {
                    self.metrics.connection_cut("slow_request");
                }
            },
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    fn answer(self: Arc<Self>, request: Request<Incoming>, place: Arc<Place>) -> Response<String> {
        let config = self.rules.get();
        if names(request.headers(), header::UPGRADE, "websocket") {
            return self.upgrade(request, config, place);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = request.uri().path();
        match path {
            "/" | "/index.html" => page("text/html; charset=utf-8", PAGE.to_owned()),
            "/demo.js" => page("text/javascript; charset=utf-8", SCRIPT.to_owned()),
            "/demo.css" => page("text/css; charset=utf-8", STYLE.to_owned()),
            "/health" => {
                let health = self.service.health();
                let mut response = page("application/json", health.text);
                if !health.well {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                response
            }
            "/metrics" if !self.knows_token(&config, &request) => unauthorised(),
            "/metrics" => page(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.service.metrics(),
            ),
            _ if path.strip_prefix('/') == Some(&config.control.path) => {
                let mut response = plain(StatusCode::UPGRADE_REQUIRED);
                let websocket = HeaderValue::from_static("websocket");
                response.headers_mut().insert(header::UPGRADE, websocket);
                response
            }
            _ => plain(StatusCode::NOT_FOUND),
        }
    }

    fn knows_token(&self, config: &Config, request: &Request<Incoming>) -> bool {
        let token = config.control.token.as_ref();
        let knows = guard::knows_token(token, request.headers(), request.uri().query());
        if !knows {
            self.metrics.connection_refused("token");
        }
        knows
    }

    /// The server's part of the opening handshake (RFC 6455 §4.2.2).
    fn upgrade(
        self: Arc<Self>,
        request: Request<Incoming>,
        config: Arc<Config>,
        place: Arc<Place>,
    ) -> Response<String> {
        let headers = request.headers();
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        };
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version != "13") {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED);
            let version = HeaderValue::from_static("13");
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            return response;
        }
        if request.method() != Method::GET || !names(headers, header::CONNECTION, "upgrade") {
            return plain(StatusCode::BAD_REQUEST);
        }
        if !self.knows_token(&config, &request) {
            return unauthorised();
        }
        if !guard::welcomes(&config.control.origins, headers) {
            tracing::info!(origin = ?headers.get(header::ORIGIN), "a page of this origin may not connect");
            self.metrics.connection_refused("origin");
            return plain(StatusCode::FORBIDDEN);
        }
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .expect("the key's hash is written in base64");
        let known = request.uri().path().strip_prefix('/') == Some(&config.control.path);
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => self.speak_websocket(upgraded, &config, known).await,
                Err(error) => tracing::debug!(%error, "handshake not finished"),
            }
            drop(place);
        });
        let mut response = plain(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    async fn speak_websocket(&self, upgraded: Upgraded, config: &Config, known_path: bool) {
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .expect("the connection was made of such a stream");
        let limits = &config.limits;
        let settings = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.frame_bytes.min(limits.message_bytes)));
        let allowance = Allowance { patience: limits.message, limit: limits.receiving_bytes };
        let stream = parts.io.into_inner();
        let stream = Receiving::new(stream, &parts.read_buf, self.budget.clone(), allowance);
        let mut socket = WebSocketStream::from_partially_read(
            stream,
            parts.read_buf.to_vec(),
            Role::Server,
            Some(settings),
        )
        .await;
        let farewell = if known_path {
            self.converse(&mut socket, limits.idle).await
        } else {
            Some((CloseCode::Protocol, "Invalid path"))
        };
        if let Some((code, reason)) = farewell {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let goodbye = async {
                let deaf = socket.is_terminated();
                socket.close(Some(frame)).await?;
                // The peer's own close; a socket closed over unread bytes would take ours back.
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
                if deaf {
                    let stream = socket.get_mut().raw();
                    stream.shutdown().await?;
                    let mut waste = vec![0; BUFFER];
                    while stream.read(&mut waste).await? > 0 {}
                }
                Ok::<_, Error>(())
            };
            match tokio::time::timeout(LINGER, goodbye).await {
                Ok(Ok(())) => tracing::debug!(reason, "closed a WebSocket"),
                _ => tracing::debug!(reason, "cut a WebSocket"),
            }
        }
    }

    /// Talks until one side ends it; what to say in parting, unless the peer said it.
    async fn converse(
        &self,
        socket: &mut WebSocketStream<Receiving<Stream>>,
        idle: Option<Duration>,
    ) -> Option<(CloseCode, &'static str)> {
        let (connection, outgoing) = self.service.open();
        // Also when a request panics, or the task is dropped.
        let _closing = Closing { service: &*self.service, connection };
        let Outgoing { mut messages, close } = outgoing;
        let mut stop = self.stop.clone();
        tokio::select! {
            result = self.exchange(socket, connection, &mut messages, idle) => match result {
                Err(Error::Io(_)) if let Some(refusal) = socket.get_ref().refusal() => {
                    let (reason, farewell) = match refusal {
                        Refusal::Slow => ("slow_message", (CloseCode::Policy, "Message not finished in time")),
                        Refusal::Full => ("receiving_bytes", (CloseCode::Again, "Too much is being received")),
                    };
                    self.metrics.connection_cut(reason);
                    Some(farewell)
                }
                Ok(End::Gone) | Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_)) => None,
                Err(Error::Utf8(_)) => Some((CloseCode::Invalid, "Invalid UTF8 encoding")),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    self.metrics.connection_cut("message_too_long");
                    Some((CloseCode::Size, "Message too long"))
                }
                Ok(End::Idle) => {
                    self.metrics.connection_cut("idle");
                    Some((CloseCode::Away, "Idle"))
                }
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => None,
                Err(_) => Some((CloseCode::Protocol, "Protocol error")),
            },
            Ok(Farewell { code, reason }) = close => Some((code.into(), reason)),
            _ = stop.wait_for(|stop| *stop) => Some((CloseCode::Away, "terminating")),
        }
    }

    async fn exchange(
        &self,
        socket: &mut WebSocketStream<Receiving<Stream>>,
        connection: u64,
        messages: &mut Messages,
        idle: Option<Duration>,
    ) -> Result<End, Error> {
        let mut silence = std::pin::pin!(tokio::time::sleep(idle.unwrap_or_default()));
        // What came while a request was carried out.
        let mut ahead = None;
        loop {
            let incoming = match ahead.take() {
                Some(incoming) => {
                    socket.get_mut().resume();
                    Some(incoming)
                }
                None => tokio::select! {
                    Some(message) = messages.recv() => {
                        feed(socket, message, messages).await?;
                        socket.flush().await?;
                        continue;
                    }
                    incoming = socket.next() => incoming,
                    () = &mut silence, if idle.is_some() => return Ok(End::Idle),
                },
            };
            let reply = match incoming.transpose()? {
                None => return Ok(End::Gone),
                Some(Message::Text(text)) => {
                    let reply =
                        self.request(socket, connection, &text, messages, &mut ahead).await?;
                    socket.get_mut().done(text.len());
                    reply
                }
                Some(Message::Binary(bytes)) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let reply =
                        self.request(socket, connection, &text, messages, &mut ahead).await?;
                    socket.get_mut().done(bytes.len());
                    reply
                }
                // Pings are answered below us, and so is a close.
                Some(_) => None,
            };
            // Events that the request caused were queued before its reply was ready.
            if let Some(message) = messages.try_recv() {
                feed(socket, message, messages).await?;
            }
            if let Some(reply) = reply {
                socket.feed(Message::Text(text(reply)?)).await?;
            }
            socket.flush().await?;
            if let Some(idle) = idle {
                silence.set(tokio::time::sleep(idle));
            }
        }
    }

    /// Has a request answered, and lets events out meanwhile. The next message, or what is wrong
    /// with it, is read already, so that a client that leaves is noticed.
    async fn request(
        &self,
        socket: &mut WebSocketStream<Receiving<Stream>>,
        connection: u64,
        text: &str,
        messages: &mut Messages,
        ahead: &mut Option<Result<Message, Error>>,
    ) -> Result<Option<Bytes>, Error> {
        tracing::debug!("Message: {text}");
        let mut answer = std::pin::pin!(self.service.request(connection, text));
        loop {
            tokio::select! {
                biased;
                reply = &mut answer => {
                    if let Some(reply) = &reply {
                        tracing::debug!("Response: {}", String::from_utf8_lossy(reply));
                    }
                    return Ok(reply);
                }
                Some(message) = messages.recv() => {
                    feed(socket, message, messages).await?;
                    socket.flush().await?;
                }
                incoming = socket.next(), if ahead.is_none() => match incoming {
                    None => return Err(Error::ConnectionClosed),
                    Some(Err(error)) if is_end(&error) => return Err(error),
                    // A close is answered by reading on.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                    Some(incoming) => *ahead = Some(incoming),
                },
            }
        }
    }
}

/// Whether nobody is there any more, or nothing more is read of whoever is.
fn is_end(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
    )
}

/// Writes a message and those queued behind it.
async fn feed(
    socket: &mut WebSocketStream<Receiving<Stream>>,
    first: Bytes,
    messages: &mut Messages,
) -> Result<(), Error> {
    let mut next = Some(first);
    while let Some(message) = next {
        socket.feed(Message::Text(text(message)?)).await?;
        next = messages.try_recv();
    }
    Ok(())
}

fn text(message: Bytes) -> Result<Utf8Bytes, Error> {
    Utf8Bytes::try_from(message).map_err(|_| Error::Utf8(String::new()))
}

/// How a conversation ended.
enum End {
    Gone,
    /// The client said nothing for too long.
    Idle,
}

struct Closing<'a, S: Service> {
    service: &'a S,
    connection: u64,
}

impl<S: Service> Drop for Closing<'_, S> {
    fn drop(&mut self) {
        self.service.close(self.connection);
    }
}

/// Whether a header's comma-separated list has `token` (RFC 9110 §5.6.1).
fn names(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().eq_ignore_ascii_case(token))
}

fn page(content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn unauthorised() -> Response<String> {
    let mut response = plain(StatusCode::UNAUTHORIZED);
    let bearer = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    response
}

fn plain(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

//! Shell: the socket, the timer and the task of a client, around its machine.
//!
//! [`Client`] is a handle: it can be cloned and used from many tasks. The connection lives until
//! [`Client::close`], or until the last handle is gone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, ORIGIN};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::error::ClientError;
use super::machine::{ConnectionEvent, Counters, FULL, Input, Machine, Output};
use super::message::Notification;
use super::options::Options;
use super::queue::Queue;
use super::tls;
use crate::clock::Clock;

/// How long a server has for its part of a close.
const LINGER: Duration = Duration::from_secs(1);
/// Most messages are smaller, and thousands of connections may be idle.
const BUFFER: usize = 8 * 1024;
/// Inputs taken at once, before what they cause is sent.
const BATCH: usize = 256;
/// Listeners, and receivers of notifications, of one client.
const READERS: usize = 64;

type Reply = oneshot::Sender<Result<Value, ClientError>>;

/// Where the answer of a request comes; see [`Client::ask`].
pub(super) struct Asked {
    pub reply: oneshot::Receiver<Result<Value, ClientError>>,
    pub late: oneshot::Receiver<Result<Value, ClientError>>,
}

/// A connection to a server, which is made again when it is lost. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inputs: mpsc::Sender<Input<Reply>>,
    /// Whether to close the session too. Read even when nothing can be written.
    closing: mpsc::Sender<bool>,
    shared: Arc<Shared>,
}

/// What handles see of the task.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    event_queue: usize,
}

#[derive(Debug, Default)]
struct State {
    session: Option<String>,
    connected: bool,
    ended: bool,
    session_closed: bool,
    counters: Counters,
    /// Requests that did not even get as far as the machine.
    refused: u64,
    listeners: Vec<Arc<Queue<ConnectionEvent>>>,
    receivers: Vec<Arc<Queue<Arc<Notification>>>>,
}

impl Client {
    /// Connects to a `ws` or `wss` address.
    ///
    /// # Errors
    /// Those of the first connection, which is not repeated: [`ClientError::Url`],
    /// [`ClientError::Option`], [`ClientError::Connect`], and [`ClientError::Server`] when the
    /// server refuses `connect`.
    pub async fn connect(url: &str, options: Options) -> Result<Self, ClientError> {
        let target = Target::new(url, &options)?;
        let clock = Clock::start();
        // A uuid's bits are random but for its version.
        let seed = uuid::Uuid::new_v4().as_u64_pair().1 ^ uuid::Uuid::new_v4().as_u64_pair().0;
        let (inputs, receiver) = mpsc::channel(options.queue.clamp(1, 1 << 20));
        let (closing, closed) = mpsc::channel(1);
        let shared = Arc::new(Shared { state: Mutex::default(), event_queue: options.event_queue });
        let (started, first) = oneshot::channel();
        let task = Task {
            machine: Machine::new(clock.now(), options, seed),
            clock,
            target: Arc::new(target),
            link: Link::None,
            outgoing: Outgoing::default(),
            shared: shared.clone(),
            started: Some(started),
        };
        tokio::spawn(task.run(receiver, closed));
        first.await.map_err(|_| ClientError::Closed)??;
        Ok(Self { inputs, closing, shared })
    }

    #[cfg(test)]
    pub(super) fn closed() -> Self {
        let (inputs, _) = mpsc::channel(1);
        let (closing, _) = mpsc::channel(1);
        let shared = Arc::new(Shared { state: Mutex::default(), event_queue: 1 });
        Self { inputs, closing, shared }
    }

    /// A request; the answer's `result`.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Server`] is what the server answered.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.call_within(None, method, params).await
    }

    /// A request that may take longer, or shorter, than others.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within(
        &self,
        timeout: Option<Duration>,
        method: &str,
        params: Value,
    ) -> Result<Value, ClientError> {
        let (to, reply) = oneshot::channel();
        let method = method.to_owned();
        self.input(Input::Request { to: Some(to), late: None, method, params, timeout })?;
        reply.await.map_err(|_| ClientError::Closed)?
    }

    /// A request with typed parameters and a typed result.
    ///
    /// # Errors
    /// As [`Self::call`]; [`ClientError::Encode`] and [`ClientError::Decode`].
    pub async fn request<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        params: P,
    ) -> Result<R, ClientError> {
        let params =
            serde_json::to_value(params).map_err(|error| ClientError::Encode(error.to_string()))?;
        let result = self.call(method, params).await?;
        serde_json::from_value(result).map_err(|error| ClientError::Decode(error.to_string()))
    }

    /// Says something that wants no answer. It waits for a connection as long as a request would.
    ///
    /// # Errors
    /// [`ClientError::Encode`], [`ClientError::Busy`] and [`ClientError::Closed`].
    pub fn notify<P: Serialize>(&self, method: &str, params: P) -> Result<(), ClientError> {
        let params =
            serde_json::to_value(params).map_err(|error| ClientError::Encode(error.to_string()))?;
        let method = method.to_owned();
        self.input(Input::Request { to: None, late: None, method, params, timeout: None })
    }

    /// A request whose answer matters even if nobody waits for it any more: the answer or the
    /// time-out, and what comes after a time-out. The latter ends when the answer cannot come.
    pub(super) fn ask(&self, method: &str, params: Value) -> Result<Asked, ClientError> {
        let (to, reply) = oneshot::channel();
        let (later, late) = oneshot::channel();
        let (to, later, method) = (Some(to), Some(later), method.to_owned());
        self.input(Input::Request { to, late: later, method, params, timeout: None })?;
        Ok(Asked { reply, late })
    }

    /// A request whose answer does not matter, from where nothing can wait.
    pub(super) fn post(&self, method: &str, params: Value) {
        let (to, _) = oneshot::channel();
        let method = method.to_owned();
        // A client that is closed, or has too much to do, is told by other means.
        let _ =
            self.input(Input::Request { to: Some(to), late: None, method, params, timeout: None });
    }

    fn input(&self, input: Input<Reply>) -> Result<(), ClientError> {
        self.inputs.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.shared.lock().refused += 1;
                ClientError::Busy
            }
            mpsc::error::TrySendError::Closed(_) => ClientError::Closed,
        })
    }

    /// What becomes of the connection, from now on. One that is up is told first.
    ///
    /// # Errors
    /// [`ClientError::Busy`] when there are too many listeners.
    pub fn listener(&self) -> Result<Listener, ClientError> {
        let queue = Queue::new(self.shared.event_queue);
        let mut state = self.shared.lock();
        if state.connected {
            queue.push(ConnectionEvent::Connected);
        }
        let ended = state.ended;
        attach(&mut state.listeners, &queue, ended)?;
        Ok(Listener(queue))
    }

    /// What the server says unasked, from now on.
    ///
    /// # Errors
    /// [`ClientError::Busy`] when there are too many receivers.
    pub fn notifications(&self) -> Result<Notifications, ClientError> {
        let queue = Queue::new(self.shared.event_queue);
        let mut state = self.shared.lock();
        let ended = state.ended;
        attach(&mut state.receivers, &queue, ended)?;
        Ok(Notifications(queue))
    }

    /// The session that requests go with; none where the server has no sessions.
    pub fn session(&self) -> Option<String> {
        self.shared.lock().session.clone()
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().connected
    }

    /// What happened how often.
    pub fn counters(&self) -> Counters {
        let state = self.shared.lock();
        Counters { busy: state.counters.busy + state.refused, ..state.counters }
    }

    /// Ends the connection; with `session`, the session too. Requests that wait fail as closed.
    /// Returns when the server has answered that the session is closed, or had time to.
    ///
    /// Whether the session is closed. It is not where that was not asked for; where there is no
    /// connection at this moment, as while the client reconnects: then nothing is sent, and the
    /// server keeps the session until it forgets it for want of a client; where the server did not
    /// answer in time, or refused; and where it has no sessions.
    pub async fn close(&self, session: bool) -> bool {
        if self.closing.send(session).await.is_ok() {
            self.inputs.closed().await;
        }
        self.shared.lock().session_closed
    }
}

fn attach<T>(
    queues: &mut Vec<Arc<Queue<T>>>,
    queue: &Arc<Queue<T>>,
    ended: bool,
) -> Result<(), ClientError> {
    // Readers that are gone leave their place to others.
    queues.retain(|queue| Arc::strong_count(queue) > 1);
    if queues.len() >= READERS {
        return Err(ClientError::Busy);
    }
    if ended {
        queue.close();
    } else {
        queues.push(queue.clone());
    }
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of the connection, in order.
#[derive(Debug)]
pub struct Listener(Arc<Queue<ConnectionEvent>>);

impl Listener {
    /// The next event; none when the client is closed.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        self.0.pop().await
    }

    /// How many were lost because they were not read in time.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

/// What the server says unasked, in order.
#[derive(Debug)]
pub struct Notifications(Arc<Queue<Arc<Notification>>>);

impl Notifications {
    /// The next one; none when the client is closed.
    pub async fn next(&mut self) -> Option<Arc<Notification>> {
        self.0.pop().await
    }

    /// How many were lost because they were not read in time.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream that counts what is written: a long text may be on its way for long, and yet move.
struct Counted {
    stream: Box<dyn Stream>,
    written: u64,
}

type Socket = WebSocketStream<Counted>;
type Dialling = Pin<Box<dyn Future<Output = Result<Socket, String>> + Send>>;

enum Link {
    None,
    Dialling(Dialling),
    Open(Box<Socket>),
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.written += written as u64;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What is to be written, and what the machine knows of it.
#[derive(Default)]
struct Outgoing {
    /// Texts on their way; see [`FULL`].
    texts: VecDeque<String>,
    unflushed: bool,
    /// What was unwritten when the machine was told last.
    told: usize,
    /// Bytes that had been written then.
    written: u64,
}

impl Outgoing {
    fn unwritten(&self) -> usize {
        self.texts.len() + usize::from(self.unflushed)
    }

    fn clear(&mut self) {
        self.texts.clear();
        self.unflushed = false;
    }
}

struct Task {
    machine: Machine<Reply>,
    clock: Clock,
    target: Arc<Target>,
    link: Link,
    outgoing: Outgoing,
    shared: Arc<Shared>,
    started: Option<oneshot::Sender<Result<(), ClientError>>>,
}

impl Task {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input<Reply>>,
        mut closing: mpsc::Receiver<bool>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut handles = true;
        while self.carry_out() {
            // A server that talks without a pause leaves others their turn.
            tokio::task::coop::consume_budget().await;
            let wake = self.machine.poll_timeout();
            let full = self.outgoing.unwritten() >= FULL;
            tokio::select! {
                taken = inputs.recv_many(&mut batch, BATCH), if handles && !full => {
                    let now = self.tell_writing();
                    if taken == 0 {
                        handles = false;
                        self.machine.handle_input(now, Input::Close { session: false });
                    }
                    for input in batch.drain(..) {
                        self.machine.handle_input(now, input);
                    }
                }
                close = closing.recv(), if handles => {
                    handles = close.is_some();
                    let now = self.tell_writing();
                    // What was said before goes before.
                    while let Ok(input) = inputs.try_recv() {
                        self.machine.handle_input(now, input);
                    }
                    let session = close.unwrap_or_default();
                    self.machine.handle_input(now, Input::Close { session });
                }
                input = poll_fn(|cx| poll_link(&mut self.link, &mut self.outgoing, full, cx)) => {
                    if matches!(input, Some(Input::Down(_))) {
                        self.link = Link::None;
                        self.outgoing.clear();
                    }
                    let now = self.tell_writing();
                    if let Some(input) = input {
                        self.machine.handle_input(now, input);
                    }
                }
                () = sleep_until(wake) => {
                    let now = self.tell_writing();
                    self.machine.handle_input(now, Input::Timeout);
                }
            }
        }
        inputs.close();
        while let Ok(input) = inputs.try_recv() {
            self.machine.handle_input(self.clock.now(), input);
        }
        self.carry_out();
        self.farewell().await;
        let mut state = self.shared.lock();
        state.connected = false;
        state.ended = true;
        state.listeners.drain(..).for_each(|queue| queue.close());
        state.receivers.drain(..).for_each(|queue| queue.close());
    }

    /// Tells the machine how writing goes; when that was.
    fn tell_writing(&mut self) -> Instant {
        let now = self.clock.now();
        let unwritten = self.outgoing.unwritten();
        let written = match &self.link {
            Link::Open(socket) => socket.get_ref().written,
            _ => 0,
        };
        let moved = written != self.outgoing.written;
        (self.outgoing.told, self.outgoing.written) = (unwritten, written);
        self.machine.handle_input(now, Input::Writing { unwritten, moved });
        now
    }

    /// Does what the machine wants done; false when that was all there is.
    fn carry_out(&mut self) -> bool {
        let mut going = true;
        let mut told = Vec::new();
        let mut notified = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Dial => {
                    let target = self.target.clone();
                    self.link = Link::Dialling(Box::pin(async move { target.dial().await }));
                }
                Output::Send(text) => self.outgoing.texts.push_back(text),
                Output::Drop => {
                    self.link = Link::None;
                    self.outgoing.clear();
                }
                Output::Answer(to, result) => {
                    // Who asked may have stopped waiting.
                    let _ = to.send(result);
                }
                Output::Started(result) => {
                    if let Some(started) = self.started.take() {
                        let _ = started.send(result);
                    }
                }
                Output::Tell(event) => told.push(event),
                Output::Notify(notification) => notified.push(Arc::new(notification)),
                Output::End => going = false,
            }
        }
        if matches!(self.link, Link::None) {
            self.outgoing.clear();
        }
        let mut state = self.shared.lock();
        if state.session.as_deref() != self.machine.session() {
            state.session = self.machine.session().map(str::to_owned);
        }
        state.connected = self.machine.is_up();
        state.session_closed = self.machine.session_closed();
        state.counters = self.machine.counters();
        for event in told {
            tracing::debug!(?event, "client");
            state.listeners.iter().for_each(|queue| _ = queue.push(event));
        }
        for notification in notified {
            state.receivers.iter().for_each(|queue| _ = queue.push(notification.clone()));
        }
        going
    }

    /// The client's part of closing a WebSocket (RFC 6455 §7.1.2), and a while for the server's.
    async fn farewell(&mut self) {
        let Link::Open(mut socket) = std::mem::replace(&mut self.link, Link::None) else { return };
        let outgoing = std::mem::take(&mut self.outgoing.texts);
        let goodbye = async {
            for text in outgoing {
                socket.feed(Message::text(text)).await?;
            }
            WebSocketStream::close(&mut socket, None).await?;
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
            Ok::<_, Error>(())
        };
        if !matches!(tokio::time::timeout(LINGER, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("the server took no part in the close");
        }
    }
}

/// Drives the link as far as it goes: writes what is on its way, then reads. No input is news of the
/// writing: it came to a halt, or is done after that, or has room where it was `full`.
fn poll_link(
    link: &mut Link,
    outgoing: &mut Outgoing,
    full: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Input<Reply>>> {
    let socket = match link {
        Link::None => return Poll::Pending,
        Link::Dialling(dialling) => {
            return dialling.as_mut().poll(cx).map(|result| match result {
                Ok(socket) => {
                    *link = Link::Open(Box::new(socket));
                    Some(Input::Open)
                }
                Err(reason) => Some(Input::Down(reason)),
            });
        }
        Link::Open(socket) => socket,
    };
    if let Poll::Ready(Err(error)) = poll_write(socket, outgoing, cx) {
        return Poll::Ready(Some(Input::Down(error.to_string())));
    }
    let unwritten = outgoing.unwritten();
    if (unwritten == 0) != (outgoing.told == 0) || (full && unwritten < FULL) {
        return Poll::Ready(None);
    }
    // A server that asks and asks, and reads no answer.
    if outgoing.texts.len() >= 2 * FULL {
        return Poll::Pending;
    }
    loop {
        let reason = match std::task::ready!(socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => {
                return Poll::Ready(Some(Input::Text(text.to_string())));
            }
            Some(Ok(Message::Close(Some(frame)))) => format!("{} {}", frame.code, frame.reason),
            Some(Ok(Message::Close(None))) | None => "closed by the server".to_owned(),
            // Pings are answered below us; a binary message is none of ours.
            Some(Ok(_)) => continue,
            Some(Err(error)) => error.to_string(),
        };
        return Poll::Ready(Some(Input::Down(reason)));
    }
}

fn poll_write(
    socket: &mut Socket,
    outgoing: &mut Outgoing,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    while !outgoing.texts.is_empty() {
        std::task::ready!(socket.poll_ready_unpin(cx))?;
        if let Some(text) = outgoing.texts.pop_front() {
            socket.start_send_unpin(Message::text(text))?;
            outgoing.unflushed = true;
        }
    }
    if outgoing.unflushed {
        std::task::ready!(socket.poll_flush_unpin(cx))?;
        outgoing.unflushed = false;
    }
    Poll::Ready(Ok(()))
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Where to connect to, and how.
struct Target {
    request: Request,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    message_bytes: usize,
}

impl Target {
    fn new(url: &str, options: &Options) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let mut request = url.into_client_request().map_err(|_| wrong())?;
        let uri = request.uri();
        let host = uri.host().ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (port, tls) = match uri.scheme_str() {
            Some("ws") => (80, None),
            Some("wss") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                (443, Some((tls::config(&options.trust)?, name)))
            }
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(port);
        let token = options.token.as_ref().map(|token| format!("Bearer {}", token.0));
        header(&mut request, AUTHORIZATION, "token", token.as_deref())?;
        header(&mut request, ORIGIN, "origin", options.origin.as_deref())?;
        Ok(Self { request, host, port, tls, message_bytes: options.message_bytes })
    }

    async fn dial(&self) -> Result<Socket, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| text(&error))?;
        // Requests are small, and the next does not wait for the answer to the one before.
        stream.set_nodelay(true).map_err(|error| text(&error))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                let stream = connector.connect(name.clone(), stream).await;
                Box::new(stream.map_err(|error| text(&error))?)
            }
        };
        let settings = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(self.message_bytes))
            .max_frame_size(Some(self.message_bytes));
        let stream = Counted { stream, written: 0 };
        let opened = client_async_with_config(self.request.clone(), stream, Some(settings)).await;
        opened.map(|(socket, _)| socket).map_err(|error| text(&error))
    }
}

fn header(
    request: &mut Request,
    name: HeaderName,
    option: &str,
    value: Option<&str>,
) -> Result<(), ClientError> {
    if let Some(value) = value {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| ClientError::Option(format!("{option} cannot stand in a header")))?;
        value.set_sensitive(name == AUTHORIZATION);
        request.headers_mut().insert(name, value);
    }
    Ok(())
}

//! A JSON-RPC client over a WebSocket that shows everything as it came over the wire.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client {
    socket: WebSocketStream<TcpStream>,
    next_id: u64,
    /// Events that arrived while a reply was awaited.
    events: VecDeque<Value>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, "/kurento").await
    }

    pub async fn connect_to(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self::over(stream, address, path).await
    }

    pub async fn over(stream: TcpStream, address: SocketAddr, path: &str) -> Self {
        let url = format!("ws://{address}{path}");
        let (socket, _) = client_async(url, stream).await.expect("the handshake succeeds");
        Self { socket, next_id: 0, events: VecDeque::new() }
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection is open");
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Sends a text; whether all of it went out, for the server may hang up meanwhile.
    pub async fn try_send_text(&mut self, text: &str) -> bool {
        self.socket.send(Message::text(text)).await.is_ok()
    }

    /// The next message, whatever it is; none when the connection ended.
    pub async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        next.expect("something arrives in time").and_then(Result::ok)
    }

    /// The next text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// Sends a text and takes the next one for its answer.
    pub async fn ask(&mut self, text: &str) -> String {
        self.send_text(text).await;
        self.text().await
    }

    /// A request; the whole reply. Events that come before it are kept for [`Self::event`].
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send_text(&request.to_string()).await;
        loop {
            let message: Value = serde_json::from_str(&self.text().await).expect("JSON");
            if message["method"] == "onEvent" {
                self.events.push_back(message);
            } else {
                assert_eq!(message["id"], json!(id), "replies come in order");
                return message;
            }
        }
    }

    /// A request that succeeds; its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let mut reply = self.request(method, params).await;
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].take()
    }

    /// A request that fails; the error's code and text.
    pub async fn fail(&mut self, method: &str, params: Value) -> (i64, String) {
        let reply = self.request(method, params).await;
        let error = &reply["error"];
        let code = error["code"].as_i64().unwrap_or_else(|| panic!("{method}: {reply}"));
        (code, error["message"].as_str().expect("a text").to_owned())
    }

    /// Creates an object; its id.
    pub async fn create(&mut self, class: &str, constructor: Value) -> String {
        let params = json!({"type": class, "constructorParams": constructor});
        let result = self.call("create", params).await;
        result["value"].as_str().expect("an id").to_owned()
    }

    /// Invokes an operation; its value.
    pub async fn invoke(&mut self, object: &str, operation: &str, args: Value) -> Value {
        let params = json!({"object": object, "operation": operation, "operationParams": args});
        self.call("invoke", params).await["value"].take()
    }

    pub async fn subscribe(&mut self, object: &str, event: &str) -> String {
        let result = self.call("subscribe", json!({"object": object, "type": event})).await;
        result["value"].as_str().expect("an id").to_owned()
    }

    /// The next event's `value`.
    pub async fn event(&mut self) -> Value {
        let mut message = match self.events.pop_front() {
            Some(message) => message,
            None => serde_json::from_str(&self.text().await).expect("JSON"),
        };
        assert_eq!(message["method"], "onEvent", "{message}");
        message["params"]["value"].take()
    }

    /// All events that arrived so far; a ping makes sure that they did.
    pub async fn events(&mut self) -> Vec<Value> {
        self.call("ping", Value::Null).await;
        self.events.drain(..).map(|mut message| message["params"]["value"].take()).collect()
    }

    /// Reads until the connection ends; how it was closed.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        let mut frame = None;
        while let Some(message) = self.next().await {
            if let Message::Close(close) = message {
                frame = close;
            }
        }
        frame
    }

    /// Cuts the connection without a word.
    pub fn cut(self) {
        drop(self.socket);
    }

    pub async fn close(mut self) {
        self.socket.close(None).await.expect("the connection is open");
        self.closed().await;
    }
}

/// Fetches a page over HTTP; status code and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("an answer in UTF-8");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

//! Who comes in, and who is shown out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rivero::clock::Clock;
use rivero::config::{Config, Origins, Secret};
use rivero::metrics::Metrics;
use rivero::pipeline::{Command, Notice, Ticket, WorkerId};
use rivero::rpc::Media;
use rivero::server::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::support::client::{Client, get};
use crate::support::server::TestServer;

/// Workers that are gone.
struct Nobody;

impl Media for Nobody {
    fn place(&self) -> WorkerId {
        0
    }

    fn send(&self, _: WorkerId, _: Command, _: Ticket) {}
}

/// A server whose workers say nothing as long as what is returned beside it lives.
async fn silent() -> (Server, UnboundedSender<Vec<Notice>>) {
    let mut config = Config::default();
    config.control.port = 0;
    let (notices, receiver) = unbounded_channel();
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let server = Server::with_media(config, clock, metrics, Arc::new(Nobody), receiver).await;
    (server.expect("a free port exists"), notices)
}

#[tokio::test]
async fn health_is_failing_once_no_worker_is_heard_any_more() {
    let (server, notices) = silent().await;
    assert!(server.check());
    assert_eq!(get(server.address(), "/health").await.0, 200);
    drop(notices);
    while server.check() {
        tokio::task::yield_now().await;
    }
    let (status, health) = get(server.address(), "/health").await;
    assert!(status == 503 && health.contains("\"status\":\"failing\""), "{status} {health}");
    server.stop().await;
}

#[tokio::test]
async fn who_leaves_while_a_request_is_carried_out_is_noticed() {
    let (server, _notices) = silent().await;
    let at = server.address();
    for orderly in [true, false] {
        let mut client = Client::connect(at).await;
        assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
        assert!(counts(at, "rivero_connections 1").await);
        let create = json!({"jsonrpc": "2.0", "id": 7, "method": "create", "params": {
            "type": "MediaPipeline", "constructorParams": {}, "sessionId": "",
        }});
        // Nobody ever answers it.
        client.send_text(&create.to_string()).await;
        if orderly {
            client.close().await;
        } else {
            drop(client);
        }
        while !counts(at, "rivero_connections 0").await {
            tokio::task::yield_now().await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_finished_in_time_closes_its_connection() {
    let server = TestServer::with(|config| {
        config.limits.message = Duration::from_millis(50);
    })
    .await;
    let stream = TcpStream::connect(server.address).await.expect("the server listens");
    let url = format!("ws://{}/kurento", server.address);
    let (mut slow, _) = tokio_tungstenite::client_async(url, stream).await.expect("open");
    let beginning = Frame::message("{", OpCode::Data(Data::Text), false);
    slow.send(Message::Frame(beginning)).await.expect("the connection is open");
    let Some(Ok(Message::Close(Some(frame)))) = slow.next().await else { panic!("no farewell") };
    assert_eq!(frame.code, CloseCode::Policy);
    let line = "rivero_connections_cut_total{reason=\"slow_message\"} 1";
    assert!(counts(server.address, line).await);
}

#[tokio::test]
async fn who_brings_more_than_all_may_hold_is_shown_out_and_small_messages_are_not() {
    let server = TestServer::with(|config| config.limits.receiving_bytes = 100_000).await;
    let mut client = Client::connect(server.address).await;
    let mut small = Client::connect(server.address).await;
    // Each fits, and goes back once it is answered.
    for _ in 0..5 {
        assert!(client.ask(&" ".repeat(150_000)).await.contains("error"));
    }
    client.send_text(&" ".repeat(1_000_000)).await;
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!(frame.code, CloseCode::Again);
    assert_eq!(small.call("ping", Value::Null).await["value"], "pong");
    let line = "rivero_connections_cut_total{reason=\"receiving_bytes\"} 1";
    assert!(counts(server.address, line).await);
}

/// Sends what a client sends to open a WebSocket; the status of the answer.
async fn knock(address: SocketAddr, path: &str, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer");
    let status = std::str::from_utf8(&status[9..]).expect("ASCII");
    status.parse().expect("a status")
}

async fn counts(address: SocketAddr, line: &str) -> bool {
    let (_, metrics) = get(address, "/metrics?token=key").await;
    metrics.lines().any(|known| known == line)
}

#[tokio::test]
async fn with_a_token_only_who_says_it_comes_in_and_health_stays_open() {
    let server = TestServer::with(|config| {
        config.control.token = Some(Secret::new("key"));
    })
    .await;
    let at = server.address;
    assert_eq!(knock(at, "/kurento", "").await, 401);
    assert_eq!(knock(at, "/kurento?token=other", "").await, 401);
    assert_eq!(knock(at, "/kurento", "Authorization: Bearer key\r\n").await, 101);
    assert_eq!(knock(at, "/kurento?access_token=key", "").await, 101);
    assert_eq!(get(at, "/metrics").await.0, 401);
    assert_eq!(get(at, "/metrics?token=key").await.0, 200);
    assert_eq!(get(at, "/health").await.0, 200);
    assert!(counts(at, "rivero_connections_refused_total{reason=\"token\"} 3").await);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_and_programs_without_one_are_not() {
    let server = TestServer::with(|config| {
        config.control.origins = Origins::Only(vec!["https://a.example".to_owned()]);
    })
    .await;
    let at = server.address;
    assert_eq!(knock(at, "/kurento", "").await, 101);
    assert_eq!(knock(at, "/kurento", "Origin: https://a.example\r\n").await, 101);
    assert_eq!(knock(at, "/kurento", "Origin: https://b.example\r\n").await, 403);
    assert!(counts(at, "rivero_connections_refused_total{reason=\"origin\"} 1").await);
}

#[tokio::test]
async fn any_origin_comes_in_when_none_is_named() {
    let server = TestServer::start().await;
    assert_eq!(knock(server.address, "/kurento", "Origin: http://x.y\r\n").await, 101);
}

#[tokio::test]
async fn the_token_and_the_origins_change_while_connections_stay() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let mut config = Config::default();
    config.control.token = Some(Secret::new("key"));
    server.reload(&config);
    assert_eq!(knock(server.address, "/kurento", "").await, 401);
    assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
}

#[tokio::test]
async fn who_is_slow_with_the_head_of_a_request_is_cut() {
    let server = TestServer::with(|config| {
        config.limits.handshake = Duration::from_millis(50);
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(b"GET /kurento HTTP/1.1\r\nHos").await.expect("the connection is open");
    let mut rest = Vec::new();
    // Cut, with or without a word.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(
        counts(server.address, "rivero_connections_cut_total{reason=\"slow_request\"} 1").await
    );
}

#[tokio::test]
async fn who_keeps_a_connection_and_asks_nothing_more_is_cut() {
    let server = TestServer::with(|config| {
        config.limits.handshake = Duration::from_millis(50);
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_is_shown_out_when_an_operator_wants_that() {
    let server = TestServer::with(|config| {
        config.limits.idle = Some(Duration::from_millis(50));
    })
    .await;
    let mut client = Client::connect(server.address).await;
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "Idle"));
    assert!(counts(server.address, "rivero_connections_cut_total{reason=\"idle\"} 1").await);
}

#[tokio::test]
async fn who_asks_and_never_reads_is_cut_and_nobody_else_waits() {
    let server = TestServer::with(|config| {
        config.limits.write = Duration::from_millis(300);
    })
    .await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let tag = json!({"key": "filler", "value": "x".repeat(60_000)});
    client.invoke(&pipeline, "addTag", tag).await;

    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let stream = socket.connect(server.address).await.expect("the server listens");
    let url = format!("ws://{}/kurento", server.address);
    let (mut deaf, _) = tokio_tungstenite::client_async(url, stream).await.expect("open");
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "invoke", "params": {
        "object": pipeline, "operation": "getTag", "operationParams": {"key": "filler"},
    }});
    let request = request.to_string();
    let asking = tokio::spawn(async move {
        // Each with an id of its own, so that none is a repetition.
        for id in 1.. {
            let text = request.replacen("\"id\":1", &format!("\"id\":{id}"), 1);
            if deaf.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    });
    while !asking.is_finished() {
        assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
    }
    assert!(
        counts(server.address, "rivero_connections_cut_total{reason=\"write_timeout\"} 1").await
    );
}

#[tokio::test]
async fn a_frame_too_long_closes_its_connection_with_1009() {
    let server = TestServer::with(|config| config.limits.frame_bytes = 1_000).await;
    let mut client = Client::connect(server.address).await;
    client.send_text(&" ".repeat(1_001)).await;
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!(frame.code, CloseCode::Size);
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_it_may() {
    let server = TestServer::with(|config| config.limits.connections_per_address = Some(2)).await;
    let mut first = Client::connect(server.address).await;
    first.call("ping", Value::Null).await;
    let mut second = Client::connect(server.address).await;
    second.call("ping", Value::Null).await;
    let mut third = TcpStream::connect(server.address).await.expect("the system accepts");
    let mut answer = String::new();
    third.read_to_string(&mut answer).await.expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    second.close().await;
    // The place is free once the server has seen the end.
    for attempt in 0.. {
        let stream = TcpStream::connect(server.address).await.expect("the system accepts");
        let url = format!("ws://{}/kurento", server.address);
        if tokio_tungstenite::client_async(url, stream).await.is_ok() {
            break;
        }
        assert!(attempt < 1_000, "the place is never free again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_is_failing_while_a_worker_hangs() {
    let server = TestServer::start().await;
    server.set_stuck(true);
    let (status, health) = get(server.address, "/health").await;
    assert!(status == 503 && health.contains("media worker 0 does not answer"), "{health}");
    server.set_stuck(false);
    assert_eq!(get(server.address, "/health").await.0, 200);
    server.stop().await;
}

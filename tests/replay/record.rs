//! One recorded conversation: who sent what over which socket, and which reply belongs to which request.
//!
//! A record is a file of JSON lines. `dir` says who spoke: `c2s` the client, `s2c` the server, `meta`
//! tells of sockets and `note` of what the recorder did beside them. The message is in `msg`, or in
//! `raw` when it is not JSON; `conn` numbers the sockets, from 1.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;

use serde_json::Value;

pub type Socket = u64;

/// What a client sent.
pub enum Body {
    Json(Value),
    Raw(String),
}

/// What became of a request with the original.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It was answered, in this line.
    Answered(usize),
    /// Its connection was cut over it.
    Cut,
    /// The whole server died of it.
    Killed,
    /// It never went out: its connection had been cut before.
    Unsent,
    Silent,
}

pub enum Line {
    Sent {
        socket: Socket,
        body: Body,
        fate: Fate,
    },
    /// A reply, and the line of its request, if it was recorded.
    Reply {
        socket: Socket,
        message: Value,
        request: Option<usize>,
    },
    /// A frame without content.
    Empty,
    Event {
        socket: Socket,
        message: Value,
    },
    Opened(Socket),
    /// The client closed, with a close frame or without.
    Closed {
        socket: Socket,
        cleanly: bool,
    },
    /// The server refused the path.
    Refused(Socket),
    /// The next socket is opened with this path.
    Path(String),
    /// A ping with this id went out in a binary frame.
    Binary {
        socket: Socket,
        id: u64,
    },
    Nothing,
}

/// Reads a record.
pub fn read(file: &Path) -> Vec<Line> {
    let text = fs::read_to_string(file).expect("a readable record");
    let mut lines = Vec::new();
    let mut waiting: HashMap<Socket, VecDeque<usize>> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let mut line: Value = serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("{}:{}: {e}", file.display(), at + 1));
        let socket = line["conn"].as_u64().unwrap_or(1);
        let waiting = waiting.entry(socket).or_default();
        let message = line.get_mut("msg").map(Value::take);
        let raw = line["raw"].as_str().map(str::to_owned);
        let event = line["event"].as_str().unwrap_or_default();
        let read = match line["dir"].as_str() {
            Some("c2s") => {
                waiting.push_back(at);
                let body = match (message, raw) {
                    (Some(message), _) => Body::Json(message),
                    (None, raw) => Body::Raw(raw.unwrap_or_default()),
                };
                Line::Sent { socket, body, fate: Fate::Silent }
            }
            Some("s2c") => match message {
                Some(message) if message["method"] == "onEvent" => Line::Event { socket, message },
                Some(message) => {
                    let request = waiting.pop_front();
                    settle(&mut lines, request, Fate::Answered(at));
                    Line::Reply { socket, message, request }
                }
                None => {
                    settle(&mut lines, waiting.pop_front(), Fate::Answered(at));
                    Line::Empty
                }
            },
            Some("meta") => match event {
                "open" => Line::Opened(socket),
                "client closed ws" => Line::Closed { socket, cleanly: true },
                "client dropped TCP without ws close" => Line::Closed { socket, cleanly: false },
                "close 1002 Invalid path" => Line::Refused(socket),
                "connection closed by server" => {
                    for request in waiting.drain(..) {
                        settle(&mut lines, Some(request), Fate::Cut);
                    }
                    Line::Nothing
                }
                _ if event.ends_with("the server process died") => {
                    settle(&mut lines, waiting.pop_front(), Fate::Killed);
                    Line::Nothing
                }
                _ if event.starts_with("send failed") => {
                    settle(&mut lines, waiting.pop_back(), Fate::Unsent);
                    Line::Nothing
                }
                _ => Line::Nothing,
            },
            _ => note(event),
        };
        lines.push(read);
    }
    lines
}

fn settle(lines: &mut [Line], request: Option<usize>, outcome: Fate) {
    if let Some(Line::Sent { fate, .. }) = request.and_then(|at| lines.get_mut(at)) {
        *fate = outcome;
    }
}

fn note(text: &str) -> Line {
    if let Some((_, path)) = text.strip_prefix("open ws://").and_then(|url| url.split_once('/')) {
        return Line::Path(format!("/{path}"));
    }
    let words: Vec<_> = text.split(' ').collect();
    match words[..] {
        ["conn", socket, "sent", "the", "ping", "id", id, "as", "a", "BINARY", "frame"] => {
            let number = |word: &str| word.parse().expect("a number");
            Line::Binary { socket: number(socket), id: number(id) }
        }
        _ => Line::Nothing,
    }
}

//! Plays one record to a server of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rivero::config::Config;
use rivero::server::Server;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::names::{Names, short, texts, uuids};
use super::purpose::{self, Difference};
use super::record::{self, Body, Fate, Line, Socket};
use crate::support::client::get;

/// Longer than any reply takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// An event that does not come is waited for this long.
const EVENT_PATIENCE: Duration = Duration::from_secs(3);
/// The collector's, so that the record of it does not take minutes.
const PERIOD: Duration = Duration::from_millis(800);
/// The id of pings that make sure that everything before them has arrived.
const PATH: &str = "/kurento";
const SYNC: &str = "replay";
const CREATABLE: [&str; 22] = [
    "MediaPipeline",
    "WebRtcEndpoint",
    "RtpEndpoint",
    "PlayerEndpoint",
    "RecorderEndpoint",
    "HttpPostEndpoint",
    "PassThrough",
    "Composite",
    "Mixer",
    "Dispatcher",
    "DispatcherOneToMany",
    "AlphaBlending",
    "HubPort",
    "FaceOverlayFilter",
    "ImageOverlayFilter",
    "ZBarFilter",
    "GStreamerFilter",
    "LogoOverlayFilter",
    "OpenCVFilter",
    "ChromaFilter",
    "CrowdDetectorFilter",
    "PlateDetectorFilter",
];

/// What came of a record.
#[derive(Default)]
pub struct Report {
    pub file: String,
    compared: usize,
    /// How often each reason to leave something out was given.
    skipped: BTreeMap<String, usize>,
    pub on_purpose: BTreeMap<&'static str, usize>,
    pub differences: Vec<String>,
}

impl Report {
    pub fn summary(&self) -> String {
        let purposes: usize = self.on_purpose.values().sum();
        let skipped: usize = self.skipped.values().sum();
        let mut text = format!(
            "{}: {} compared, {skipped} skipped, {purposes} on purpose, {} different",
            self.file,
            self.compared,
            self.differences.len()
        );
        for (reason, count) in &self.skipped {
            text += &format!("\n    skipped {count}: {reason}");
        }
        for (reason, count) in &self.on_purpose {
            text += &format!("\n    on purpose {count}: {reason}");
        }
        text
    }
}

/// A WebSocket of the replay.
struct Connection {
    socket: WebSocketStream<TcpStream>,
    replies: VecDeque<String>,
    events: VecDeque<Value>,
    /// Recorded events that need not come: their line and the reason.
    needless: Vec<(usize, &'static str)>,
}

struct Player {
    address: SocketAddr,
    lines: Vec<Line>,
    connections: HashMap<Socket, Connection>,
    names: Names,
    /// Recorded ids that have no counterpart, with the reason.
    missing: HashMap<String, String>,
    /// Lines of requests that were not sent.
    unsent: HashSet<usize>,
    /// Kinds of events that did not come.
    missed: HashSet<String>,
    built: BTreeSet<String>,
    path: String,
    report: Report,
}

pub async fn play(file: PathBuf) -> Report {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
    if name.contains("gc_period") {
        config.sessions.collector_period = PERIOD;
    }
    if name.contains("_rtp") {
        config.media.addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    let server = Server::start(config).await.expect("free ports exist");
    let mut player = Player {
        address: server.address(),
        lines: record::read(&file),
        connections: HashMap::new(),
        names: Names::default(),
        missing: HashMap::new(),
        unsent: HashSet::new(),
        missed: HashSet::new(),
        built: built(server.address()).await,
        path: PATH.to_owned(),
        report: Report { file: name, ..Report::default() },
    };
    for at in 0..player.lines.len() {
        player.line(at).await;
    }
    let open: Vec<_> = player.connections.keys().copied().collect();
    for socket in open {
        player.close(player.lines.len(), socket, true).await;
    }
    server.stop().await;
    player.report
}

/// The classes that can be created here.
async fn built(address: SocketAddr) -> BTreeSet<String> {
    let mut connection = connect(address, "/kurento").await;
    let request = json!({"jsonrpc": "2.0", "id": SYNC, "method": "invoke", "params": {
        "object": "manager_ServerManager", "operation": "getInfo", "sessionId": SYNC}});
    connection.send(&request.to_string()).await;
    let info: Value =
        serde_json::from_str(&connection.reply().await.expect("an answer")).expect("JSON");
    // Leaves no trace in the list of sessions.
    connection
        .send(
            &json!({"jsonrpc": "2.0", "id": 0, "method": "closeSession", "params": {
        "sessionId": SYNC}})
            .to_string(),
        )
        .await;
    connection.reply().await.expect("an answer");
    let modules = info["result"]["value"]["modules"].as_array().expect("modules");
    let factories =
        modules.iter().flat_map(|module| module["factories"].as_array().expect("a list"));
    factories.map(|factory| factory.as_str().expect("a name").to_owned()).collect()
}

async fn connect(address: SocketAddr, path: &str) -> Connection {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (socket, _) = client_async(format!("ws://{address}{path}"), stream)
        .await
        .expect("the handshake succeeds");
    Connection { socket, replies: VecDeque::new(), events: VecDeque::new(), needless: Vec::new() }
}

impl Connection {
    async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the connection is open");
    }

    /// Takes the next message from the socket; false when there is none.
    async fn take(&mut self, patience: Duration) -> bool {
        match tokio::time::timeout(patience, self.socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                let value: Value = serde_json::from_str(text.as_str()).unwrap_or(Value::Null);
                if value["method"] == "onEvent" {
                    self.events.push_back(value);
                } else {
                    self.replies.push_back(text.as_str().to_owned());
                }
                true
            }
            _ => false,
        }
    }

    async fn reply(&mut self) -> Option<String> {
        while self.replies.is_empty() {
            if !self.take(PATIENCE).await {
                return None;
            }
        }
        self.replies.pop_front()
    }
}

impl Player {
    async fn line(&mut self, at: usize) {
        match &self.lines[at] {
            Line::Opened(socket) => {
                let socket = *socket;
                let connection = connect(self.address, &self.path).await;
                self.connections.insert(socket, connection);
            }
            Line::Path(path) => self.path.clone_from(path),
            Line::Sent { .. } => self.send(at).await,
            Line::Reply { .. } => self.reply(at).await,
            Line::Event { .. } => self.event(at).await,
            Line::Binary { socket, id } => {
                let request = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
                let connection = self.connections.get_mut(socket).expect("it is open");
                let message = Message::binary(request.into_bytes());
                connection.socket.send(message).await.expect("the connection is open");
            }
            Line::Closed { socket, cleanly } => {
                let (socket, cleanly) = (*socket, *cleanly);
                self.close(at, socket, cleanly).await;
            }
            Line::Refused(socket) => {
                let socket = *socket;
                self.refused(at, socket).await;
            }
            Line::Empty => {
                self.skip("a frame without content answers a notification without result")
            }
            Line::Nothing => {}
        }
    }

    fn skip(&mut self, reason: &str) {
        *self.report.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    fn differs(&mut self, at: usize, text: String) {
        let file = &self.report.file;
        self.report.differences.push(format!("{file}:{}: {text}", at + 1));
    }

    /// Notes that recorded ids have no counterpart here.
    fn miss(&mut self, value: &Value, reason: &str) {
        texts(value, &mut |text| {
            for uuid in names_in(text) {
                if !self.names.knows(uuid) {
                    self.missing.entry(uuid.to_owned()).or_insert_with(|| reason.to_owned());
                }
            }
        });
    }

    /// Why nothing can come of a message here: a class or an object that it names is not there.
    fn obstacle(&self, message: &Value) -> Option<String> {
        let mut found = None;
        texts(message, &mut |text| {
            for uuid in names_in(text) {
                if found.is_none() && !self.names.knows(uuid) {
                    found = self.missing.get(uuid).cloned();
                }
            }
        });
        found.or_else(|| self.unbuilt(message))
    }

    /// The class that a request would create and that is not built here.
    fn unbuilt(&self, request: &Value) -> Option<String> {
        if let Some(operations) = request["params"]["operations"].as_array() {
            return operations.iter().find_map(|operation| self.unbuilt(operation));
        }
        let class = request["params"]["type"].as_str().filter(|_| request["method"] == "create")?;
        let short = class.rsplit('.').next()?;
        let unbuilt = CREATABLE.contains(&short) && !self.built.contains(short);
        unbuilt.then(|| format!("{short} cannot be created here"))
    }

    async fn send(&mut self, at: usize) {
        let Line::Sent { socket, body, fate } = &self.lines[at] else { return };
        let (socket, fate) = (*socket, *fate);
        let (text, request) = match body {
            Body::Raw(text) => (text.clone(), Value::Null),
            Body::Json(request) => (self.names.translated(request).to_string(), request.clone()),
        };
        let obstacle = if fate == Fate::Unsent {
            Some("the original had cut the connection or died".to_owned())
        } else {
            self.obstacle(&request)
        };
        if let Some(reason) = obstacle {
            self.skip(&reason);
            self.unsent.insert(at);
            if let Fate::Answered(reply) = fate
                && let Line::Reply { message, .. } = &self.lines[reply]
            {
                let message = message.clone();
                self.miss(&message, &reason);
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&socket) else {
            self.differs(at, format!("socket {socket} is not open"));
            return;
        };
        // A connection to a wrong path is being closed.
        let sent = connection.socket.send(Message::text(text)).await;
        assert!(sent.is_ok() || self.path != PATH, "{sent:?}");
        if fate == Fate::Cut && self.path != PATH {
            self.refused(at, socket).await;
            return;
        }
        if matches!(fate, Fate::Cut | Fate::Killed) {
            let ours = connection.reply().await;
            let ours: Value =
                ours.map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON"));
            self.judge(
                at,
                &request,
                &Value::Null,
                &ours,
                Some(fate),
                format!("{fate:?}, but ours: {}", short(&ours)),
            );
        }
    }

    async fn reply(&mut self, at: usize) {
        let Line::Reply { socket, message, request } = &self.lines[at] else { return };
        let (recorded, asked) = (message.clone(), *request);
        if asked.is_some_and(|asked| self.unsent.contains(&asked)) {
            return;
        }
        let request = match asked.map(|asked| &self.lines[asked]) {
            Some(Line::Sent { body: Body::Json(request), .. }) => request.clone(),
            _ => Value::Null,
        };
        let connection = self.connections.get_mut(socket).expect("a request went out over it");
        let Some(text) = connection.reply().await else {
            self.differs(at, format!("no reply to {}", short(&request)));
            return;
        };
        let ours: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if let Err(error) = well_formed(&text) {
            self.differs(at, format!("{error}: {text}"));
        }
        let ids = |reply: &Value| reply["result"]["sessionId"].as_str().map(str::to_owned);
        let operation = request["params"]["operation"].as_str().unwrap_or_default();
        match self.names.compare(operation, &recorded, &ours) {
            Ok(()) => self.report.compared += 1,
            Err(difference) => {
                if let (Some(theirs), Some(own)) = (ids(&recorded), ids(&ours)) {
                    self.names.pair(&theirs, &own);
                }
                // A list may name what could not be created.
                if let Some(reason) = self.obstacle(&recorded) {
                    self.skip(&reason);
                    return;
                }
                let text = format!("{}: {difference}", short(&request));
                self.judge(at, &request, &recorded, &ours, None, text);
            }
        }
    }

    /// A difference: is there a reason for it?
    fn judge(
        &mut self,
        at: usize,
        request: &Value,
        recorded: &Value,
        ours: &Value,
        fate: Option<Fate>,
        text: String,
    ) {
        let file = self.report.file.clone();
        let reason = purpose::of(&Difference { file: &file, request, recorded, ours, fate });
        match reason {
            Some(reason) => *self.report.on_purpose.entry(reason).or_default() += 1,
            None => self.differs(at, text),
        }
        self.miss(recorded, reason.unwrap_or("something before went another way"));
    }

    async fn event(&mut self, at: usize) {
        let Line::Event { socket, message } = &self.lines[at] else { return };
        let (socket, recorded) = (*socket, message.clone());
        if let Some(reason) = self.obstacle(&recorded) {
            self.skip(&reason);
            return;
        }
        let file = self.report.file.clone();
        let missed = Difference {
            file: &file,
            request: &Value::Null,
            recorded: &recorded,
            ours: &Value::Null,
            fate: None,
        };
        let reason = purpose::of(&missed);
        let kind = recorded["params"]["value"]["type"].to_string();
        // Who waited in vain once does not wait again.
        let hopeless = reason.is_some() || self.missed.contains(&kind);
        let patience = if hopeless { Duration::ZERO } else { EVENT_PATIENCE };
        let mut looked_at = 0;
        let mut closest = String::from("none like it");
        loop {
            let connection = self.connections.get_mut(&socket).expect("it is open");
            if let Some(event) = connection.events.get(looked_at) {
                match self.names.compare("", &recorded, event) {
                    Ok(()) => {
                        connection.events.remove(looked_at);
                        self.report.compared += 1;
                        return;
                    }
                    Err(difference) => {
                        let event = &event["params"]["value"];
                        if event["type"] == recorded["params"]["value"]["type"] {
                            closest = difference;
                        }
                        looked_at += 1;
                    }
                }
            } else if !connection.take(patience).await {
                break;
            }
        }
        match reason {
            // It may still come, later than it did.
            Some(reason) => {
                let connection = self.connections.get_mut(&socket).expect("it is open");
                connection.needless.push((at, reason));
            }
            None => {
                self.missed.insert(kind);
                let text = format!("event did not come: {}; closest: {closest}", short(&recorded));
                self.differs(at, text);
                self.miss(&recorded, "something before went another way");
            }
        }
    }

    /// Closes a connection; events that nobody expected are differences.
    async fn close(&mut self, at: usize, socket: Socket, cleanly: bool) {
        let Some(mut connection) = self.connections.remove(&socket) else { return };
        let ping = json!({"jsonrpc": "2.0", "id": SYNC, "method": "ping"}).to_string();
        if connection.socket.send(Message::text(ping)).await.is_ok() {
            connection.reply().await;
        }
        if !connection.replies.is_empty() {
            self.differs(at, format!("unexpected replies: {:?}", connection.replies));
        }
        for (at, reason) in std::mem::take(&mut connection.needless) {
            let Line::Event { message, .. } = &self.lines[at] else { continue };
            let names = &mut self.names;
            let came = |event: &Value| names.compare("", message, event).is_ok();
            if let Some(late) = connection.events.iter().position(came) {
                connection.events.remove(late);
                self.report.compared += 1;
            } else {
                *self.report.on_purpose.entry(reason).or_default() += 1;
            }
        }
        for event in std::mem::take(&mut connection.events) {
            let text = format!("unexpected event: {}", short(&event));
            self.judge(at, &Value::Null, &Value::Null, &event, None, text);
        }
        if cleanly && connection.socket.close(None).await.is_ok() {
            while connection.take(PATIENCE).await {}
        }
        drop(connection);
        // What comes next may be about what the server does without it.
        let gauge = format!("rivero_connections {}", self.connections.len());
        while !get(self.address, "/metrics").await.1.lines().any(|line| line == gauge) {
            tokio::task::yield_now().await;
        }
    }

    async fn refused(&mut self, at: usize, socket: Socket) {
        let Some(mut connection) = self.connections.remove(&socket) else { return };
        match connection.socket.next().await {
            Some(Ok(Message::Close(Some(frame))))
                if u16::from(frame.code) == 1002 && frame.reason.as_str() == "Invalid path" =>
            {
                self.report.compared += 1;
            }
            other => self.differs(at, format!("the path is wrong, but ours: {other:?}")),
        }
    }
}

/// The ids that a text names. Those in a description are a browser's, for its tracks.
fn names_in(text: &str) -> Vec<&str> {
    if text.starts_with("v=0") { Vec::new() } else { uuids(text) }
}

/// Checks what replies look like as text: no blanks, members sorted by name, ASCII.
fn well_formed(text: &str) -> Result<(), String> {
    let mut inside = false;
    let mut escaped = false;
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            ' ' | '\n' | '\t' | '\r' if !inside => return Err("blanks between values".to_owned()),
            _ if !character.is_ascii() => return Err(format!("{character} is not escaped")),
            _ => {}
        }
    }
    serde_json::from_str::<Sorted>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// Any value whose objects have their members sorted by name.
struct Sorted;

impl<'de> Deserialize<'de> for Sorted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sorted {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON with sorted members")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut last = String::new();
        while let Some((name, Self)) = members.next_entry::<String, Self>()? {
            if name < last {
                return Err(A::Error::custom(format!("{name} comes after {last}")));
            }
            last = name;
        }
        Ok(Self)
    }
}

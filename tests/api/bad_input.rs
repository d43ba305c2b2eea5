//! Bad input on the control side: it is answered with its error, leaves nothing behind, and nobody
//! else has to wait for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rivero::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, get};
use crate::support::peer;
use crate::support::program::Program;
use crate::support::server::TestServer;

const PARSE_ERROR: i64 = -32700;
const CONNECT_ERROR: i64 = 40004;
const NOT_ENOUGH: i64 = 40009;
const NOT_FOUND: i64 = 40101;
const ILLEGAL_PARAM: i64 = 40107;

/// Far more than a round trip takes, for machines that do much else.
const GENEROUS: Duration = Duration::from_secs(2);
const MANY_SOCKETS: usize = 2_000;
/// Rounds that show whether memory grows.
const ROUNDS: usize = 4;
/// 4 KiB each: what an allocator may keep for itself, not what a round of bad input takes.
const SLACK_PAGES: u64 = 8 * 1_024;

/// Somebody with a session of their own who goes on with their work.
struct Bystander {
    stop: oneshot::Sender<()>,
    work: JoinHandle<(usize, Duration)>,
}

impl Bystander {
    async fn at(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).await;
        let pipeline = client.create("MediaPipeline", json!({})).await;
        let (stop, mut stopped) = oneshot::channel();
        let clock = Clock::start();
        let work = tokio::spawn(async move {
            let (mut rounds, mut worst) = (0, Duration::ZERO);
            while stopped.try_recv().is_err() {
                let before = clock.now();
                assert_eq!(client.invoke(&pipeline, "getName", json!({})).await, json!(pipeline));
                worst = worst.max(clock.now() - before);
                rounds += 1;
            }
            client.call("closeSession", json!({"release": true})).await;
            client.close().await;
            (rounds, worst)
        });
        Self { stop, work }
    }

    /// Ends the work: it went on all the while.
    async fn was_served(self, what: &str) {
        self.stop.send(()).expect("is at work");
        let (rounds, worst) = self.work.await.expect("was answered every time");
        println!("{what}: {rounds} round trips of a bystander, the worst took {worst:?}");
        assert!(rounds > 0 && worst < GENEROUS, "{what}: {worst:?}");
    }
}

/// Objects, sessions and subscriptions that the server has.
async fn held(address: SocketAddr) -> BTreeMap<String, String> {
    let (_, text) = get(address, "/metrics").await;
    let kinds = ["rivero_objects{", "rivero_sessions ", "rivero_subscriptions "];
    let lines = text.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    let parts = lines.map(|line| line.rsplit_once(' ').expect("a name and a number"));
    // A class that has no objects any more is listed with none.
    parts
        .filter(|(_, count)| *count != "0")
        .map(|(name, count)| (name.to_owned(), count.to_owned()))
        .collect()
}

/// Sends a text and takes the next one for its answer; the error in it.
async fn refused(client: &mut Client, text: &str) -> (i64, String) {
    let reply: Value = serde_json::from_str(&client.ask(text).await).expect("JSON");
    let code = reply["error"]["code"].as_i64().unwrap_or_else(|| panic!("{reply}"));
    (code, reply["error"]["message"].as_str().expect("a text").to_owned())
}

fn ping_with(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"bad","method":"ping","params":{params}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_wrong_class_is_refused_wherever_one_is_named() {
    let server = peer::server().await;
    let address = server.address();
    let before = held(address).await;
    let bystander = Bystander::at(address).await;
    let mut client = Client::connect(address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let other = client.create("MediaPipeline", json!({})).await;
    let inside = |pipeline: &str| json!({"mediaPipeline": pipeline});
    let element = client.create("PassThrough", inside(&pipeline)).await;
    let stranger = client.create("PassThrough", inside(&other)).await;
    let dispatcher = client.create("Dispatcher", inside(&pipeline)).await;
    let one_to_many = client.create("DispatcherOneToMany", inside(&pipeline)).await;
    let port = client.create("HubPort", json!({"hub": dispatcher})).await;
    let foreign_hub = client.create("Dispatcher", inside(&other)).await;
    let foreign_port = client.create("HubPort", json!({"hub": foreign_hub})).await;
    let manager = "manager_ServerManager".to_owned();

    let codes = [CONNECT_ERROR, NOT_FOUND, ILLEGAL_PARAM];
    for wrong in [&pipeline, &other, &dispatcher, &manager, &stranger, &foreign_port] {
        for operation in ["connect", "disconnect"] {
            let params = json!({"object": element, "operation": operation,
                "operationParams": {"sink": wrong}});
            if operation == "disconnect" && [&stranger, &foreign_port].contains(&wrong) {
                // Nothing was connected, so nothing has to be done.
                continue;
            }
            let (code, text) = client.fail("invoke", params).await;
            assert!(codes.contains(&code), "{operation} {wrong}: {code} {text}");
        }
    }
    for wrong in [&pipeline, &element, &dispatcher, &manager, &stranger] {
        for (source, sink) in [(wrong, &port), (&port, wrong)] {
            let params = json!({"object": dispatcher, "operation": "connect",
                "operationParams": {"source": source, "sink": sink}});
            let (code, text) = client.fail("invoke", params).await;
            assert!(codes.contains(&code), "{source} to {sink}: {code} {text}");
        }
        let params = json!({"object": one_to_many, "operation": "setSource",
            "operationParams": {"source": wrong}});
        let (code, text) = client.fail("invoke", params).await;
        assert!(codes.contains(&code), "source {wrong}: {code} {text}");
    }
    for (class, name, wrongs) in [
        ("PassThrough", "mediaPipeline", [&element, &dispatcher, &port, &manager]),
        ("WebRtcEndpoint", "mediaPipeline", [&element, &dispatcher, &port, &manager]),
        ("Dispatcher", "mediaPipeline", [&element, &dispatcher, &port, &manager]),
        ("HubPort", "hub", [&element, &pipeline, &port, &manager]),
    ] {
        for wrong in wrongs {
            let params = json!({"type": class, "constructorParams": {name: wrong}});
            let (code, text) = client.fail("create", params).await;
            assert!(codes.contains(&code), "{class} in {wrong}: {code} {text}");
        }
    }
    client.call("closeSession", json!({"release": true})).await;
    client.close().await;
    bystander.was_served("wrong classes").await;
    assert_eq!(held(address).await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_without_end_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let bystander = Bystander::at(server.address).await;
    let mut client = Client::connect(server.address).await;
    for depth in [200, 100_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let (code, text) =
                refused(&mut client, &ping_with(&format!(r#"{{"a":{nested}}}"#))).await;
            assert_eq!(code, NOT_ENOUGH, "{depth} levels of {open}: {text}");
            // Reading ends at the limit, so what is wrong behind it is not seen.
            let cut = &nested[..nested.len() - 1];
            assert_eq!(refused(&mut client, cut).await.0, NOT_ENOUGH);
        }
    }
    assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
    bystander.was_served("nesting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_million_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let bystander = Bystander::at(server.address).await;
    let mut client = Client::connect(server.address).await;
    let million = vec!["0"; 1_000_000].join(",");
    let error = refused(&mut client, &ping_with(&format!(r#"{{"a":[{million}]}}"#))).await;
    assert_eq!(error, (NOT_ENOUGH, "Reached values limit: 100000".to_owned()));
    assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
    bystander.was_served("a million").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_texts_that_are_no_json_are_parse_errors() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    for bad in [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e",
        "01",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        "\"\u{1}\"",
    ] {
        let text = ping_with(&format!(r#"{{"interval":{bad}}}"#));
        assert_eq!(
            refused(&mut client, &text).await,
            (PARSE_ERROR, "Parse error.".to_owned()),
            "{bad}"
        );
    }
    assert_eq!(client.invoke(&pipeline, "getName", json!({})).await, json!(pipeline));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_64_megabytes_costs_its_sender_the_connection_and_nobody_the_session() {
    let program = Program::start();
    let bystander = Bystander::at(program.address).await;
    let text = ping_with(&format!(r#"{{"a":"{}"}}"#, "x".repeat(64 << 20)));
    let mut client = Client::connect(program.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let session = client.call("ping", Value::Null).await["sessionId"].clone();
    let mut sizes = Vec::new();
    for _ in 0..ROUNDS {
        // The server may have hung up before all of it is out.
        client.try_send_text(&text).await;
        if let Some(frame) = client.closed().await {
            assert_eq!(frame.code, CloseCode::Size);
        }
        client = Client::connect(program.address).await;
        client.call("connect", json!({"sessionId": session})).await;
        assert_eq!(client.invoke(&pipeline, "getName", json!({})).await, json!(pipeline));
        sizes.push(program.resident_pages());
    }
    bystander.was_served("64 megabytes").await;
    assert!(sizes[ROUNDS - 1] < sizes[0] + SLACK_PAGES, "{sizes:?} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_hundred_thousand_operations_is_refused_whole() {
    let server = TestServer::start().await;
    let bystander = Bystander::at(server.address).await;
    let before = held(server.address).await;
    let mut client = Client::connect(server.address).await;
    for (count, limit) in
        [(10_001, "Reached operations limit: 10000"), (100_000, "Reached values limit: 100000")]
    {
        let operations: Vec<_> = (0..count)
            .map(|id| {
                json!({"jsonrpc": "2.0", "id": id, "method": "create",
                "params": {"type": "MediaPipeline"}})
            })
            .collect();
        let error = client.fail("transaction", json!({"operations": operations})).await;
        assert_eq!(error, (NOT_ENOUGH, limit.to_owned()));
    }
    assert_eq!(held(server.address).await, before, "none of it was carried out");
    bystander.was_served("transactions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_subscriptions_and_tags_without_end_are_refused_and_given_back() {
    const LIMIT: usize = 300;
    let server = TestServer::with(|config| {
        config.limits.objects = LIMIT;
        config.limits.subscriptions = LIMIT;
        config.limits.session_subscriptions = LIMIT;
    })
    .await;
    let before = held(server.address).await;
    let bystander = Bystander::at(server.address).await;
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    // The bystander has one object too.
    for _ in 0..LIMIT - 2 {
        client.create("PassThrough", json!({"mediaPipeline": pipeline})).await;
    }
    for _ in 0..3 {
        let params =
            json!({"type": "PassThrough", "constructorParams": {"mediaPipeline": pipeline}});
        let error = client.fail("create", params).await;
        assert_eq!(error, (NOT_ENOUGH, format!("Reached objects limit: {LIMIT}")));
    }
    for _ in 0..LIMIT {
        client.subscribe(&pipeline, "Error").await;
    }
    for _ in 0..3 {
        let error = client.fail("subscribe", json!({"object": pipeline, "type": "Error"})).await;
        assert_eq!(error, (NOT_ENOUGH, format!("Reached session subscriptions limit: {LIMIT}")));
    }
    client.call("closeSession", json!({"release": true})).await;
    client.close().await;
    bystander.was_served("objects and subscriptions").await;
    assert_eq!(held(server.address).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_names_without_end_are_refused() {
    const TAGS: usize = 200;
    let mut config = rivero::config::Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    config.limits.tags = TAGS;
    let server = rivero::server::Server::start(config).await.expect("free ports exist");
    let bystander = Bystander::at(server.address()).await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    for number in 0..TAGS {
        client.invoke(&pipeline, "addTag", json!({"key": number.to_string(), "value": "x"})).await;
    }
    let tag = |key: &str, value: &str| {
        json!({"object": pipeline, "operation": "addTag",
            "operationParams": {"key": key, "value": value}})
    };
    let error = client.fail("invoke", tag("more", "x")).await;
    assert_eq!(error, (NOT_ENOUGH, format!("Reached tags limit: {TAGS}")));
    client.call("invoke", tag("7", "another value")).await;

    let long = "x".repeat(8 << 20);
    let name =
        json!({"object": pipeline, "operation": "setName", "operationParams": {"name": long}});
    for params in [name, tag(&long, "x"), tag("7", &long)] {
        let error = client.fail("invoke", params).await;
        assert_eq!(error, (NOT_ENOUGH, "Reached text bytes limit: 65536".to_owned()));
    }
    assert_eq!(client.invoke(&pipeline, "getName", json!({})).await, json!(pipeline));
    let tags = client.invoke(&pipeline, "getTags", json!({})).await;
    assert_eq!(tags.as_array().map(Vec::len), Some(TAGS));
    bystander.was_served("tags and names").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_sockets_are_open_and_gone_and_nobody_waits() {
    let program = Program::start();
    let bystander = Bystander::at(program.address).await;
    // Sockets of connections that were closed go away behind the close.
    let files = program.entries("fd");
    let mut clients = Vec::new();
    for number in 0..MANY_SOCKETS {
        let mut client = Client::connect(program.address).await;
        if number % 100 == 0 {
            assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
        }
        clients.push(client);
    }
    assert!(program.entries("fd") >= files + MANY_SOCKETS);
    clients.into_iter().for_each(Client::cut);
    while program.entries("fd") > files + 5 {
        tokio::task::yield_now().await;
    }
    bystander.was_served("2000 sockets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_cut_and_nobody_waits() {
    let handshake = Duration::from_millis(300);
    let server = TestServer::with(|config| config.limits.handshake = handshake).await;
    let bystander = Bystander::at(server.address).await;
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        let start = &b"GET /kurento HTTP/1.1\r\nHost: x\r\nUpgrade: webso"[..number % 47];
        stream.write_all(start).await.expect("the connection is open");
        slow.push(stream);
    }
    for mut stream in slow {
        let mut rest = Vec::new();
        // Some are told why before the end, some are cut.
        let ended =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the server hangs up");
    }
    bystander.was_served("slow handshakes").await;
}

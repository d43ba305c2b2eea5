//! The harness against a server in this process, against servers that are none, and its reports as
//! texts.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rivero::config::Config;
use rivero::server::Server;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::BenchError;
use super::page::{page, suite_page};
use super::report::Report;
use super::scenario::{Options, Scenario, Search, run};
use super::suite::{Done, Suite};

async fn server() -> Server {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    Server::start(config).await.expect("free ports exist")
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/kurento")
}

fn options(scenario: Scenario, clients: usize) -> Options {
    Options {
        clients,
        over: Duration::from_millis(500),
        measured: Duration::from_secs(1),
        // Longer than anything takes, even on a busy machine.
        patience: Duration::from_secs(30),
        ..Options::new(scenario)
    }
}

async fn measured(scenario: Scenario, clients: usize) -> Report {
    measured_with(options(scenario, clients), clients as u64).await
}

async fn measured_with(options: Options, endpoints: u64) -> Report {
    let server = server().await;
    let report = run(&url(server.address()), &options, |_| ()).await;
    server.stop().await;
    let report = report.expect("a report");
    let joins = &report.joins;
    assert_eq!((joins.asked, joins.joined, joins.failed), (endpoints, endpoints, 0));
    assert!(joins.process_offer_ms.is_some() && joins.connected_ms.is_some());
    // It would see itself.
    assert_eq!((report.server.pid, report.cost.cpu_percent), (None, None));
    report
}

/// All of what was sent came, in order, and could be read.
fn plays(report: &Report, streams: u64) {
    let media = &report.media;
    assert!(media.received > 50 * streams, "{media:?}");
    assert!(media.frames > 10 * streams, "{media:?}");
    assert_eq!((media.lost, media.reordered, media.duplicates), (0, 0, 0), "{media:?}");
    assert_eq!((media.undecryptable, media.foreign), (0, 0), "{media:?}");
    assert!(media.delay_ms.is_some() && report.joins.first_frame_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_loopback_see_all_of_what_they_send() {
    let report = measured(Scenario::Loopback, 3).await;
    plays(&report, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_viewers_of_one_publisher_see_all_of_it() {
    let report = measured(Scenario::OneToMany, 8).await;
    plays(&report, 8);
    assert!(report.media.received > 4 * report.media.sent, "{:?}", report.media);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_viewers_comes_in() {
    let report = measured(Scenario::JoinStorm, 30).await;
    plays(&report, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_without_media_are_called_and_nothing_flows() {
    let report = measured(Scenario::Idle, 5).await;
    assert_eq!((report.media.sent, report.media.received), (0, 0));
    assert_eq!(report.joins.first_frame_ms, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_room_each_sees_all_others() {
    let options = Options { room: 3, ..options(Scenario::Rooms, 5) };
    // Two rooms are needed for five: three sources and six viewers in each.
    let report = measured_with(options, 18).await;
    plays(&report, 12);
    let media = &report.media;
    assert!(media.received > media.sent && media.received < 3 * media.sent, "{media:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_back_to_those_who_sent_them() {
    let report = measured(Scenario::Data, 2).await;
    let media = &report.media;
    assert!(media.received > 100 && media.foreign == 0, "{media:?}");
    assert!(media.sent.abs_diff(media.received) <= 2 * 64, "{media:?}");
    assert!(media.delay_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_deciphers_a_part_counts_all() {
    for transport_cc in [false, true] {
        let options = Options { opens: 4, transport_cc, ..options(Scenario::OneToMany, 4) };
        let report = measured_with(options, 4).await;
        plays(&report, 1);
        let media = &report.media;
        assert!(media.received > 4 * 200, "{media:?}");
        assert!(media.opened > 0 && media.opened < media.received / 2, "{media:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_anything_while_others_come_and_go() {
    let options = Options { measured: Duration::from_secs(6), ..options(Scenario::Churn, 8) };
    let server = server().await;
    let report = run(&url(server.address()), &options, |_| ()).await.expect("a report");
    server.stop().await;
    // Six watch from the beginning, and others come.
    assert!(report.joins.joined > 6 && report.joins.failed == 0, "{:?}", report.joins);
    assert_eq!(report.media.lost, 0, "{:?}", report.verdicts);
    // A server in the same process is not to be seen.
    let last = report.verdicts.last().expect("verdicts");
    assert_eq!((last.passed, last.detail.as_str()), (false, "it is not to be seen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_load_is_one_that_was_tried() {
    let options = Options {
        search: Some(Search::Clients),
        // As many as would take too long to bring in: it has to end before.
        clients: 4,
        measured: Duration::from_millis(300),
        ..options(Scenario::Loopback, 4)
    };
    let options = Options { most: 16, ..options };
    let server = server().await;
    let found = run(&url(server.address()), &options, |_| ()).await;
    server.stop().await;
    // A machine may be so busy that it bears nothing.
    let report = match found {
        Err(BenchError::Overloaded(_)) => return,
        found => found.expect("a report"),
    };
    let largest = report.largest.expect("it was looked for");
    assert_eq!(largest.clients, report.clients);
    assert!(report.steps.iter().any(|step| step.passed && step.clients == largest.clients));
    assert!(report.steps.iter().all(|step| step.clients <= 16), "{:?}", report.steps);
    let seventy = largest.at_seventy_percent.expect("it was measured");
    assert_eq!(seventy.clients, largest.clients * 7 / 10);
}

fn impatient() -> Options {
    let patience = Duration::from_millis(500);
    Options { patience, ..options(Scenario::OneToMany, 2) }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    drop(listener);
    let error = run(&url(address), &impatient(), |_| ()).await.expect_err("nobody is there");
    assert!(matches!(error, BenchError::Connect { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("no server at ws://{address}/kurento: ")));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    // The system accepts the connection, and nobody reads it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let error = run(&url(address), &impatient(), |_| ()).await.expect_err("it says nothing");
    assert!(matches!(error, BenchError::Connect { .. }), "{error}");
}

/// What to answer, by the name of the operation or method; null is an error.
type Answers = fn(&str) -> Value;

/// A server that answers what it is told to answer.
async fn pretender(answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut socket = accept_async(stream).await.expect("a handshake");
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let request: Value = serde_json::from_str(&text).expect("JSON");
            let method = request["method"].as_str().unwrap_or_default();
            let asked = request["params"]["operation"].as_str().unwrap_or(method);
            let mut answer = json!({"jsonrpc": "2.0", "id": request["id"]});
            let (name, value) = match answers(asked) {
                Value::Null => ("error", json!({"code": 40_009, "message": "No more"})),
                value => ("result", json!({"value": value, "sessionId": "s"})),
            };
            answer[name] = value;
            // The harness may have seen enough.
            let _ = socket.send(Message::text(answer.to_string())).await;
        }
    });
    address
}

fn info() -> Value {
    json!({"version": "0", "modules": [], "type": "KMS", "capabilities": []})
}

#[tokio::test]
async fn wrong_answers_are_told_of_in_words() {
    let cases: [(Answers, &str); 4] = [
        (|_| json!("x"), "the server refuses to say who it is: "),
        (
            |asked| match asked {
                "getInfo" => info(),
                "connect" => json!("x"),
                _ => Value::Null,
            },
            "the server refuses to create a pipeline: No more (40009)",
        ),
        (
            |asked| match asked {
                "getInfo" => info(),
                "processOffer" => Value::Null,
                _ => json!("x"),
            },
            "nobody could join: processOffer: No more (40009)",
        ),
        (
            |asked| match asked {
                "getInfo" => info(),
                _ => json!("x"),
            },
            "nobody could join: answer: ",
        ),
    ];
    for (answers, expected) in cases {
        let address = pretender(answers).await;
        let error = run(&url(address), &impatient(), |_| ()).await.expect_err(expected);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_server_whose_media_is_nowhere_is_told_of() {
    let address = pretender(|asked| match asked {
        "getInfo" => info(),
        "processOffer" => json!(ANSWER),
        _ => json!("x"),
    })
    .await;
    let error = run(&url(address), &impatient(), |_| ()).await.expect_err("no media");
    assert_eq!(error.to_string(), "nobody could join: connection: not in time");
}

const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=setup:active\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 \
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n";

/// Compares with a golden file, or writes it.
fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/bench/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(format!("{}/tests/golden/bench", env!("CARGO_MANIFEST_DIR")))
            .expect("a folder");
        std::fs::write(&path, text).expect("writes");
    }
    let expected = std::fs::read_to_string(&path).expect(&path);
    assert_eq!(text, expected, "{name} has changed; see it with UPDATE_GOLDEN=1");
}

fn report(version: &str, delay: f64) -> Report {
    let spread = json!({"p50": delay, "p90": 2.0, "p99": 3.0, "max": 4.5});
    let sample = |at: u32, joined: u32| {
        json!({"at": at, "joined": joined, "receivedPerSecond": joined * 290, "lost": 1,
            "cpuPercent": 2.5 * f64::from(joined), "residentMb": 20 + joined, "threads": 5,
            "descriptors": 20,
            "delayP50Ms": delay, "delayP99Ms": 3})
    };
    let report = json!({
        "measuredBy": "rivero 0", "scenario": "one-to-many", "clients": 2, "over": 1.0, "seconds": 2.0,
        "server": {"url": "ws://127.0.0.1:8888/kurento", "version": version, "pid": 7},
        "machine": {"cpu": "A <fast> one", "cores": 2, "kernel": "6.1", "loadAverage": 0.5,
            "bareUsPerPacket": 0.75},
        "joins": {"asked": 3, "joined": 2, "failed": 1, "failures": {"connection: not in time": 1},
            "processOfferMs": spread, "connectedMs": spread, "firstFrameMs": spread},
        "media": {"sent": 580, "expected": 1161, "received": 1160, "lost": 1, "lostPercent": 0.086,
            "reordered": 0, "duplicates": 0, "undecryptable": 0, "foreign": 0, "frames": 320,
            "receivedPerSecond": 580.0, "megabitsPerSecond": 4.6, "delayMs": spread,
            "keyframesAsked": 1, "nacked": 0, "harnessOverflown": 1, "harnessRefused": 0,
            "harnessLeftOut": 0},
        "way": {"pictures": "large", "transportCc": true, "opensOneOf": 8, "rows": true, "threads": 1,
            "serverCores": [0], "loadCores": [1]},
        "harness": {"cpuPercent": 7.5, "busiestPercent": 7.0, "waitMs": spread,
            "limited": "this program was too slow for 1 datagrams"},
        "verdicts": [{"what": "nobody loses a packet", "passed": false, "detail": "1 lost"}],
        "cost": {"cpuPercent": 5.0, "cpuUsPerPacket": 6.25, "cpuMsPerJoin": 0.9, "clientsPerCore": 40.0,
            "memoryKbPerClient": 80.0, "memoryKbPerEndpoint": null, "residentMb": 22.0},
        "samples": [sample(1, 1), sample(2, 2), sample(3, 2)]
    });
    serde_json::from_value(report).expect("a report")
}

#[test]
fn a_report_is_written_as_it_always_was_and_read_back() {
    let report = report("7.3.0", 1.0);
    let text = serde_json::to_string_pretty(&report).expect("writes") + "\n";
    golden("report.json", &text);
    assert_eq!(serde_json::from_str::<Report>(&text).expect("reads"), report);
    // One of another version lacks something.
    assert_eq!(serde_json::from_str::<Report>("{}").expect("reads"), Report::default());
}

#[test]
fn the_page_shows_all_that_is_known_and_needs_nothing_from_elsewhere() {
    let (now, before) = (report("7.3.0", 1.0), report("7.2.0", 0.5));
    golden("page.html", &page(&now, None));
    let compared = page(&now, Some(&before));
    golden("compared.html", &compared);
    assert!(compared.contains("+100.0 %"));
    for foreign in ["<script", "src=", "href=", "<fast>", "NaN"] {
        assert!(!compared.contains(foreign), "{foreign}");
    }
    // An empty report is no reason to fail.
    assert!(page(&Report::default(), Some(&now)).contains("</table>"));
}

/// A search that found two clients to be borne, and four not.
fn searched(version: &str, delay: f64) -> Report {
    let mut report = report(version, delay);
    let step = |clients: u32, passed: bool| {
        json!({"clients": clients, "passed": passed, "reason": (!passed).then_some("1 % were lost"),
            "media": {"receivedPerSecond": clients * 290, "lostPercent": u32::from(!passed),
                "delayMs": {"p50": delay, "p99": 3}},
            "cost": {"cpuPercent": clients * 10, "cpuUsPerPacket": 2, "residentMb": 20},
            "harness": {"cpuPercent": clients * 12}})
    };
    let steps = json!([step(2, true), step(4, false)]);
    report.steps = serde_json::from_value(steps).expect("steps");
    let largest = json!({"clients": 2, "beyond": "1 % were lost", "harnessLimited": true});
    report.largest = serde_json::from_value(largest).expect("a load");
    report
}

#[test]
fn the_page_of_a_search_has_plots_over_the_load() {
    let (now, before) = (searched("7.3.0", 1.0), searched("7.2.0", 0.5));
    let html = page(&now, Some(&before));
    golden("searched.html", &html);
    assert!(html.contains("CPU (% of a core) by clients"));
    let suite = |report: Report| {
        let name = "largest broadcast".to_owned();
        let jobs = vec![Done { name, reports: vec![report], failures: Vec::new() }];
        let mut suite = Suite { jobs, runs: 1, seconds: 5.0, ..Suite::default() };
        suite.machine.cpu = "A <fast> one".to_owned();
        suite.command = "rivero bench all".to_owned();
        suite.tell();
        suite
    };
    let (now, before) = (suite(now), suite(before));
    let html = suite_page(&now, Some(&before));
    golden("all.html", &html);
    golden("all.md", &now.markdown());
    for foreign in ["<script", "src=", "href=", "<fast>", "NaN"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    let text = serde_json::to_string(&now).expect("writes");
    assert_eq!(serde_json::from_str::<Suite>(&text).expect("reads"), now);
    assert!(suite_page(&Suite::default(), Some(&now)).contains("</table>"));
}

//! Flags, files, names, signals and logs.

use std::net::SocketAddr;

use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::process::{Folder, Program, output, rivero};
use crate::support::client::{Client, get};

const LOCAL: &str = r#"{"mediaServer": {"net": {"websocket": {
    // so that a test is no stranger to the firewall
    "address": "127.0.0.1", "port": "8888", "path": "kurento" }}}}"#;

#[test]
fn versions_and_classes_are_printed_in_the_originals_form() {
    let folder = Folder::new();
    let (status, text, _) = output(folder.called("kurento-media-server").arg("-v"));
    assert_eq!(status, Some(0));
    let head = "Kurento Media Server version: 7.3.0\nFound modules:\n\t'core' version 7.3.0\n";
    assert!(text.starts_with(head), "{text}");
    let (status, text, _) = output(rivero().arg("-l"));
    assert_eq!(status, Some(0));
    assert!(text.starts_with("Available factories:\n"), "{text}");
    let names: Vec<_> = text.lines().skip(1).collect();
    assert!(names.is_sorted() && names.contains(&"\tkurento.WebRtcEndpoint"), "{text}");
    let (status, text, _) = output(rivero().arg("-h"));
    assert_eq!(status, Some(0));
    assert!(text.contains("--conf-file"), "{text}");
}

#[test]
fn without_its_file_the_originals_name_does_not_start() {
    let folder = Folder::new();
    let missing = folder.path().join("none.conf.json");
    let mut program = folder.called("kurento-media-server");
    let (status, _, errors) = output(program.arg("-f").arg(missing));
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("Error reading configuration: "), "{errors}");
}

#[test]
fn a_wrong_file_is_named_with_line_and_key() {
    let folder = Folder::new();
    for (text, told) in [
        (
            "{\n\"mediaServer\": {\"net\": {\"websocket\": {\n\"port\": \"many\"}}}}",
            ":3: mediaServer.net.websocket.port must be a number from 0 to 65535\n",
        ),
        ("{\n\n[}", ": line 3: a name in quotes was expected\n"),
    ] {
        let file = folder.write("wrong.conf.json", text);
        let (status, _, errors) = output(rivero().args(["-f", &file]));
        assert_eq!(status, Some(1));
        assert_eq!(errors, format!("Error reading configuration: {file}{told}"));
    }
}

#[test]
fn config_shows_each_setting_with_its_origin_and_no_secret() {
    let folder = Folder::new();
    let file = folder.write("kurento.conf.json", LOCAL);
    folder.write("modules/kurento/BaseRtpEndpoint.conf.ini", "; ports\nminPort=5000\n");
    folder.write("modules/kurento/Wrong.conf.ini", "nonsense");
    let mut program = rivero();
    program.args(["config", "-f", &file, "--path=other"]);
    program.env("RIVERO_TOKEN", "hidden").env("KMS_MTU", "1300");
    let (status, text, errors) = output(&mut program);
    assert_eq!(status, Some(0), "{errors}");
    for line in [
        format!("mediaServer.net.websocket.address = 127.0.0.1  ({file}:3)"),
        "mediaServer.net.websocket.path = other  (flag --path)".to_owned(),
        "rivero.token = ***  (environment RIVERO_TOKEN)".to_owned(),
        "rivero.limits.objects = 100000  (default)".to_owned(),
        "modules.kurento.BaseRtpEndpoint.mtu = 1300  (environment KMS_MTU, no effect yet)"
            .to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is missing in\n{text}");
    }
    let port = "modules.kurento.BaseRtpEndpoint.minPort = 5000  (";
    assert!(
        text.lines().any(|line| line.starts_with(port) && line.contains("conf.ini:2")),
        "{text}"
    );
    assert!(errors.contains("Wrong.conf.ini: line 1: "), "{errors}");
    let (_, json, _) = output(program.arg("--json"));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["rivero.token"]["value"], "***");
    assert!(!text.contains("hidden") && !json.to_string().contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_tells_connections_and_ends_with_status_0() {
    let program = Program::start(rivero().args(["--port", "0"]));
    let mut client = Client::connect(program.address).await;
    client.create("MediaPipeline", Value::Null).await;
    program.signal(libc::SIGTERM);
    let frame = client.closed().await.expect("closed with a frame");
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "terminating"));
    assert_eq!(program.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let program = Program::start(rivero().args(["--port", "0"]));
    // It does not take part in closing, so that an orderly end would take a while.
    let mut client = Client::connect(program.address).await;
    client.call("ping", Value::Null).await;
    program.signal(libc::SIGINT);
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_originals_name_it_starts_as_that_does_and_writes_its_log_files() {
    let folder = Folder::new();
    let file = folder.write("kurento.conf.json", LOCAL);
    let logs = folder.path().join("logs");
    let mut program = folder.called("kurento-media-server");
    program.args([
        "-f",
        &file,
        "--gst-debug-no-color",
        "--gst-debug=3,Kurento*:5",
        "--odd",
        "word",
    ]);
    program.args(["--port", "0", "-s", "1", "-n", "2", "-d"]).arg(&logs);
    let program = Program::start(&mut program);
    let mut client = Client::connect(program.address).await;
    client.call("ping", Value::Null).await;
    client.close().await;
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
    let mut files: Vec<_> = logs.read_dir().expect("a folder").collect();
    let file = files.pop().expect("a file").expect("a file").path();
    assert!(files.is_empty(), "{files:?}");
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(name.ends_with(".log") && name.contains(".00000.pid"), "{name}");
    let text = std::fs::read_to_string(&file).expect("a text");
    for part in [
        " info KurentoMediaServer        main.rs:",
        "Kurento Media Server version: 7.3.0\n",
        "WebSocket server (ws://) listening on address '127.0.0.1', port ",
        "Kurento Media Server started\n",
        "Kurento Media Server stopped\n",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn who_can_listen_nowhere_ends_with_status_1() {
    let folder = Folder::new();
    let file = folder.write("none.conf.json", r#"{"mediaServer": {"net": {"websocket": {}}}}"#);
    let mut program = folder.called("kurento-media-server");
    let (status, _, errors) = output(program.args(["-f", &file]));
    assert_eq!(status, Some(1));
    assert!(errors.contains("no port to listen on"), "{errors}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (status, _, errors) = output(rivero().args(["--port", &port]));
    assert_eq!(status, Some(1));
    assert!(errors.contains(&format!("port {port}")), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_means_both_families_and_earns_a_warning() {
    let folder = Folder::new();
    let text = r#"{"mediaServer": {"net": {"websocket": {"port": 1}}}}"#;
    let file = folder.write("kurento.conf.json", text);
    let program = Program::start(rivero().args(["-f", &file, "--port", "0"]));
    program.line("without a token");
    // In an environment without IPv6 it is IPv4 alone.
    let home = SocketAddr::from(([127, 0, 0, 1], program.address.port()));
    let (status, health) = get(home, "/health").await;
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!((status, health["warnings"].as_array().map(Vec::len)), (200, Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    let patience = std::time::Duration::from_secs(20);
    socket.set_read_timeout(Some(patience)).expect("a time");
    let mut program = rivero();
    program.args(["--port", "0"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let program = Program::start(&mut program);
    let told = |word: &str| {
        let mut bytes = [0; 256];
        loop {
            let length = socket.recv(&mut bytes).expect("a word in time");
            if String::from_utf8_lossy(&bytes[..length]).contains(word) {
                return;
            }
        }
    };
    told("READY=1");
    told("WATCHDOG=1");
    program.signal(libc::SIGHUP);
    told("RELOADING=1\nMONOTONIC_USEC=");
    told("READY=1");
    program.signal(libc::SIGTERM);
    told("STOPPING=1");
    assert_eq!(program.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_would_open_the_door_is_refused_and_everything_stays() {
    let folder = Folder::new();
    let with = |token| format!(r#"{{"rivero": {{{token}}}}}"#);
    let file = folder.write("own.conf.json", &with(r#""token": "key""#));
    let program = Program::start(rivero().args(["-f", &file, "--port", "0"]));
    let asked = async || get(program.address, "/metrics").await.0;
    assert_eq!(asked().await, 401);
    std::fs::remove_file(&file).expect("it is there");
    program.signal(libc::SIGHUP);
    program.line("all settings stay as they are");
    assert_eq!(asked().await, 401);
    folder.write("own.conf.json", &with(""));
    program.signal(libc::SIGHUP);
    program.line("rivero.token is gone");
    program.line("all settings stay as they are");
    assert_eq!(asked().await, 401);
    folder.write("own.conf.json", &with(r#""token": "none""#));
    program.signal(libc::SIGHUP);
    program.line("settings reloaded");
    assert_eq!(asked().await, 200);
}

#[test]
fn a_variable_that_is_no_text_ends_the_start_with_its_name() {
    use std::os::unix::ffi::OsStrExt;
    let broken = std::ffi::OsStr::from_bytes(b"key\xff");
    for name in ["RIVERO_TOKEN", "KURENTO_CONF_FILE"] {
        let (status, _, errors) = output(rivero().env(name, broken));
        assert_eq!(status, Some(1));
        assert!(errors.contains(&format!("the variable {name} is not UTF-8")), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_can_be_json() {
    let program = Program::start(rivero().args(["--port", "0", "--log-format", "json"]));
    let line: Value = serde_json::from_str(&program.line("Rivero started")).expect("JSON");
    assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"rivero".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_client_looks_like_a_line_of_the_log() {
    let forged = "x\n2020-01-01T00:00:00.000000Z ERROR rivero: forged";
    for format in ["text", "kurento"] {
        let args = ["--port", "0", "--log-level", "debug", "--log-format", format];
        let program = Program::start(rivero().args(args));
        let mut client = Client::connect(program.address).await;
        client.send_text(forged).await;
        let line = program.line("rivero: forged");
        assert!(line.contains("x\\n2020-01-01T00"), "{line}");
    }
}

/// A registrar that has heard what is said to it.
async fn registrar(
    listener: &tokio::net::TcpListener,
) -> (String, tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>) {
    let (stream, _) = listener.accept().await.expect("it dials");
    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("it opens");
    let message = socket.next().await.expect("a word").expect("a word");
    (message.into_text().expect("a text").to_string(), socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_announces_itself_and_again_when_the_registrar_was_gone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let folder = Folder::new();
    let text = format!(
        r#"{{"mediaServer": {{"net": {{"websocket": {{"address": "127.0.0.1", "registrar":
        {{"address": "ws://127.0.0.1:{port}/", "localAddress": "media1"}}}}}}}}}}"#
    );
    let file = folder.write("kurento.conf.json", &text);
    let program = Program::start(rivero().args(["-f", &file, "--port", "0"]));
    let own = program.address.port();
    let expected = format!(
        r#"{{"jsonrpc":"2.0","method":"register","params":{{"ws":"ws://media1:{own}/kurento"}}}}"#
    );
    assert_eq!(registrar(&listener).await.0, expected);
    let (said, mut socket) = registrar(&listener).await;
    assert_eq!(said, expected);
    program.signal(libc::SIGTERM);
    let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no farewell") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "terminating"));
    drop(socket);
    assert_eq!(program.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_nothing_and_its_losses_are_counted() {
    let program = Program::unheard(rivero().args(["--port", "0"]).env("RUST_LOG", "trace"));
    let mut client = Client::connect(program.address).await;
    for round in 0.. {
        for _ in 0..200 {
            assert_eq!(client.call("ping", Value::Null).await["value"], "pong");
        }
        let (_, metrics) = get(program.address, "/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("rivero_log_lines_dropped_total "));
        if last_number_is_positive(line.expect("it is counted")) {
            break;
        }
        assert!(round < 500, "the log swallows everything");
    }
    program.signal(libc::SIGTERM);
    drop(client);
    assert_eq!(program.wait().code(), Some(0));
}

fn last_number_is_positive(line: &str) -> bool {
    line.rsplit(' ').next().and_then(|text| text.parse::<u64>().ok()).is_some_and(|count| count > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_start_with_what_the_module_files_say() {
    let folder = Folder::new();
    let file = folder.write("kurento.conf.json", LOCAL);
    let ini = "stunServerAddress=192.0.2.1\nturnURL=u:p@192.0.2.2:3478\niceTcp=0\n";
    folder.write("modules/kurento/WebRtcEndpoint.conf.ini", ini);
    folder.write("modules/kurento/MediaElement.conf.ini", "encoderBitrate=500000\n");
    let program =
        Program::start(rivero().args(["-f", &file, "--port", "0"]).env("KMS_MTU", "1300"));
    let mut client = Client::connect(program.address).await;
    let pipeline = client.create("MediaPipeline", serde_json::json!({})).await;
    let constructor = serde_json::json!({"mediaPipeline": pipeline});
    let endpoint = client.create("WebRtcEndpoint", constructor).await;
    for (operation, expected) in [
        ("getStunServerAddress", Value::from("192.0.2.1")),
        ("getTurnUrl", Value::from("u:p@192.0.2.2:3478")),
        ("getIceTcp", Value::from(false)),
        ("getMtu", Value::from(1300)),
        ("getEncoderBitrate", Value::from(500_000)),
    ] {
        assert_eq!(client.invoke(&endpoint, operation, Value::Null).await, expected, "{operation}");
    }
}

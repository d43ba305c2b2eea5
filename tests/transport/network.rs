//! The ways between two whole servers over real sockets: UDP, TCP and relays, one at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rivero::config::Config;
use rivero::server::Server;
use serde_json::{Value, json};

use super::whole_server::plays;
use crate::support::client::{Client, get};
use crate::support::peer::Peer;
use crate::support::turn::{PASSWORD, SEEN, TurnServer, USER};

/// One server with an endpoint, and the client that made it.
struct Side {
    server: Server,
    client: Client,
    endpoint: String,
    /// Lines of its candidates, until gathering was done.
    candidates: Vec<String>,
}

async fn start(set: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    set(&mut config);
    Server::start(config).await.expect("free ports exist")
}

impl Side {
    async fn new(set: impl FnOnce(&mut Config)) -> Self {
        let server = start(set).await;
        let mut client = Client::connect(server.address()).await;
        let pipeline = client.create("MediaPipeline", json!({})).await;
        let endpoint = client.create("WebRtcEndpoint", json!({"mediaPipeline": pipeline})).await;
        for event in [
            "IceCandidateFound",
            "IceGatheringDone",
            "NewCandidatePairSelected",
            "ConnectionStateChanged",
        ] {
            client.subscribe(&endpoint, event).await;
        }
        Self { server, client, endpoint, candidates: Vec::new() }
    }

    async fn invoke(&mut self, operation: &str, args: Value) -> Value {
        self.client.invoke(&self.endpoint, operation, args).await
    }

    async fn gather(&mut self) {
        self.invoke("gatherCandidates", json!({})).await;
        loop {
            let event = self.client.event().await;
            match event["type"].as_str() {
                Some("IceCandidateFound") => {
                    let candidate = &event["data"]["candidate"];
                    if candidate["sdpMLineIndex"] == 0 {
                        let line = candidate["candidate"].as_str().expect("a line");
                        self.candidates.push(line.to_owned());
                    }
                }
                Some("IceGatheringDone") => return,
                _ => {}
            }
        }
    }

    /// Waits for the pair that was selected, and for the connection.
    async fn connected(&mut self) -> (String, String) {
        let mut pair = None;
        loop {
            let event = self.client.event().await;
            match event["type"].as_str() {
                Some("NewCandidatePairSelected") => {
                    let chosen = &event["data"]["candidatePair"];
                    let line = |name: &str| chosen[name].as_str().expect("a line").to_owned();
                    pair = Some((line("localCandidate"), line("remoteCandidate")));
                }
                Some("ConnectionStateChanged") if event["data"]["newState"] == "CONNECTED" => {
                    return pair.expect("a pair comes first");
                }
                _ => {}
            }
        }
    }

    async fn stop(self) {
        self.client.close().await;
        self.server.stop().await;
    }
}

/// Joins two sides; each hears of those candidates of the other that `tell` lets through.
async fn join(mut sides: [Side; 2], tell: impl Fn(&str) -> bool) -> [Side; 2] {
    let [offerer, answerer] = &mut sides;
    let offer = offerer.invoke("generateOffer", json!({})).await;
    let answer = answerer.invoke("processOffer", json!({"offer": offer})).await;
    offerer.invoke("processAnswer", json!({"answer": answer})).await;
    offerer.gather().await;
    answerer.gather().await;
    for (from, to) in [(0, 1), (1, 0)] {
        let lines = sides[from].candidates.clone();
        assert!(lines.iter().any(|line| tell(line)), "{lines:?}");
        for line in lines.iter().filter(|line| tell(line)) {
            let candidate = json!({"candidate": line, "sdpMid": "audio0", "sdpMLineIndex": 0});
            sides[to].invoke("addIceCandidate", json!({"candidate": candidate})).await;
        }
    }
    sides
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_find_each_other_over_tcp_alone() {
    let sides = [Side::new(|_| ()).await, Side::new(|_| ()).await];
    let [mut first, mut second] = join(sides, |line| line.contains(" TCP ")).await;
    for side in [&mut first, &mut second] {
        let lines = &side.candidates;
        assert!(
            lines[1].contains(" TCP 1015022591 127.0.0.1 9 typ host tcptype active"),
            "{lines:?}"
        );
        assert!(lines[2].contains(" TCP 1010828287 127.0.0.1 "), "{lines:?}");
        let (local, remote) = side.connected().await;
        assert!(local.contains(" TCP ") && remote.contains(" TCP "), "{local} and {remote}");
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_configured_shows_in_the_candidates() {
    let mut side = Side::new(|config| {
        config.modules.webrtc.ice_tcp = false;
        config.modules.rtp.min_port = 42_000;
        config.modules.rtp.max_port = 42_999;
    })
    .await;
    side.invoke("setExternalIPv4", json!({"externalIPv4": "198.51.100.7"})).await;
    side.invoke("setExternalIPv6", json!({"externalIPv6": "nonsense"})).await;
    side.invoke("setNetworkInterfaces", json!({"networkInterfaces": "eth7, lo"})).await;
    side.invoke("generateOffer", json!({})).await;
    side.gather().await;
    let [line] = &side.candidates[..] else { panic!("more than one: {:?}", side.candidates) };
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!((words[4], words[7]), ("198.51.100.7", "host"));
    assert!((42_000..43_000).contains(&words[5].parse::<u16>().expect("a port")), "{line}");
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_interfaces_are_not_announced() {
    let mut side = Side::new(|_| ()).await;
    side.invoke("setNetworkInterfaces", json!({"networkInterfaces": "eth7"})).await;
    side.invoke("generateOffer", json!({})).await;
    side.gather().await;
    assert_eq!(side.candidates, Vec::<String>::new());
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stun_server_tells_how_others_see_us() {
    let stun = TurnServer::start();
    let mut side = Side::new(|config| {
        // A name, so that somebody has to look it up.
        config.modules.webrtc.stun_address = Some("localhost".to_owned());
        config.modules.webrtc.stun_port = stun.address.port();
    })
    .await;
    side.invoke("generateOffer", json!({})).await;
    side.gather().await;
    let (ip, port) = (std::net::Ipv4Addr::from(SEEN.0), SEEN.1);
    let seen = format!(" {ip} {port} typ srflx raddr 127.0.0.1 rport ");
    let last = side.candidates.last().expect("candidates");
    assert!(last.contains(&seen), "{:?}", side.candidates);
    let local = side.invoke("getLocalSessionDescriptor", json!({})).await;
    assert!(local.as_str().expect("a description").contains(&seen));
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gathering_ends_although_no_server_answers() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("bound").port();
    let mut side = Side::new(|_| ()).await;
    side.invoke("setStunServerAddress", json!({"stunServerAddress": "127.0.0.1"})).await;
    side.invoke("setStunServerPort", json!({"stunServerPort": port})).await;
    let url = format!("a:b@127.0.0.1:{port}");
    side.invoke("setTurnUrl", json!({"turnUrl": url})).await;
    side.invoke("generateOffer", json!({})).await;
    side.gather().await;
    assert!(side.candidates.iter().all(|line| line.contains("typ host")), "{:?}", side.candidates);
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_of_a_refused_section_are_those_of_its_group() {
    let mut side = Side::new(|_| ()).await;
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n\
        a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
        a=setup:actpass\r\na=rtcp-mux\r\n";
    let offer = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 9\r\n{transport}a=mid:a\r\na=rtpmap:9 G722/8000\r\n\
         a=candidate:1 1 udp 99 127.0.0.1 40001 typ host\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{transport}a=mid:v\r\na=rtpmap:96 VP8/90000\r\n"
    );
    let answer = side.invoke("processOffer", json!({"offer": offer})).await;
    assert!(answer.as_str().expect("a description").contains("\r\nm=audio 0 "), "{answer}");
    side.invoke("gatherCandidates", json!({})).await;
    let line = "candidate:1 1 udp 98 127.0.0.1 40002 typ host";
    let candidate = json!({"candidate": line, "sdpMid": "a", "sdpMLineIndex": 0});
    side.invoke("addIceCandidate", json!({"candidate": candidate})).await;
    let stats = side.invoke("getStats", json!({})).await.to_string();
    for port in ["40001", "40002"] {
        assert!(stats.contains(&format!("\"portNumber\":{port}")), "{stats}");
    }
    side.stop().await;
}

/// Joins two sides of which one is reached over a relay only.
async fn relayed(transport: &str) {
    let turn = TurnServer::start();
    let mut sides = [Side::new(|_| ()).await, Side::new(|_| ()).await];
    let url = format!("{USER}:{PASSWORD}@{}?transport={transport}", turn.address);
    for side in &mut sides {
        side.invoke("setTurnUrl", json!({"turnUrl": url})).await;
    }
    let [mut first, mut second] = join(sides, |line| line.contains("typ relay")).await;
    // Without the relay they would hear nothing of each other.
    let (local, remote) = first.connected().await;
    assert!(format!("{local}{remote}").contains("typ relay"), "{local} and {remote}");
    second.connected().await;
    assert!(turn.relayed.load(Ordering::SeqCst) > 4, "it was used");
    assert_eq!(turn.allocations.load(Ordering::SeqCst), 2);
    first.stop().await;
    second.stop().await;
    for _ in 0..500 {
        if turn.allocations.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the addresses were not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_find_each_other_over_a_relay() {
    relayed("udp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_find_each_other_over_a_relay_that_is_reached_by_tcp() {
    relayed("tcp").await;
}

/// The port for TCP of a server that just gathered.
fn tcp_port(side: &Side) -> u16 {
    let line = side.candidates.iter().find(|line| line.ends_with("passive")).expect("a line");
    line.split(' ').nth(5).and_then(|word| word.parse().ok()).expect("a port")
}

/// Ten thousand, or what the system lets this process open beside everything else.
fn connections() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a place for what is asked.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur / 2).clamp(400, 10_000)
}

/// The value of a counter of dropped things.
async fn dropped(server: &Server, reason: &str) -> u64 {
    let (_, text) = get(server.address(), "/metrics").await;
    let line = text.lines().find(|line| line.contains(&format!("reason=\"{reason}\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Waits until a counter has come that far.
async fn counted(server: &Server, reason: &str, at_least: u64) {
    let mut count = 0;
    for _ in 0..1_000 {
        count = dropped(server, reason).await;
        if count >= at_least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{reason} stays at {count}, below {at_least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_make_room_and_disturb_nobody() {
    let mut sides = [Side::new(|_| ()).await, Side::new(|_| ()).await];
    let [first, second] = &mut sides;
    let offer = first.invoke("generateOffer", json!({})).await;
    first.gather().await;
    let port = tcp_port(first);
    let mut open = Vec::new();
    let count = connections();
    for number in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it is accepted");
        if number % 2 == 0 {
            // One byte, and silence.
            let _ = stream.write_all(&[0]);
        }
        open.push(stream);
    }
    // What is no frame of ours ends the connection at once.
    let mut nonsense = TcpStream::connect(("127.0.0.1", port)).expect("it is accepted");
    nonsense.write_all(&[0xff; 64]).expect("sends");
    assert_eq!(nonsense.read(&mut [0]).unwrap_or(0), 0, "and nothing is answered");
    // There is room for 256 that say nothing; most of the others had to give way.
    counted(&first.server, "tcp_unknown_evicted", count - 300).await;
    counted(&first.server, "tcp_nonsense", 1).await;

    let answer = second.invoke("processOffer", json!({"offer": offer})).await;
    first.invoke("processAnswer", json!({"answer": answer})).await;
    second.gather().await;
    for line in second.candidates.clone().iter().filter(|line| line.ends_with("passive")) {
        let candidate = json!({"candidate": line, "sdpMid": "audio0", "sdpMLineIndex": 0});
        first.invoke("addIceCandidate", json!({"candidate": candidate})).await;
    }
    for line in first.candidates.clone().iter().filter(|line| line.ends_with("passive")) {
        let candidate = json!({"candidate": line, "sdpMid": "audio0", "sdpMLineIndex": 0});
        second.invoke("addIceCandidate", json!({"candidate": candidate})).await;
    }
    first.connected().await;
    drop(open);
    let [first, second] = sides;
    first.stop().await;
    second.stop().await;
}

/// Two endpoints with each other's descriptions, and as yet without candidates.
async fn neighbours(client: &mut Client, pipelines: [&str; 2]) -> [String; 2] {
    let mut endpoints = [String::new(), String::new()];
    for (endpoint, pipeline) in endpoints.iter_mut().zip(pipelines) {
        *endpoint = client.create("WebRtcEndpoint", json!({"mediaPipeline": pipeline})).await;
        client.subscribe(endpoint, "ConnectionStateChanged").await;
        client.subscribe(endpoint, "IceCandidateFound").await;
    }
    let [first, second] = &endpoints;
    let offer = client.invoke(first, "generateOffer", json!({})).await;
    let answer = client.invoke(second, "processOffer", json!({"offer": offer})).await;
    client.invoke(first, "processAnswer", json!({"answer": answer})).await;
    for endpoint in &endpoints {
        client.invoke(endpoint, "gatherCandidates", json!({})).await;
    }
    endpoints
}

/// Hands candidates over until all endpoints are connected.
async fn connects(client: &mut Client, pairs: &[[String; 2]]) {
    let mut left = 2 * pairs.len();
    while left > 0 {
        let event = client.event().await;
        let source = event["object"].as_str().expect("an object").to_owned();
        if event["type"] == "IceCandidateFound" {
            let pair = pairs.iter().find(|pair| pair.contains(&source)).expect("one of them");
            let other = if pair[0] == source { &pair[1] } else { &pair[0] };
            let args = json!({"candidate": event["data"]["candidate"]});
            client.invoke(other, "addIceCandidate", args).await;
        } else if event["data"]["newState"] == "CONNECTED" {
            left -= 1;
        }
    }
}

/// Several calls, each of which goes from one endpoint of the server to another over the network: every
/// picture reaches the viewer of its own call.
async fn cascades(workers: usize) -> Server {
    let server = start(|config| config.media.workers = Some(workers)).await;
    let mut client = Client::connect(server.address()).await;
    // New pipelines go to the worker that has the fewest.
    let mut pipelines = Vec::new();
    for _ in 0..2 {
        pipelines.push(client.create("MediaPipeline", json!({})).await);
    }
    let [from, to] = [&pipelines[0], &pipelines[1]];
    let mut ends = Vec::new();
    for number in 0..3 {
        let publisher = Peer::join(&mut client, from, 96, 4_242 + number).await;
        ends.push((publisher, Peer::join(&mut client, to, 102, 7 + number).await));
    }
    client.events().await;
    let mut pairs = Vec::new();
    for (publisher, viewer) in &ends {
        let pair = neighbours(&mut client, [from, to]).await;
        client.invoke(&publisher.endpoint, "connect", json!({"sink": pair[0]})).await;
        client.invoke(&pair[1], "connect", json!({"sink": viewer.endpoint})).await;
        pairs.push(pair);
    }
    connects(&mut client, &pairs).await;
    for (publisher, viewer) in &mut ends {
        plays(publisher, Some(viewer)).await;
    }
    for (publisher, viewer) in ends {
        publisher.close().await;
        viewer.close().await;
    }
    client.close().await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_between_endpoints_of_one_worker_keep_apart() {
    cascades(1).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_between_two_workers_keep_apart() {
    let server = cascades(2).await;
    // One of them has the ports for datagrams, and the others are told so.
    counted(&server, "address_in_use", 1).await;
    server.stop().await;
}

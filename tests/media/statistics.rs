//! Statistics against what the ends of a call counted, latencies, and the graph as text.

use super::{
    browser::Role,
    stage::{LEFT, ROUTED, Stage},
    world::{VIDEO_PT, World, ms, secs},
};
use crate::support::link::Conditions;
use rivero::{
    bandwidth,
    router::{Egress, Limit, PeerConfig, PeerKey, Router, SinkConfig, SourceConfig},
    rtp::{
        Bitrate, Codec, Extensions, Format, Kind, NtpTime, RtpPacket,
        rtcp::{ReportBlock, write_fir, write_nack, write_pli, write_receiver_report, write_remb},
    },
};
use serde_json::{Map, Value, json};
use std::time::Duration;

struct Nowhere;

impl Egress for Nowhere {
    fn rtp(&mut self, _: PeerKey, _: &[u8], _: &[u8], _: u64) {}
    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

fn unix(ms: u64) -> NtpTime {
    NtpTime::from_unix(secs(1_700_000_000) + Duration::from_millis(ms))
}

/// A packet of VP8 of a frame of its own, 100 bytes of payload.
fn packet(number: u16, timestamp: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 0x80 | VIDEO_PT];
    bytes.extend(number.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(7_u32.to_be_bytes());
    bytes.extend([0x10, u8::from(number > 0)]);
    bytes.resize(112, 0xaa);
    bytes
}

#[test]
fn what_waits_for_a_busy_server_counts_from_when_it_came() {
    let mut call = Call::new(3, Conditions::delay(20));
    call.stage.looks_each = 17;
    call.stage.run_for(secs(20));
    let publisher = call.publisher.1.clone();
    let stats = call.stats(&publisher);
    let inbound = stats.all("inboundrtp");
    assert_eq!(inbound.len(), 2, "{inbound:?}");
    for stream in inbound {
        assert!(stream["packetsReceived"].as_u64() > Some(500), "{stream}");
        assert!(stream["jitter"].as_f64().unwrap() < 0.001, "{stream}");
    }
}

#[test]
fn losses_jitter_and_round_trips_come_out_as_they_were_put_in() {
    // For its clock alone.
    let now = World::new(1, Conditions::default()).now();
    let mut router = Router::new(now);
    let config = || PeerConfig { cname: "one".to_owned(), remb: true };
    let (from, to) = (router.add_peer(now, config()), router.add_peer(now, config()));
    let formats = vec![(VIDEO_PT, Format::new(Codec::Vp8, ""))];
    let source = router.add_source(
        from,
        SourceConfig {
            kind: Kind::Video,
            formats: formats.clone(),
            nack: false,
            pli: true,
            fir: false,
            remb: true,
            transport_cc: false,
            rtx: Vec::new(),
            rtx_ssrcs: Vec::new(),
            extensions: Extensions::default(),
            receiver_ssrc: 1,
            keyframe_cache: 0,
        },
    );
    let sink = router.add_sink(
        to,
        SinkConfig {
            kind: Kind::Video,
            ssrc: 9,
            formats,
            nack: true,
            rtx: None,
            extensions: Extensions::default(),
            transport_cc: false,
            mid: None,
            sequence_start: 65_530,
            timestamp_start: 5,
        },
    );
    router.set_route(now, sink, Some(source));
    // Every 20 ms one; each second one is 8 ms late; of the first 400 every tenth is lost.
    for number in 0_u16..1_000 {
        if number < 400 && number % 10 == 9 {
            continue;
        }
        let at = now + ms(20 * u64::from(number) + 8 * u64::from(number % 2));
        let bytes = packet(number, u32::from(number) * 1_800);
        router.forward(at, source, &RtpPacket::parse(&bytes).unwrap(), &mut Nowhere);
    }
    let stats = router.source_stats(source);
    assert_eq!((stats.ssrc, stats.packets, stats.bytes), (Some(7), 960, 96_000));
    assert_eq!((stats.lost, stats.keyframes), (40, 1));
    let off = stats.jitter.abs_diff(ms(8));
    assert!(off < Duration::from_micros(200), "{:?}", stats.jitter);

    // The receiver answers our report of second 30 after half a second, 123 ms after it was sent.
    let mut bytes = Vec::new();
    let block = ReportBlock {
        ssrc: 9,
        fraction_lost: 64,
        lost: 5,
        highest: 66_489,
        jitter: 720,
        last_sr: unix(30_000).middle(),
        since_sr: 1 << 15,
    };
    write_receiver_report(&mut bytes, 3, &[block]);
    write_nack(&mut bytes, 3, 9, &[100, 101, 300]);
    write_pli(&mut bytes, 3, 9);
    write_pli(&mut bytes, 3, 9);
    write_fir(&mut bytes, 3, 9, 1);
    write_remb(&mut bytes, 3, Bitrate::from_bps(750_000), &[9]);
    let at = now + ms(30_623);
    router.handle_rtcp(at, unix(30_623), to, &bytes, &mut Nowhere);
    let stats = router.sink_stats(sink);
    assert_eq!((stats.packets, stats.bytes), (960, 96_000));
    assert_eq!((stats.lost, stats.fraction_lost, stats.jitter), (5, 64, ms(8)));
    assert_eq!((stats.nacks, stats.nacked_packets, stats.plis, stats.firs), (1, 3, 2, 1));
    assert_eq!(stats.remb.map(Bitrate::bps), Some(750_000));
    let round_trip = stats.round_trip.expect("was measured");
    assert!(round_trip.abs_diff(ms(123)) < Duration::from_micros(40), "{round_trip:?}");
    let estimate = router.available_to(sink).expect("an estimate");
    assert_eq!((estimate.target.bps(), estimate.reason), (750_000, bandwidth::Limit::Remb));

    // 40 kbit/s come, of which no more than the double is promised, and the lower bound is above that.
    router.handle_timeout(at, unix(30_623), &mut Nowhere);
    let stats = router.source_stats(source);
    assert_eq!((stats.plis, stats.limit), (1, Some(Limit::Minimum)));
    router.set_video_receive_bounds(source, 0, 20);
    router.handle_timeout(at + secs(1), unix(31_623), &mut Nowhere);
    let stats = router.source_stats(source);
    assert_eq!(stats.remb.zip(stats.limit), Some((Bitrate::from_bps(30_000), Limit::Floor)));
}

struct Call {
    stage: Stage,
    pipeline: String,
    publisher: (usize, String),
    viewer: (usize, String),
}

impl Call {
    fn new(seed: u64, conditions: Conditions) -> Self {
        let mut stage = Stage::new(seed, conditions);
        let pipeline = stage.create("MediaPipeline", None);
        let publisher = stage.join(&pipeline, Role::publisher(0));
        let viewer = stage.join(&pipeline, Role::viewer(0));
        stage.invoke(&publisher.1, "connect", json!({"sink": viewer.1}));
        Self { stage, pipeline, publisher, viewer }
    }

    fn stats(&mut self, object: &str) -> Stats {
        Stats::of(self.stage.invoke(object, "getStats", json!({})))
    }

    fn measure(&mut self, on: bool) {
        let pipeline = self.pipeline.clone();
        self.stage.invoke(&pipeline, "setLatencyStats", json!({"latencyStats": on}));
    }
}

/// What `getStats` said.
struct Stats(Map<String, Value>);

impl Stats {
    fn of(value: Value) -> Self {
        let Value::Object(entries) = value else { panic!("{value} is no map") };
        for (id, entry) in &entries {
            assert_eq!(entry["id"], json!(id));
        }
        Self(entries)
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.values().filter(|entry| entry["type"] == kind).collect()
    }

    fn only(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{kind}: {all:?}");
        all[0]
    }

    /// The stream whose SSRC that is.
    fn stream(&self, ssrc: u32) -> &Value {
        let found = self.0.values().find(|entry| entry["ssrc"] == json!(ssrc.to_string()));
        found.expect("the stream")
    }

    fn types(&self) -> Vec<&str> {
        let mut types: Vec<_> = self.0.values().filter_map(|one| one["type"].as_str()).collect();
        types.sort_unstable();
        types
    }
}

#[test]
fn both_ends_of_a_call_counted_what_the_server_tells() {
    let mut call = Call::new(21, Conditions::delay(30));
    call.stage.run_for(secs(10));
    let (publisher, source) = call.publisher.clone();
    let (viewer, sink) = call.viewer.clone();
    let ssrc = call.stage.viewer(viewer).audio.ssrc;
    let rate = call.stats(&sink).stream(ssrc)["targetBitrate"].as_f64().expect("a number");
    // 80 bytes, 50 times a second, one more or less where the second is cut.
    assert!((rate - 32_000.0).abs() <= 700.0, "{rate}");
    call.stage.publisher(publisher).sending = false;
    call.stage.run_for(secs(1));

    let told = call.stats(&source);
    let asked = call.stage.publisher(publisher).asked.len();
    for video in [false, true] {
        let one = call.stage.publisher(publisher);
        let stream = if video { &one.video } else { &one.audio };
        let (ssrc, packets) = (stream.ssrc, stream.packets);
        let bytes: usize = stream.kept.values().map(|bytes| bytes.len() - 12).sum();
        let entry = told.stream(ssrc);
        assert_eq!(entry["type"], "inboundrtp");
        assert_eq!(entry["packetsReceived"], json!(packets));
        assert_eq!(entry["bytesReceived"], json!(bytes));
        assert_eq!((&entry["packetsLost"], &entry["nackCount"]), (&json!(0), &json!(0)));
        assert_eq!(entry["pliCount"], json!(if video { asked } else { 0 }));
        assert_eq!(entry["transportId"], told.only("transport")["id"]);
    }
    let remb = &told.stream(1_000)["remb"];
    assert!(remb.as_i64() > Some(100_000), "{remb}");
    let pair = told.only("candidatepair");
    assert_eq!(pair["availableIncomingBitrate"].as_f64(), remb.as_f64());
    assert_eq!(pair["availableIncomingLimit"], "measured");
    assert_eq!(pair["availableOutgoingBitrate"], json!(0.0));
    assert_eq!(pair["availableOutgoingLimit"], "none");

    let told = call.stats(&sink);
    for video in [false, true] {
        let one = call.stage.viewer(viewer);
        let stream = if video { &one.video } else { &one.audio };
        let entry = told.stream(stream.ssrc);
        assert_eq!(entry["type"], "outboundrtp");
        assert_eq!(entry["packetsSent"], json!(stream.log.len()));
        assert_eq!((&entry["packetsLost"], &entry["fractionLost"]), (&json!(0), &json!(0.0)));
        let round_trip = entry["roundTripTime"].as_f64().expect("a number");
        assert!((round_trip - 0.06).abs() < 0.002, "{round_trip}");
        assert_eq!(entry["remb"], json!(if video { 2_000_000 } else { 0 }));
    }
    call.stage.run_for(secs(3));
    for entry in call.stats(&sink).all("outboundrtp") {
        assert_eq!(entry["targetBitrate"], json!(0.0), "nothing is sent any more");
    }
    let pair = told.only("candidatepair");
    assert_eq!(pair["availableOutgoingBitrate"], json!(2_000_000.0));
    assert_eq!(pair["availableOutgoingLimit"], "receiver");
}

#[test]
fn transports_and_pairs_tell_the_path_and_what_went_over_it() {
    let mut call = Call::new(22, Conditions::delay(30));
    call.stage.run_for(secs(5));
    for (number, endpoint) in [call.publisher.clone(), call.viewer.clone()] {
        let told = call.stats(&endpoint);
        let (transport, pair) = (told.only("transport"), told.only("candidatepair"));
        let (received, sent) = call.stage.carried[&number];
        for entry in [transport, pair] {
            assert_eq!(entry["bytesReceived"], json!(received));
            assert_eq!(entry["bytesSent"], json!(sent));
            assert_eq!(entry["timestampMillis"], json!(1_700_000_000_000_u64 + call.stage.time));
        }
        assert_eq!(transport["activeConnection"], true);
        assert_eq!(transport["selectedCandidatePairId"], pair["id"]);
        assert_eq!(pair["transportId"], transport["id"]);
        assert_eq!(pair["roundTripTime"], json!(0.06));
        assert_eq!(pair["state"], "succeeded");
        for member in ["nominated", "readable", "writable"] {
            assert_eq!(pair[member], true, "{member}");
        }
        let local = told.only("localcandidate");
        assert_eq!(pair["localCandidateId"], local["id"]);
        assert_eq!(
            (&local["ipAddress"], &local["portNumber"]),
            (&json!("10.0.0.1"), &json!(8_000))
        );
        let remote = told.only("remotecandidate");
        assert_eq!(pair["remoteCandidateId"], remote["id"]);
        let address = call.stage.browsers[number].address;
        assert_eq!(remote["ipAddress"], json!(address.ip().to_string()));
        assert_eq!(
            (&remote["candidateType"], &remote["transport"]),
            (&json!("host"), &json!("udp"))
        );
    }
    let sides = [0, 1].map(|way| Conditions::delay(way).loss_per_mille(1_000));
    call.stage.browsers[0].up.set(sides[0]);
    call.stage.browsers[0].down.set(sides[1]);
    call.stage.run_for(secs(40));
    let source = call.publisher.1.clone();
    let told = call.stats(&source);
    assert_eq!(told.only("transport")["activeConnection"], false);
    let pair = told.only("candidatepair");
    assert_eq!((&pair["state"], &pair["writable"]), (&json!("failed"), &json!(false)));
}

#[test]
fn statistics_of_one_kind_are_of_no_other() {
    let mut call = Call::new(23, Conditions::delay(5));
    call.measure(true);
    call.stage.run_for(secs(2));
    let source = call.publisher.1.clone();
    let mut of = |given: Value| Stats::of(call.stage.invoke(&source, "getStats", given));
    let all = of(json!({}));
    assert_eq!(
        all.types(),
        [
            "candidatepair",
            "endpoint",
            "inboundrtp",
            "inboundrtp",
            "localcandidate",
            "remotecandidate",
            "transport"
        ]
    );
    for (media, ssrc) in [("AUDIO", "1001"), ("VIDEO", "1000")] {
        let told = of(json!({"mediaType": media}));
        assert_eq!(told.types(), ["endpoint", "inboundrtp"]);
        assert_eq!(told.only("inboundrtp")["ssrc"], ssrc);
        let endpoint = told.only("endpoint");
        for member in ["inputLatency", "E2ELatency"] {
            let list = endpoint[member].as_array().expect("a list");
            assert_eq!(list.len(), 1);
            assert_eq!(list[0]["type"], media);
        }
    }
    assert_eq!(of(json!({"mediaType": "DATA"})).types(), ["endpoint"]);
}

#[test]
fn latencies_are_those_of_what_passed_while_they_were_measured() {
    let mut call = Call::new(24, Conditions::delay(10).jitter(5));
    let pass = call.stage.create("PassThrough", Some(&call.pipeline));
    let (source, sink) = (call.publisher.1.clone(), call.viewer.1.clone());
    call.stage.invoke(&source, "connect", json!({"sink": pass, "mediaType": "VIDEO"}));
    call.stage.invoke(&pass, "connect", json!({"sink": sink, "mediaType": "VIDEO"}));
    call.stage.run_for(secs(3));
    assert_eq!(call.stats(&pass).0.len(), 0);
    assert_eq!(call.stats(&sink).all("endpoint").len(), 0);

    call.measure(true);
    let latencies = |entry: &Value, member: &str| -> Vec<(String, f64)> {
        let list = entry[member].as_array().expect("a list").iter();
        list.map(|one| {
            let name = one["name"].as_str().expect("a name").to_owned();
            (name, one["avg"].as_f64().expect("a number"))
        })
        .collect()
    };
    let named = |audio: f64, video: f64| {
        vec![("sink_audio_default".to_owned(), audio), ("sink_video_default".to_owned(), video)]
    };
    let nothing = named(0.0, 0.0);
    let entry = call.stats(&sink).only("endpoint").clone();
    assert_eq!(latencies(&entry, "inputLatency"), nothing, "nothing came since it is measured");
    call.stage.run_for(secs(12));

    let (routed, left) = (ROUTED.as_nanos() as f64, LEFT.as_nanos() as f64);
    let entry = call.stats(&sink).only("endpoint").clone();
    assert_eq!(entry["id"], json!(sink));
    assert_eq!(latencies(&entry, "inputLatency"), named(routed, routed));
    assert_eq!(latencies(&entry, "E2ELatency"), named(left, left));
    // For clients of 6.x.
    assert_eq!(
        (&entry["inputAudioLatency"], &entry["videoE2ELatency"]),
        (&json!(routed), &json!(left))
    );
    // Nothing enters the endpoint that publishes, and no sound the element in between.
    let entry = call.stats(&source).only("endpoint").clone();
    assert_eq!(latencies(&entry, "inputLatency"), nothing);
    assert_eq!(latencies(&entry, "E2ELatency"), nothing);
    let told = call.stats(&pass);
    assert_eq!(told.types(), ["element"]);
    assert_eq!(latencies(told.only("element"), "inputLatency"), named(0.0, routed));

    call.measure(false);
    assert_eq!(call.stats(&pass).0.len(), 0);
    call.measure(true);
    let entry = call.stats(&sink).only("endpoint").clone();
    assert_eq!(latencies(&entry, "E2ELatency"), nothing, "what was measured before is forgotten");
}

/// Panics if that is no text of Graphviz: strings end, braces close, and outside of strings there is
/// nothing but its words. Returns the strings.
fn read_dot(text: &str) -> Vec<String> {
    let (mut strings, mut current, mut depth) = (Vec::new(), None::<String>, 0_i32);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (&mut current, letter) {
            (Some(string), '\\') => string.extend(['\\', letters.next().expect("an escape ends")]),
            (Some(_), '"') => strings.extend(current.take()),
            (Some(string), _) => {
                assert!(!letter.is_control(), "{letter:?} in {string}");
                string.push(letter);
            }
            (None, '"') => current = Some(String::new()),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            (None, _) => {
                let word = letter.is_ascii_alphanumeric() || "_=;,->. \n".contains(letter);
                assert!(word, "{letter:?} outside of a string");
            }
        }
        assert!(depth >= 0, "closed too often");
    }
    assert!(current.is_none() && depth == 0, "something is still open");
    strings
}

#[test]
fn the_graph_is_a_text_of_graphviz_whatever_things_are_called() {
    let mut call = Call::new(25, Conditions::delay(5));
    let (source, sink, pipeline) =
        (call.publisher.1.clone(), call.viewer.1.clone(), call.pipeline.clone());
    let hub = call.stage.create("Dispatcher", Some(&pipeline));
    let port = call.stage.create("HubPort", Some(&hub));
    call.stage.invoke(&source, "connect", json!({"sink": port}));
    for (object, name) in
        [(&source, "a\"]; }\nx\\"), (&pipeline, "\\"), (&port, "Küche \u{1}\u{0}")]
    {
        call.stage.invoke(object, "setName", json!({"name": name}));
    }
    call.stage.run_for(secs(3));
    let mut dot = |object: &str, given: Value| {
        let text = call.stage.invoke(object, "getGstreamerDot", given);
        text.as_str().expect("a text").to_owned()
    };
    let whole = dot(&pipeline, json!({}));
    assert!(whole.starts_with("digraph pipeline {\n"));
    let strings = read_dot(&whole);
    let has = |text: &str| strings.iter().any(|one| one.contains(text));
    for text in [
        r#"WebRtcEndpoint\na\"]; } x\\"#,
        r"connectionState: CONNECTED\n",
        r"VIDEO comes as VP8",
        r"VIDEO\nVP8\nflows",
        r"AUDIO\nopus\nflows",
        "DATA",
        "Küche",
        "Dispatcher",
    ] {
        assert!(has(text), "no {text:?} in {whole}");
    }
    assert_eq!(whole.matches("subgraph cluster_").count(), 4);
    // Of one element only it and its neighbours.
    let part = dot(&sink, json!({"details": "SHOW_MEDIA_TYPE"}));
    read_dot(&part);
    assert_eq!(part.matches("subgraph cluster_").count(), 2);
    assert!(
        !part.contains("VP8") && !part.contains("CONNECTED") && part.contains("VIDEO"),
        "{part}"
    );
    let part = dot(&sink, json!({"details": "SHOW_STATES"}));
    assert!(!part.contains("VP8") && part.contains("CONNECTED"), "{part}");
    let of_hub = dot(&hub, json!({}));
    assert_eq!(of_hub.matches("subgraph cluster_").count(), 2, "{of_hub}");
}

#[test]
fn ports_of_plain_rtp_tell_what_went_over_them() {
    let mut stage = Stage::new(26, Conditions::default());
    let pipeline = stage.create("MediaPipeline", None);
    let endpoint = stage.create("RtpEndpoint", Some(&pipeline));
    let offer = format!(
        "v=0\r\no=- 0 0 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
         m=video 7000 RTP/AVPF {VIDEO_PT}\r\na=rtpmap:{VIDEO_PT} VP8/90000\r\n"
    );
    let answer = stage.invoke(&endpoint, "processOffer", json!({"offer": offer}));
    let (rtp, _) = crate::support::rtp_peer::addresses(answer.as_str().expect("a description"));
    // What it gets it sends back.
    stage.invoke(&endpoint, "connect", json!({"sink": endpoint}));
    for number in 0..50 {
        stage.arrive(
            rtp,
            "192.0.2.9:7000".parse().unwrap(),
            packet(number, u32::from(number) * 1_800),
        );
        stage.run_for(ms(20));
    }
    let told = Stats::of(stage.invoke(&endpoint, "getStats", json!({})));
    assert_eq!(told.types(), ["inboundrtp", "outboundrtp", "transport"]);
    let transport = told.only("transport");
    assert_eq!(transport["bytesReceived"], json!(50 * 112));
    let sent: usize = stage.left.iter().map(|left| left.bytes.len()).sum();
    assert_eq!(transport["bytesSent"], json!(sent));
    assert_eq!(transport["activeConnection"], true);
    let (inbound, outbound) = (told.only("inboundrtp"), told.only("outboundrtp"));
    assert_eq!(
        (&inbound["packetsReceived"], &inbound["bytesReceived"]),
        (&json!(50), &json!(5_000))
    );
    assert_eq!((&outbound["packetsSent"], &outbound["bytesSent"]), (&json!(50), &json!(5_000)));
    assert_eq!(inbound["transportId"], transport["id"]);
    assert_eq!(
        Stats::of(stage.invoke(&endpoint, "getStats", json!({"mediaType": "AUDIO"}))).0.len(),
        0
    );
}

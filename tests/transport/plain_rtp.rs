//! RtpEndpoints of a whole server, with peers on real sockets.

use std::net::UdpSocket;

use rivero::config::Config;
use rivero::server::Server;
use rivero::transport::srtp::Profile;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::outside::media_drops;
use crate::support::peer::{Peer, frame, server};
use crate::support::rtp_peer::{
    FEEDBACK, RtpPeer, Wishes, addresses, empty_report, header, of_type,
};

async fn with_ports(first: u16, last: u16, pairs: usize) -> Server {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    (config.modules.rtp.min_port, config.modules.rtp.max_port) = (first, last);
    config.limits.rtp_pairs = pairs;
    Server::start(config).await.expect("free ports exist")
}

fn names(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| {
        let data = &event["data"];
        let state = data["state"].as_str().or(data["newState"].as_str()).unwrap_or_default();
        format!("{} {state}", event["type"].as_str().expect("a name")).trim_end().to_owned()
    };
    events.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enters_one_rtp_endpoint_leaves_another_under_its_own_numbers() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let endpoint = client.create("RtpEndpoint", json!({"mediaPipeline": pipeline})).await;
    for event in [
        "ConnectionStateChanged",
        "MediaSessionStarted",
        "MediaStateChanged",
        "MediaFlowOutStateChanged",
    ] {
        client.subscribe(&endpoint, event).await;
    }
    let mut publisher = RtpPeer::offer(&mut client, endpoint, 4_242, Wishes::default()).await;
    let mut viewer = RtpPeer::join(&mut client, &pipeline, 7, Wishes::default()).await;
    client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
    publisher.plays(&mut viewer, 0..200, frame).await;
    publisher.report(&empty_report(publisher.ssrc)).await;
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(client.event().await);
    }
    assert_eq!(
        names(&told),
        [
            "ConnectionStateChanged CONNECTED",
            "MediaSessionStarted",
            "MediaFlowOutStateChanged FLOWING",
            "MediaStateChanged CONNECTED",
        ]
    );

    let stats = client.invoke(&publisher.endpoint, "getStats", json!({})).await;
    let inbound = of_type(&stats, "inboundrtp");
    assert_eq!(
        (&inbound[0]["packetsReceived"], &inbound[0]["ssrc"]),
        (&json!(200), &json!("4242"))
    );
    let stats = client.invoke(&viewer.endpoint, "getStats", json!({})).await;
    let outbound = of_type(&stats, "outboundrtp");
    assert_eq!(outbound[0]["packetsSent"], json!(200));
    let promised = format!("a=ssrc:{} ", outbound[0]["ssrc"].as_str().expect("a text"));
    assert!(viewer.answer.contains(&promised));

    // Each side gets reports about the stream it has with the server.
    let report = viewer.receive_report().await;
    assert_eq!(report[1], 200, "a sender report");
    let report = publisher.receive_report().await;
    assert!(matches!(report[1], 201 | 206), "a receiver report, or the wish for a keyframe");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_crosses_between_browsers_and_plain_rtp() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut browser = Peer::join(&mut client, &pipeline, 96, 4_242).await;
    let mut plain = RtpPeer::join(&mut client, &pipeline, 7, Wishes::default()).await;
    let hub = client.create("DispatcherOneToMany", json!({"mediaPipeline": pipeline})).await;
    let port = client.create("HubPort", json!({"hub": hub})).await;
    let other = client.create("HubPort", json!({"hub": hub})).await;
    client.invoke(&browser.endpoint, "connect", json!({"sink": port})).await;
    client.invoke(&other, "connect", json!({"sink": plain.endpoint})).await;
    client.invoke(&hub, "setSource", json!({"source": port})).await;
    client.invoke(&plain.endpoint, "connect", json!({"sink": browser.endpoint})).await;
    for number in 0..150 {
        browser.send(number, u32::from(number) * 3_000, &frame(number)).await;
        assert_eq!(plain.receive().await.payload, frame(number));
        plain.send(number, &frame(number)).await;
        assert_eq!(browser.receive().await.payload[..], frame(number)[..]);
    }
    browser.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_peer_is_sent_to_where_it_sends_from() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut publisher = RtpPeer::join(&mut client, &pipeline, 4_242, Wishes::default()).await;
    let active = Wishes {
        port: Some(9),
        lines: format!("{FEEDBACK}a=direction:active\r\n"),
        ..Wishes::default()
    };
    let mut viewer = RtpPeer::join(&mut client, &pipeline, 7, active).await;
    assert!(viewer.answer.contains("a=direction:passive\r\n"), "{}", viewer.answer);
    client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
    // Nobody knows yet where the viewer is, so these go nowhere; none is a keyframe to begin with later.
    for number in 1..=50 {
        publisher.send(number, &frame(number)).await;
    }
    viewer.send(0, &frame(0)).await;
    viewer.report(&empty_report(viewer.ssrc)).await;
    // A newcomer asks for a keyframe, which a publisher that can be asked is asked for.
    loop {
        let report = publisher.receive_report().await;
        if report.windows(2).any(|kind| kind == [0x81, 206]) {
            break;
        }
    }
    publisher.plays(&mut viewer, 100..180, frame).await;
    // Another sender of the same machine changes nothing.
    let other = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let forged = [header(1, 1, viewer.ssrc), frame(1)].concat();
    other.send_to(&forged, viewer.to_rtp).expect("sends");
    publisher.plays(&mut viewer, 180..220, frame).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_description_seal_what_flows_in_every_suite() {
    let suites = [
        ("AES_128_CM_HMAC_SHA1_32", "AES_CM_128_HMAC_SHA1_32", Profile::Aes128CmHmacSha1_32),
        ("AES_128_CM_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_80", Profile::Aes128CmHmacSha1_80),
        ("AES_256_CM_HMAC_SHA1_32", "AES_256_CM_HMAC_SHA1_32", Profile::Aes256CmHmacSha1_32),
        ("AES_256_CM_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_80", Profile::Aes256CmHmacSha1_80),
    ];
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    for (name, line, profile) in suites {
        let len = profile.key_len() + profile.salt_len();
        let (theirs, ours): (Vec<u8>, Vec<u8>) =
            ((b'A'..).take(len).collect(), (1..).take(len).collect());
        let crypto = rivero::sdp::Crypto {
            tag: 3,
            suite: *rivero::sdp::Suite::ALL.iter().find(|suite| suite.name() == line).expect("one"),
            key: ours.clone(),
            lifetime: None,
        };
        let mut peers = Vec::new();
        for ssrc in [4_242, 7] {
            let key = String::from_utf8(theirs.clone()).expect("letters");
            let constructor =
                json!({"mediaPipeline": pipeline, "crypto": {"crypto": name, "key": key}});
            let endpoint = client.create("RtpEndpoint", constructor).await;
            client.subscribe(&endpoint, "OnKeySoftLimit").await;
            let wishes = Wishes {
                host: "127.0.0.1",
                profile: "RTP/SAVPF",
                port: None,
                lines: format!("{FEEDBACK}a=crypto:{}|2^8\r\n", crypto.value()),
            };
            let mut peer = RtpPeer::offer(&mut client, endpoint, ssrc, wishes).await;
            assert!(peer.answer.contains(&format!("a=crypto:3 {line} inline:")), "{}", peer.answer);
            peer.set_keys(profile, &ours, &theirs);
            peers.push(peer);
        }
        let [publisher, viewer] = &mut peers[..] else { panic!("two were made") };
        client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
        publisher.plays(viewer, 0..220, frame).await;
        viewer.report(&empty_report(7)).await;
        viewer.receive_report().await;
        // The publisher's key is good for 256 packets, by its own words; the viewer's is hardly used.
        publisher.plays(viewer, 220..240, frame).await;
        let event = client.event().await;
        assert_eq!(event["type"], "OnKeySoftLimit");
        assert_eq!(event["data"]["mediaType"], "VIDEO");
        assert_eq!(event["object"], publisher.endpoint.as_str());
    }
    assert_eq!(client.events().await, [Value::Null; 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_from_the_range_and_go_back_when_an_endpoint_is_released() {
    // Below those that the system gives to whoever asks for any.
    let (first, last) = (20_000, 20_039);
    let server = with_ports(first, last, 3).await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut endpoints = Vec::new();
    for _ in 0..2 {
        let endpoint = client.create("RtpEndpoint", json!({"mediaPipeline": pipeline})).await;
        endpoints.push(endpoint);
    }
    let options = json!({"options": {"offerToReceiveAudio": false}});
    let offer = client.invoke(&endpoints[0], "generateOffer", options).await;
    let (rtp, rtcp) = addresses(offer.as_str().expect("a description"));
    assert!(rtp.port().is_multiple_of(2) && rtcp.port() == rtp.port() + 1);
    assert!((first..=last).contains(&rtp.port()) && rtcp.port() <= last);
    assert!(UdpSocket::bind(rtp).is_err(), "the server holds it");

    let offer = client.invoke(&endpoints[1], "generateOffer", json!({})).await;
    assert!(offer.as_str().is_some_and(|text| text.contains("m=audio ")));
    let third = client.create("RtpEndpoint", json!({"mediaPipeline": pipeline})).await;
    let params = json!({"object": third, "operation": "generateOffer", "operationParams": {}});
    let (code, text) = client.fail("invoke", params.clone()).await;
    assert_eq!((code, text.as_str()), (40009, "all 3 pairs of ports for RTP are in use"));

    client.call("release", json!({"object": endpoints[1]})).await;
    UdpSocket::bind(rtp).expect_err("the first one still holds it");
    let offer = client.invoke(&third, "generateOffer", json!({})).await;
    assert!(offer.is_string(), "it was left as it was");
    client.call("release", json!({"object": pipeline})).await;
    UdpSocket::bind(rtp).expect("is free again");
    UdpSocket::bind(rtcp).expect("is free again");
    server.stop().await;
}

/// Control packets that are read, and say too much, too little or nothing.
fn absurd_reports() -> Vec<(&'static str, Vec<u8>)> {
    let sender = 4_242_u32.to_be_bytes();
    let reports = |count: u8| {
        let words = 1 + 6 * u16::from(count);
        let mut bytes = vec![0x80 | count, 201];
        bytes.extend(words.to_be_bytes());
        bytes.extend(sender);
        (0..count).for_each(|number| bytes.extend([number; 24]));
        bytes
    };
    let feedback = |first: u8, kind: u8, rest: &[u8]| {
        let words = 2 + rest.len() as u16 / 4;
        let mut bytes = vec![0x80 | first, kind];
        bytes.extend(words.to_be_bytes());
        bytes.extend(sender);
        bytes.extend([0; 4]);
        bytes.extend(rest);
        bytes
    };
    let after = |packet: Vec<u8>| [empty_report(4_242), packet].concat();
    let mut remb = b"REMB\xff\x07\xff\xff".to_vec();
    remb.extend((0..255_u32).flat_map(u32::to_be_bytes));
    let short_remb = [&remb[..8], &[0; 40]].concat();
    vec![
        ("malformed_rtcp", vec![0x80, 201, 0, 0]),
        ("malformed_rtcp", after(vec![0x81, 205, 0, 0])),
        ("empty_feedback", after(feedback(1, 205, &[]))),
        ("empty_feedback", after(feedback(4, 206, &[]))),
        ("empty_feedback", after(feedback(15, 206, b"REMB\0\0\0\0"))),
        ("foreign_ssrc", reports(31)),
        ("malformed_rtcp", reports(31)[..100].to_vec()),
        ("foreign_ssrc", after(feedback(15, 206, &remb))),
        ("malformed_rtcp", after(feedback(15, 206, &short_remb))),
        ("malformed_rtcp", after(vec![0xa0, 201, 0, 1, 0, 0, 16, 146])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_to_plain_rtp_is_dropped_and_counted_and_others_go_on() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut publisher = RtpPeer::join(&mut client, &pipeline, 9, Wishes::default()).await;
    let mut viewer = RtpPeer::join(&mut client, &pipeline, 7, Wishes::default()).await;
    client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
    publisher.plays(&mut viewer, 0..10, frame).await;

    // One that is in the clear, and one with keys.
    let mut plain = RtpPeer::join(&mut client, &pipeline, 4_242, Wishes::default()).await;
    let key = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcd";
    let suite = "AES_128_CM_HMAC_SHA1_80";
    let constructor = json!({"mediaPipeline": pipeline, "crypto": {"crypto": suite, "key": key}});
    let endpoint = client.create("RtpEndpoint", constructor).await;
    let wishes = Wishes {
        host: "127.0.0.1",
        profile: "RTP/SAVPF",
        lines: "a=crypto:1 AES_CM_128_HMAC_SHA1_80 \
                inline:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk\r\n"
            .to_owned(),
        ..Wishes::default()
    };
    let mut sealed = RtpPeer::offer(&mut client, endpoint, 4_242, wishes).await;
    sealed.set_keys(Profile::Aes128CmHmacSha1_80, key.as_bytes(), key.as_bytes());

    let before = media_drops(server.address()).await;
    let mut expected = std::collections::BTreeMap::<&str, u64>::new();
    let mut expect = |reason, count| *expected.entry(reason).or_default() += count;
    for peer in [&mut plain, &mut sealed] {
        peer.send(1, &frame(1)).await;
        peer.report(&empty_report(4_242)).await;
    }
    // A stranger of the same machine, while the peer itself is there.
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("binds");
    for number in 0..100_u16 {
        let forged = [header(number, 0, 4_242), frame(number)].concat();
        for to in [publisher.to_rtp, plain.to_rtp, sealed.to_rtp] {
            assert_eq!(stranger.send_to(&forged, to).expect("sends"), forged.len());
            expect("unexpected_sender", 1);
        }
        let bye = [empty_report(4_242), vec![0x81, 203, 0, 1, 0, 0, 16, 146]].concat();
        for to in [plain.to_rtcp, sealed.to_rtcp] {
            assert_eq!(stranger.send_to(&bye, to).expect("sends"), bye.len());
            expect("unexpected_sender", 1);
        }
    }
    // And the peer's own address with what was never sealed.
    for bytes in [vec![0x80; 40], header(9, 9, 4_242), vec![0x80, 0x61], vec![0x80, 96, 0]] {
        sealed.rtp.send_to(&bytes, sealed.to_rtp).await.expect("sends");
    }
    expect("srtp_authentication", 1);
    expect("srtp_malformed", 3);
    sealed.rtcp.send_to(&[0x80, 201, 0, 0], sealed.to_rtcp).await.expect("sends");
    expect("srtp_malformed", 1);
    for first in 0..=255_u8 {
        let bytes = [first, 0x7f, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        if !(128..192).contains(&first) {
            plain.rtp.send_to(&bytes, plain.to_rtp).await.expect("sends");
            expect("unknown_protocol", 1);
        }
    }
    let mut number = 10;
    for (reason, report) in absurd_reports() {
        plain.report(&report).await;
        expect(reason, 1);
        if report.len() >= 8 {
            sealed.report(&report).await;
            expect(reason, 1);
        }
    }
    // A peer that makes up streams has room for some of them beside its own.
    for ssrc in 0..1_000_u32 {
        let bytes = [header(1, 1, 100_000 + ssrc), frame(1)].concat();
        plain.rtp.send_to(&bytes, plain.to_rtp).await.expect("sends");
        if ssrc % 100 == 0 {
            publisher.plays(&mut viewer, number..number + 1, frame).await;
            number += 1;
        }
    }
    expect("unknown_stream", 1_000 - 31);
    // Counters reach the metrics a few times a second, while the worker has something to do.
    let counted = loop {
        publisher.plays(&mut viewer, number..number + 1, frame).await;
        number += 1;
        let drops = media_drops(server.address()).await;
        let since = |reason: &str| {
            drops.get(reason).copied().unwrap_or_default()
                - before.get(reason).copied().unwrap_or_default()
        };
        let counted: Vec<_> = expected.keys().map(|reason| (*reason, since(reason))).collect();
        let complete = expected.iter().all(|(reason, count)| since(reason) >= *count);
        if complete {
            break counted;
        }
        assert!(number < 1_400, "{expected:?} but {drops:?}");
    };
    assert_eq!(counted, expected.into_iter().collect::<Vec<_>>());
    // Both are as usable as before.
    client.invoke(&plain.endpoint, "connect", json!({"sink": sealed.endpoint})).await;
    plain.plays(&mut sealed, 100..150, frame).await;
    assert_eq!(plain.receive_report().await[1], 201);
    assert!(stranger.set_nonblocking(true).is_ok() && stranger.recv(&mut [0; 9]).is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_that_offer_and_answer_each_other_carry_media_under_keys_of_their_own() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut publisher = RtpPeer::join(&mut client, &pipeline, 4_242, Wishes::default()).await;
    let mut viewer = RtpPeer::join(&mut client, &pipeline, 7, Wishes::default()).await;
    for active in [false, true] {
        let crypto = json!({"crypto": "AES_256_CM_HMAC_SHA1_80"});
        let constructor = json!({"mediaPipeline": pipeline, "crypto": crypto});
        let near = client.create("RtpEndpoint", constructor.clone()).await;
        let far = client.create("RtpEndpoint", constructor).await;
        let offer = client.invoke(&near, "generateOffer", json!({})).await;
        let answer = client.invoke(&far, "processOffer", json!({"offer": offer})).await;
        let mut answer = answer.as_str().expect("a description").to_owned();
        if active {
            // The far side says that it will be heard before it can be reached.
            answer += "a=direction:active\r\n";
        }
        client.invoke(&near, "processAnswer", json!({"answer": answer})).await;
        let (from, to) = if active { (&far, &near) } else { (&near, &far) };
        client.invoke(&publisher.endpoint, "connect", json!({"sink": from})).await;
        client.invoke(to, "connect", json!({"sink": viewer.endpoint})).await;
        publisher.plays(&mut viewer, 0..150, frame).await;
        client.call("release", json!({"object": near})).await;
        client.call("release", json!({"object": far})).await;
        // The next round begins where this one ends, from the publisher's point of view.
        publisher.ssrc += 1;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_descriptions_that_do_not_fit_get_the_errors_that_clients_know() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let suite = "AES_256_CM_HMAC_SHA1_80";
    let short = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk";
    for (crypto, error) in [
        (json!({"crypto": suite, "key": "short"}), (40107, "Master key size is wrong")),
        (json!({"crypto": suite, "keyBase64": short}), (40107, "Master key size is wrong")),
        (json!({"crypto": suite, "keyBase64": "?"}), (40107, "Master key is not valid Base64")),
        (json!({"crypto": "NOPE", "key": "x"}), (40001, "Invalid value for 'CryptoSuite'")),
    ] {
        let constructor = json!({"mediaPipeline": pipeline, "crypto": crypto});
        let params = json!({"type": "RtpEndpoint", "constructorParams": constructor});
        let (code, text) = client.fail("create", params).await;
        assert_eq!((code, text.as_str()), error, "{crypto}");
    }

    let crypto = json!({"crypto": suite});
    let constructor = json!({"mediaPipeline": pipeline, "crypto": crypto});
    let endpoint = client.create("RtpEndpoint", constructor).await;
    let head = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n";
    let other_suite = format!(
        "{head}m=audio 41000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{short}\r\n"
    );
    let invoke = |operation: &str, params: Value| json!({"object": endpoint, "operation": operation, "operationParams": params});
    for (operation, params, code) in [
        ("processAnswer", json!({"answer": head}), 40209),
        ("getLocalSessionDescriptor", json!({}), 40202),
        ("getRemoteSessionDescriptor", json!({}), 40203),
        ("processOffer", json!({"offer": ""}), 40201),
        ("processOffer", json!({"offer": "nonsense"}), 40201),
        ("processOffer", json!({"offer": other_suite}), 40205),
        ("requestKeyframe", json!({}), 40111),
    ] {
        let (told, text) = client.fail("invoke", invoke(operation, params)).await;
        assert_eq!(told, code, "{operation}: {text}");
    }
    // None of it kept the endpoint from being used; in the clear it takes nothing.
    let clear = format!("{head}m=audio 41000 RTP/AVP 0\r\n");
    let answer = client.invoke(&endpoint, "processOffer", json!({"offer": clear})).await;
    let answer = answer.as_str().expect("a description");
    assert!(answer.ends_with("m=audio 0 RTP/AVP 0\r\na=inactive\r\n"), "{answer}");
    let state = client.invoke(&endpoint, "getConnectionState", json!({})).await;
    assert_eq!(state, "CONNECTED");
    let (code, _) = client.fail("invoke", invoke("generateOffer", json!({}))).await;
    assert_eq!(code, 40208);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_be_named_instead_of_addressed() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut publisher = RtpPeer::join(&mut client, &pipeline, 4_242, Wishes::default()).await;
    let named = Wishes { host: "localhost", ..Wishes::default() };
    let mut viewer = RtpPeer::join(&mut client, &pipeline, 7, named).await;
    client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
    // Reports begin once its address is known.
    viewer.receive_report().await;
    publisher.plays(&mut viewer, 0..100, frame).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_released_says_goodbye() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let clear = RtpPeer::join(&mut client, &pipeline, 7, Wishes::default()).await;
    let second = RtpPeer::join(&mut client, &pipeline, 8, Wishes::default()).await;
    // One by itself, and one with its pipeline.
    client.call("release", json!({"object": clear.endpoint})).await;
    client.call("release", json!({"object": pipeline})).await;
    for mut peer in [clear, second] {
        let ssrc = peer.answer.split("a=ssrc:").nth(1).and_then(|rest| rest.split(' ').next());
        let ssrc: u32 = ssrc.and_then(|word| word.parse().ok()).expect("is promised");
        let goodbye = [&[0x81, 203, 0, 1][..], &ssrc.to_be_bytes()].concat();
        loop {
            let report = peer.receive_report().await;
            if report.ends_with(&goodbye) {
                assert!(matches!(report[1], 200 | 201), "a report goes first");
                break;
            }
        }
    }
    server.stop().await;
}

//! A second offer: one that restarts ICE is answered, and any other is refused as in the original.

use serde_json::{Value, json};

use super::driver::value;
use crate::support::client::Client;
use crate::support::peer::server;

const FINGERPRINT: &str = "sha-256 0F:74:31:25:CB:A2:13:EC:28:6F:6D:2C:61:FF:5D:C2:BC:B9:DB:3D:98:14:8D:1A:BB:EA:33:0C:A4:60:A8:8E";

/// An offer of a browser; `version` is that of its session, and `ice` its fragment and password.
fn offer(version: u32, ice: (&str, &str)) -> String {
    let transport = format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n",
        ice.0, ice.1
    );
    format!(
        "v=0\r\no=- 4611731400430051336 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         {transport}a=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:0 PCMU/8000\r\na=ssrc:1001 cname:abc\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         {transport}a=mid:1\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=ssrc-group:FID 2001 2002\r\na=ssrc:2001 cname:abc\r\na=ssrc:2002 cname:abc\r\n"
    )
}

const FIRST: (&str, &str) = ("old1", "password-number-one-aaaa");
const SECOND: (&str, &str) = ("new2", "password-number-two-bbbb");

/// Lines of a description that a restart may change.
fn is_of_ice(line: &str) -> bool {
    ["o=", "c=", "m=", "a=ice-", "a=rtcp:", "a=candidate:"]
        .iter()
        .any(|word| line.starts_with(word))
}

async fn endpoint(client: &mut Client) -> String {
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let endpoint = client.create("WebRtcEndpoint", json!({"mediaPipeline": pipeline})).await;
    for event in ["IceCandidateFound", "IceGatheringDone", "MediaSessionStarted"] {
        client.subscribe(&endpoint, event).await;
    }
    endpoint
}

async fn process(client: &mut Client, endpoint: &str, offer: &str) -> String {
    let answer = client.invoke(endpoint, "processOffer", json!({"offer": offer})).await;
    answer.as_str().expect("a description").to_owned()
}

fn version(sdp: &str) -> u64 {
    let origin = sdp.lines().find(|line| line.starts_with("o=")).expect("has an origin");
    origin.split(' ').nth(2).and_then(|word| word.parse().ok()).expect("a number")
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_restarts_ice_changes_nothing_else() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    let first = process(&mut client, &endpoint, &offer(2, FIRST)).await;
    client.invoke(&endpoint, "gatherCandidates", json!({})).await;
    let told = client.events().await;
    let second = process(&mut client, &endpoint, &offer(3, SECOND)).await;
    assert_eq!(version(&second), version(&first) + 1);
    for name in ["ice-ufrag", "ice-pwd"] {
        assert_ne!(value(&first, name), value(&second, name));
        assert_eq!(value(&first, name).len(), value(&second, name).len());
    }
    let rest = |sdp: &str| -> Vec<String> {
        sdp.lines().filter(|line| !is_of_ice(line)).map(str::to_owned).collect()
    };
    assert_eq!(rest(&second), rest(&first), "keys, streams and formats stay");
    assert!(second.contains("a=candidate:1 1 UDP 2015364095 127.0.0.1 "), "{second}");
    assert_eq!(client.events().await.len(), 0, "the session did not start again");

    // Asked for once more, the candidates are told as before, and then no more.
    for expected in [names(&told).into_iter().skip(1).collect::<Vec<_>>(), vec![]] {
        client.invoke(&endpoint, "gatherCandidates", json!({})).await;
        assert_eq!(names(&client.events().await), expected);
    }
    let local = client.invoke(&endpoint, "getLocalSessionDescriptor", json!({})).await;
    assert_eq!(local, second);
    let remote = client.invoke(&endpoint, "getRemoteSessionDescriptor", json!({})).await;
    assert!(remote.as_str().expect("a text").contains("a=ice-ufrag:new2\r\n"));

    // And again, before candidates are asked for.
    let third =
        process(&mut client, &endpoint, &offer(9, ("third", "password-number-three"))).await;
    assert_eq!(version(&third), version(&first) + 2);
    assert_ne!(value(&third, "ice-ufrag"), value(&second, "ice-ufrag"));
    client.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_before_candidates_were_asked_for_is_answered_too() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    let first = process(&mut client, &endpoint, &offer(2, FIRST)).await;
    let second = process(&mut client, &endpoint, &offer(3, SECOND)).await;
    assert_ne!(value(&first, "ice-ufrag"), value(&second, "ice-ufrag"));
    assert!(!second.contains("a=candidate:"));
    client.events().await;
    client.invoke(&endpoint, "gatherCandidates", json!({})).await;
    assert_eq!(client.events().await.last().expect("events")["type"], "IceGatheringDone");
    client.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_second_offer_is_refused_and_changes_nothing() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let endpoint = endpoint(&mut client).await;
    process(&mut client, &endpoint, &offer(2, FIRST)).await;
    client.invoke(&endpoint, "gatherCandidates", json!({})).await;
    let local = client.invoke(&endpoint, "getLocalSessionDescriptor", json!({})).await;
    let good = offer(3, SECOND);
    let others = [
        ("the same once more", offer(2, FIRST)),
        ("no newer version", offer(2, SECOND)),
        ("no restart", offer(3, FIRST)),
        ("the old password", offer(3, (SECOND.0, FIRST.1))),
        ("the old fragment", offer(3, (FIRST.0, SECOND.1))),
        ("another session", good.replace("o=- 46", "o=- 47")),
        ("another user", good.replace("o=- ", "o=me ")),
        ("another certificate", good.replace("0F:74:31", "0F:74:32")),
        ("another format", good.replace("96 VP8", "96 VP9")),
        ("another stream", good.replace("ssrc:1001", "ssrc:1002")),
        ("another direction", good.replacen("sendrecv", "sendonly", 1)),
        ("another name", good.replace("BUNDLE 0 1", "BUNDLE 0 2").replace("mid:1", "mid:2")),
        ("another role", good.replace("setup:actpass", "setup:active")),
        ("no bundle", good.replace("a=group:BUNDLE 0 1\r\n", "")),
        ("a section more", format!("{good}m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n")),
        ("a section less", good[..good.find("m=video").expect("is there")].to_owned()),
        ("only a beginning", "v=0".to_owned()),
        ("no origin", good.replace("o=- 4611731400430051336 3 IN IP4 127.0.0.1\r\n", "")),
    ];
    for (what, other) in others {
        let operation = json!({
            "object": endpoint, "operation": "processOffer", "operationParams": {"offer": other},
        });
        let (code, _) = client.fail("invoke", operation).await;
        assert_eq!(code, 40208, "{what}");
        let now = client.invoke(&endpoint, "getLocalSessionDescriptor", json!({})).await;
        assert_eq!(now, local, "{what}");
    }
    let operation = json!({"object": endpoint, "operation": "generateOffer"});
    assert_eq!(client.fail("invoke", operation).await.0, 40208);
    process(&mut client, &endpoint, &good).await;
    client.close().await;
    server.stop().await;
}

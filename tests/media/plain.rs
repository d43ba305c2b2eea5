//! RtpEndpoints on a simulated clock: what they send and to whom, and what they tell.

use std::net::SocketAddr;

use serde_json::json;

use super::stage::Stage;
use super::world::{ms, secs};
use crate::support::link::Conditions;
use crate::support::peer::frame;
use crate::support::rtp_peer::{addresses, empty_report, header};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// An endpoint whose peer is at 192.0.2.9, with its two local addresses.
fn joined(stage: &mut Stage, pipeline: &str, port: u16) -> (String, SocketAddr, SocketAddr) {
    let endpoint = stage.create("RtpEndpoint", Some(pipeline));
    let offer = format!(
        "v=0\r\no=- 0 0 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
         m=video {port} RTP/AVPF 97\r\na=rtpmap:97 VP8/90000\r\na=rtcp-fb:97 nack pli\r\n\
         a=rtcp-fb:97 goog-remb\r\n"
    );
    let answer = stage.invoke(&endpoint, "processOffer", json!({"offer": offer}));
    let (rtp, rtcp) = addresses(answer.as_str().expect("a description"));
    (endpoint, rtp, rtcp)
}

fn packet(number: u16) -> Vec<u8> {
    [header(number, u32::from(number) * 3_000, 4_242), frame(number)].concat()
}

#[test]
fn a_peer_that_falls_silent_is_told_of_and_still_gets_reports() {
    let mut stage = Stage::new(1, Conditions::default());
    let pipeline = stage.create("MediaPipeline", None);
    let (source, from, control) = joined(&mut stage, &pipeline, 7_000);
    let (sink, viewer, _) = joined(&mut stage, &pipeline, 7_002);
    stage.invoke(&source, "connect", json!({"sink": sink}));
    for number in 0..90 {
        stage.arrive(from, address("192.0.2.9:40000"), packet(number));
        stage.run_for(ms(33));
    }
    stage.arrive(control, address("192.0.2.9:40001"), empty_report(4_242));
    let last = stage.time;
    stage.run_for(secs(30));

    let told = |name: &str, state: &str| {
        let found = stage.told_by(&source).into_iter().find(|told| {
            told.name == name
                && [&told.data["state"], &told.data["newState"]].contains(&&json!(state))
        });
        found.map(|told| told.at)
    };
    let not_flowing = told("MediaFlowOutStateChanged", "NOT_FLOWING").expect("is told");
    assert!((1_900..2_500).contains(&(not_flowing - last)), "{} ms", not_flowing - last);
    assert_eq!(told("MediaStateChanged", "CONNECTED"), Some(last));
    let gone = told("MediaStateChanged", "DISCONNECTED").expect("is told");
    assert!((18_000..24_000).contains(&(gone - last)), "{} ms", gone - last);

    let to = |port: u16| SocketAddr::from(([192, 0, 2, 9], port));
    let media: Vec<_> = stage.left.iter().filter(|left| left.to == to(7_002)).collect();
    assert_eq!(media.len(), 90, "every packet to the viewer");
    assert!(media.iter().all(|left| left.from == viewer), "from where it was told");
    let reports = |port| stage.left.iter().filter(move |left| left.to == to(port));
    assert!(reports(7_003).any(|left| left.bytes[1] == 200), "sender reports to the viewer");
    assert!(reports(7_001).any(|left| left.bytes[1] == 201), "receiver reports to the publisher");
    assert!(reports(7_001).any(|left| left.at > last + 25_000), "also to one that is silent");
    let others = stage.left.iter().find(|left| !(7_001..=7_003).contains(&left.to.port()));
    assert!(others.is_none(), "{others:?}");
    assert!(stage.left.iter().all(|left| left.to.ip() == to(0).ip()));
}

#[test]
fn a_pipeline_that_fails_gives_its_ports_back() {
    let mut stage = Stage::new(1, Conditions::default());
    let pipeline = stage.create("MediaPipeline", None);
    let (source, from, _) = joined(&mut stage, &pipeline, 7_000);
    let (sink, ..) = joined(&mut stage, &pipeline, 7_002);
    stage.invoke(&source, "connect", json!({"sink": sink}));
    let other = stage.create("MediaPipeline", None);
    joined(&mut stage, &other, 7_004);
    assert_eq!((stage.ports(), stage.pipelines()), (6, 2));
    stage.curse_address(address("192.0.2.9:7002"));
    stage.arrive(from, address("192.0.2.9:7000"), packet(0));
    assert_eq!((stage.ports(), stage.pipelines()), (2, 1));
    // What still comes there is for nobody.
    stage.arrive(from, address("192.0.2.9:7000"), packet(1));
    assert_eq!(stage.dropped("unknown_session"), 1);
    stage.release(&other);
    assert_eq!(stage.ports(), 0);
}

//! What happens to a call when a peer vanishes, and when strangers make noise.

use super::{browser::Role, stage::Stage, world::secs};
use crate::support::link::Conditions;
use serde_json::json;
use std::net::SocketAddr;

/// A pipeline with a publisher and two viewers: their numbers and endpoints.
fn call(stage: &mut Stage) -> [(usize, String); 3] {
    let pipeline = stage.create("MediaPipeline", None);
    let publisher = stage.join(&pipeline, Role::publisher(0));
    let viewers = [(); 2].map(|()| stage.join(&pipeline, Role::viewer(0)));
    for (_, sink) in &viewers {
        stage.invoke(&publisher.1, "connect", json!({"sink": sink}));
    }
    let [first, second] = viewers;
    [publisher, first, second]
}

/// Cuts a browser off, or joins it again.
fn cut(stage: &mut Stage, browser: usize, off: bool) {
    let conditions = Conditions::delay(10).loss_per_mille(if off { 1_000 } else { 0 });
    stage.browsers[browser].up.set(conditions);
    stage.browsers[browser].down.set(conditions);
}

/// States that an endpoint told since the `from`-th event, as words.
fn states(stage: &Stage, endpoint: &str, from: usize) -> Vec<String> {
    let told = stage.told[from..].iter().filter(|told| told.source == endpoint);
    let word = |name: &str, state: &serde_json::Value| {
        format!("{name} {}", state.as_str().unwrap_or_default())
    };
    told.filter_map(|told| match told.name {
        "IceComponentStateChanged" => Some(word("ICE", &told.data["state"])),
        "ConnectionStateChanged" => Some(word("connection", &told.data["newState"])),
        "MediaStateChanged" => Some(word("media", &told.data["newState"])),
        _ => None,
    })
    .collect()
}

#[test]
fn a_peer_that_vanished_is_told_of_within_thirty_seconds_and_gets_nothing_more() {
    let mut stage = Stage::new(11, Conditions::delay(10));
    let [(_, source), (gone, sink), (stays, other)] = call(&mut stage);
    stage.run_for(secs(5));
    let before = stage.told.len();
    let shown = stage.viewer(stays).video.complete.len();
    cut(&mut stage, gone, true);
    stage.run_for(secs(31));
    let told = states(&stage, &sink, before);
    for word in ["ICE DISCONNECTED", "ICE FAILED", "connection DISCONNECTED", "media DISCONNECTED"]
    {
        assert_eq!(told.iter().filter(|told| *told == word).count(), 1, "{word}: {told:?}");
    }
    assert_eq!(stage.invoke(&sink, "getConnectionState", json!({})), json!("DISCONNECTED"));
    // The links lose all, but what the server sends would still be counted as sent.
    stage.dropped("unsent");
    stage.run_for(secs(5));
    assert_eq!(stage.dropped("unsent"), 0, "the router does not even try");
    for endpoint in [&source, &other] {
        assert_eq!(states(&stage, endpoint, before), Vec::<String>::new());
    }
    let since = stage.viewer(stays).video.complete.len() - shown;
    assert!(since > 35 * 28, "{since} frames in 36 seconds");
}

#[test]
fn a_peer_that_was_away_for_twenty_seconds_goes_on() {
    let mut stage = Stage::new(12, Conditions::delay(10));
    let [_, (away, sink), _] = call(&mut stage);
    stage.run_for(secs(5));
    let before = stage.told.len();
    cut(&mut stage, away, true);
    stage.run_for(secs(20));
    let shown = stage.viewer(away).video.complete.len();
    cut(&mut stage, away, false);
    stage.run_for(secs(5));
    let told = states(&stage, &sink, before);
    let ice: Vec<_> = told.iter().filter(|word| word.starts_with("ICE")).collect();
    assert_eq!(ice, ["ICE DISCONNECTED", "ICE CONNECTED", "ICE READY"], "{told:?}");
    assert!(!told.contains(&"connection DISCONNECTED".to_owned()), "{told:?}");
    assert!(stage.viewer(away).video.complete.len() > shown + 60);
}

#[test]
fn noise_of_strangers_is_counted_and_disturbs_nobody() {
    let mut stage = Stage::new(13, Conditions::delay(10));
    let [(publisher, source), (viewer, _), _] = call(&mut stage);
    stage.run_for(secs(5));
    stage.all_dropped();
    let before = (stage.told.len(), stage.viewer(viewer).video.complete.len());
    let local = stage.invoke(&source, "getLocalSessionDescriptor", json!({}));
    let local = local.as_str().expect("a description").to_owned();
    let (_, rest) = local.split_once("a=ice-ufrag:").expect("a fragment");
    let ufrag = rest.lines().next().expect("a line");

    // For nobody; for a session, with the wrong key and a thousand attributes; DTLS and media of whoever.
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let name = format!("{ufrag}:abcd");
    stun.extend([0, 6, 0, name.len() as u8]);
    stun.extend(name.bytes());
    stun.resize(stun.len().next_multiple_of(4), 0);
    for _ in 0..300 {
        stun.extend([0x7f, 0, 0, 0]);
    }
    stun.extend([0, 8, 0, 20]);
    stun.extend([7; 20]);
    let len = (stun.len() - 20) as u16;
    stun[2..4].copy_from_slice(&len.to_be_bytes());
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 1, 0, 0, 1];
    hello.resize(26, 0);
    for number in 0..2_000_u16 {
        let stranger = SocketAddr::from(([192, 0, 2, 1], 1_024 + number));
        stage.inject(stranger, &stun);
        stage.inject(stranger, &hello);
        stage.inject(stranger, &[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        if number % 20 == 0 {
            stage.run_for(std::time::Duration::from_millis(20));
        }
    }
    // And one that trickles without end.
    for number in 0..10_000_u16 {
        let line = format!("candidate:1 1 udp 99 192.0.2.9 {} typ host", 1_024 + number);
        let candidate = json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0});
        stage.invoke(&source, "addIceCandidate", json!({"candidate": candidate}));
    }
    let dropped = stage.all_dropped();
    assert_eq!(dropped["stun_integrity"], 2_000, "{dropped:?}");
    assert_eq!(dropped["unknown_session"], 4_000, "{dropped:?}");
    assert_eq!(dropped["too_many_candidates"], 10_000 - 63, "{dropped:?}");

    stage.run_for(secs(5));
    stage.publisher(publisher).sending = false;
    stage.run_for(secs(1));
    assert_eq!(
        stage.told[before.0..]
            .iter()
            .filter(|told| told.name != "MediaFlowInStateChanged"
                && told.name != "MediaFlowOutStateChanged")
            .count(),
        0
    );
    let sent = stage.publisher(publisher).video.frames as usize;
    let shown = stage.viewer(viewer).video.complete.len();
    assert!(shown > before.1 && shown + 1 >= sent, "{shown} of {sent}");
}

//! Peers that mean harm. Whatever one of them sends, the server lives, a call beside it on the same
//! worker loses no frame, what is kept of it has a bound, and it is counted under the reason's name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;

use super::browser::{Browser, Role};
use super::stage::Stage;
use super::world::{ms, secs};
use crate::support::link::{Conditions, Link};
use crate::support::memory::held;
use crate::support::rtp_peer::{addresses, empty_report, header};
use crate::support::stun::{
    Forged, ICE_CONTROLLED, ICE_CONTROLLING, PRIORITY, USE_CANDIDATE, USERNAME,
};

type Drops = BTreeMap<&'static str, u64>;

/// What any of these attacks may make the server keep.
const BOUND: isize = 256 * 1024;

/// A call, and beside it another pipeline with a viewer that means harm.
struct Scene {
    stage: Stage,
    publisher: usize,
    viewer: usize,
    hostile: usize,
    pipeline: String,
    endpoint: String,
}

impl Scene {
    /// All of them agree on the same as `viewer`.
    fn new(viewer: fn(u64) -> Role) -> Self {
        let mut stage = Stage::new(7, Conditions::delay(5));
        let call = |stage: &mut Stage, number| {
            let pipeline = stage.create("MediaPipeline", None);
            let (publisher, source) = stage.join(&pipeline, Role::publisher(number));
            let (viewer, sink) = stage.join(&pipeline, viewer(0));
            stage.invoke(&source, "connect", json!({"sink": sink}));
            (pipeline, publisher, viewer, sink)
        };
        let (_, publisher, viewer, _) = call(&mut stage, 0);
        let (pipeline, _, hostile, endpoint) = call(&mut stage, 1);
        stage.run_for(secs(3));
        stage.all_dropped();
        Self { stage, publisher, viewer, hostile, pipeline, endpoint }
    }

    fn at(&self) -> SocketAddr {
        self.stage.browsers[self.hostile].address
    }

    /// A datagram arrives that seems to come from the hostile peer.
    fn inject(&mut self, bytes: &[u8]) {
        self.stage.inject(self.at(), bytes);
    }

    fn send_rtcp(&mut self, compound: &[u8]) {
        let now = self.stage.now();
        self.stage.browsers[self.hostile].send_rtcp(now, compound);
    }

    /// A check of the hostile peer, not signed yet.
    fn check(&self) -> Forged {
        let hostile = &self.stage.browsers[self.hostile];
        let name = format!("{}:{}", hostile.server.0, hostile.ufrag());
        Forged::request()
            .attribute(USERNAME, name.as_bytes())
            .attribute(PRIORITY, &[110, 0, 1, 255])
    }

    fn password(&self) -> String {
        self.stage.browsers[self.hostile].server.1.clone()
    }

    fn drops(&mut self) -> Drops {
        self.stage.all_dropped().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The SSRC of the video that the hostile viewer gets.
    fn video(&self) -> u32 {
        self.stage.viewer(self.hostile).video.ssrc
    }
}

/// Attacks, and checks what must be true afterwards; what was dropped.
fn survives(attack: impl FnOnce(&mut Scene)) -> Drops {
    survives_of(Role::viewer, attack)
}

fn survives_of(viewer: fn(u64) -> Role, attack: impl FnOnce(&mut Scene)) -> Drops {
    let mut scene = Scene::new(viewer);
    let (began, before) = (scene.stage.time, held());
    attack(&mut scene);
    scene.stage.run_for(ms(500));
    let (grown, took) = (held() - before, scene.stage.time - began);
    let drops = scene.drops();
    // What the tests note of a call grows as well: as much as it does without an attack.
    let mut quiet = Scene::new(viewer);
    let before = held();
    quiet.stage.run_for(ms(took));
    let kept = grown - (held() - before);
    assert!(kept < BOUND, "{kept} bytes are kept");

    let Scene { mut stage, publisher, viewer, .. } = scene;
    assert_eq!(stage.pipelines(), 2, "{:?}", stage.destroyed);
    stage.publisher(publisher).sending = false;
    stage.run_for(ms(500));
    let sent = stage.publisher(publisher).video.frames;
    assert_eq!(stage.viewer(viewer).video.complete.len() as u32, sent, "frames");
    assert_eq!(stage.viewer(viewer).video.gaps(), Vec::<u64>::new());
    drops
}

fn only<const N: usize>(drops: [(&'static str, u64); N]) -> Drops {
    drops.into()
}

fn candidate(line: &str) -> serde_json::Value {
    json!({"candidate": {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}})
}

fn host(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("candidate:1 1 udp {} 10.{a}.{b}.{c} 9 typ host", 1 + number)
}

#[test]
fn ten_thousand_candidates_leave_sixty_four() {
    let drops = survives(|scene| {
        for number in 0..10_000 {
            let args = candidate(&host((1 << 20) + number));
            scene.stage.invoke(&scene.endpoint.clone(), "addIceCandidate", args);
        }
        let remote = scene.stage.invoke(&scene.endpoint, "getRemoteSessionDescriptor", json!({}));
        let remote = remote.as_str().expect("a description");
        assert_eq!(remote.matches("a=candidate:").count(), 64);
    });
    assert_eq!(drops, only([("too_many_candidates", 10_000 - 63)]));
}

#[test]
fn texts_that_are_no_candidates_are_counted() {
    let long = format!("candidate:1 1 udp 1 192.0.2.7 1 typ host {}", "x".repeat(10_000));
    let texts = ["candidate", "1 1 udp x 192.0.2.7 1 typ host", "\0\u{202e}", "{}", &long];
    let drops = survives(|scene| {
        for number in 0..2_000 {
            let args = candidate(texts[number % texts.len()]);
            scene.stage.invoke(&scene.endpoint.clone(), "addIceCandidate", args);
        }
    });
    assert_eq!(drops, only([("malformed_candidate", 2_000)]));
}

#[test]
fn hidden_names_are_asked_for_up_to_a_limit() {
    let drops = survives(|scene| {
        for number in 0..1_000 {
            let line = format!("candidate:1 1 udp 1 {number}.local 9 typ host");
            scene.stage.invoke(&scene.endpoint.clone(), "addIceCandidate", candidate(&line));
        }
        scene.stage.run_for(secs(1));
        assert_eq!(scene.stage.asked().len(), 64);
    });
    assert_eq!(drops, only([("too_many_candidates", 1_000 - 64)]));
}

#[test]
fn checks_of_candidates_where_nobody_is_end() {
    survives(|scene| {
        scene.stage.strays = Some(0);
        let now = scene.stage.now();
        let links = [1, 2].map(|seed| Link::new(seed, Conditions::delay(5)));
        let nobody = SocketAddr::from(([10, 9, 9, 9], 9));
        let offer = Browser::new(now, nobody, Role::viewer(0), links).offer();
        let endpoint = scene.stage.create("WebRtcEndpoint", Some(&scene.pipeline.clone()));
        scene.stage.invoke(&endpoint, "processOffer", json!({"offer": offer}));
        scene.stage.invoke(&endpoint, "gatherCandidates", json!({}));
        for number in 0..10_000 {
            let args = candidate(&host((2 << 20) + number));
            scene.stage.invoke(&endpoint, "addIceCandidate", args);
        }
        scene.stage.run_for(secs(31));
        let checks = scene.stage.strays.expect("are allowed");
        assert!((64..64 * 120).contains(&checks), "{checks}");
        scene.stage.run_for(secs(5));
        assert_eq!(scene.stage.strays, Some(checks), "and none after it has failed");
    });
}

#[test]
fn stun_with_the_wrong_key_is_dropped_wherever_it_comes_from() {
    let drops = survives(|scene| {
        let mut message = scene.check();
        for number in 0..480_u16 {
            // Kinds that need not be understood.
            message = message.attribute(0x9000 + number, &[]);
        }
        let forged = message.integrity("wrong").fingerprint(0);
        assert!(forged.len() > 1_900);
        let stranger = SocketAddr::from(([10, 0, 9, 9], 9));
        for _ in 0..500 {
            scene.inject(&forged);
            scene.stage.inject(stranger, &forged);
        }
    });
    assert_eq!(drops, only([("stun_integrity", 1_000)]));
}

#[test]
fn stun_with_a_thousand_attributes_is_answered_or_refused_like_any_other() {
    let drops = survives(|scene| {
        let mut message = scene.check();
        for number in 0..1_000_u16 {
            message = message.attribute(0x9000 + number, &[]);
        }
        let good = message.integrity(&scene.password()).fingerprint(0);
        for _ in 0..200 {
            scene.inject(&good);
        }
        scene.inject(&good[..good.len() - 4]);
    });
    assert_eq!(drops, only([("stun_malformed", 1)]));
}

#[test]
fn stun_that_is_cut_short_or_garbled_is_dropped() {
    let drops = survives(|scene| {
        let password = scene.password();
        let good = scene.check().integrity(&password).fingerprint(0);
        for len in 1..good.len() {
            scene.inject(&good[..len]);
        }
        for error in 1..=100 {
            let garbled = scene.check().integrity(&password).fingerprint(error);
            scene.inject(&garbled);
        }
        assert_eq!(good.len(), 76);
    });
    assert_eq!(drops, only([("stun_fingerprint", 100), ("stun_malformed", 75)]));
}

#[test]
fn a_peer_that_goes_on_about_who_controls_is_heard_out_sixteen_times() {
    let drops = survives(|scene| {
        let password = scene.password();
        for number in 0..2_000 {
            let (kind, breaker) =
                if number % 2 == 0 { (ICE_CONTROLLED, 0) } else { (ICE_CONTROLLING, u64::MAX) };
            let check = scene.check().attribute(kind, &breaker.to_be_bytes());
            let check = check.attribute(USE_CANDIDATE, &[]);
            scene.inject(&check.integrity(&password).fingerprint(0));
        }
    });
    assert_eq!(drops.keys().copied().collect::<Vec<_>>(), ["stun_role_conflict"]);
    // Every second one agrees with the role that it ended in.
    assert!((992..1_030).contains(&drops["stun_role_conflict"]), "{drops:?}");
}

/// A DTLS record (RFC 6347 §4.1).
fn record(kind: u8, epoch: u16, number: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend(epoch.to_be_bytes());
    record.extend([0, 0, 0, 0]);
    record.extend(number.to_be_bytes());
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// A piece of a handshake message (RFC 6347 §4.2.2).
fn fragment(kind: u8, message: u16, total: u32, offset: u32, len: u32) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(&total.to_be_bytes()[1..]);
    body.extend(message.to_be_bytes());
    body.extend(&offset.to_be_bytes()[1..]);
    body.extend(&len.to_be_bytes()[1..]);
    body.resize(12 + len as usize, 3);
    record(22, 0, message, &body)
}

const FATAL: [u8; 2] = [2, 40];

#[test]
fn dtls_from_an_address_that_proved_nothing_is_dropped() {
    let drops = survives(|scene| {
        let stranger = SocketAddr::from(([10, 0, 9, 9], 9));
        for number in 0..1_000 {
            scene.stage.inject(stranger, &fragment(1, 0, 200, 0, 200));
            scene.stage.inject(stranger, &record(21, 0, number, &FATAL));
        }
    });
    assert_eq!(drops, only([("unknown_session", 2_000)]));
}

#[test]
fn alerts_and_renegotiation_in_the_clear_do_not_touch_an_association() {
    let drops = survives(|scene| {
        let hostile = scene.hostile;
        let before = scene.stage.viewer(hostile).video.complete.len();
        for number in 0..1_000 {
            scene.inject(&record(21, 0, number, &FATAL));
            // A ClientHello and a HelloRequest: there is no other handshake.
            scene.inject(&fragment(1, 0, 200, 0, 200));
            scene.inject(&fragment(0, 3, 0, 0, 0));
        }
        scene.stage.run_for(secs(1));
        let after = scene.stage.viewer(hostile).video.complete.len();
        assert!(after > before + 25, "its own call goes on: {before} and {after} frames");
    });
    assert_eq!(drops, only([("dtls_unexpected", 3_000)]));
}

#[test]
fn records_that_somebody_else_sealed_do_not_touch_an_association() {
    let drops = survives(|scene| {
        let hostile = scene.hostile;
        let before = scene.stage.viewer(hostile).video.complete.len();
        for number in 0..1_000 {
            for kind in [20, 21, 23] {
                scene.inject(&record(kind, 1, number, &[number as u8; 60]));
            }
            scene.inject(&record(23, 7, number, &[0; 60]));
            scene.inject(&record(23, 1, number, &[0; 60])[..40]);
        }
        scene.stage.run_for(secs(1));
        let after = scene.stage.viewer(hostile).video.complete.len();
        assert!(after > before + 25, "its own call goes on: {before} and {after} frames");
    });
    // Of what comes at a moment one is looked into: the association sleeps.
    let expected = [
        ("dtls_authentication", 1),
        ("dtls_flood", 1_999),
        ("dtls_malformed", 1_000),
        ("dtls_unexpected", 2_000),
    ];
    assert_eq!(drops, only(expected));
}

/// A peer that passes the checks and says nothing in the handshake; its address.
fn speechless(scene: &mut Scene) -> SocketAddr {
    let pipeline = scene.pipeline.clone();
    let (number, _) = scene.stage.join(&pipeline, Role::viewer(scene.stage.time));
    scene.stage.browsers[number].mute_dtls = true;
    scene.stage.run_for(ms(300));
    assert_eq!(scene.drops(), only([]));
    scene.stage.browsers[number].address
}

#[test]
fn fragments_that_never_make_a_message_are_kept_up_to_a_limit() {
    type Make = fn(u32) -> Vec<u8>;
    let kinds: [(&str, Make); 4] = [
        ("of a byte each", |number| fragment(2, 0, 16_000, number % 15_000, 1)),
        ("overlapping", |number| fragment(2, 0, 16_000, number % 15_000, 64)),
        ("of many messages", |number| fragment(2, (number % 8) as u16, 9_000, 64, 1_000)),
        ("before something broken", |number| {
            let mut bytes = fragment(2, 0, 16_000, number % 15_000, 64);
            bytes.extend([22, 0xfe, 0xfd]);
            bytes
        }),
    ];
    for (name, make) in kinds {
        let drops = survives(|scene| {
            let from = speechless(scene);
            for number in 1..=10_000 {
                scene.stage.inject(from, &make(number));
            }
        });
        let all: u64 = drops.values().sum();
        let names: Vec<_> = drops.keys().copied().collect();
        assert!(names.contains(&"dtls_flood"), "{name}: {drops:?}");
        assert!(names.iter().all(|name| ["dtls_flood", "dtls_malformed"].contains(name)), "{name}");
        assert!((9_000..=10_000).contains(&all), "{name}: {drops:?}");
    }
}

#[test]
fn forged_and_broken_media_is_dropped_and_counted() {
    let drops = survives(|scene| {
        let stranger = SocketAddr::from(([10, 0, 9, 9], 9));
        for number in 0..1_000_u16 {
            let mut packet = header(number, 0, 1_000);
            packet.extend([7; 100]);
            scene.inject(&packet);
            scene.stage.inject(stranger, &packet);
            // The shortest control packet there is, in the clear.
            scene.inject(&[0x80, 201, 0, 0]);
            scene.inject(&[0x80]);
        }
        scene.stage.inject(stranger, &[]);
    });
    let expected = [
        ("srtp_authentication", 1_000),
        ("srtp_malformed", 1_000),
        ("unknown_protocol", 1_000),
        ("unknown_session", 1_001),
    ];
    assert_eq!(drops, only(expected));
}

#[test]
fn a_viewer_that_sends_streams_nobody_asked_for_is_not_heard() {
    let drops = survives(|scene| {
        for number in 0..16 * 20_u32 {
            let now = scene.stage.now();
            let header = header(1 + number as u16 / 16, 0, (1 << 20) + number % 16);
            let index = u64::from(1 + number / 16);
            scene.stage.browsers[scene.hostile].send_rtp(now, &header, &[7; 50], index);
        }
        scene.stage.run_for(ms(100));
    });
    assert_eq!(drops, only([("unknown_stream", 16 * 20)]));
}

/// A control packet (RFC 3550 §6.1) of which the length is right.
fn rtcp(count: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len().is_multiple_of(4));
    let mut bytes = vec![0x80 | count, kind];
    bytes.extend((body.len() as u16 / 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn remb(ssrc: u32, count: u8, exponent: u8, mantissa: u32, times: usize) -> Vec<u8> {
    let mut body = [0, 0, 0, 1, 0, 0, 0, 0].to_vec();
    body.extend(b"REMB");
    body.push(count);
    body.push(exponent << 2 | (mantissa >> 16) as u8);
    body.extend((mantissa as u16).to_be_bytes());
    body.extend(ssrc.to_be_bytes().repeat(times));
    rtcp(15, 206, &body)
}

#[test]
fn feedback_that_breaks_its_rules_is_dropped_and_counted() {
    const STRANGE: u32 = 0xdead_beef;
    let heads = [0, 0, 0, 1, 0, 0, 0, 2];
    let block = [STRANGE.to_be_bytes().as_slice(), &[0xff; 20]].concat();
    // Cut-off kinds say how much there should be, and it is not there.
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty_feedback", rtcp(1, 205, &heads)),
        ("empty_feedback", rtcp(4, 206, &heads)),
        ("empty_feedback", remb(STRANGE, 0, 1, 1, 0)),
        ("foreign_ssrc", rtcp(1, 205, &[&heads[..], &[0; 4]].concat())),
        ("foreign_ssrc", rtcp(31, 201, &[&heads[..4], &block.repeat(31)].concat())),
        ("foreign_ssrc", remb(STRANGE, 255, 1, 1, 255)),
        ("malformed_rtcp", [empty_report(1), vec![0x80, 205, 0, 0]].concat()),
        ("malformed_rtcp", [empty_report(1), vec![0x81, 206, 0, 0]].concat()),
        ("malformed_rtcp", rtcp(31, 201, &heads[..4])),
        ("malformed_rtcp", rtcp(1, 200, &heads)),
        ("malformed_rtcp", remb(STRANGE, 255, 1, 1, 254)),
        ("malformed_rtcp", [empty_report(1), rtcp(1, 202, &[])].concat()),
        ("malformed_rtcp", rtcp(1, 202, &[0, 0, 0, 1, 1, 255, b'x', b'y'])),
        ("malformed_rtcp", rtcp(31, 203, &heads)),
        ("malformed_rtcp", rtcp(0, 204, &heads[..4])),
        ("malformed_rtcp", rtcp(0, 207, &[0, 0, 0, 1, 4, 0, 0xff, 0xff])),
        ("malformed_rtcp", [empty_report(1), vec![0x80, 201, 0xff, 0xff]].concat()),
        ("malformed_rtcp", [empty_report(1), vec![0x40, 201, 0, 1, 0, 0, 0, 1]].concat()),
    ];
    let mut expected = Drops::new();
    for (reason, _) in &cases {
        *expected.entry(reason).or_default() += 50;
    }
    let drops = survives(|scene| {
        for (_, compound) in cases.iter().cycle().take(50 * cases.len()) {
            scene.send_rtcp(compound);
            scene.stage.run_for(ms(1));
        }
        scene.stage.run_for(ms(50));
    });
    assert_eq!(drops, expected);
}

#[test]
fn absurd_reports_about_a_stream_change_nothing_for_others() {
    let drops = survives(|scene| {
        let ssrc = scene.video();
        let block = [ssrc.to_be_bytes().as_slice(), &[0xff; 20]].concat();
        for _ in 0..20 {
            scene.send_rtcp(&rtcp(31, 201, &[&[0, 0, 0, 1][..], &block.repeat(31)].concat()));
            for (exponent, mantissa) in [(0, 0), (63, 0x3_ffff), (46, 0x2_0000)] {
                // Nothing at all, more than there is a number for, and 2^63.
                scene.send_rtcp(&remb(ssrc, 255, exponent, mantissa, 255));
            }
            scene.stage.run_for(ms(50));
        }
    });
    assert_eq!(drops, only([]));
}

/// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions §3.1) that says what it likes:
/// `chunks` and `deltas` as they stand in it.
fn feedback(ssrc: u32, base: u16, count: u16, tick: u32, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
    let mut body = [[0, 0, 0, 1], ssrc.to_be_bytes()].concat();
    body.extend(base.to_be_bytes());
    body.extend(count.to_be_bytes());
    body.extend((tick << 8).to_be_bytes());
    body.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
    body.extend(deltas);
    body.resize(body.len().next_multiple_of(4), 0);
    rtcp(15, 205, &body)
}

#[test]
fn feedback_that_lies_about_what_arrived_when_is_dropped_and_moves_nothing_beyond_bounds() {
    let drops = survives_of(Role::modern_viewer, |scene| {
        let ssrc = scene.video();
        let endpoint = scene.endpoint.clone();
        for round in 0..200_u16 {
            // 65 535 packets, all of them lost; and all there were numbers for, received at one moment.
            let lost = [0x1fff, 0x1fff, 0x1fff, 0x1fff, 0x1fff, 0x1fff, 0x1fff, 0x1fff, 0x0007];
            scene.send_rtcp(&feedback(ssrc, round, 65_535, 5_000, &lost, &[]));
            scene.send_rtcp(&feedback(ssrc, 9 * round, 300, 5_000, &[0x212c], &[0; 300]));
            // Packets that were never sent; times that run backwards, and jump.
            scene.send_rtcp(&feedback(ssrc, 40_000, 9, 5_000, &[0x2009], &[4; 9]));
            let back = 4_000_u32.saturating_sub(u32::from(round) * 20);
            scene.send_rtcp(&feedback(ssrc, round, 4, back, &[0x2004], &[255; 4]));
            scene.send_rtcp(&feedback(ssrc, round, 4, 0xff_ffff, &[0x4004], &[0x80, 0].repeat(4)));
            // Less than it says.
            scene.send_rtcp(&feedback(ssrc, round, 400, 5_000, &[0x2190], &[]));
            scene.stage.run_for(ms(10));
        }
        let stats = scene.stage.invoke(&endpoint, "getStats", json!({}));
        let told = stats.as_object().expect("entries").values();
        let rates = told.filter_map(|entry| entry.get("availableOutgoingBitrate")?.as_f64());
        for rate in rates.filter(|rate| *rate > 0.0) {
            assert!((30_000.0..=10e9).contains(&rate), "{rate}");
        }
    });
    for reason in ["feedback_unsent", "feedback_time", "malformed_feedback"] {
        assert!(drops.get(reason).is_some_and(|count| *count >= 190), "{reason}: {drops:?}");
    }
}

#[test]
fn requests_for_every_number_there_is_bring_no_more_than_half_again() {
    let drops = survives_of(Role::modern_viewer, |scene| {
        let ssrc = scene.video();
        let head = [[0, 0, 0, 1], ssrc.to_be_bytes()].concat();
        let hostile = scene.hostile;
        let sent = |scene: &Scene| scene.stage.carried[&hostile].1;
        let before = sent(scene);
        scene.stage.run_for(secs(4));
        let usual = sent(scene) - before;
        let before = sent(scene);
        for _ in 0..4 {
            for piece in 0..16_u16 {
                let numbers = (0..4_096_u16).step_by(17).map(|number| piece * 4_096 + number);
                let lost: Vec<u8> = numbers
                    .flat_map(|number| [number.to_be_bytes(), [0xff, 0xff]].concat())
                    .collect();
                scene.send_rtcp(&rtcp(1, 205, &[&head[..], &lost].concat()));
            }
            scene.stage.run_for(secs(1));
        }
        let flooded = sent(scene) - before;
        // A quarter of a second's worth of repetitions may come on top.
        assert!(flooded < usual * 3 / 2 + (128 << 10), "{flooded} bytes instead of {usual}");
    });
    let known = ["not_kept", "repeated_too_soon", "repeat_budget", "pacer_full"];
    assert!(drops.keys().all(|reason| known.contains(reason)), "{drops:?}");
    assert!(drops["not_kept"] > 4 * 60_000, "{drops:?}");
}

#[test]
fn a_flood_of_requests_brings_nobody_more_keyframes_than_any_other() {
    let drops = survives(|scene| {
        let ssrc = scene.video();
        let head = [[0, 0, 0, 1], ssrc.to_be_bytes()].concat();
        for number in 0..1_000_u32 {
            scene.send_rtcp(&rtcp(1, 206, &head));
            let command = [&[0; 8][..], &ssrc.to_be_bytes(), &[number as u8, 0, 0, 0]].concat();
            scene.send_rtcp(&rtcp(4, 206, &command));
            scene.stage.run_for(ms(1));
        }
        let asked = &scene.stage.publisher(2).asked;
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 400), "{asked:?}");
    });
    assert_eq!(drops, only([]));
}

#[test]
fn whoever_forges_plain_rtp_gets_nothing_through_and_takes_nobodys_place() {
    let drops = survives(|scene| {
        let endpoint = scene.stage.create("RtpEndpoint", Some(&scene.pipeline.clone()));
        let offer = "v=0\r\no=- 0 0 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
                     m=video 7000 RTP/AVPF 97\r\na=rtpmap:97 VP8/90000\r\n";
        let answer = scene.stage.invoke(&endpoint, "processOffer", json!({"offer": offer}));
        let (rtp, rtcp) = addresses(answer.as_str().expect("a description"));
        let from = |ip: u8, port: u16| SocketAddr::from(([192, 0, 2, ip], port));
        let media = |ssrc: u32| [header(1, 0, ssrc), vec![7; 50]].concat();
        for number in 0..1_000 {
            scene.stage.arrive(rtp, from(66, 7_000), media(number));
            let mut other = media(number);
            other[1] = 96;
            scene.stage.arrive(rtp, from(9, 7_000), other);
            scene.stage.arrive(rtp, from(9, 7_000), vec![0x80, 97, 0]);
            scene.stage.arrive(rtcp, from(9, 7_001), vec![0x80, 201, 0, 0]);
            scene.stage.arrive(rtp, from(9, 7_000), Vec::new());
        }
        // The one who is there, and another beside it.
        scene.stage.arrive(rtp, from(9, 40_000), media(1));
        for number in 0..1_000 {
            scene.stage.arrive(rtp, from(9, 41_000), media(number));
        }
    });
    let expected = [
        ("malformed_rtcp", 1_000),
        ("malformed_rtp", 2_000),
        ("unexpected_sender", 2_000),
        ("unknown_protocol", 1_000),
    ];
    assert_eq!(drops, only(expected));
}

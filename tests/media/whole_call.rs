//! A whole call: browsers with ICE, DTLS and SRTP of their own against everything that a media worker
//! does, over networks that delay, lose, reorder and repeat.

use super::{
    browser::Role,
    stage::{Stage, Told},
    world::{ms, secs},
};
use crate::support::link::Conditions;
use serde_json::json;

/// One who publishes and one who watches, connected; their numbers and endpoints.
fn call(stage: &mut Stage) -> ((usize, String), (usize, String)) {
    call_of(stage, Role::publisher(0), Role::viewer(0))
}

fn call_of(stage: &mut Stage, publisher: Role, viewer: Role) -> ((usize, String), (usize, String)) {
    let pipeline = stage.create("MediaPipeline", None);
    let publisher = stage.join(&pipeline, publisher);
    let viewer = stage.join(&pipeline, viewer);
    stage.invoke(&publisher.1, "connect", json!({"sink": viewer.1}));
    (publisher, viewer)
}

/// What an endpoint told as short words, those that say the same again left out.
fn words(told: &[&Told]) -> Vec<String> {
    let word = |told: &&Told| {
        let data = &told.data;
        let what = ["state", "newState"].iter().find_map(|name| data[*name].as_str());
        let of = ["mediaType", "componentId"].iter().find_map(|name| data[*name].as_str());
        let words = [Some(told.name), of, what];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    told.iter().map(word).collect()
}

#[test]
fn a_minute_over_bad_networks_shows_nearly_every_frame() {
    a_minute(0, false);
}

#[test]
fn a_minute_with_repetitions_of_their_own_shows_nearly_every_frame() {
    a_minute(0, true);
}

#[test]
fn other_networks_as_bad_show_as_much() {
    a_minute(8, false);
    a_minute(9, true);
}

/// With `modern`, publishers and viewers agree on streams of repetitions and on numbers over all packets.
fn a_minute(seeds: u64, modern: bool) {
    let publisher = if modern { Role::modern_publisher } else { Role::publisher };
    let viewer = if modern { Role::modern_viewer } else { Role::viewer };
    let mut all = (0, 0);
    for (seed, loss, conditions) in [
        (1, 10, Conditions::delay(20).jitter(10)),
        (2, 50, Conditions::delay(40).jitter(20).reorder(20, 25).duplicate_per_mille(20)),
        (3, 100, Conditions::delay(30).jitter(15).reorder(50, 30).duplicate_per_mille(50)),
    ] {
        let mut stage = Stage::new(seeds + seed, conditions.loss_per_mille(loss));
        let ((publisher, source), (early, _)) = call_of(&mut stage, publisher(0), viewer(0));
        stage.run_for(secs(20));
        let pipeline = source.split('/').next().expect("a pipeline").to_owned();
        let (late, sink) = stage.join(&pipeline, viewer(stage.time));
        stage.invoke(&source, "connect", json!({"sink": sink}));
        stage.run_for(secs(40));
        stage.publisher(publisher).sending = false;
        stage.run_for(secs(2));

        let sent = stage.publisher(publisher).video.frames;
        let spoken = stage.publisher(publisher).audio.frames;
        assert!(sent > 1_600, "{sent} frames in a minute");
        let (mut shown_to_both, mut sent_to_both) = (0, 0);
        for viewer in [early, late] {
            let viewer = stage.viewer(viewer);
            let (_, first) = viewer.first_video().expect("video came");
            let shown = viewer.video.complete.len() as u32;
            let keyframe = viewer.video.log.iter().filter(|(.., piece)| piece.keyframe);
            let from = keyframe.map(|(.., piece)| piece.frame).min().expect("a keyframe");
            // Of the first frame any packet may come first; it is the keyframe's in any case.
            assert_eq!((first.keyframe, first.frame), (true, from), "{loss}");
            shown_to_both += shown;
            sent_to_both += sent - from;
            // Nobody repairs audio, and it passes two networks that lose.
            let arrives = (1_000 - loss as u32).pow(2) / 1_000;
            let expected = if from == 0 { spoken } else { (sent - from) * 33 / 20 };
            let heard = viewer.audio.complete.len() as u32;
            assert!(heard * 1_000 >= expected * (arrives - 30), "{loss}: {heard} of {expected}");
        }
        // A packet that is lost at every one of its repetitions is given up in the end: some one in four
        // thousand frames at the highest loss, and by chance a few times as many in one call.
        let (shown, sent) = (shown_to_both, sent_to_both);
        assert!(shown * 1_000 >= sent * 998, "{loss}: {shown} of {sent}");
        all = (all.0 + shown, all.1 + sent);
        if let Some(numbering) = &stage.publisher(publisher).numbering {
            // What a message that was lost told is not told again.
            let told = numbering.told.len() as u64 * 1_000;
            let sent = numbering.next - 65_300;
            assert!(told >= sent * ((1_000 - loss).pow(2) / 1_000 - 40), "{told} of {sent}");
            for viewer in [early, late] {
                assert!(stage.viewer(viewer).repeated > 10);
            }
        }
        let asked = &stage.publisher(publisher).asked;
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 400), "{asked:?}");
    }
    assert!(all.0 * 1_000 >= all.1 * 999, "{all:?}");
}

#[test]
fn a_viewer_that_joins_late_sees_a_keyframe_within_a_second() {
    let mut stage = Stage::new(4, Conditions::delay(25).jitter(5));
    let ((_, source), _) = call(&mut stage);
    stage.run_for(secs(5));
    let pipeline = source.split('/').next().expect("a pipeline").to_owned();
    let joined = stage.time;
    let (late, sink) = stage.join(&pipeline, Role::viewer(joined));
    stage.invoke(&source, "connect", json!({"sink": sink}));
    stage.run_for(secs(2));
    let at = stage.viewer(late).video.first_keyframe_at.expect("a whole keyframe");
    assert!(at - joined < 1_000, "{} ms after it joined", at - joined);
}

#[test]
fn a_good_call_is_told_in_order() {
    let mut stage = Stage::new(5, Conditions::delay(10));
    let ((publisher, source), (_, sink)) = call(&mut stage);
    stage.run_for(secs(4));
    stage.publisher(publisher).sending = false;
    let last = stage.time;
    stage.run_for(secs(4));

    let connecting = [
        "MediaSessionStarted",
        "IceComponentStateChanged GATHERING",
        "IceCandidateFound",
        "IceCandidateFound",
        "IceGatheringDone",
        // With the peer's first candidate.
        "IceComponentStateChanged CONNECTING",
    ];
    let connected = [
        "NewCandidatePairSelected",
        "IceComponentStateChanged CONNECTED",
        "IceComponentStateChanged READY",
        "DtlsConnectionStateChange [bundle/dtlssrtpenc] NEW",
        "DtlsConnectionStateChange [bundle/dtlssrtpdec] CONNECTING",
        "DtlsConnectionStateChange [bundle/dtlssrtpenc] CONNECTING",
        "ConnectionStateChanged CONNECTED",
        "DtlsConnectionStateChange [bundle/dtlssrtpdec] CONNECTED",
        "DtlsConnectionStateChange [bundle/dtlssrtpenc] CONNECTED",
    ];
    let elements = ["AUDIO", "VIDEO", "DATA"].map(|media| format!("ElementConnected {media}"));
    let (told_first, told_then) = (stage.told_by(&source), stage.told_by(&sink));
    let mut beginning: Vec<_> = connecting.map(str::to_owned).into();
    beginning.extend(elements);
    beginning.extend(connected.map(str::to_owned));
    assert_eq!(words(&told_first)[..beginning.len()], beginning);
    assert_eq!(words(&told_then)[..15], [&connecting[..], &connected].concat());

    // What media brings comes as the media does: first what concerns flow, then the first report.
    let media = words(&told_first).split_off(beginning.len());
    let mut flows = media[..4].to_vec();
    flows.sort_unstable();
    assert_eq!(
        flows,
        [
            "MediaFlowOutStateChanged AUDIO FLOWING",
            "MediaFlowOutStateChanged VIDEO FLOWING",
            "MediaTranscodingStateChanged AUDIO NOT_TRANSCODING",
            "MediaTranscodingStateChanged VIDEO NOT_TRANSCODING",
        ]
    );
    let mut end = media[4..].to_vec();
    end.sort_unstable();
    assert_eq!(
        end,
        [
            "MediaFlowOutStateChanged AUDIO NOT_FLOWING",
            "MediaFlowOutStateChanged VIDEO NOT_FLOWING",
            "MediaStateChanged CONNECTED",
        ]
    );
    let mut media = words(&told_then).split_off(15);
    media.sort_unstable();
    assert_eq!(
        media,
        [
            "MediaFlowInStateChanged AUDIO FLOWING",
            "MediaFlowInStateChanged AUDIO NOT_FLOWING",
            "MediaFlowInStateChanged VIDEO FLOWING",
            "MediaFlowInStateChanged VIDEO NOT_FLOWING",
            "MediaStateChanged CONNECTED",
        ]
    );
    for told in told_first.iter().chain(&told_then) {
        match (told.name, told.data["state"].as_str()) {
            // Up to 20 ms pass between two packets, and 250 ms between two looks.
            (_, Some("NOT_FLOWING")) => {
                assert!((last + 1_980..=last + 2_270).contains(&told.at), "{told:?}");
            }
            ("MediaStateChanged", _) => {
                assert_eq!(told.data["oldState"], "DISCONNECTED");
                assert!(told.at < 2_000, "{told:?}");
            }
            _ => assert!(told.at < 1_000, "{told:?}"),
        }
    }
}

#[test]
fn a_pipeline_that_is_released_leaves_nothing_behind() {
    let mut stage = Stage::new(8, Conditions::delay(10));
    let ((publisher, source), (viewer, _)) = call(&mut stage);
    stage.run_for(secs(2));
    let seen = stage.viewer(viewer).video.log.len();
    assert!(seen > 0);
    let pipeline = source.split('/').next().expect("a pipeline").to_owned();
    stage.release(&pipeline);
    stage.run_for(ms(20));
    let seen = stage.viewer(viewer).video.log.len();
    stage.run_for(secs(2));
    assert_eq!(stage.viewer(viewer).video.log.len(), seen, "media after the end");
    let sent = stage.publisher(publisher).video.frames;
    assert!(stage.dropped("unknown_session") > u64::from(sent) / 3, "what still comes is counted");
}

#[test]
fn a_whole_call_is_the_same_with_the_same_seed() {
    let run = |seed| {
        let conditions = Conditions::delay(25).jitter(20).loss_per_mille(50).reorder(50, 20);
        let mut stage = Stage::new(seed, conditions);
        let ((publisher, _), (viewer, _)) = call(&mut stage);
        stage.run_for(secs(10));
        let events: Vec<_> = stage.told.iter().map(|told| (told.at, told.name)).collect();
        let nacked = stage.publisher(publisher).nacked;
        let log = &stage.viewer(viewer).video.log;
        let seen: Vec<_> = log.iter().map(|&(at, .., piece)| (at, piece.frame)).collect();
        (events, nacked, seen)
    };
    let first = run(6);
    assert!(first == run(6), "two runs with the same seed differ");
    assert!(first != run(7), "the seed changes nothing");
}

//! Several encodings and layers of one picture: who gets which, and that nobody sees how.

use super::{
    studio::{Studio, Watcher},
    world::{ms, secs},
};
use crate::support::link::Conditions;
use proptest::prelude::*;

const RATES: [u64; 3] = [150_000, 500_000, 1_500_000];

/// Numbers and timestamps go on, and encodings change at keyframes only; with `losses` numbers may miss
/// that nobody could repair.
fn is_continuous(watcher: &Watcher, losses: bool) {
    let numbers: Vec<u64> = watcher.got.keys().copied().collect();
    let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(losses || gaps == 0, "{gaps} gaps");
    let pieces: Vec<_> = watcher.got.values().filter_map(|one| Some((one, one.piece?))).collect();
    for pair in pieces.windows(2) {
        let ((before, one), (after, other)) = (pair[0], pair[1]);
        let step = after.timestamp.wrapping_sub(before.timestamp) as i32;
        assert!((0..90_000).contains(&step), "{step} between {one:?} and {other:?}");
        if one.encoding != other.encoding {
            assert!(step > 0, "two encodings share no picture");
            assert!(losses || other.is_key() && other.index == 0, "{one:?}, then {other:?}");
        }
        let ids = after.picture_id.wrapping_sub(before.picture_id) & 0x7fff;
        let same = one.encoding == other.encoding && one.picture == other.picture;
        assert!(losses || ids == u16::from(!same), "{one:?} {ids} {other:?}");
        assert_eq!(after.marker, other.index + 1 == other.count);
        let indices = after.tl0.wrapping_sub(before.tl0);
        let based = !same && other.temporal == 0;
        assert!(losses || indices == u8::from(based), "{one:?} {indices} {other:?}");
    }
}

#[test]
fn each_viewer_gets_the_encoding_that_it_is_allowed_and_none_freezes() {
    let mut studio = Studio::new(1, Conditions::delay(20), &RATES, 1);
    let viewers = [Some(3_000), Some(1_000), Some(300)].map(|kbps| studio.join(kbps));
    studio.run_for(secs(20));
    for (viewer, expected) in viewers.into_iter().zip([2, 1, 0]) {
        let watcher = &studio.watchers[viewer];
        is_continuous(watcher, false);
        let encodings = watcher.encodings();
        assert_eq!(encodings.last().map(|(encoding, _)| *encoding), Some(expected));
        assert!(encodings.last().is_some_and(|(_, at)| *at < 3_000), "{encodings:?}");
        assert!(
            watcher.longest_freeze(500, 19_900) <= 80,
            "{}",
            watcher.longest_freeze(500, 19_900)
        );
    }
}

#[test]
fn a_fast_viewer_does_not_notice_the_slow_ones() {
    let run = |slow: bool| {
        let mut studio = Studio::new(2, Conditions::delay(20), &RATES, 1);
        let fast = studio.join(None);
        studio.run_for(secs(5));
        if slow {
            studio.join(Some(300));
            studio.join(Some(100));
        }
        studio.run_for(secs(10));
        let shown = studio.watchers[fast].pictures_between(5_000, 14_500);
        (shown.len(), shown.iter().all(|one| one.piece.encoding == 2))
    };
    assert_eq!(run(false), run(true));
    assert!(run(true).1);
}

#[test]
fn a_lower_budget_is_met_soon_and_a_higher_one_after_a_while() {
    let mut studio = Studio::new(3, Conditions::delay(20), &RATES, 1);
    let viewer = studio.join(None);
    studio.run_for(secs(5));
    studio.allow(viewer, Some(400));
    studio.run_for(secs(5));
    studio.allow(viewer, Some(2_000));
    studio.run_for(secs(5));
    let watcher = &studio.watchers[viewer];
    is_continuous(watcher, false);
    let encodings = watcher.encodings();
    let [.., (2, _), (0, down), (2, up)] = encodings[..] else { panic!("{encodings:?}") };
    assert!((5_000..5_250).contains(&down), "{down}");
    assert!((11_000..11_500).contains(&up), "{up}");
    assert!(watcher.longest_freeze(500, 14_900) <= 80);
}

#[test]
fn switching_a_hundred_times_under_loss_gives_one_stream() {
    for seed in 1..=5 {
        let mut studio =
            Studio::new(seed, Conditions::delay(20).jitter(5).loss_per_mille(20), &RATES, 1);
        let viewer = studio.join(None);
        studio.run_for(secs(3));
        for turn in 0..100u64 {
            studio.allow(viewer, [Some(300), None, Some(700)][turn as usize % 3]);
            studio.run_for(ms(1_300 + turn * 7 % 200));
        }
        let watcher = &studio.watchers[viewer];
        is_continuous(watcher, true);
        let stats = studio.router.sink_stats(watcher.sink);
        assert!(stats.switches >= 60, "{}", stats.switches);
        let end = studio.time - 300;
        let pictures = watcher.pictures_between(3_000, end).len() as u64;
        let drawn = (end - 3_000) / 33;
        assert!(pictures * 100 >= drawn * 97, "seed {seed}: {pictures} of {drawn}");
        let freeze = watcher.longest_freeze(3_000, end);
        assert!(freeze < 450, "seed {seed}: {freeze}");
    }
}

#[test]
fn an_encoding_that_ends_is_left() {
    let mut studio = Studio::new(4, Conditions::delay(20), &RATES, 1);
    let viewer = studio.join(None);
    studio.run_for(secs(4));
    studio.camera.encodings[2].sending = false;
    studio.run_for(secs(4));
    let watcher = &studio.watchers[viewer];
    is_continuous(watcher, false);
    assert_eq!(watcher.encodings().last().map(|(encoding, _)| *encoding), Some(1));
    let freeze = watcher.longest_freeze(1_000, 7_900);
    assert!((500..800).contains(&freeze), "{freeze}");
    // And entered again when it comes back.
    studio.camera.encodings[2].sending = true;
    studio.run_for(secs(4));
    assert_eq!(studio.watchers[viewer].encodings().last().map(|(encoding, _)| *encoding), Some(2));
}

#[test]
fn a_viewer_keeps_what_it_has_until_the_keyframe_of_the_other_encoding_comes() {
    let mut studio = Studio::new(5, Conditions::delay(20), &RATES, 1);
    let viewer = studio.join(None);
    studio.run_for(secs(4));
    studio.camera.encodings[1].obeys = false;
    studio.allow(viewer, Some(1_400));
    studio.run_for(secs(2));
    assert_eq!(studio.watchers[viewer].encodings().last().map(|(encoding, _)| *encoding), Some(2));
    assert!(studio.watchers[viewer].longest_freeze(1_000, 5_900) <= 80);
    let asked = studio.camera.encodings[1].asked.iter().filter(|at| **at > 4_000).count();
    assert!((3..=5).contains(&asked), "asked again and again: {asked}");
}

#[test]
fn an_encoding_that_nobody_gets_is_asked_for_nothing() {
    let conditions = Conditions::delay(20).loss_per_mille(20);
    let mut studio = Studio::new(6, conditions, &RATES, 1);
    studio.join(Some(300));
    studio.run_for(secs(20));
    for unused in &studio.camera.encodings[1..] {
        assert!(unused.asked.iter().all(|at| *at < 2_000), "{:?}", unused.asked);
        assert!(unused.nacked < 30, "{}", unused.nacked);
    }
    assert!(studio.camera.encodings[0].nacked > 10);
}

#[test]
fn the_sender_is_told_what_is_used() {
    let mut studio = Studio::new(7, Conditions::delay(20), &RATES, 1);
    studio.run_for(secs(34));
    let told = |studio: &Studio| studio.camera.rembs.last().copied();
    assert!(told(&studio).is_some_and(|bps| bps <= 500_000), "nobody watches: {:?}", told(&studio));
    let viewer = studio.join(Some(1_000));
    studio.run_for(secs(4));
    assert!(
        told(&studio).is_none_or(|bps| bps > 100_000_000),
        "its link may turn out to be better"
    );
    studio.run_for(secs(10));
    let two = told(&studio).unwrap_or(0);
    assert!((700_000..1_000_000).contains(&two), "{two}");
    studio.allow(viewer, None);
    studio.run_for(secs(2));
    assert!(told(&studio).is_some_and(|bps| bps > 100_000_000), "no limit");
}

#[test]
fn temporal_layers_are_left_out_and_taken_up_again() {
    let mut studio = Studio::new(8, Conditions::delay(20), &[600_000], 3);
    let viewer = studio.join(None);
    studio.run_for(secs(4));
    let mut rates = Vec::new();
    for kbps in [Some(400), Some(200), None] {
        studio.allow(viewer, kbps);
        studio.run_for(secs(4));
        let watcher = &studio.watchers[viewer];
        rates.push(watcher.pictures_between(studio.time - 2_000, studio.time).len());
    }
    let watcher = &studio.watchers[viewer];
    is_continuous(watcher, false);
    // Of about 60 pictures in two seconds.
    assert!((29..=32).contains(&rates[0]) && (14..=16).contains(&rates[1]), "{rates:?}");
    assert!((58..=62).contains(&rates[2]), "{rates:?}");
    assert!(watcher.longest_freeze(500, 15_900) <= 180);
}

#[test]
fn layers_are_left_out_under_loss_and_reordering_and_what_is_sent_again_is_the_same() {
    for (seed, rtx) in [(1, true), (2, false), (3, true), (4, false)] {
        let conditions = Conditions::delay(20).loss_per_mille(30).reorder(50, 25);
        let mut studio = Studio::new(seed, conditions, &[600_000], 3);
        studio.rtx = rtx;
        let viewer = studio.join(None);
        studio.run_for(secs(2));
        for turn in 0..30u64 {
            studio.allow(viewer, [Some(200), None, Some(400), Some(250)][turn as usize % 4]);
            studio.run_for(ms(1_000));
        }
        let watcher = &studio.watchers[viewer];
        is_continuous(watcher, true);
        let freeze = watcher.longest_freeze(2_000, studio.time - 300);
        assert!(freeze < 900, "seed {seed}: {freeze}");
        assert!(studio.router.sink_stats(watcher.sink).retransmitted_packets > 20);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is allowed when: numbers have no gap that was not a loss, timestamps never go back, and
    /// encodings change at keyframes.
    #[test]
    fn any_choice_gives_one_stream(
        seed in 1u64..10_000,
        layers in 1usize..=3,
        budgets in prop::collection::vec((0u64..2_500, 50u64..2_000), 1..12),
    ) {
        let mut studio = Studio::new(seed, Conditions::delay(10).jitter(3), &RATES, layers);
        let viewer = studio.join(None);
        for (kbps, time) in budgets {
            studio.allow(viewer, (kbps > 0).then_some(kbps));
            studio.run_for(ms(time));
        }
        is_continuous(&studio.watchers[viewer], false);
    }
    /// Whatever descriptors say, whichever encoding comes when: no index goes out with two contents, and
    /// what is asked for again is what went out.
    #[test]
    fn descriptors_that_lie_use_no_index_twice(
        records in prop::collection::vec(
            (0usize..3, -3i16..20, 0u64..40, any::<[u8; 14]>(), 0u8..8),
            1..300,
        ),
    ) {
        let mut studio = Studio::new(1, Conditions::delay(0), &RATES, 1);
        studio.rtx = false;
        let viewer = studio.join(None);
        let mut sequences = [100u16; 3];
        for (encoding, step, time, mut payload, act) in records {
            studio.time += time;
            sequences[encoding] = sequences[encoding].wrapping_add_signed(step);
            // Of many first bytes most say nothing; these begin pictures and have numbers.
            if act & 1 == 0 {
                payload[..2].copy_from_slice(&[0x90, 0xe0]);
            }
            if act & 2 == 0 {
                payload[6] &= 0xfe;
            }
            if act == 7 {
                studio.allow(viewer, Some(u64::from(payload[9]) * 10).filter(|kbps| *kbps > 0));
            }
            let mut bytes = vec![0x80, payload[7] & 0x80 | 96];
            bytes.extend(sequences[encoding].to_be_bytes());
            bytes.extend((studio.time as u32 * 90).to_be_bytes());
            bytes.extend((100 + encoding as u32).to_be_bytes());
            bytes.extend(payload);
            studio.arrive(encoding, &bytes);
            if act == 5 && let Some((_, last)) = studio.wire.by_index.keys().max() {
                studio.ask(viewer, &(last.saturating_sub(9)..=*last).collect::<Vec<_>>());
            }
        }
    }
}

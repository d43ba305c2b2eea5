//! Redundant audio, for those who take it and those who do not.

use super::*;

const RED: Format = Format { codec: Codec::Red, profile: 0 };
/// The packet before, two bytes of it, and the newest.
const BOTH: &[u8] = &[0x80 | 111, 0x0f, 0x00, 2, 111, 1, 2, 3, 4];

fn bench(formats: &[(u8, Format)]) -> Bench {
    let source = source_config(Kind::Audio, &[(111, OPUS), (63, RED)]);
    Bench::new(source, sink_config(Kind::Audio, formats))
}

fn left(bench: &Bench) -> Vec<(u8, &[u8])> {
    bench.out.rtp.iter().map(|(header, payload, _)| (header[1], &payload[..])).collect()
}

#[test]
fn whoever_takes_redundant_audio_gets_it_as_it_came() {
    let mut bench = bench(&[(96, OPUS), (97, RED)]);
    bench.send_as(63, 7, 1, BOTH);
    bench.send_as(111, 7, 2, &[5]);
    assert_eq!(left(&bench), [(97, BOTH), (96, &[5][..])]);
}

#[test]
fn others_get_what_is_newest_in_it() {
    let mut bench = bench(&[(96, OPUS)]);
    bench.send_as(63, 7, 1, BOTH);
    bench.send_as(111, 7, 2, &[5]);
    // A block that goes beyond the packet, and one of a format that nobody agreed on.
    bench.send_as(63, 7, 3, &[0x80 | 111, 0, 0, 9, 111, 1]);
    bench.send_as(63, 7, 4, &[0, 1]);
    bench.send_as(63, 7, 5, &[111, 6]);
    assert_eq!(left(&bench), [(96, &[3, 4][..]), (96, &[5]), (96, &[6])]);
    assert_eq!(bench.dropped(DropReason::Format), 2);
    let viewer = bench.viewer;
    bench.ms = 100;
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[502]));
    assert_eq!(left(&bench).last(), Some(&(96, &[6][..])), "again as it was");
}

#[test]
fn it_is_of_no_use_to_those_who_take_nothing_that_is_in_it() {
    let mut bench = bench(&[(0, PCMU)]);
    bench.send_as(63, 7, 1, BOTH);
    assert!(bench.out.rtp.is_empty());
    assert_eq!(bench.dropped(DropReason::Format), 1);
}

//! Offers in the forms of former years.

use super::*;

fn agreed(text: &str) -> Vec<Media> {
    answer(&parse(text).expect("parses"), &forwarding(), &local()).expect("answer").media
}

#[test]
fn a_profile_without_its_transport_is_taken_and_repeated() {
    let negotiated = answered("old_savpf", &forwarding());
    assert!(negotiated.media.iter().all(|media| media.accepted));
    assert!(negotiated.local.media.iter().all(|section| section.proto == "RTP/SAVPF"));
    assert!(negotiated.media[1].nack && !negotiated.media[1].rtx.is_empty());
}

#[test]
fn without_names_of_sections_and_tracks_everything_is_found_by_position() {
    let negotiated = answered("old_session", &forwarding());
    assert!(negotiated.media.iter().all(|media| media.accepted && media.mid.is_none()));
    let text = negotiated.local.to_string();
    assert!(!text.contains("a=mid:") && !text.contains("BUNDLE") && !text.contains("msid"));
    let ports: Vec<_> = negotiated.media.iter().map(|media| media.transport).collect();
    assert_eq!(ports, [0, 1]);
    assert_eq!(negotiated.media[1].candidates.len(), 1);
    assert!(negotiated.media.iter().all(|media| media.remote_ssrcs.is_empty()));
}

#[test]
fn fingerprint_setup_and_ice_may_stand_in_the_session_alone() {
    for media in answered("old_session", &forwarding()).media {
        assert_eq!(media.ice.as_ref().map(|(ufrag, _)| ufrag.as_str()), Some("s4Fr"));
        assert_eq!((media.fingerprints.len(), media.fingerprints[0].1[0]), (1, 0xa4));
        assert_eq!(media.setup, Setup::Active);
    }
    let passive = "v=0\na=setup:active\nm=audio 9 RTP/SAVPF 0\nm=video 9 RTP/SAVPF 96\n\
                   a=setup:passive\na=rtpmap:96 VP8/90000\n";
    let media = agreed(passive);
    assert_eq!((media[0].setup, media[1].setup), (Setup::Passive, Setup::Active));
}

#[test]
fn what_the_session_says_of_its_transport_is_not_said_of_ours() {
    let text = answered("old_session", &forwarding()).local.to_string();
    let (session, sections) = text.split_once("m=").expect("sections");
    for name in ["fingerprint", "setup", "ice-ufrag", "ice-pwd", "rtcp-mux"] {
        assert!(!session.contains(name), "{session}");
        assert_eq!(sections.matches(&format!("a={name}")).count(), 2, "{name}");
    }
}

#[test]
fn many_streams_of_one_section_are_told_apart_from_their_repairs() {
    let media = answered("plan_b", &forwarding()).media;
    assert_eq!(media[0].remote_ssrcs, [3_105_877, 3_105_878]);
    assert_eq!(media[0].remote_rtx_ssrcs, []);
    // The group of encodings has an order of its own.
    assert_eq!(media[1].remote_ssrcs, [7_203, 7_201, 7_202, 7_400]);
    let repairs = [(7_301, 7_201), (7_302, 7_202), (7_303, 7_203), (7_500, 7_400)];
    assert_eq!(media[1].remote_rtx_ssrcs, repairs);
    assert_eq!(media[1].rtx, [(96, 100)]);
    assert_eq!(media[1].remote_cname.as_deref(), Some("jE9wLkQx"));
}

#[test]
fn groups_of_streams_that_were_not_announced_mean_nothing() {
    let section = |lines: &str| {
        let text = format!("v=0\nm=video 9 RTP/SAVPF 96\na=rtpmap:96 VP8/90000\n{lines}");
        let media = agreed(&text).remove(0);
        (media.remote_ssrcs, media.remote_rtx_ssrcs)
    };
    assert_eq!(section("a=ssrc-group:FID 1 2\n"), (vec![], vec![]));
    assert_eq!(section("a=ssrc-group:FID 1\na=ssrc:1 cname:a\n"), (vec![1], vec![]));
    let odd = "a=ssrc-group:FID 1 1\na=ssrc-group:FEC-FR 2 3\na=ssrc-group:SIM 9 2\n\
               a=ssrc:2 cname:a\na=ssrc:3 cname:a\na=ssrc:4294967296 cname:a\na=ssrc:x\n";
    assert_eq!(section(odd), (vec![2], vec![]));
}

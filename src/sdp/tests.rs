mod bombs;
mod extras;
mod old;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::rtp::extensions::Extension;
use crate::rtp::format::Codec;

fn can() -> Capabilities {
    Capabilities {
        audio: vec![Codec::Opus, Codec::Pcmu, Codec::Pcma],
        video: vec![Codec::Av1, Codec::Vp9, Codec::Vp8, Codec::H264],
        data: false,
        audio_lines: 1,
        video_lines: 1,
        extras: Extras::NONE,
    }
}

/// What a WebRtcEndpoint can do.
fn forwarding() -> Capabilities {
    Capabilities { extras: Extras::FORWARDED, ..can() }
}

fn with_data() -> Capabilities {
    Capabilities { data: true, ..can() }
}

fn local() -> Local {
    let credentials = |ufrag: &str| Credentials {
        ufrag: ufrag.to_owned(),
        pwd: format!("{ufrag}{ufrag}{ufrag}{ufrag}{ufrag}+/"),
    };
    Local {
        session_id: 3_990_000_000,
        cname: "user1@host-1".to_owned(),
        fingerprint: "00:11:22:33".to_owned(),
        credentials: vec![credentials("aaaa"), credentials("bbbb")],
        ssrcs: (1_001..=1_064).collect(),
        rtx_ssrcs: (2_001..=2_064).collect(),
    }
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sdp")).join(name)
}

fn read(name: &str) -> Description {
    let text = std::fs::read_to_string(golden(name)).expect("golden file");
    parse(&text).expect("golden file is a description")
}

/// Compares with the golden file, or writes it when `UPDATE_GOLDEN` is set.
fn check(name: &str, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden(name), text).expect("golden file is writable");
    }
    let expected = std::fs::read_to_string(golden(name)).expect("golden file");
    assert_eq!(text, expected, "{name}");
}

fn answered(name: &str, capabilities: &Capabilities) -> Negotiated {
    answer(&read(&format!("{name}.offer.sdp")), capabilities, &local()).expect("answer")
}

fn live(description: &Description) -> Vec<bool> {
    description.media.iter().map(|section| section.port != 0).collect()
}

/// Every offer in the folder; those that are named after data have data channels.
#[test]
fn answers_to_the_offers_of_others_stay_as_they_are() {
    let files = std::fs::read_dir(golden(""))
        .expect("golden files")
        .map(|file| file.expect("golden file").file_name().into_string().expect("a readable name"));
    let names: Vec<_> =
        files.filter_map(|file| Some(file.strip_suffix(".offer.sdp")?.to_owned())).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let data = name.ends_with("_data");
        let can = Capabilities { data, ..forwarding() };
        check(&format!("{name}.answer.sdp"), &answered(&name, &can).local.to_string());
    }
}

#[test]
fn own_offers_stay_as_they_are() {
    let plain = offer(&forwarding(), &local(), &OfferWishes::default()).expect("offer");
    check("own/webrtc.offer.sdp", &plain.to_string());
    let wishes = OfferWishes {
        direction: Direction::RecvOnly,
        max_audio_bandwidth: Some(40),
        max_video_bandwidth: Some(900),
        data_port: 6_000,
        ..OfferWishes::default()
    };
    let can = Capabilities { data: true, ..forwarding() };
    let wished = offer(&can, &local(), &wishes).expect("offer");
    check("own/webrtc_wishes.offer.sdp", &wished.to_string());
}

#[test]
fn gathered_candidates_move_the_address_into_the_sections() {
    let answer = answered("two_videos", &can()).local;
    let lines = vec![
        "candidate:2 1 TCP 1015022591 10.1.2.3 9 typ host tcptype active".to_owned(),
        "candidate:1 1 UDP 2015364095 10.1.2.3 8000 typ host".to_owned(),
    ];
    let gathered = answer.with_candidates(&vec![lines; 3]);
    check("own/two_videos.gathered.sdp", &gathered.to_string());
    let six = vec!["candidate:1 1 UDP 2015364095 2001:db8::7 8001 typ host".to_owned()];
    let gathered = answer.with_candidates(&[six]);
    assert_eq!(gathered.media[0].connection.as_deref(), Some("IN IP6 2001:db8::7"));
    assert_eq!(gathered.media[0].port, 8_001);
    assert_eq!(gathered.media[1], answer.media[1]);
}

#[test]
fn a_browser_call_is_agreed_in_both_directions() {
    let media = answered("chrome_call", &can()).media;
    let video = &media[1];
    assert!(video.accepted && video.send && video.receive && video.bundled && video.rtcp_mux);
    assert!(video.nack && video.pli && video.fir && video.remb);
    assert_eq!(video.extensions.get(Extension::AbsSendTime), Some(2));
    assert_eq!(video.setup, Setup::Active);
    assert_eq!(video.formats[0].0, 96);
    assert_eq!(video.formats[0].1.codec, Codec::Vp8);
    assert_eq!(video.formats.len(), 8);
    assert_eq!(video.local_ssrc, 1_002);
    assert_eq!(video.remote_ssrcs, [804_417_225]);
    assert_eq!(video.remote_cname.as_deref(), Some("kW9vTe2LpQ6sXa0f"));
    assert_eq!(video.ice.as_ref().map(|(ufrag, _)| ufrag.as_str()), Some("h7Qz"));
    assert_eq!(video.fingerprints[0].0, "sha-256");
    assert_eq!(video.fingerprints[0].1.len(), 32);
    assert_eq!(video.fingerprints[0].1[..2], [0x3d, 0x0f]);
}

#[test]
fn a_viewer_is_only_sent_to() {
    for media in answered("chrome_viewer", &can()).media {
        assert!(media.accepted && media.send && !media.receive);
    }
}

#[test]
fn firefox_gives_the_fingerprint_once_for_all() {
    for media in answered("firefox_call", &can()).media {
        assert_eq!(media.fingerprints.len(), 1);
        assert_eq!(media.fingerprints[0].1[0], 0xa4);
    }
}

#[test]
fn a_bundle_only_section_lives_on_the_first_ones_transport() {
    let negotiated = answered("chrome_max_bundle", &can());
    assert_eq!(live(&negotiated.local), [true, true]);
    let video = &negotiated.media[1];
    assert!(video.accepted && video.bundled && video.rtcp_mux);
    assert_eq!(video.ice, negotiated.media[0].ice);
    assert_eq!(video.fingerprints, negotiated.media[0].fingerprints);
    assert!(negotiated.local.media[1].has("rtcp-mux"));
}

#[test]
fn without_a_group_each_section_has_its_own_transport() {
    for name in ["no_bundle", "old_savpf"] {
        let negotiated = answered(name, &can());
        assert_eq!(negotiated.media.iter().map(|m| m.transport).collect::<Vec<_>>(), [0, 1]);
        assert!(negotiated.media.iter().all(|m| m.accepted && !m.bundled));
        let ufrags: Vec<_> =
            negotiated.local.media.iter().flat_map(|section| section.values("ice-ufrag")).collect();
        assert_eq!(ufrags, ["aaaa", "bbbb"]);
    }
}

#[test]
fn the_second_section_of_a_kind_is_refused_unless_there_is_room() {
    assert_eq!(live(&answered("two_videos", &can()).local), [true, true, false]);
    let room = Capabilities { video_lines: 2, ..can() };
    assert_eq!(live(&answered("two_videos", &room).local), [true, true, true]);
}

#[test]
fn a_version_alone_is_an_offer_of_nothing() {
    for text in ["v=0", "v=0\r\n", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nt=0 0\n"] {
        let negotiated = answer(&parse(text).expect("parses"), &can(), &local()).expect("answer");
        assert_eq!(
            negotiated.local.to_string(),
            "v=0\r\no=- 3990000000 3990000000 IN IP4 0.0.0.0\r\ns=Kurento Media Server\r\n\
             c=IN IP4 0.0.0.0\r\nt=0 0\r\n"
        );
    }
}

/// An audio section with these lines, offered to a server with `can()`.
fn answer_to_audio(lines: &str) -> Negotiated {
    let text = format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF {lines}\r\na=mid:a\r\n");
    answer(&parse(&text).expect("parses"), &can(), &local()).expect("answer")
}

#[test]
fn without_a_common_codec_the_section_is_refused_with_its_first_format() {
    let negotiated = answer_to_audio("9 13\r\na=rtpmap:9 G722/8000");
    let section = &negotiated.local.media[0];
    assert_eq!((section.port, &section.formats[..]), (0, &["9".to_owned()][..]));
    assert!(!negotiated.media[0].accepted && !section.has("rtpmap"));
    assert!(section.has("ssrc") && section.has("fingerprint"));
}

#[test]
fn static_payload_types_need_no_rtpmap_and_get_none() {
    let negotiated = answer_to_audio("8 0");
    assert_eq!(negotiated.local.media[0].formats, ["8", "0"]);
    assert_eq!(negotiated.media[0].formats[0].1.codec, Codec::Pcma);
    assert!(!negotiated.local.media[0].has("rtpmap"));
}

#[test]
fn setup_is_answered_by_the_other_role() {
    for (offered, ours) in [
        ("actpass", Setup::Active),
        ("active", Setup::Passive),
        ("passive", Setup::Active),
        ("holdconn", Setup::Active),
    ] {
        let negotiated = answer_to_audio(&format!("0\r\na=setup:{offered}"));
        assert_eq!(negotiated.media[0].setup, ours, "{offered}");
        let said: Vec<_> = negotiated.local.media[0].values("setup").collect();
        assert_eq!(said, [ours.name()]);
    }
}

#[test]
fn directions_are_mirrored_and_may_stand_in_the_session() {
    for (offered, send, receive) in
        [("sendrecv", true, true), ("sendonly", false, true), ("inactive", false, false)]
    {
        let in_media = answer_to_audio(&format!("0\r\na={offered}"));
        let text = format!("v=0\na={offered}\nm=audio 9 RTP/SAVPF 0\n");
        let in_session = answer(&parse(&text).expect("parses"), &can(), &local()).expect("answer");
        for media in [&in_media.media[0], &in_session.media[0]] {
            assert_eq!((media.send, media.receive), (send, receive), "{offered}");
        }
    }
}

#[test]
fn attributes_after_bandwidth_and_bandwidth_after_attributes_are_read() {
    let negotiated = answer_to_audio("0\r\nb=TIAS:96000\r\na=ptime:20\r\nb=AS:128\r\nq=?\r\n?");
    assert_eq!(negotiated.media[0].max_bandwidth, Some(96));
    assert!(negotiated.local.media[0].has("ptime"));
}

#[test]
fn wildcard_feedback_and_unknown_feedback_are_dropped() {
    let lines = "96\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:* nack\r\na=rtcp-fb:96 transport-cc\r\n\
                 a=rtcp-fb:96 nack pli";
    let text = format!("v=0\r\nm=video 9 RTP/SAVPF {lines}\r\n");
    let negotiated = answer(&parse(&text).expect("parses"), &can(), &local()).expect("answer");
    let kept: Vec<_> = negotiated.local.media[0].values("rtcp-fb").collect();
    assert_eq!(kept, ["96 nack pli"]);
    assert!(negotiated.media[0].pli && !negotiated.media[0].nack);
}

#[test]
fn data_is_taken_in_its_present_and_its_old_form_and_only_when_on() {
    let negotiated = answered("chrome_data", &with_data());
    assert!(negotiated.media[2].accepted);
    assert_eq!(negotiated.media[2].sctp_port, Some(5_000));
    assert_eq!(negotiated.media[2].max_message, Some(262_144));
    assert_eq!(live(&answered("chrome_data", &can()).local), [true, true, false]);
    let old = parse("v=0\nm=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 256\n")
        .expect("parses");
    let answered = answer(&old, &with_data(), &local()).expect("answer");
    assert_eq!(answered.media[0].sctp_port, Some(5_000));
    assert_eq!(answered.media[0].max_message, Some(65_536));
    let text = answered.local.to_string();
    assert!(text.contains("m=application 1 DTLS/SCTP 5000\r\n"), "{text}");
    assert!(text.contains("a=sctpmap:5000 webrtc-datachannel 1024\r\n"), "{text}");
    assert!(!text.contains("sctp-port") && !text.contains("max-message-size"), "{text}");
    assert_eq!(live(&answer(&old, &can(), &local()).expect("answer").local), [false]);
    for other in ["a=sctpmap:5001 webrtc-datachannel", "a=sctpmap:5000 other", "a=mid:0"] {
        let text = format!("v=0\nm=application 9 DTLS/SCTP 5000\n{other}\n");
        let offer = parse(&text).expect("parses");
        let refused = answer(&offer, &with_data(), &local()).unwrap_err();
        assert_eq!(refused, SdpError::DataSection(0), "{other}");
    }
}

#[test]
fn a_browser_accepts_what_we_offer() {
    let ours = offer(&with_data(), &local(), &OfferWishes::default()).expect("offer");
    // Any answerer will do, so the other side is another one of us, one that cannot do Opus.
    let other = Capabilities { audio: vec![Codec::Pcma], ..with_data() };
    let theirs = answer(&ours, &other, &local()).expect("answer");
    let media = accept(&ours, &theirs.local, &with_data()).expect("accepts");
    assert_eq!(media.len(), 3);
    assert!(media.iter().all(|m| m.accepted && m.bundled && m.setup == Setup::Passive));
    assert_eq!(media[0].formats.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [8]);
    assert_eq!(media[1].formats[0].0, 102);
    assert!(media[1].send && media[1].receive && media[1].nack && media[1].remb);
    assert_eq!(media[1].extensions.get(Extension::AbsSendTime), Some(3));
    assert_eq!(media[1].local_ssrc, 1_002);
    assert_eq!(media[1].remote_ssrcs, [1_002]);
}

#[test]
fn an_answer_decides_direction_numbers_and_refusals() {
    let ours = offer(&can(), &local(), &OfferWishes::default()).expect("offer");
    let answer = parse(
        "v=0\na=group:BUNDLE audio0\nm=audio 9 RTP/SAVPF 96 77\na=rtpmap:96 opus/48000/2\n\
         a=rtpmap:77 PCMU/8000\na=mid:audio0\na=recvonly\na=setup:passive\n\
         m=video 0 RTP/SAVPF 104\na=mid:video0\n",
    )
    .expect("parses");
    let media = accept(&ours, &answer, &can()).expect("accepts");
    assert!(media[0].send && !media[0].receive);
    assert_eq!(media[0].setup, Setup::Active);
    assert_eq!(media[0].formats.len(), 1);
    assert!(!media[1].accepted);
    let short = parse("v=0\n").expect("parses");
    assert_eq!(
        accept(&ours, &short, &can()).unwrap_err(),
        SdpError::SectionCount { offered: 2, answered: 0 }
    );
}

#[test]
fn many_lines_use_numbers_again_for_the_same_codecs_only() {
    let many = Capabilities { audio_lines: 8, video_lines: 8, ..can() };
    let local = Local { ssrcs: (0..16).collect(), ..local() };
    let offer = offer(&many, &local, &OfferWishes::default()).expect("offer");
    let mut maps = std::collections::BTreeMap::new();
    for map in offer.media.iter().flat_map(|section| section.values("rtpmap")) {
        let (number, codec) = map.split_once(' ').expect("number and codec");
        let number: u8 = number.parse().expect("a payload type");
        assert!((96..128).contains(&number));
        assert_eq!(*maps.entry(number).or_insert(codec), codec);
    }
}

#[test]
fn unreadable_and_unversioned_texts_are_told_apart() {
    let error = |text: &str| parse(text).unwrap_err();
    for text in ["", "garbage", "m=audio", "v=1\r\n", "s=x\r\nv\r\n"] {
        assert!(error(text).is_invalid(), "{text}");
    }
    assert_eq!(error("v=0\nm=audio\n"), SdpError::MediaLine(2));
    assert_eq!(error("v=0\nm=audio 70000 RTP/AVP 0\n"), SdpError::MediaLine(2));
    assert_eq!(error(&format!("v=0\n{}", "a=x\n".repeat(MAX_LINES))), SdpError::TooManyLines);
    let formats = " 0".repeat(MAX_FORMATS + 1);
    assert_eq!(error(&format!("v=0\nm=audio 9 RTP/AVP{formats}\n")), SdpError::MediaLine(2));
    let sections = "m=audio 9 RTP/AVP 0\n".repeat(MAX_SECTIONS + 1);
    assert_eq!(error(&format!("v=0\n{sections}")), SdpError::TooManySections);
    assert_eq!(error(&"v".repeat(MAX_BYTES + 1)), SdpError::TooLong(MAX_BYTES + 1));
}

#[test]
fn a_trickled_candidate_is_noted_in_its_section() {
    let mut remote = read("chrome_call.offer.sdp");
    assert!(remote.add_candidate(1, "candidate:1 1 udp 1 192.0.2.1 5 typ host"));
    assert!(!remote.add_candidate(2, "candidate:1 1 udp 1 192.0.2.1 5 typ host"));
    assert!(!remote.add_candidate(0, "candidate:1\r\na=x"));
    assert!(remote.to_string().ends_with("a=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n"));
}

#[test]
fn groups_number_their_transports_in_order_of_use() {
    let text = "v=0\na=group:LS a b\na=group:BUNDLE c b\nm=audio 9 RTP/SAVPF 0\na=mid:a\n\
                m=audio 9 RTP/SAVPF 0\na=mid:b\nm=audio 0 RTP/SAVPF 0\n\
                m=audio 9 RTP/SAVPF 0\na=mid:c\nm=audio 9 RTP/SAVPF 0\n";
    let layout = Layout::of(&parse(text).expect("parses"));
    let transports: Vec<_> = layout.sections.iter().map(|place| place.transport).collect();
    assert_eq!((layout.transports, transports), (3, vec![0, 1, 0, 1, 2]));
    assert_eq!((layout.sections[1].owner, layout.sections[1].bundled), (3, true));
}

prop_compose! {
    fn attribute()(name in "[a-z][a-z-]{0,9}", value in proptest::option::of("[ -~é]{0,30}"))
        -> Attribute { Attribute { name, value } }
}

prop_compose! {
    fn section()(
        media in "[a-z]{1,11}", port: u16, port_count in 0u16..4, proto in "[A-Z/]{1,12}",
        formats in prop::collection::vec("[!-~]{1,6}", 0..6),
        title in proptest::option::of("[ -~]{0,12}"),
        connection in proptest::option::of("[ -~]{0,12}"),
        bandwidths in prop::collection::vec("[ -~]{0,9}", 0..3),
        attributes in prop::collection::vec(attribute(), 0..9),
    ) -> MediaSection {
        MediaSection {
            media, port, port_count, proto, formats, title, connection, bandwidths, attributes,
        }
    }
}

prop_compose! {
    fn description()(
        origin in proptest::option::of("[ -~]{0,12}"),
        name in proptest::option::of("[ -~]{0,12}"),
        details in prop::collection::vec((prop::sample::select(vec!['i', 'u', 'e', 'p']), "[ -~]{0,9}"), 0..3),
        connection in proptest::option::of("[ -~]{0,12}"),
        bandwidths in prop::collection::vec("[ -~]{0,9}", 0..3),
        times in prop::collection::vec((prop::sample::select(vec!['t', 'r', 'z', 'k']), "[ -~]{0,9}"), 0..3),
        attributes in prop::collection::vec(attribute(), 0..9),
        media in prop::collection::vec(section(), 0..5),
    ) -> Description {
        Description {
            session: SessionSection {
                origin, name, details, connection, bandwidths, times, attributes,
            },
            media,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(description in description()) {
        prop_assert_eq!(parse(&description.to_string()), Ok(description));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(v=0[\r\n])?(([a-z]=)?\\PC{0,20}[\r\n]{1,2}){0,20}") {
        if let Ok(description) = parse(&text) {
            let _ = answer(&description, &with_data(), &local());
            let _ = accept(&description, &description, &with_data());
        }
    }

    #[test]
    fn a_mutilated_offer_never_panics(
        name in prop::sample::select(vec!["chrome_data", "firefox_call", "chrome_max_bundle"]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), "\\PC{0,3}"), 1..20),
    ) {
        let text = std::fs::read_to_string(golden(&format!("{name}.offer.sdp"))).expect("golden");
        let mut characters: Vec<char> = text.chars().collect();
        for (at, with) in cuts {
            let at = at.index(characters.len());
            characters.splice(at..at + 1, with.chars());
            if characters.is_empty() { return Ok(()); }
        }
        if let Ok(description) = parse(&characters.into_iter().collect::<String>()) {
            if let Ok(negotiated) = answer(&description, &with_data(), &local()) {
                let text = negotiated.local.to_string();
                prop_assert_eq!(parse(&text), Ok(negotiated.local.clone()));
                let _ = negotiated.local.with_candidates(&[vec![text]]);
            }
            let ours = offer(&with_data(), &local(), &OfferWishes::default()).expect("offer");
            let _ = accept(&ours, &description, &with_data());
        }
    }
}

mod plain {
    use super::super::plain::*;
    use super::*;

    fn can() -> Capabilities {
        Capabilities {
            audio: vec![Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::Amr],
            video: vec![Codec::H265, Codec::Av1, Codec::Vp9, Codec::Vp8, Codec::H264],
            data: false,
            audio_lines: 1,
            video_lines: 1,
            extras: Extras::NONE,
        }
    }

    fn local() -> PlainLocal {
        PlainLocal {
            session_id: 3_990_000_000,
            cname: "user1@host-1".to_owned(),
            address: [192, 0, 2, 2].into(),
            crypto: None,
            ssrcs: (1_001..1_020).collect(),
        }
    }

    fn key(suite: Suite, first: u8) -> Crypto {
        let key = (first..).take(suite.key_len()).collect();
        Crypto { tag: 1, suite, key, lifetime: None }
    }

    fn sealed(suite: Suite) -> PlainLocal {
        PlainLocal { crypto: Some(key(suite, 1)), ..local() }
    }

    const HEAD: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n";

    fn ports(section: usize) -> Option<(u16, u16)> {
        let rtp = 5_000 + 2 * section as u16;
        Some((rtp, rtp + 1))
    }

    fn answered(sections: &str, local: &PlainLocal) -> PlainNegotiated {
        let offer = parse(&format!("{HEAD}{sections}")).expect("a description");
        answer_plain(&offer, &can(), local, ports).expect("an answer")
    }

    fn at(text: &str) -> Option<std::net::SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn descriptions_of_plain_rtp_stay_as_they_are() {
        let offer = offer_plain(&can(), &local(), &OfferWishes::default(), ports).expect("offer");
        check("own/rtp.offer.sdp", &offer.to_string());
        let local_sealed = sealed(Suite::Aes128Sha1_80);
        let wishes = OfferWishes {
            max_audio_bandwidth: Some(40),
            max_video_bandwidth: Some(900),
            ..OfferWishes::default()
        };
        let secure = offer_plain(&can(), &local_sealed, &wishes, ports).expect("offer");
        check("own/rtp_keys.offer.sdp", &secure.to_string());
        let answer = answer_plain(&offer, &can(), &local(), ports).expect("answer");
        check("own/rtp.answer.sdp", &answer.local.to_string());
        let other = PlainLocal { crypto: Some(key(Suite::Aes128Sha1_80, 77)), ..local() };
        let answer = answer_plain(&secure, &can(), &other, ports).expect("answer");
        check("own/rtp_keys.answer.sdp", &answer.local.to_string());
    }

    #[test]
    fn an_offer_and_its_answer_mean_the_same_to_both_sides() {
        let wishes = OfferWishes::default();
        for suite in Suite::ALL {
            let (ours, theirs) =
                (sealed(suite), PlainLocal { address: [192, 0, 2, 9].into(), ..sealed(suite) });
            let offer = offer_plain(&can(), &ours, &wishes, ports).expect("offer");
            let offer = parse(&offer.to_string()).expect("reads");
            let answer = answer_plain(&offer, &can(), &theirs, ports).expect("answer");
            let text = parse(&answer.local.to_string()).expect("reads");
            let accepted = accept_plain(&offer, &text, &can(), &ours).expect("accepted");
            for (answered, accepted) in answer.media.iter().zip(&accepted) {
                assert!(answered.media.accepted && accepted.media.accepted);
                assert_eq!(answered.media.formats, accepted.media.formats);
                assert_eq!(answered.media.nack, accepted.media.nack);
                assert_eq!(answered.media.remb, accepted.media.remb);
                assert_eq!(answered.crypto, ours.crypto);
                assert_eq!(accepted.crypto, theirs.crypto);
            }
            assert_eq!(answer.media[1].remote.rtp, at("192.0.2.2:5002"));
            assert_eq!(accepted[1].remote.rtcp, at("192.0.2.9:5003"));
        }
    }

    #[test]
    fn feedback_is_for_profiles_that_have_it() {
        let section = |proto: &str| {
            format!(
                "m=video 41002 {proto} 97\r\na=rtpmap:97 VP8/90000\r\na=rtcp-fb:97 nack\r\n\
                 a=rtcp-fb:97 nack pli\r\na=rtcp-fb:97 ccm fir\r\na=rtcp-fb:97 goog-remb\r\n"
            )
        };
        let plain = &answered(&section("RTP/AVP"), &local());
        let media = &plain.media[0].media;
        assert!(!(media.nack || media.pli || media.fir || media.remb));
        assert!(!plain.local.to_string().contains("rtcp-fb"));
        let media = answered(&section("RTP/AVPF"), &local()).media.remove(0).media;
        assert!(media.nack && media.pli && media.fir && media.remb);
    }

    #[test]
    fn a_section_of_the_other_kind_of_security_is_refused() {
        let plain = "m=video 41002 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\n";
        let secure = "m=video 41002 RTP/SAVP 97\r\na=rtpmap:97 VP8/90000\r\n\
             a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk\r\n";
        let browser = "m=video 9 UDP/TLS/RTP/SAVPF 97\r\na=rtpmap:97 VP8/90000\r\n";
        for (sections, local) in [
            (secure, local()),
            (browser, local()),
            (plain, sealed(Suite::Aes128Sha1_80)),
            (browser, sealed(Suite::Aes128Sha1_80)),
        ] {
            let answer = answered(sections, &local);
            assert!(!answer.media[0].media.accepted);
            assert!(answer.local.to_string().ends_with(" 97\r\na=inactive\r\n"), "{sections}");
            assert_eq!(answer.local.media[0].port, 0);
        }
    }

    #[test]
    fn the_key_of_our_suite_is_taken_whichever_line_it_is_in() {
        let own = sealed(Suite::Aes256Sha1_80);
        let lines =
            [key(Suite::Aes128Sha1_80, 9), Crypto { tag: 4, ..key(Suite::Aes256Sha1_80, 9) }]
                .map(|crypto| format!("a=crypto:{}\r\n", crypto.value()));
        let section = "m=audio 41000 RTP/SAVP 0\r\n";
        let answer = answered(&format!("{section}{}{}", lines[0], lines[1]), &own);
        assert_eq!(answer.media[0].crypto, Some(Crypto { tag: 4, ..key(Suite::Aes256Sha1_80, 9) }));
        let said = Crypto { tag: 4, ..key(Suite::Aes256Sha1_80, 1) };
        assert!(answer.local.to_string().contains(&format!("a=crypto:{}\r\n", said.value())));
        let offer = parse(&format!("{HEAD}{section}{}", lines[0])).expect("a description");
        let refused = answer_plain(&offer, &can(), &own, ports);
        assert_eq!(refused.err(), Some(SdpError::NoKey(0)));
    }

    #[test]
    fn an_active_side_is_to_be_learnt() {
        let section =
            |direction: &str| format!("m=audio 9 RTP/AVP 0\r\na=direction:{direction}\r\n");
        for (theirs, ours, learns) in
            [("active", "passive", true), ("passive", "active", false), ("both", "active", false)]
        {
            let answer = answered(&section(theirs), &local());
            assert_eq!(answer.media[0].learns, learns);
            assert!(answer.local.to_string().contains(&format!("a=direction:{ours}\r\n")));
        }
        assert!(!answered("m=audio 9 RTP/AVP 0\r\n", &local()).media[0].learns);
    }

    #[test]
    fn addresses_are_those_of_the_section_and_of_its_rtcp() {
        let remote = |section: &str| answered(section, &local()).media[0].remote.clone();
        let plain = remote("m=audio 41000 RTP/AVP 0\r\n");
        assert_eq!((plain.rtp, plain.rtcp), (at("127.0.0.1:41000"), at("127.0.0.1:41001")));
        let own = remote("m=audio 41000 RTP/AVP 0\r\nc=IN IP6 2001:db8::7\r\na=rtcp:50001\r\n");
        assert_eq!((own.rtp, own.rtcp), (at("[2001:db8::7]:41000"), at("[2001:db8::7]:50001")));
        let apart = remote("m=audio 41000 RTP/AVP 0\r\na=rtcp:50001 IN IP4 192.0.2.77\r\n");
        assert_eq!(apart.rtcp, at("192.0.2.77:50001"));
        for nowhere in [
            "IP4 0.0.0.0",
            "IP4 224.2.1.1/127",
            "IP4 255.255.255.255",
            "IP4 192.0.2.300",
            "IP4 -media.example",
            "IP4 media..example",
            "IP4 media!",
            "IP6 ::",
            "x",
        ] {
            let none = remote(&format!("m=audio 41000 RTP/AVP 0\r\nc=IN {nowhere}\r\n"));
            assert_eq!(none, PlainRemote::default(), "{nowhere}");
        }
        let last = remote("m=audio 65535 RTP/AVP 0\r\n");
        assert_eq!((last.rtp, last.rtcp), (at("127.0.0.1:65535"), None));
        let named = |lines: &str| {
            let remote = remote(&format!("m=audio 41000 RTP/AVP 0\r\nc=IN {lines}\r\n"));
            assert_eq!((remote.address, remote.rtp, remote.rtcp), (None, None, None));
            remote.named.map(|named| (named.name, named.rtp, named.rtcp))
        };
        let name = "media-1.example".to_owned();
        assert_eq!(named("IP4 media-1.example"), Some((name.clone(), 41_000, Some(41_001))));
        assert_eq!(named("IP6 media-1.example\r\na=rtcp:5"), Some((name, 41_000, Some(5))));
        assert_eq!(named(&format!("IP4 {}", "a.".repeat(200))), None);
    }

    #[test]
    fn ports_are_taken_only_for_what_is_accepted() {
        let mut asked = Vec::new();
        let offer = parse(&format!(
            "{HEAD}m=audio 41000 RTP/AVP 0\r\nm=audio 41002 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n\
             a=rtpmap:96 VP8/90000\r\nm=video 41006 RTP/AVP 96\r\na=rtpmap:96 theora/90000\r\n\
             m=text 41008 RTP/AVP 98\r\n"
        ))
        .expect("a description");
        let answer = answer_plain(&offer, &can(), &local(), |section| {
            asked.push(section);
            ports(section)
        })
        .expect("an answer");
        assert_eq!(asked, [0]);
        assert_eq!(live(&answer.local), [true, false, false, false, false]);
        let none = answer_plain(&offer, &can(), &local(), |_| None);
        assert_eq!(none.err(), Some(SdpError::NoPorts));
    }

    #[test]
    fn h264_written_by_hand_is_taken_to_be_fragmented() {
        let mode = |fmtp: &str| {
            let section = format!("m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n{fmtp}");
            answered(&section, &local()).media[0].media.formats[0].1.profile >> 16
        };
        assert_eq!(mode(""), 1);
        assert_eq!(mode("a=fmtp:96 profile-level-id=42e01f\r\n"), 1);
        assert_eq!(mode("a=fmtp:96 packetization-mode=0\r\n"), 0);
    }
}

/// With the candidates that came later.
#[test]
fn a_description_that_is_stored_is_read_as_it_was() {
    let mut seen = 0;
    for file in std::fs::read_dir(golden("")).expect("golden files") {
        let path = file.expect("a file").path();
        let Ok(description) = parse(&std::fs::read_to_string(&path).unwrap_or_default()) else {
            continue;
        };
        let mut stored = Stored::new(&description);
        assert_eq!(stored.read(), description, "{path:?}");
        assert_eq!(stored.to_string(), description.to_string());
        let line = "candidate:1 1 UDP 1 192.0.2.1 9 typ host";
        stored.add_candidate(0, line);
        stored.add_candidate(0, "candidate:2\r\na=evil");
        let mut told = description;
        assert!(told.add_candidate(0, line));
        assert_eq!((stored.told(0), stored.to_string()), (1, told.to_string()), "{path:?}");
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}

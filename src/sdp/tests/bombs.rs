//! Descriptions made to hurt: an error, or an answer no larger than what was asked.

use super::*;

fn error(text: &str) -> SdpError {
    parse(text).expect_err("too much")
}

/// Answers, reads the answer again, and holds it against the offer.
fn bounded(text: &str) -> Negotiated {
    let offered = parse(text).expect("parses");
    let negotiated = answer(&offered, &everything(), &local()).expect("answers");
    check_bounds(&offered, &negotiated);
    negotiated
}

fn everything() -> Capabilities {
    Capabilities { extras: Extras { encodings: 3, ..Extras::FORWARDED }, ..with_data() }
}

fn check_bounds(offered: &Description, negotiated: &Negotiated) {
    let text = negotiated.local.to_string();
    assert_eq!(parse(&text).as_ref(), Ok(&negotiated.local));
    assert_eq!(negotiated.local.media.len(), offered.media.len());
    for (ours, theirs) in negotiated.local.media.iter().zip(&offered.media) {
        assert!(ours.formats.len() <= theirs.formats.len(), "{:?}", ours.formats);
        // Our own of each section: address, transport, sources, and roles.
        assert!(ours.attributes.len() <= theirs.attributes.len() + 12, "{ours:?}");
    }
    // The offer's words once, and of ours a bounded number for each section.
    assert!(text.len() <= offered.to_string().len() + 1_000 * (offered.media.len() + 1));
}

fn section(lines: &str) -> String {
    format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:v\na=rtpmap:96 VP8/90000\n{lines}")
}

#[test]
fn ten_megabytes_are_refused_unread() {
    let text = section(&"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\n".repeat(250_000));
    assert!(text.len() > 10_000_000);
    assert_eq!(error(&text), SdpError::TooLong(text.len()));
    assert_eq!(error(&"\n".repeat(10_000_000)), SdpError::TooLong(10_000_000));
}

#[test]
fn ten_thousand_sections_are_refused() {
    let sections = "m=video 9 RTP/SAVPF 96\n".repeat(10_000);
    assert_eq!(error(&format!("v=0\n{sections}")), SdpError::TooManySections);
    let most = format!("v=0\n{}", "m=video 9 RTP/SAVPF 96\n".repeat(MAX_SECTIONS));
    let live = bounded(&most).media.iter().filter(|media| media.accepted).count();
    assert_eq!(live, 0);
}

#[test]
fn zero_characters_are_refused_wherever_they_are() {
    for text in ["\0", "v=0\0", "v=0\nm=video 9 RTP/SAVPF 96\na=mid:a\0b\n"] {
        assert_eq!(error(text), SdpError::Nul, "{text:?}");
    }
}

#[test]
fn numbers_beyond_their_range_are_refused_or_mean_nothing() {
    for port in ["65536", "-1", "99999999999999999999", "9/70000", "0x9", ""] {
        let text = format!("v=0\nm=video {port} RTP/SAVPF 96\n");
        assert!(matches!(error(&text), SdpError::MediaLine(2)), "{port}");
    }
    let much = "4".repeat(40);
    let negotiated = bounded(&format!(
        "v=0\nb=AS:{much}\nm=video 9 UDP/TLS/RTP/SAVPF 96 256 128 {much}\nb=AS:{much}\n\
         b=TIAS:-1\na=rtpmap:96 VP8/90000\na=rtpmap:{much} VP8/90000\na=rtpmap:128 VP8/90000\n\
         a=rtpmap:97 VP8/{much}\na=fmtp:96 max-fs={much};profile-id={much}\na=extmap:{much} x\n\
         a=ssrc:{much} cname:x\na=ssrc-group:FID {much} {much}\na=rtcp-fb:{much} nack\n\
         a=sctp-port:{much}\na=max-message-size:{much}\na=rid:{much} send\n\
         a=simulcast:send {much}\na=ptime:{much}\n"
    ));
    let media = &negotiated.media[0];
    assert!(media.accepted && media.max_bandwidth.is_none() && media.remote_ssrcs.is_empty());
    assert_eq!(media.formats.len(), 1);
}

#[test]
fn a_video_section_with_a_format_of_audio_is_refused() {
    let negotiated = bounded("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 0\na=mid:v\n");
    assert!(!negotiated.media[0].accepted);
    assert_eq!(negotiated.local.media[0].formats, ["0"]);
    let none = bounded("v=0\nm=video 9 UDP/TLS/RTP/SAVPF\nm=audio 9 RTP/SAVPF\n");
    assert!(none.media.iter().all(|media| !media.accepted));
}

#[test]
fn names_that_come_twice_share_a_transport_and_are_grouped_once() {
    let text = "v=0\na=group:BUNDLE x x x\na=group:BUNDLE x\nm=audio 9 RTP/SAVPF 0\na=mid:x\n\
                m=video 9 RTP/SAVPF 96\na=mid:x\na=rtpmap:96 VP8/90000\n";
    let negotiated = bounded(text);
    assert!(negotiated.media.iter().all(|media| media.accepted && media.transport == 0));
    assert!(negotiated.local.to_string().contains("a=group:BUNDLE x\r\n"));
}

#[test]
fn a_group_of_any_length_names_each_section_once() {
    let mids = " v w".repeat(60_000);
    let negotiated = bounded(&section("").replace("m=", &format!("a=group:BUNDLE{mids}\nm=")));
    assert!(negotiated.local.to_string().contains("a=group:BUNDLE v\r\n"));
    let groups = "a=group:BUNDLE v\n".repeat(1_900);
    bounded(&section("").replace("m=", &format!("{groups}m=")));
}

#[test]
fn of_a_flood_of_extensions_each_is_taken_once() {
    let lines: String = (0..1_900)
        .map(|at| {
            let extension = Extension::ALL[at % Extension::ALL.len()];
            format!("a=extmap:{} {}\n", at % 300, extension.uri())
        })
        .collect();
    let negotiated = bounded(&section(&lines));
    assert!(negotiated.local.media[0].values("extmap").count() <= Extension::ALL.len());
}

#[test]
fn a_thousand_retransmissions_are_too_many_and_of_the_most_one_is_taken() {
    let formats =
        |count: usize| -> String { (0..count).map(|at| format!(" {}", at % 300)).collect() };
    let text = format!("v=0\nm=video 9 RTP/SAVPF{}\n", formats(1_000));
    assert_eq!(error(&text), SdpError::MediaLine(2));
    let maps: String = (0..MAX_FORMATS)
        .filter(|number| *number != 96)
        .map(|number| format!("a=rtpmap:{number} rtx/90000\na=fmtp:{number} apt=96\n"))
        .collect();
    let text = format!(
        "v=0\nm=video 9 RTP/SAVPF{}\na=rtpmap:96 VP8/90000\na=rtcp-fb:96 nack\n{maps}",
        formats(MAX_FORMATS)
    );
    assert_eq!(bounded(&text).media[0].rtx.len(), 1);
}

#[test]
fn sources_groups_and_fingerprints_are_bounded() {
    let mut lines = String::new();
    for at in 0..600_u32 {
        lines += &format!("a=ssrc-group:FID {at} {}\na=ssrc:{at} cname:a\n", at + 10_000);
    }
    lines += &format!("a=ssrc-group:SIM{}\n", " 7".repeat(50_000));
    lines += &"a=fingerprint:sha-256 AB\n".repeat(600);
    lines += &format!("a=fingerprint:sha-256 AB{}\n", ":CD".repeat(1_000));
    lines += &format!("a=ice-ufrag:{}\na=ice-pwd:x\n", "u".repeat(1_000));
    let negotiated = bounded(&section(&lines));
    let media = &negotiated.media[0];
    assert!(media.remote_ssrcs.len() <= 32 && media.remote_rtx_ssrcs.len() <= 32);
    assert_eq!((media.fingerprints.len(), &media.ice), (16, &None));
    assert_eq!(media.remote_ssrcs[0], 7);
}

#[test]
fn encodings_without_end_are_bounded() {
    let rids: String = (0..900).map(|at| format!("a=rid:r{at} send pt=96\n")).collect();
    let list: Vec<_> = (0..900).rev().map(|at| format!("r{at}")).collect();
    let text = section(&format!(
        "a=extmap:1 {}\na=extmap:2 {}\n{rids}a=simulcast:send {}\n",
        Extension::Mid.uri(),
        Extension::StreamId.uri(),
        list.join(";")
    ));
    assert!(bounded(&text).media[0].encodings.len() <= 3);
    let alternatives = text.replace(';', ",");
    assert!(bounded(&alternatives).media[0].encodings.len() <= 1);
}

#[test]
fn an_answer_that_could_not_be_read_again_is_none() {
    let times = "a=ptime:20\n".repeat(MAX_LINES - 6);
    let offered = parse(&section(&times)).expect("parses");
    assert_eq!(answer(&offered, &everything(), &local()).unwrap_err(), SdpError::TooManyLines);
    let long = format!("a=lang:{}\n", "x".repeat(MAX_BYTES - 200));
    let offered = parse(&section(&long)).expect("parses");
    let refused = answer(&offered, &everything(), &local()).unwrap_err();
    assert!(matches!(refused, SdpError::TooLong(bytes) if bytes > MAX_BYTES), "{refused}");
}

/// Lines that an offer may be made of, with holes for numbers.
const LINES: [&str; 24] = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 0 8 #",
    "m=video 9 RTP/SAVPF 96 97 # #",
    "m=video 0 UDP/TLS/RTP/SAVPF 96 97",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "m=text 9 RTP/AVP #",
    "a=mid:#",
    "a=group:BUNDLE # # #",
    "a=rtpmap:111 opus/48000/2",
    "a=rtpmap:63 red/48000/2",
    "a=fmtp:63 111/#",
    "a=rtpmap:# VP8/90000",
    "a=rtpmap:# rtx/90000",
    "a=fmtp:# apt=#",
    "a=rtcp-fb:# nack",
    "a=rtcp-fb:# transport-cc",
    "a=extmap:# urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:# urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "a=rid:# send pt=#,96",
    "a=simulcast:send #;~#,#",
    "a=ssrc-group:FID # #",
    "a=ssrc:# cname:c",
    "a=sctp-port:#",
    "a=setup:actpass",
    "a=bundle-only",
];

proptest! {
    #[test]
    fn an_answer_is_never_larger_than_its_offer(
        lines in prop::collection::vec(
            (prop::sample::select(&LINES[..]), prop::collection::vec(90_u16..130, 4)), 0..80),
    ) {
        let mut text = "v=0\n".to_owned();
        for (line, numbers) in lines {
            let mut numbers = numbers.into_iter();
            for (at, part) in line.split('#').enumerate() {
                if at > 0 { text += &numbers.next().expect("enough").to_string(); }
                text += part;
            }
            text.push('\n');
        }
        let offered = parse(&text).expect("parses");
        if let Ok(negotiated) = answer(&offered, &everything(), &local()) {
            check_bounds(&offered, &negotiated);
            for (media, section) in negotiated.media.iter().zip(&offered.media) {
                for (rtx, primary) in &media.rtx {
                    assert!(media.formats.iter().any(|(number, _)| number == primary));
                    assert!(media.formats.iter().all(|(number, _)| number != rtx));
                    assert!(section.formats.contains(&rtx.to_string()));
                }
            }
            let ours = offer(&everything(), &local(), &OfferWishes::default()).expect("offer");
            let _ = accept(&ours, &offered, &everything());
            let _ = accept(&offered, &negotiated.local, &everything());
        }
    }
}

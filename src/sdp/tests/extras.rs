//! What is agreed on beyond what the original knows.

use super::*;
use crate::rtp::Extensions;

/// Of simulcast everything is taken.
fn layered() -> Capabilities {
    Capabilities { extras: Extras { encodings: 3, ..Extras::FORWARDED }, ..can() }
}

fn of(text: &str, capabilities: &Capabilities) -> Negotiated {
    answer(&parse(text).expect("parses"), capabilities, &local()).expect("answer")
}

/// The answer to a section of VP8 with retransmissions, and these lines.
fn video(lines: &str) -> Negotiated {
    let text = format!(
        "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\na=mid:v\na=rtpmap:96 VP8/90000\n\
         a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n{lines}"
    );
    of(&text, &layered())
}

/// By place in [`Extension::ALL`], up to the last that has one.
fn numbers(agreed: &Extensions) -> Vec<Option<u8>> {
    let mut all: Vec<_> =
        Extension::ALL.into_iter().map(|extension| agreed.get(extension)).collect();
    let known = all.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    all.truncate(known);
    all
}

#[test]
fn retransmissions_are_kept_with_what_they_repeat() {
    let negotiated = answered("chrome_call", &forwarding());
    let (video, section) = (&negotiated.media[1], &negotiated.local.media[1]);
    let pairs =
        [(97, 96), (104, 103), (108, 107), (114, 109), (40, 39), (46, 45), (99, 98), (101, 100)];
    assert_eq!(video.rtx, pairs);
    let said = "96 97 103 104 107 108 109 114 39 40 45 46 98 99 100 101";
    assert_eq!(section.formats.join(" "), said);
    assert!(section.values("fmtp").any(|line| line == "97 apt=96"));
    assert!(section.values("rtpmap").any(|line| line == "97 rtx/90000"));
    assert!(section.values("fmtp").all(|line| line != "117 apt=116"));
    assert_eq!(video.remote_rtx_ssrcs, [(2_960_031_184, 804_417_225)]);
    assert_eq!((video.local_ssrc, video.local_rtx_ssrc), (1_002, Some(2_002)));
    let groups: Vec<_> = section.values("ssrc-group").collect();
    assert_eq!(groups, ["FID 1002 2002"]);
    let ssrcs: Vec<_> = section.values("ssrc").collect();
    assert_eq!(ssrcs, ["1002 cname:user1@host-1", "2002 cname:user1@host-1"]);
    assert!(negotiated.media[0].rtx.is_empty() && negotiated.media[0].local_rtx_ssrc.is_none());
}

#[test]
fn only_who_sends_has_a_source_of_retransmissions() {
    let sending = video("a=recvonly\na=rtcp-fb:96 nack\n");
    assert_eq!(sending.media[0].local_rtx_ssrc, Some(2_001));
    let receiving = video("a=sendonly\na=rtcp-fb:96 nack\n");
    assert_eq!(receiving.media[0].rtx, [(97, 96)]);
    assert_eq!(receiving.media[0].local_rtx_ssrc, None);
    assert!(!receiving.local.to_string().contains("FID"));
}

#[test]
fn without_loss_feedback_nothing_is_sent_again() {
    for lines in ["", "a=rtcp-fb:96 nack pli\n"] {
        let negotiated = video(lines);
        assert!(negotiated.media[0].rtx.is_empty(), "{lines}");
        assert_eq!(negotiated.local.media[0].formats, ["96"]);
    }
    let text = "v=0\nm=video 9 RTP/SAVP 96 97\na=rtpmap:96 VP8/90000\na=rtpmap:97 rtx/90000\n\
                a=fmtp:97 apt=96\na=rtcp-fb:96 nack\n";
    assert!(of(text, &forwarding()).media[0].rtx.is_empty());
}

#[test]
fn retransmissions_of_nothing_of_each_other_and_twice_are_dropped() {
    let text = "v=0\nm=video 9 RTP/SAVPF 97 98 99 100 101 102 96 103\na=rtpmap:96 VP8/90000\n\
                a=rtcp-fb:96 nack\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=98\n\
                a=rtpmap:98 RTX/90000\na=fmtp:98 apt=97\na=rtpmap:99 rtx/90000\na=fmtp:99 apt=99\n\
                a=rtpmap:100 rtx/48000\na=fmtp:100 apt=96\na=rtpmap:101 rtx/90000\n\
                a=rtpmap:102 rtx/90000\na=fmtp:102 rtx-time=200; APT = 96\n\
                a=rtpmap:103 rtx/90000\na=fmtp:103 apt=96\n";
    let negotiated = of(text, &forwarding());
    assert_eq!(negotiated.media[0].rtx, [(102, 96)]);
    assert_eq!(negotiated.local.media[0].formats, ["102", "96"]);
}

#[test]
fn feedback_about_the_transport_takes_the_message_and_the_extension() {
    let uri = Extension::TransportSequence.uri();
    let extension = format!("a=extmap:5 {uri}\n");
    let message = "a=rtcp-fb:96 transport-cc\n";
    for (lines, agreed) in [
        (format!("{extension}{message}"), true),
        (message.to_owned(), false),
        (extension.clone(), false),
        (format!("{extension}a=rtcp-fb:98 transport-cc\n"), false),
        (format!("a=extmap:15 {uri}\n{message}"), false),
    ] {
        let negotiated = video(&lines);
        assert_eq!(negotiated.media[0].transport_cc, agreed, "{lines}");
        let text = negotiated.local.to_string();
        assert_eq!(text.contains("transport-cc"), agreed, "{text}");
        assert_eq!(text.contains(uri), agreed, "{text}");
    }
}

#[test]
fn receivers_make_the_estimate_where_nobody_here_does() {
    let uri = Extension::TransportSequence.uri();
    let extras = Extras { estimates: false, ..Extras::FORWARDED };
    let none = Capabilities { extras, ..can() };
    for (direction, agreed) in [("sendonly", true), ("sendrecv", false), ("recvonly", false)] {
        let text = format!(
            "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=rtpmap:96 VP8/90000\na=extmap:3 {uri}\n\
             a=rtcp-fb:96 transport-cc\na={direction}\n"
        );
        let negotiated = of(&text, &none);
        assert_eq!(negotiated.media[0].transport_cc, agreed, "{direction}");
        assert_eq!(negotiated.local.to_string().contains("transport-cc"), agreed, "{direction}");
    }
    let ours = offer(&none, &local(), &OfferWishes::default()).expect("offer");
    assert!(!ours.to_string().contains("transport-"));
}

#[test]
fn extensions_keep_their_numbers_and_their_order() {
    let negotiated = answered("chrome_call", &layered());
    let audio = numbers(&negotiated.media[0].extensions);
    assert_eq!(audio, [Some(2), Some(3), Some(4), None, None, Some(1)]);
    let lines: Vec<_> = negotiated.local.media[0].values("extmap").collect();
    let order: Vec<_> = lines.iter().map(|line| &line[..2]).collect();
    assert_eq!(order, ["1 ", "2 ", "3 ", "4 "]);
    assert!(negotiated.local.session.attributes.iter().any(|a| a.name == "extmap-allow-mixed"));
}

#[test]
fn numbers_of_the_long_form_and_those_that_come_twice_are_not_taken() {
    let (mid, time) = (Extension::Mid.uri(), Extension::AbsSendTime.uri());
    let capture = Extension::AbsCaptureTime.uri();
    let lines = format!(
        "a=extmap:15 {mid}\na=extmap:0 {mid}\na=extmap:256 {mid}\na=extmap:4 {time}\n\
         a=extmap:5 {time}\na=extmap:4 {capture}\na=extmap:x {capture}\na=extmap:{capture}\n"
    );
    let negotiated = video(&lines);
    let lines: Vec<_> = negotiated.local.media[0].values("extmap").collect();
    assert_eq!(lines, [format!("4 {time}")]);
}

#[test]
fn directions_of_extensions_are_mirrored() {
    let (mid, time) = (Extension::Mid.uri(), Extension::AbsSendTime.uri());
    let capture = Extension::AbsCaptureTime.uri();
    let negotiated = video(&format!(
        "a=extmap:1/sendonly {time}\na=extmap:2/recvonly {mid}\na=extmap:3/inactive {capture}\n"
    ));
    let lines: Vec<_> = negotiated.local.media[0].values("extmap").collect();
    assert_eq!(lines, [format!("1/recvonly {time}"), format!("2/sendonly {mid}")]);
    let agreed = negotiated.media[0].extensions;
    let numbers = |of: Extensions| [Extension::AbsSendTime, Extension::Mid].map(|one| of.get(one));
    assert_eq!(numbers(agreed), [Some(1), Some(2)]);
    assert_eq!(
        numbers(agreed.written()),
        [None, Some(2)],
        "what they only send is not for us to write"
    );
}

#[test]
fn loudness_is_for_audio_and_names_of_sections_for_those_that_have_one() {
    let (mid, level) = (Extension::Mid.uri(), Extension::AudioLevel.uri());
    let lines = format!("a=extmap:1 {mid}\na=extmap:2 {level}\n");
    let agreed = &video(&lines).media[0].extensions;
    assert_eq!((agreed.get(Extension::Mid), agreed.get(Extension::AudioLevel)), (Some(1), None));
    let audio = of(&format!("v=0\nm=audio 9 RTP/SAVPF 0\n{lines}"), &forwarding());
    let agreed = &audio.media[0].extensions;
    assert_eq!((agreed.get(Extension::Mid), agreed.get(Extension::AudioLevel)), (None, Some(2)));
}

#[test]
fn redundant_audio_is_taken_where_it_repeats_opus() {
    let answer_to = |fmtp: &str| {
        let text = format!(
            "v=0\nm=audio 9 RTP/SAVPF 63 111 0\na=rtpmap:111 opus/48000/2\n\
             a=rtpmap:63 red/48000/2\n{fmtp}"
        );
        of(&text, &forwarding())
    };
    let negotiated = answer_to("a=fmtp:63 111/111\n");
    assert_eq!(negotiated.local.media[0].formats, ["63", "111", "0"]);
    let codecs: Vec<_> = negotiated.media[0].formats.iter().map(|(_, f)| f.codec).collect();
    assert_eq!(codecs, [Codec::Red, Codec::Opus, Codec::Pcmu]);
    assert!(negotiated.local.to_string().contains("a=fmtp:63 111/111\r\n"));
    for fmtp in ["", "a=fmtp:63 0/0\n", "a=fmtp:63 111/0\n", "a=fmtp:63 63/63\n", "a=fmtp:63 /\n"] {
        assert_eq!(answer_to(fmtp).local.media[0].formats, ["111", "0"], "{fmtp}");
    }
    let safari = answered("safari_call", &can());
    assert_eq!(safari.local.media[0].formats, ["111", "0", "8"]);
}

fn rids(negotiated: &Negotiated) -> Vec<String> {
    negotiated.media[0].encodings.iter().map(|encoding| encoding.rid.clone()).collect()
}

#[test]
fn layers_are_described_beside_the_payload_only_where_it_says_nothing_of_them() {
    let uri = Extension::DependencyDescriptor.uri();
    let can = Capabilities { video: vec![Codec::Vp8, Codec::Av1], ..layered() };
    for (formats, direction, agreed) in [
        ("45 96", "sendonly", Some(9)),
        ("45 96", "sendrecv", Some(9)),
        ("45 96", "recvonly", None),
        ("96 45", "sendonly", None),
    ] {
        let text = format!(
            "v=0\nm=video 9 UDP/TLS/RTP/SAVPF {formats}\na=rtpmap:96 VP8/90000\n\
             a=rtpmap:45 AV1/90000\na=extmap:9 {uri}\na={direction}\n"
        );
        let negotiated = of(&text, &can);
        let number = negotiated.media[0].extensions.get(Extension::DependencyDescriptor);
        assert_eq!(number, agreed, "{formats} {direction}");
        assert_eq!(negotiated.local.to_string().contains(uri), agreed.is_some());
    }
}

#[test]
fn encodings_without_names_are_those_of_their_group() {
    let negotiated = video(
        "a=ssrc-group:SIM 1 2 3\na=ssrc-group:FID 1 11\na=ssrc-group:FID 2 12\n\
         a=ssrc:1 cname:a\na=ssrc:2 cname:a\na=ssrc:11 cname:a\na=ssrc:12 cname:a\n",
    );
    let media = &negotiated.media[0];
    assert_eq!(media.remote_encodings, [1, 2], "the third is not announced");
    assert_eq!(media.remote_rtx_ssrcs, [(11, 1), (12, 2)]);
    let alone = video("a=ssrc-group:SIM 1\na=ssrc:1 cname:a\n");
    assert!(alone.media[0].remote_encodings.is_empty());
}

#[test]
fn as_many_encodings_are_taken_as_can_be_forwarded() {
    for (encodings, expected) in [(3, "q;h;f"), (2, "q;h"), (1, "q"), (0, "")] {
        let extras = Extras { encodings, ..Extras::FORWARDED };
        let negotiated = answered("chrome_simulcast", &Capabilities { extras, ..can() });
        assert_eq!(rids(&negotiated).join(";"), expected);
        let text = negotiated.local.to_string();
        let said = format!("a=simulcast:recv {expected}\r\n");
        assert_eq!(text.contains(&said), encodings > 0, "{text}");
        assert_eq!(text.matches("a=rid:").count(), encodings);
        assert_eq!(text.matches(" recv\r\n").count(), encodings);
        let agreed = &negotiated.media[0].extensions;
        assert_eq!(agreed.get(Extension::StreamId).is_some(), encodings > 0);
        assert_eq!(agreed.get(Extension::RepairedStreamId).is_some(), encodings > 0);
        assert!(agreed.get(Extension::Mid).is_some());
    }
    let viewer = answered("chrome_viewer", &layered());
    assert!(viewer.media.iter().all(|media| media.encodings.is_empty()));
    assert!(viewer.media.iter().all(|m| m.extensions.get(Extension::StreamId).is_none()));
}

/// The answer to a section that sends these encodings.
fn simulcast(lines: &str) -> Negotiated {
    let (mid, rid) = (Extension::Mid.uri(), Extension::StreamId.uri());
    video(&format!("a=extmap:1 {mid}\na=extmap:2 {rid}\n{lines}"))
}

#[test]
fn alternatives_pauses_and_restrictions_of_encodings_are_understood() {
    let negotiated = simulcast(
        "a=rid:1 send pt=96,99;max-width=1280\na=rid:2 send pt=99\na=rid:3 send\na=rid:4 recv\n\
         a=rid:1 send max-fps=1\na=simulcast:recv 4 send ~3;2,1;4;1;nobody\n",
    );
    let encoding = |rid: &str, restrictions: &str, paused| Encoding {
        rid: rid.to_owned(),
        restrictions: restrictions.to_owned(),
        paused,
    };
    let expected = [encoding("1", "pt=96;max-width=1280", false), encoding("3", "", true)];
    assert_eq!(negotiated.media[0].encodings, expected);
    let text = negotiated.local.to_string();
    assert!(text.contains("a=rid:1 recv pt=96;max-width=1280\r\na=rid:3 recv\r\n"), "{text}");
    assert!(text.contains("a=simulcast:recv 1;3\r\n"), "{text}");
}

#[test]
fn encodings_that_nobody_could_tell_apart_are_not_taken() {
    let lines = "a=rid:a send\na=rid:b send\na=simulcast:send a;b\n";
    assert_eq!(rids(&simulcast(lines)), ["a", "b"]);
    assert!(rids(&video(lines)).is_empty());
    assert!(rids(&simulcast(&format!("{lines}a=recvonly\n"))).is_empty());
    for lines in [
        "a=rid:a send\na=rid:b send\n",
        "a=simulcast:send a;b\n",
        "a=rid:a send\na=simulcast:recv a\n",
        "a=rid:seventeen-letters send\na=simulcast:send seventeen-letters\n",
        "a=rid:\u{e9} send\na=simulcast:send \u{e9}\n",
    ] {
        assert!(rids(&simulcast(lines)).is_empty(), "{lines}");
    }
}

#[test]
fn who_offers_none_of_it_is_answered_as_before() {
    let plain = "v=0\na=group:BUNDLE a v\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\na=mid:a\n\
                 a=rtpmap:111 opus/48000/2\nm=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:v\n\
                 a=rtpmap:96 VP8/90000\na=rtcp-fb:96 nack\na=rtcp-fb:96 goog-remb\n\
                 a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\n";
    assert_eq!(of(plain, &layered()).local, of(plain, &can()).local);
    let refused = "v=0\nm=video 0 UDP/TLS/RTP/SAVPF 96 97\na=rtpmap:96 VP8/90000\n\
                   a=rtcp-fb:96 nack\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n";
    assert_eq!(of(refused, &layered()).local, of(refused, &can()).local);
}

#[test]
fn our_offers_are_those_that_clients_know_with_more_behind() {
    for data in [false, true] {
        let known = Capabilities { data, ..can() };
        let known = offer(&known, &local(), &OfferWishes::default()).expect("offer").to_string();
        let all = Capabilities { data, ..forwarding() };
        let all = offer(&all, &local(), &OfferWishes::default()).expect("offer").to_string();
        let mut more = all.split("\r\n");
        for line in known.split("\r\n") {
            let found = more.any(|other| {
                other == line || line.starts_with("m=video") && other.starts_with(line)
            });
            assert!(found, "{line}");
        }
    }
}

#[test]
fn what_is_offered_is_what_it_takes_to_repair_and_to_measure() {
    let ours = offer(&layered(), &local(), &OfferWishes::default()).expect("offer");
    let video = &ours.media[1];
    assert_eq!(video.formats.join(" "), "102 103 104 105 106 107 108 109");
    assert!(video.values("fmtp").any(|line| line == "108 apt=104"));
    let theirs = answer(&ours, &layered(), &local()).expect("answer");
    let media = accept(&ours, &parse(&theirs.local.to_string()).expect("reads"), &layered())
        .expect("accepts");
    for (ours, theirs) in media.iter().zip(&theirs.media) {
        assert_eq!(ours.rtx, theirs.rtx);
        assert_eq!(numbers(&ours.extensions), numbers(&theirs.extensions));
        assert!(ours.transport_cc && theirs.transport_cc);
        assert_eq!(ours.local_rtx_ssrc, theirs.remote_rtx_ssrcs.first().map(|(rtx, _)| *rtx));
    }
    assert_eq!(media[1].rtx, [(106, 102), (107, 103), (108, 104), (109, 105)]);
    let audio = [Some(3), Some(4), Some(5), None, None, Some(6), Some(7)];
    assert_eq!(numbers(&media[0].extensions), audio);
}

#[test]
fn an_answer_may_leave_out_whatever_is_new() {
    let ours = offer(&forwarding(), &local(), &OfferWishes::default()).expect("offer");
    let theirs = answer(&ours, &can(), &local()).expect("answer");
    for media in accept(&ours, &theirs.local, &forwarding()).expect("accepts") {
        assert!(media.accepted && media.rtx.is_empty() && media.local_rtx_ssrc.is_none());
        assert_eq!(numbers(&media.extensions), [Some(3)]);
        assert!(!media.transport_cc);
    }
}

#[test]
fn an_answer_adds_nothing_to_what_was_offered() {
    let ours = offer(&can(), &local(), &OfferWishes::default()).expect("offer");
    let answer = parse(&format!(
        "v=0\nm=audio 9 RTP/SAVPF 96\na=rtpmap:96 opus/48000/2\na=extmap:6 {}\n\
         m=video 9 RTP/SAVPF 104 120\na=rtpmap:104 VP8/90000\na=rtcp-fb:104 nack\n\
         a=rtcp-fb:104 transport-cc\na=extmap:4 {}\na=extmap:9 {}\na=rtpmap:120 rtx/90000\n\
         a=fmtp:120 apt=104\n",
        Extension::AudioLevel.uri(),
        Extension::TransportSequence.uri(),
        Extension::AbsSendTime.uri(),
    ))
    .expect("parses");
    for media in accept(&ours, &answer, &forwarding()).expect("accepts") {
        assert!(media.accepted && media.rtx.is_empty() && !media.transport_cc);
        assert_eq!(numbers(&media.extensions), []);
    }
}

#[test]
fn offers_say_a_source_of_retransmissions_only_if_they_send() {
    for direction in [Direction::SendOnly, Direction::RecvOnly] {
        let wishes = OfferWishes { direction, ..OfferWishes::default() };
        let ours = offer(&forwarding(), &local(), &wishes).expect("offer");
        assert_eq!(ours.to_string().contains("FID"), direction.sends());
        assert!(ours.to_string().contains("apt="));
    }
}

#[test]
fn offers_have_the_kinds_that_are_wished_for() {
    for (audio, video) in [(true, true), (true, false), (false, true), (false, false)] {
        for (data, can) in
            [(false, forwarding()), (true, Capabilities { data: true, ..forwarding() })]
        {
            let wishes = OfferWishes { audio, video, ..OfferWishes::default() };
            let ours = offer(&can, &local(), &wishes).expect("offer");
            let kinds: Vec<_> = ours.media.iter().map(|section| section.media.as_str()).collect();
            let expected = [(audio, "audio"), (video, "video"), (data, "application")];
            let wanted = expected.into_iter().filter(|(wanted, _)| *wanted);
            let names: Vec<_> = wanted.clone().map(|(_, kind)| kind).collect();
            assert_eq!(kinds, names);
            let mids: String = names.iter().map(|kind| format!(" {kind}0")).collect();
            let group = ours.session.attributes[0].value();
            assert_eq!(group, format!("BUNDLE{mids}"));
            // Without audio there is one line less to number.
            if let Some(section) = ours.media.iter().find(|section| section.media == "video") {
                assert_eq!(section.formats[0], if audio { "102" } else { "97" });
            }
        }
    }
}

#[test]
fn retransmissions_of_many_lines_have_numbers_of_their_own_or_none() {
    for lines in 1..=8 {
        let many = Capabilities { audio_lines: lines, video_lines: lines, ..forwarding() };
        let ours = offer(&many, &local(), &OfferWishes::default()).expect("offer");
        let mut meanings = std::collections::BTreeMap::new();
        for section in &ours.media {
            for number in &section.formats {
                let number: u8 = number.parse().expect("a payload type");
                assert!(number < 128);
                let of = |name: &str| {
                    let mut values = section.attributes.iter().filter(|a| a.name == name);
                    values.find(|a| a.payload_type().is_some_and(|(other, _)| other == number))
                };
                let meaning = (of("rtpmap").cloned(), of("fmtp").cloned());
                assert_eq!(*meanings.entry(number).or_insert(meaning.clone()), meaning);
            }
        }
        let repaired = ours.to_string().contains("apt=");
        assert_eq!(repaired, lines < 3, "{lines}");
    }
}

#[test]
fn h265_is_taken_and_offered_where_it_is_among_the_codecs() {
    let mut with = forwarding();
    with.video.insert(0, Codec::H265);
    let codecs = |negotiated: &Negotiated| -> Vec<Codec> {
        negotiated.media[1].formats.iter().map(|(_, format)| format.codec).collect()
    };
    assert!(codecs(&answered("safari_call", &with)).contains(&Codec::H265));
    assert!(answered("safari_call", &with).media[1].rtx.contains(&(105, 104)));
    assert!(!codecs(&answered("safari_call", &forwarding())).contains(&Codec::H265));
    let ours = offer(&with, &local(), &OfferWishes::default()).expect("offer");
    assert!(ours.media[1].values("rtpmap").any(|map| map == "103 H265/90000"), "{ours}");
    assert_eq!(ours.media[1].formats[0], "103");
}

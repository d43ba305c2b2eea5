//! What a client says of itself, in the manner of a browser, and what it reads of the answer.

use std::fmt::Write;

use rivero::sdp::{self, Description, MediaKind, Setup};
use rivero::transport::data_channel::DataSettings;
use rivero::transport::webrtc::RemoteParameters;
use rivero::transport::{DtlsRole, Fingerprint};

/// Payload types of audio and video.
pub const PAYLOAD_TYPES: [u8; 2] = [111, 96];
/// Of repetitions of video (RFC 4588).
pub const REPETITIONS: u8 = 97;
/// The number of the header extension with a number over all packets of a transport.
pub const TRANSPORT_SEQUENCE: u8 = 3;
const TRANSPORT_SEQUENCE_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const DATA_PORT: u16 = 5_000;
const LONGEST_MESSAGE: usize = 262_144;

/// What is offered.
pub struct Offer<'a> {
    pub ufrag: &'a str,
    pub pwd: &'a str,
    /// Of the certificate, with SHA-256.
    pub fingerprint: &'a str,
    pub sends: bool,
    pub receives: bool,
    /// Of audio and video.
    pub ssrcs: [u32; 2],
    /// Whether arrivals are told of over all packets of the transport.
    pub transport_cc: bool,
    /// Messages and no media.
    pub data: bool,
}

impl Offer<'_> {
    pub fn text(&self) -> String {
        if self.data {
            return self.data_alone();
        }
        let mut text = String::from(
            "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
             a=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS bench\r\n",
        );
        for (mid, kind) in ["audio", "video"].into_iter().enumerate() {
            self.section(&mut text, mid, kind);
        }
        text
    }

    fn data_alone(&self) -> String {
        let (ufrag, pwd, fingerprint) = (self.ufrag, self.pwd, self.fingerprint);
        format!(
            "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=mid:0\r\n\
             a=sctp-port:{DATA_PORT}\r\na=max-message-size:{LONGEST_MESSAGE}\r\n"
        )
    }

    fn section(&self, text: &mut String, mid: usize, kind: &str) {
        let number = PAYLOAD_TYPES[mid];
        let formats = if mid == 0 { number.to_string() } else { format!("{number} {REPETITIONS}") };
        let direction = match (self.sends, self.receives) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        };
        let (ufrag, pwd, fingerprint) = (self.ufrag, self.pwd, self.fingerprint);
        let codec = if mid == 0 {
            format!(
                "a=rtpmap:{number} opus/48000/2\r\na=fmtp:{number} minptime=10;useinbandfec=1\r\n"
            )
        } else {
            format!(
                "a=rtpmap:{number} VP8/90000\r\na=rtcp-fb:{number} goog-remb\r\n\
                 a=rtcp-fb:{number} ccm fir\r\na=rtcp-fb:{number} nack\r\n\
                 a=rtcp-fb:{number} nack pli\r\n\
                 a=rtpmap:{REPETITIONS} rtx/90000\r\na=fmtp:{REPETITIONS} apt={number}\r\n"
            )
        };
        // Writing to a text does not fail.
        let _ = write!(
            text,
            "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=mid:{mid}\r\n\
             a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
             a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{codec}"
        );
        if self.transport_cc {
            let _ = write!(
                text,
                "a=extmap:{TRANSPORT_SEQUENCE} {TRANSPORT_SEQUENCE_URI}\r\n\
                 a=rtcp-fb:{number} transport-cc\r\n"
            );
        }
        if self.sends {
            let ssrc = self.ssrcs[mid];
            let _ = write!(text, "a=msid:bench {kind}\r\na=ssrc:{ssrc} cname:bench\r\n");
        }
    }
}

/// What a client needs of the answer.
pub struct Answer {
    pub remote: RemoteParameters,
    /// Candidates in the text: servers may gather before they answer.
    pub candidates: Vec<String>,
    /// Whether the server wants to hear of the bandwidth.
    pub remb: bool,
    /// Whether it numbers what it sends, and wants to hear what came of it.
    pub transport_cc: bool,
    /// Where messages go, if they do.
    pub data: Option<DataSettings>,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(text: &str) -> Result<Answer, String> {
    let answer = sdp::parse(text).map_err(|error| error.to_string())?;
    let taken =
        |kind| answer.media.iter().position(|one| MediaKind::of(one) == kind && one.port != 0);
    let found = (taken(MediaKind::Audio), taken(MediaKind::Video), data_section(&answer));
    let (first, data) = match found {
        (Some(audio), Some(_), _) => (audio, None),
        (None, None, Some((section, port))) => (section, Some(port)),
        _ => return Err("the server takes no audio, no video or no data".to_owned()),
    };
    let find = |name| attribute(&answer, first, name).ok_or(format!("no {name} in it"));
    let (ufrag, pwd) = (find("ice-ufrag")?.to_owned(), find("ice-pwd")?.to_owned());
    let fingerprint = find("fingerprint")?;
    let fingerprint = fingerprint.split_once(' ');
    let fingerprint = fingerprint.and_then(|(hash, text)| Fingerprint::parse(hash, text.trim()));
    let fingerprint = fingerprint.ok_or("an unreadable fingerprint in it")?;
    let role = match Setup::from_name(find("setup")?) {
        Some(Setup::Active) => DtlsRole::Server,
        Some(Setup::Passive) => DtlsRole::Client,
        _ => return Err("it does not say who begins".to_owned()),
    };
    let lines = answer.media.iter().flat_map(|one| &one.attributes);
    let candidates = lines.clone().filter(|line| line.name == "candidate");
    let candidates = candidates.map(|line| format!("candidate:{}", line.value())).collect();
    let remb =
        lines.clone().any(|line| line.name == "rtcp-fb" && line.value().ends_with("goog-remb"));
    let transport_cc = lines
        .clone()
        .any(|line| line.name == "rtcp-fb" && line.value().ends_with("transport-cc"))
        && lines.clone().any(|line| {
            line.name == "extmap" && line.value().split(' ').nth(1) == Some(TRANSPORT_SEQUENCE_URI)
        });
    let remote = RemoteParameters { ufrag, pwd, fingerprints: vec![fingerprint], role };
    let data = data.map(|remote_port| DataSettings {
        local_port: DATA_PORT,
        remote_port,
        max_message: Some(LONGEST_MESSAGE),
    });
    Ok(Answer { remote, candidates, remb, transport_cc, data })
}

/// The section of data channels, and the port of SCTP that it names.
fn data_section(answer: &Description) -> Option<(usize, u16)> {
    let at = answer.media.iter().position(|one| one.media == "application" && one.port != 0)?;
    let port = attribute(answer, at, "sctp-port")?;
    Some((at, port.parse().ok()?))
}

/// The section's own, or the session's.
fn attribute<'a>(answer: &'a Description, section: usize, name: &str) -> Option<&'a str> {
    let own = answer.media[section].attributes.iter();
    let found = own.chain(&answer.session.attributes).find(|attribute| attribute.name == name);
    found.map(|attribute| attribute.value().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=setup:passive\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789\r\n\
        a=fingerprint:sha-256 \
        00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=candidate:1 1 UDP 9 192.0.2.1 4000 typ host\r\n";

    #[test]
    fn an_answer_is_read_and_one_that_lacks_something_is_told_what() {
        let answer = read(ANSWER).unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!((answer.remote.ufrag.as_str(), answer.remote.role), ("abcd", DtlsRole::Client));
        assert_eq!(answer.candidates, ["candidate:1 1 UDP 9 192.0.2.1 4000 typ host"]);
        for (part, instead, reason) in [
            ("a=setup:passive", "a=setup:actpass", "it does not say who begins"),
            ("a=ice-pwd", "a=ice-x", "no ice-pwd in it"),
            ("00:11:", "zz:11:", "an unreadable fingerprint in it"),
            ("m=video 9", "m=video 0", "the server takes no audio, no video or no data"),
        ] {
            assert_eq!(read(&ANSWER.replacen(part, instead, 1)).err().as_deref(), Some(reason));
        }
        assert!(read("nonsense").is_err());
    }

    #[test]
    fn an_offer_is_a_description_with_two_sections() {
        let offer = Offer {
            ufrag: "u",
            pwd: "p",
            fingerprint: "00",
            sends: true,
            receives: true,
            ssrcs: [1, 2],
            transport_cc: true,
            data: false,
        };
        let description = sdp::parse(&offer.text()).expect("parses");
        assert_eq!(description.media.len(), 2);
        assert_eq!(description.media[1].mid(), Some("1"));
        assert_eq!(offer.text().matches("transport-cc\r\n").count(), 2);
        let silent = Offer { transport_cc: false, ..offer };
        assert!(!silent.text().contains("transport"));
        let data = Offer { data: true, ..silent };
        let description = sdp::parse(&data.text()).expect("parses");
        assert_eq!(data_section(&description), Some((0, DATA_PORT)));
    }
}

//! The table of everything that can be set: its key in files, its flag, its variable, its text form.
//!
//! The keys are those of the original's `kurento.conf.json` and module files (the latter under
//! `modules.kurento.<Class>`), and `rivero.…` for what is our own, which also has a flag and a variable.

use super::Config;
use super::value::{Given, Setting as _};

/// One thing that can be set.
#[derive(Debug)]
pub struct Setting {
    /// Its place in the files.
    pub key: &'static str,
    /// Its long flag, if it has one.
    pub flag: Option<&'static str>,
    pub short: Option<char>,
    /// Its variables; the first that is set counts.
    pub env: &'static [&'static str],
    pub doc: &'static str,
    /// Whether it is never shown.
    pub secret: bool,
    /// Whether something comes of it already.
    pub effective: bool,
    /// Whether a running server takes a new value without dropping connections.
    pub live: bool,
    /// Both ends included.
    range: Option<(f64, f64)>,
    set: fn(&mut Config, Given<'_>) -> Result<(), &'static str>,
    get: fn(&Config) -> String,
}

impl Setting {
    /// # Errors
    /// What should have been there instead.
    pub fn set(&self, config: &mut Config, given: Given<'_>) -> Result<(), String> {
        if let Some((min, max)) = self.range
            && let Ok(number) = given.text.trim().parse::<f64>()
            && !(min..=max).contains(&number)
        {
            return Err(format!("a number from {min} to {max}"));
        }
        (self.set)(config, given).map_err(str::to_owned)
    }

    /// The value in force, as it could be written; secrets are masked.
    pub fn show(&self, config: &Config) -> String {
        (self.get)(config)
    }

    const fn flag(mut self, name: &'static str) -> Self {
        self.flag = Some(name);
        self
    }

    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    const fn range(mut self, min: f64, max: f64) -> Self {
        self.range = Some((min, max));
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Kept, and nothing comes of it yet.
    const fn idle(mut self) -> Self {
        self.effective = false;
        self
    }

    const fn live(mut self) -> Self {
        self.live = true;
        self
    }
}

macro_rules! setting {
    ($key:literal, $($field:ident).+, $doc:literal) => {
        Setting {
            key: $key,
            flag: None,
            short: None,
            env: &[],
            doc: $doc,
            secret: false,
            effective: true,
            live: false,
            range: None,
            set: |config, given| {
                config.$($field).+ = super::value::Setting::read(given)?;
                Ok(())
            },
            get: |config| config.$($field).+.show(),
        }
    };
}

/// A limit of what clients can make the server hold.
macro_rules! limit {
    ($name:literal, $field:ident, $flag:literal, $env:literal, $doc:literal) => {
        setting!($name, limits.$field, $doc).flag($flag).env(&[$env])
    };
}

/// A setting of a module, in the original's file for it, of which something comes.
macro_rules! network {
    ($key:literal, $($field:ident).+, $doc:literal) => {
        setting!($key, modules.$($field).+, $doc)
    };
}

/// One of which nothing comes yet.
macro_rules! module {
    ($key:literal, $($field:ident).+, $doc:literal) => {
        setting!($key, modules.$($field).+, $doc).idle()
    };
}

/// The setting with that key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// 0 has a meaning of its own where a port is set by a file: none.
pub(super) const PORTS: [&str; 2] =
    ["mediaServer.net.websocket.port", "mediaServer.net.websocket.secure.port"];
const MANY: f64 = 1e9;
const BITRATE: f64 = i32::MAX as f64;

/// All of them, in the order in which they are shown.
pub static SETTINGS: &[Setting] = &[
    setting!("mediaServer.net.websocket.address", control.bind, "Address of the control ports; every address when none")
        .flag("bind").env(&["RIVERO_BIND"]),
    setting!("mediaServer.net.websocket.ipv6", control.ipv6, "Whether every address means those of IPv6 too"),
    Setting {
        set: |config, given| {
            let port: Option<u16> = super::value::Setting::read(given)?;
            config.control.plain = port.is_some();
            config.control.port = port.unwrap_or_default();
            Ok(())
        },
        get: |config| config.control.plain.then_some(config.control.port).show(),
        ..setting!("mediaServer.net.websocket.port", control.port, "TCP port for WebSocket and HTTP; 0 takes a free one, and is none in a file")
            .flag("port").env(&["RIVERO_PORT"])
    },
    setting!("mediaServer.net.websocket.connqueue", control.backlog, "Connections that wait to be accepted; what the system allows when none"),
    setting!("mediaServer.net.websocket.path", control.path, "Path of the WebSocket, without the leading slash")
        .flag("path").env(&["RIVERO_PATH"]),
    setting!("mediaServer.net.websocket.threads", control.threads, "Requests at the same time; here there is no such number")
        .range(1.0, MANY).idle(),
    setting!("mediaServer.net.websocket.secure.port", control.secure.port, "TCP port for the same over TLS; 0 takes a free one, and is none in a file")
        .flag("secure-port").env(&["RIVERO_SECURE_PORT"]),
    setting!("mediaServer.net.websocket.secure.certificate", control.secure.certificate, "PEM file with certificate chain and private key; relative to the file that says so")
        .flag("certificate").env(&["RIVERO_CERTIFICATE"]).live(),
    setting!("mediaServer.net.websocket.secure.password", control.secure.password, "Password of that key; keys with one are refused")
        .secret().idle(),
    setting!("mediaServer.net.websocket.registrar.address", control.registrar.address, "WebSocket at which the server announces itself"),
    setting!("mediaServer.net.websocket.registrar.localAddress", control.registrar.local_address, "Name that the server announces"),
    setting!("mediaServer.resources.exceptionLimit", resources.exception_limit, "Fraction of the limits of threads and files beyond which nothing is created")
        .range(0.0, 1.0),
    setting!("mediaServer.resources.killLimit", resources.kill_limit, "Fraction beyond which the server ends itself once it holds no object")
        .range(0.0, 1.0),
    setting!("mediaServer.resources.garbageCollectorPeriod", sessions.collector_period, "Seconds between two rounds of the collector of sessions")
        .range(1.0, MANY),
    setting!("mediaServer.resources.disableRequestCache", resources.disable_request_cache, "Whether a request that comes twice is carried out twice"),
    setting!("metadata", metadata, "An object that clients can ask for"),

    setting!("rivero.workers", media.workers, "Threads that move media; one per core when none")
        .flag("workers").env(&["RIVERO_WORKERS"]).range(1.0, 1_024.0),
    setting!("rivero.mediaAddresses", media.addresses, "Local addresses that receive media and are announced; all usable ones when none")
        .flag("media-address").env(&["RIVERO_MEDIA_ADDRESS"]),
    setting!("rivero.mediaPort", media.port, "First UDP port for media, one per media thread; 0 takes free ones")
        .flag("media-port").env(&["RIVERO_MEDIA_PORT"]),
    Setting {
        set: |config, given| {
            // A text that was lost on its way must not open the door.
            if given.text.trim().is_empty() {
                return Err("a text, or none to do without");
            }
            config.control.token = super::value::Setting::read(given)?;
            Ok(())
        },
        ..setting!("rivero.token", control.token, "Whoever uses the server must say it: `Authorization: Bearer …`, or `access_token` in the query")
            .flag("token").env(&["RIVERO_TOKEN"]).secret().live()
    },
    setting!("rivero.origins", control.origins, "Pages whose scripts may connect, with commas; * is any, none is no page")
        .flag("origins").env(&["RIVERO_ORIGINS"]).live(),
    setting!("rivero.stopSeconds", control.stop, "Time for connections and pipelines to end when the server stops")
        .flag("stop-seconds").env(&["RIVERO_STOP_SECONDS"]).range(0.0, 3_600.0),

    limit!("rivero.limits.connections", connections, "limits-connections", "RIVERO_LIMITS_CONNECTIONS", "Open TCP connections")
        .range(1.0, 1e6),
    limit!("rivero.limits.connectionsPerAddress", connections_per_address, "limits-connections-per-address", "RIVERO_LIMITS_CONNECTIONS_PER_ADDRESS", "Those from one address")
        .range(1.0, 1e6).live(),
    limit!("rivero.limits.messageBytes", message_bytes, "limits-message-bytes", "RIVERO_LIMITS_MESSAGE_BYTES", "Bytes of one message")
        .range(1.0, MANY).live(),
    limit!("rivero.limits.frameBytes", frame_bytes, "limits-frame-bytes", "RIVERO_LIMITS_FRAME_BYTES", "Bytes of one frame of a message")
        .range(1.0, MANY).live(),
    limit!("rivero.limits.messageSeconds", message, "limits-message-seconds", "RIVERO_LIMITS_MESSAGE_SECONDS", "Time for a message from its first byte to its last")
        .range(0.01, 3_600.0).live(),
    limit!("rivero.limits.receivingBytes", receiving_bytes, "limits-receiving-bytes", "RIVERO_LIMITS_RECEIVING_BYTES", "Bytes of messages that are not answered yet, of all connections, 64 KiB of each not counted")
        .range(0.0, 1e12).live(),
    limit!("rivero.limits.queuedMessages", queued_messages, "limits-queued-messages", "RIVERO_LIMITS_QUEUED_MESSAGES", "Messages that wait for a client that does not read")
        .range(1.0, 1e6),
    limit!("rivero.limits.queuedBytes", queued_bytes, "limits-queued-bytes", "RIVERO_LIMITS_QUEUED_BYTES", "Bytes of those messages")
        .range(1.0, MANY),
    limit!("rivero.limits.handshakeSeconds", handshake, "limits-handshake-seconds", "RIVERO_LIMITS_HANDSHAKE_SECONDS", "Time for TLS, and for the head of a request")
        .range(0.01, 3_600.0).live(),
    limit!("rivero.limits.tlsHandshakes", tls_handshakes, "limits-tls-handshakes", "RIVERO_LIMITS_TLS_HANDSHAKES", "TLS handshakes at the same time")
        .range(1.0, 1e6),
    limit!("rivero.limits.writeSeconds", write, "limits-write-seconds", "RIVERO_LIMITS_WRITE_SECONDS", "Time in which a client takes something of what is sent to it")
        .range(0.01, 3_600.0).live(),
    limit!("rivero.limits.idleSeconds", idle, "limits-idle-seconds", "RIVERO_LIMITS_IDLE_SECONDS", "Time in which a client says something over its WebSocket; no end when none")
        .range(0.01, MANY).live(),
    limit!("rivero.limits.nesting", nesting, "limits-nesting", "RIVERO_LIMITS_NESTING", "Arrays and objects inside each other in one message")
        .range(1.0, 127.0),
    limit!("rivero.limits.values", values, "limits-values", "RIVERO_LIMITS_VALUES", "JSON values in one message")
        .range(1.0, MANY),
    limit!("rivero.limits.idBytes", id_bytes, "limits-id-bytes", "RIVERO_LIMITS_ID_BYTES", "Bytes of a request's id")
        .range(1.0, MANY),
    limit!("rivero.limits.sessions", sessions, "limits-sessions", "RIVERO_LIMITS_SESSIONS", "Sessions").range(1.0, MANY),
    limit!("rivero.limits.connectionSessions", connection_sessions, "limits-connection-sessions", "RIVERO_LIMITS_CONNECTION_SESSIONS", "Sessions that began on one connection")
        .range(1.0, MANY),
    limit!("rivero.limits.sessionIdBytes", session_id_bytes, "limits-session-id-bytes", "RIVERO_LIMITS_SESSION_ID_BYTES", "Bytes of a session's id")
        .range(36.0, 1e6),
    limit!("rivero.limits.objects", objects, "limits-objects", "RIVERO_LIMITS_OBJECTS", "Objects of all sessions").range(1.0, MANY),
    limit!("rivero.limits.sessionObjects", session_objects, "limits-session-objects", "RIVERO_LIMITS_SESSION_OBJECTS", "Objects that one session holds")
        .range(1.0, MANY),
    limit!("rivero.limits.subscriptions", subscriptions, "limits-subscriptions", "RIVERO_LIMITS_SUBSCRIPTIONS", "Subscriptions of all sessions")
        .range(1.0, MANY),
    limit!("rivero.limits.sessionSubscriptions", session_subscriptions, "limits-session-subscriptions", "RIVERO_LIMITS_SESSION_SUBSCRIPTIONS", "Subscriptions of one session")
        .range(1.0, MANY),
    limit!("rivero.limits.operations", operations, "limits-operations", "RIVERO_LIMITS_OPERATIONS", "Operations of one transaction")
        .range(1.0, MANY),
    limit!("rivero.limits.tags", tags, "limits-tags", "RIVERO_LIMITS_TAGS", "Tags of one object")
        .range(1.0, MANY),
    limit!("rivero.limits.textBytes", text_bytes, "limits-text-bytes", "RIVERO_LIMITS_TEXT_BYTES", "Bytes of an object's name, of a tag's key and of its value")
        .range(1.0, MANY),
    limit!("rivero.limits.objectBytes", object_bytes, "limits-object-bytes", "RIVERO_LIMITS_OBJECT_BYTES", "Bytes of all those texts of one object")
        .range(1.0, MANY),
    limit!("rivero.limits.attachedBytes", attached_bytes, "limits-attached-bytes", "RIVERO_LIMITS_ATTACHED_BYTES", "Bytes of all those texts of all objects")
        .range(1.0, MANY),
    limit!("rivero.limits.keptAnswers", kept_answers, "limits-kept-answers", "RIVERO_LIMITS_KEPT_ANSWERS", "Answers of one session that are kept for it to ask again")
        .range(0.0, MANY),
    limit!("rivero.limits.keptBytes", kept_bytes, "limits-kept-bytes", "RIVERO_LIMITS_KEPT_BYTES", "Bytes of memory that all kept answers take")
        .range(0.0, MANY),
    limit!("rivero.limits.orphanedRequests", orphaned_requests, "limits-orphaned-requests", "RIVERO_LIMITS_ORPHANED_REQUESTS", "Requests that are finished after their connection was cut")
        .range(0.0, MANY),
    limit!("rivero.limits.rtpPairs", rtp_pairs, "limits-rtp-pairs", "RIVERO_LIMITS_RTP_PAIRS", "Pairs of ports for plain RTP")
        .range(0.0, MANY),

    setting!("rivero.logs.format", logs.format, "text, json, or kurento for lines as the original writes them")
        .flag("log-format").env(&["RIVERO_LOG_FORMAT"]),
    setting!("rivero.logs.level", logs.level, "What is logged, as `rivero=debug,warn`")
        .flag("log-level").env(&["RUST_LOG"]).live(),
    setting!("rivero.logs.gstDebug", logs.gst_debug, "The same in the original's words, as `3,Kurento*:5`")
        .flag("gst-debug").env(&["GST_DEBUG"]).live(),
    setting!("rivero.logs.gstDebugLevel", logs.gst_debug_level, "The level of what that does not name, from 0 to 9")
        .flag("gst-debug-level").range(0.0, 9.0).live(),
    setting!("rivero.logs.path", logs.folder, "Folder of log files; standard error when none")
        .flag("logs-path").short('d').env(&["KURENTO_LOGS_PATH"]),
    setting!("rivero.logs.fileMegabytes", logs.file_megabytes, "Megabytes of one log file")
        .flag("log-file-size").short('s').env(&["KURENTO_LOG_FILE_SIZE"]).range(1.0, 1e6),
    setting!("rivero.logs.files", logs.files, "Log files that are kept")
        .flag("number-log-files").short('n').env(&["KURENTO_NUMBER_LOG_FILES"]).range(1.0, 1e5),

    module!("modules.kurento.MediaElement.encoderBitrate", media_element.encoder_bitrate, "Bits per second of encoders").range(0.0, BITRATE),
    module!("modules.kurento.MediaElement.minEncoderBitrate", media_element.min_encoder_bitrate, "Their lower bound; 0 is none").range(0.0, BITRATE),
    module!("modules.kurento.MediaElement.maxEncoderBitrate", media_element.max_encoder_bitrate, "Their upper bound; 0 is none").range(0.0, BITRATE),
    module!("modules.kurento.SdpEndpoint.numAudioMedias", sdp.audio_lines, "Audio streams of an offer").range(0.0, 64.0),
    module!("modules.kurento.SdpEndpoint.numVideoMedias", sdp.video_lines, "Video streams of an offer").range(0.0, 64.0),
    network!("modules.kurento.SdpEndpoint.audioCodecs", sdp.audio_codecs, "Audio codecs in order; all when none"),
    network!("modules.kurento.SdpEndpoint.videoCodecs", sdp.video_codecs, "Video codecs in order; all when none"),
    network!("modules.kurento.BaseRtpEndpoint.minPort", rtp.min_port, "First UDP port for media").env(&["KMS_MIN_PORT"]),
    network!("modules.kurento.BaseRtpEndpoint.maxPort", rtp.max_port, "Last UDP port for media").env(&["KMS_MAX_PORT"]),
    module!("modules.kurento.BaseRtpEndpoint.mtu", rtp.mtu, "Bytes of a packet").env(&["KMS_MTU"]).range(128.0, 65_535.0),
    network!("modules.kurento.BaseRtpEndpoint.keyframeCache", rtp.keyframe_cache, "Bytes from a keyframe of any age on that a new viewer gets at once, for sources that make none when asked")
        .env(&["RIVERO_KEYFRAME_CACHE"]).range(0.0, 67_108_864.0),
    module!("modules.kurento.UriEndpoint.defaultPath", uri.default_path, "What relative URIs are relative to"),
    network!("modules.kurento.WebRtcEndpoint.stunServerAddress", webrtc.stun_address, "STUN server").env(&["KMS_STUN_IP"]),
    network!("modules.kurento.WebRtcEndpoint.stunServerPort", webrtc.stun_port, "Its port").env(&["KMS_STUN_PORT"]),
    network!("modules.kurento.WebRtcEndpoint.turnURL", webrtc.turn, "TURN server: user:password@address:port?transport=udp").env(&["KMS_TURN_URL"]),
    network!("modules.kurento.WebRtcEndpoint.externalIPv4", webrtc.external_ipv4, "Address that others see; auto leaves it to a STUN server")
        .env(&["KMS_EXTERNAL_IPV4"]),
    network!("modules.kurento.WebRtcEndpoint.externalIPv6", webrtc.external_ipv6, "The same for IPv6").env(&["KMS_EXTERNAL_IPV6"]),
    network!("modules.kurento.WebRtcEndpoint.networkInterfaces", webrtc.network_interfaces, "Interfaces for media; all when none").env(&["KMS_NETWORK_INTERFACES"]),
    network!("modules.kurento.WebRtcEndpoint.iceTcp", webrtc.ice_tcp, "Whether there are candidates for TCP").env(&["KMS_ICE_TCP"]),
    network!("modules.kurento.WebRtcEndpoint.pemCertificateRSA", webrtc.certificate_rsa, "PEM file with certificate and key; made at the start when none").env(&["KMS_PEM_CERTIFICATE_RSA"]),
    network!("modules.kurento.WebRtcEndpoint.pemCertificateECDSA", webrtc.certificate_ecdsa, "The same for ECDSA").env(&["KMS_PEM_CERTIFICATE_ECDSA"]),
    network!("modules.kurento.WebRtcEndpoint.qos-dscp", webrtc.dscp, "Mark of outgoing packets"),
    network!("modules.kurento.WebRtcEndpoint.enable-h265", webrtc.h265, "Whether H.265 is negotiated with browsers"),
    module!("modules.kurento.HttpEndpoint.serverAddress", http.address, "Address of HTTP endpoints; every address when none"),
    module!("modules.kurento.HttpEndpoint.serverPort", http.port, "Their TCP port"),
    module!("modules.kurento.HttpEndpoint.announcedAddress", http.announced_address, "Address in their URLs"),
    module!("modules.kurento.PlayerEndpoint.rtspClientPortRange", player.rtsp_ports, "UDP ports of RTSP clients, as 5000-6000"),
    module!("modules.kurento.RecorderEndpoint.gapsFix", recorder.gaps_fix, "NONE, GENPTS or FILL_IF_TRANSCODING"),
    module!("modules.kurento.Composite.width", composite.width, "Width of mixed pictures").range(1.0, 16_384.0),
    module!("modules.kurento.Composite.height", composite.height, "Height of mixed pictures").range(1.0, 16_384.0),
    module!("modules.kurento.Composite.framerate", composite.framerate, "Mixed pictures per second").range(1.0, 1_000.0),
];

/// Other names of keys, as files in use have them.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    ("modules.kurento.HttpEndpoint.port", "modules.kurento.HttpEndpoint.serverPort"),
    (
        "modules.kurento.WebRtcEndpoint.externalAddress",
        "modules.kurento.WebRtcEndpoint.externalIPv4",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::value::Given;
    use super::{Config, SETTINGS};

    #[test]
    fn keys_flags_and_variables_are_each_there_once() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.key.to_owned()), "{}", setting.key);
            for name in setting.flag.iter().chain(setting.env) {
                assert!(seen.insert((*name).to_owned()), "{name}");
            }
        }
    }

    #[test]
    fn what_is_shown_is_understood_and_stays_the_same() {
        let defaults = Config::default();
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            let shown = setting.show(&defaults);
            let mut config = Config::default();
            setting.set(&mut config, Given { text: &shown, folder: None }).expect(setting.key);
            assert_eq!(setting.show(&config), shown, "{}", setting.key);
        }
    }

    proptest! {
        // Each case is a text for every setting there is.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_setting_takes_is_shown_in_a_form_that_it_takes(
            texts in prop::collection::vec(r#"[\[\]{}":,a-c0-9.@?=/ *-]{0,24}"#, SETTINGS.len()),
        ) {
            for (setting, text) in SETTINGS.iter().zip(&texts) {
                let mut config = Config::default();
                if setting.set(&mut config, Given { text, folder: None }).is_err() {
                    continue;
                }
                let shown = setting.show(&config);
                let again = setting.set(&mut Config::default(), Given { text: &shown, folder: None });
                prop_assert!(again.is_ok(), "{}: {text:?} became {shown:?}", setting.key);
            }
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut config = Config::default();
        for setting in SETTINGS.iter().filter(|setting| setting.secret) {
            setting.set(&mut config, Given { text: "hidden", folder: None }).expect("a text");
            assert!(!setting.show(&config).contains("hidden"), "{}", setting.key);
        }
        assert!(!format!("{config:?}").contains("hidden"));
    }
}

//! Where this server differs from the original on purpose, or has not come that far.

use serde_json::{Value, json};

use super::player::Report;
use super::record::Fate;
use super::sdp;

/// Something in a record that is not met.
pub struct Difference<'a> {
    /// Name of the record.
    pub file: &'a str,
    /// The request as it was recorded; null for an event.
    pub request: &'a Value,
    /// What the original said; null if it said nothing.
    pub recorded: &'a Value,
    /// What this server said; null if it said nothing.
    pub ours: &'a Value,
    /// What became of the request with the original.
    pub fate: Option<Fate>,
}

impl Difference<'_> {
    fn operation(&self) -> &str {
        self.request["params"]["operation"].as_str().unwrap_or_default()
    }

    fn invokes(&self, operations: &[&str]) -> bool {
        operations.contains(&self.operation())
    }

    /// The original's error had this in its text.
    fn said(&self, text: &str) -> bool {
        self.recorded["error"]["message"].as_str().is_some_and(|said| said.contains(text))
    }

    fn our_code(&self) -> i64 {
        self.ours["error"]["code"].as_i64().unwrap_or_default()
    }

    fn recorded_value(&self) -> &Value {
        &self.recorded["result"]["value"]
    }

    fn our_value(&self) -> &Value {
        &self.ours["result"]["value"]
    }

    /// The recorded event if there is one, else ours.
    fn event(&self) -> &Value {
        let event = if self.recorded.is_null() { self.ours } else { self.recorded };
        &event["params"]["value"]
    }

    fn is_event(&self, names: &[&str]) -> bool {
        self.request.is_null()
            && self.event()["type"].as_str().is_some_and(|name| names.contains(&name))
    }

    fn candidate(&self) -> &str {
        self.event()["data"]["candidate"]["candidate"].as_str().unwrap_or_default()
    }

    fn was_cut(&self) -> bool {
        self.fate == Some(Fate::Cut)
    }

    /// Both are descriptions, and they differ in nothing but lines that `known` accepts, and in what
    /// ours agrees on beyond the original.
    fn descriptions_but_for(&self, known: fn(&str) -> bool) -> bool {
        let different = self.descriptions_differ_in();
        different.is_some_and(|lines| !lines.is_empty() && lines.iter().all(|line| known(line)))
    }

    /// The lines that only one of two descriptions has, without what ours agrees on beyond the
    /// original.
    fn descriptions_differ_in(&self) -> Option<Vec<String>> {
        let (recorded, ours) = (self.recorded_value().as_str()?, self.our_value().as_str()?);
        if !recorded.starts_with("v=0") || !ours.starts_with("v=0") {
            return None;
        }
        let (missing, more) = sdp::differences_beyond_extras(recorded, ours);
        Some(missing.into_iter().chain(more).collect())
    }
}

pub struct Purpose {
    pub reason: &'static str,
    applies: fn(&Difference<'_>) -> bool,
}

const NOT_JSON: i64 = -32700;
const NO_REQUEST: i64 = -32600;
const WRONG_PARAMS: i64 = -32602;
const ILLEGAL_PARAM: i64 = 40107;

/// What events tell of a transport that found its peer, and of media that came over it.
const CONNECTED: [&str; 8] = [
    "NewCandidatePairSelected",
    "IceComponentStateChanged",
    "DtlsConnectionStateChange",
    "ConnectionStateChanged",
    "MediaStateChanged",
    "MediaFlowInStateChanged",
    "MediaFlowOutStateChanged",
    "MediaTranscodingStateChanged",
];

/// A question of who is faster: a slow machine is asked before there is a report.
const EARLY_REPORTS: &str =
    "whoever is connected reports at once, and so its peer need not wait for media";

/// The first that applies counts.
const PURPOSES: &[Purpose] = &[
    // What the original does to connections.
    Purpose {
        reason: "a text that is not JSON is answered with -32700, and the connection goes on",
        applies: |it| it.was_cut() && it.request.is_null() && it.our_code() == NOT_JSON,
    },
    Purpose {
        reason: "what is no request is answered with -32600 even where the connection has a session",
        applies: |it| it.was_cut() && !it.request.is_object() && it.our_code() == NO_REQUEST,
    },
    Purpose {
        reason: "`params` that are no object are answered with -32602, and the connection goes on",
        applies: |it| it.was_cut() && it.our_code() == WRONG_PARAMS,
    },
    Purpose {
        reason: "`params` that are no object are wrong parameters, not an inner error",
        applies: |it| it.said("requires objectValue or nullValue") && it.our_code() == WRONG_PARAMS,
    },
    Purpose {
        reason: "an object of a wrong class is an error and kills nobody",
        applies: |it| it.fate == Some(Fate::Killed) && it.our_code() == ILLEGAL_PARAM,
    },
    Purpose {
        reason: "an object of a wrong class is named as such, not as an inner error",
        applies: |it| it.said("bad_weak_ptr") && it.our_code() == ILLEGAL_PARAM,
    },
    Purpose {
        reason: "an object of a wrong class is no sink to disconnect from either",
        applies: |it| {
            it.file.starts_with("t90")
                && it.operation() == "disconnect"
                && it.our_code() == ILLEGAL_PARAM
        },
    },
    // Its answers from memory.
    Purpose {
        reason: "a reply is kept for the same request only; another one with its id is carried out",
        applies: |it| {
            // The ids that the record uses for one request after another.
            let again = [json!(500), json!(501), json!(502), json!(503), json!(505)];
            let other = it.request["method"] != "create";
            it.file.starts_with("t21") && other && again.contains(&it.request["id"])
        },
    },
    Purpose {
        reason: "disconnecting one source leaves what another one feeds the sink",
        applies: |it| {
            it.file.starts_with("t04")
                && it.invokes(&["getSourceConnections"])
                && it.our_value().as_array().is_some_and(|all| {
                    all.iter().any(|each| {
                        each["source"].as_str().is_some_and(|id| id.ends_with("RtpEndpoint"))
                    })
                })
        },
    },
    // Values.
    Purpose {
        reason: "an empty map is `{}`, not null",
        applies: |it| it.recorded_value().is_null() && *it.our_value() == json!({}),
    },
    Purpose {
        reason: "streams have statistics from the negotiation on, not from their first packet on",
        applies: |it| {
            it.operation() == "getStats"
                && it.recorded_value().is_null()
                && it.our_value().is_object()
        },
    },
    Purpose {
        reason: "getSessions lists the sessions and no empty texts; the original knew some of other records",
        applies: |it| {
            let ours = it.our_value().as_array();
            it.operation() == "getSessions" && ours.is_some_and(|ids| !ids.contains(&json!("")))
        },
    },
    Purpose {
        reason: "properties of 6.x can still be read",
        applies: |it| {
            it.recorded["error"]["code"] == 40008
                && it.our_value().is_i64()
                && (it.operation().ends_with("OuputBitrate")
                    || it.operation().ends_with("OutputBitrate"))
        },
    },
    Purpose {
        reason: "a minimum that was set is read back, before the negotiation too",
        applies: |it| it.operation() == "getMinVideoRecvBandwidth" && *it.our_value() == 50,
    },
    Purpose {
        reason: "parameters that are left out have the values they have when none is set",
        applies: |it| it.operation() == "getRembParams" && it.our_value()["linealFactorMin"] == 50,
    },
    Purpose {
        reason: "the original was recorded with its media bound to one interface by its settings",
        applies: |it| it.operation() == "getNetworkInterfaces" && *it.recorded_value() == "lo",
    },
    // Events.
    Purpose {
        reason: "what a request causes is told to the connection it came over, not to the one before",
        applies: |it| it.file.starts_with("t19") && it.is_event(&["ElementConnected"]),
    },
    Purpose {
        reason: "RTCP is multiplexed, so there is no second component to look for",
        applies: |it| {
            it.is_event(&["IceComponentStateChanged", "NewCandidatePairSelected"])
                && (it.event()["data"]["componentId"] == 2
                    || it.event()["data"]["candidatePair"]["componentId"] == 2)
                || it.is_event(&["IceCandidateFound"])
                    && it.candidate().split(' ').nth(1) == Some("2")
                || it.operation() == "getIceConnectionState"
                    && it.recorded_value().as_array().is_some_and(|all| all.len() == 2)
        },
    },
    Purpose {
        reason: "the state of DTLS is told from the handshake on, also by the side that waits for it",
        applies: |it| {
            it.file.starts_with("t07m")
                && it.is_event(&["DtlsConnectionStateChange"])
                && it.event()["data"]["state"] == "NEW"
        },
    },
    Purpose {
        reason: "nothing is gathered for a description without media",
        applies: |it| it.file.starts_with("t07s") && it.is_event(&["IceComponentStateChanged"]),
    },
    Purpose {
        reason: "each section gathers for one stream, a refused one for none",
        applies: |it| {
            (it.file.starts_with("t07p") || it.file.starts_with("t07f"))
                && it.is_event(&["IceComponentStateChanged", "IceCandidateFound"])
                && !it.recorded.is_null()
        },
    },
    Purpose {
        reason: EARLY_REPORTS,
        applies: |it| {
            it.file.starts_with("t09")
                && it.operation() == "getMediaState"
                && it.our_value() == "CONNECTED"
        },
    },
    // Descriptions.
    Purpose {
        reason: "retransmissions, redundant audio, feedback about the transport, more extensions and \
                 simulcast are agreed on if they are offered, and offered behind the rest",
        applies: |it| it.descriptions_differ_in().is_some_and(|lines| lines.is_empty()),
    },
    Purpose {
        reason: "the fingerprint of who offered is not repeated in the answer",
        applies: |it| {
            it.file.starts_with("t07a")
                && it.descriptions_but_for(|line| line.starts_with("a=fingerprint:"))
        },
    },
    Purpose {
        reason: "where the endpoint is reachable is told also while nothing is sent",
        applies: |it| {
            it.file.starts_with("t07v")
                && it.descriptions_but_for(|line| {
                    line.starts_with("c=") || line.starts_with("a=rtcp:")
                })
        },
    },
    // What is not built yet.
    Purpose {
        reason: "an event is raised once",
        applies: |it| {
            it.is_event(&["DataChannelOpened", "DataChannelClosed"]) && it.recorded.is_object()
        },
    },
    Purpose {
        reason: "data sections say how long a message may be, and offers the usual SCTP port",
        applies: |it| {
            it.descriptions_but_for(|line| {
                line.starts_with("a=max-message-size:") || line.starts_with("a=sctp-port:")
            })
        },
    },
    Purpose {
        reason: "a data section in the form of the drafts is taken",
        applies: |it| {
            it.file.starts_with("t07x") && (it.request.is_null() || it.our_value().is_string())
        },
    },
    Purpose {
        reason: "not built: two endpoints of this server that are each other's peer over the network",
        applies: |it| {
            it.file.starts_with("t09")
                && (it.is_event(&CONNECTED)
                    || it.recorded["error"]["code"] != Value::Null
                    || it.is_event(&["DataChannelOpened", "DataChannelClosed"])
                    || it.invokes(&[
                        "createDataChannel",
                        "closeDataChannel",
                        "addIceCandidate",
                        "getConnectionState",
                        "getICECandidatePairs",
                        "getDtlsConnectionState",
                    ]))
        },
    },
    Purpose {
        reason: "the peer of the record is not here, so nothing connects and no media comes",
        applies: |it| {
            it.file.starts_with("t25")
                && (it.is_event(&CONNECTED)
                    || it.invokes(&[
                        "getConnectionState",
                        "getMediaState",
                        "isMediaFlowingIn",
                        "isMediaFlowingOut",
                        "isMediaTranscoding",
                        "getICECandidatePairs",
                        "getDtlsConnectionState",
                        "getStats",
                    ]))
        },
    },
    Purpose {
        reason: "not built: players, so what they would feed gets nothing",
        applies: |it| {
            it.file.starts_with("t11")
                && (it.is_event(&["MediaFlowInStateChanged", "MediaFlowOutStateChanged"])
                    || it.invokes(&["isMediaFlowingIn", "isMediaFlowingOut"]))
        },
    },
];

/// Why a difference is as it should be.
pub fn of(difference: &Difference<'_>) -> Option<&'static str> {
    PURPOSES.iter().find(|purpose| (purpose.applies)(difference)).map(|purpose| purpose.reason)
}

/// Reasons that no record needed: they say more than is true.
pub fn unused(reports: &[Report]) -> Vec<&'static str> {
    let needed = |reason: &&str| {
        *reason == EARLY_REPORTS
            || reports.iter().any(|report| report.on_purpose.contains_key(*reason))
    };
    PURPOSES.iter().map(|purpose| purpose.reason).filter(|reason| !needed(reason)).collect()
}

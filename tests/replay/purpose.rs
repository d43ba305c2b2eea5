//! Where this server differs from the original on purpose, or has not come that far.

use serde_json::Value;

use super::player::Report;

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
}

impl Difference<'_> {
    fn operation(&self) -> &str {
        self.request["params"]["operation"].as_str().unwrap_or_default()
    }

    fn said(&self, text: &str) -> bool {
        self.recorded["error"]["message"].as_str().is_some_and(|said| said.contains(text))
    }

    fn our_code(&self) -> i64 {
        self.ours["error"]["code"].as_i64().unwrap_or_default()
    }

    fn event(&self, name: &str) -> bool {
        let event = if self.recorded.is_null() { self.ours } else { self.recorded };
        event["params"]["value"]["type"] == name
    }
}

pub struct Purpose {
    pub reason: &'static str,
    applies: fn(&Difference<'_>) -> bool,
}

const PURPOSES: &[Purpose] = &[];

/// Why a difference is as it should be.
pub fn of(difference: &Difference<'_>) -> Option<&'static str> {
    PURPOSES.iter().find(|purpose| (purpose.applies)(difference)).map(|purpose| purpose.reason)
}

/// Reasons that no record needed: they say more than is true.
pub fn unused(reports: &[Report]) -> Vec<&'static str> {
    let needed =
        |reason: &&str| reports.iter().any(|report| report.on_purpose.contains_key(*reason));
    PURPOSES.iter().map(|purpose| purpose.reason).filter(|reason| !needed(reason)).collect()
}

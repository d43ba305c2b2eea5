//! What must be equal between a record and a replay, and what is a name or a number of the moment.
//!
//! Ids of objects, sessions and subscriptions are new in every run. A recorded one is paired with ours
//! where it first appears; from then on the pair must hold, both ways. Texts that one side made and the
//! other sends back (session descriptions, candidates) are paired as a whole.

use std::collections::HashMap;

use serde_json::Value;

use super::sdp;

/// Operations whose value depends on machine, build and moment: only its kind is compared.
const OF_THE_MOMENT: [&str; 9] = [
    "getCreationTime",
    "getUsedCpu",
    "getUsedMemory",
    "getCpuCount",
    "getInfo",
    "getStats",
    "getKmd",
    "getGstreamerDot",
    "getPipelines",
];

/// Length of a UUID as text.
const UUID: usize = 36;

#[derive(Default)]
pub struct Names {
    ours: HashMap<String, String>,
    recorded: HashMap<String, String>,
    texts: HashMap<String, String>,
}

/// Pairs that hold if a comparison succeeds.
#[derive(Default)]
struct Trial {
    names: Vec<(String, String)>,
    texts: Vec<(String, String)>,
}

/// Where UUIDs are in a text.
pub fn uuids(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let is_uuid = |window: &[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at + UUID <= bytes.len() {
        if is_uuid(&bytes[at..at + UUID]) {
            found.push(&text[at..at + UUID]);
            at += UUID;
        } else {
            at += 1;
        }
    }
    found
}

/// Calls `visit` with every text inside a value, names of members included.
pub fn texts<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, visit)),
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            visit(name);
            texts(member, visit);
        }),
        _ => {}
    }
}

impl Names {
    pub fn knows(&self, uuid: &str) -> bool {
        self.ours.contains_key(uuid)
    }

    /// Pairs two ids without comparing anything.
    pub fn pair(&mut self, recorded: &str, ours: &str) {
        self.ours.entry(recorded.to_owned()).or_insert_with(|| ours.to_owned());
        self.recorded.entry(ours.to_owned()).or_insert_with(|| recorded.to_owned());
    }

    /// A recorded text with our names in it.
    pub fn translate(&self, text: &str) -> String {
        if let Some(ours) = self.texts.get(text) {
            return ours.clone();
        }
        let mut translated = text.to_owned();
        for uuid in uuids(text) {
            if let Some(ours) = self.ours.get(uuid) {
                translated = translated.replace(uuid, ours);
            }
        }
        translated
    }

    /// A recorded value with our names in it.
    pub fn translated(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.translate(text)),
            Value::Array(items) => items.iter().map(|item| self.translated(item)).collect(),
            Value::Object(members) => {
                let own = |(name, member): (&String, _)| (name.clone(), self.translated(member));
                Value::Object(members.iter().map(own).collect())
            }
            _ => value.clone(),
        }
    }

    /// Compares a recorded message with ours. `operation` is what was invoked, if anything was.
    ///
    /// # Errors
    /// The path of the first difference, and both sides of it.
    pub fn compare(
        &mut self,
        operation: &str,
        recorded: &Value,
        ours: &Value,
    ) -> Result<(), String> {
        let mut trial = Trial::default();
        // Connections of an element have no order.
        let sorted = |message: &Value| {
            let mut message = message.clone();
            if matches!(operation, "getSourceConnections" | "getSinkConnections")
                && let Some(list) = message["result"]["value"].as_array_mut()
            {
                let order = ["type", "sourceDescription", "sinkDescription"];
                list.sort_by_key(|each| order.map(|name| each[name].as_str().map(str::to_owned)));
            }
            message
        };
        let (recorded, ours) = (&sorted(recorded), &sorted(ours));
        let result = if OF_THE_MOMENT.contains(&operation) && recorded.get("result").is_some() {
            self.outline(&mut trial, "", recorded, ours)
        } else {
            self.values(&mut trial, "", recorded, ours)
        };
        if result.is_ok() {
            for (recorded, ours) in trial.names {
                self.pair(&recorded, &ours);
            }
        }
        // Peers have to be told the descriptions and candidates of this run even where they differ.
        self.texts.extend(trial.texts);
        result
    }

    fn values(
        &self,
        trial: &mut Trial,
        path: &str,
        recorded: &Value,
        ours: &Value,
    ) -> Result<(), String> {
        let differ = || Err(format!("at {path:?}: {} but ours: {}", short(recorded), short(ours)));
        match (recorded, ours) {
            (Value::Object(theirs), Value::Object(members)) => {
                for (name, member) in theirs {
                    let Some(own) = members.get(&self.translate(name)) else {
                        return Err(format!("at {path:?}: no member {name:?} in {}", short(ours)));
                    };
                    self.values(trial, &format!("{path}/{name}"), member, own)?;
                }
                let extra = members.keys().find(|name| {
                    let known = |recorded: &String| self.translate(recorded) == **name;
                    // Clients of 6.x need it beside `timestampMillis`; later ones take no notice.
                    *name != "timestamp" && !theirs.keys().any(known)
                });
                match extra {
                    Some(name) => {
                        Err(format!("at {path:?}: a member {name:?} more: {}", short(ours)))
                    }
                    None => Ok(()),
                }
            }
            (Value::Array(theirs), Value::Array(items)) => {
                if theirs.len() != items.len() {
                    return differ();
                }
                // Lists of ids have no order that means anything.
                let (theirs, items) = if theirs.iter().all(is_id) && items.iter().all(is_id) {
                    (self.known_first(theirs, false), self.known_first(items, true))
                } else {
                    (theirs.iter().collect(), items.iter().collect())
                };
                for (at, (recorded, ours)) in theirs.into_iter().zip(items).enumerate() {
                    self.values(trial, &format!("{path}/{at}"), recorded, ours)?;
                }
                Ok(())
            }
            (Value::String(recorded), Value::String(ours)) => {
                if self.strings(trial, path, recorded, ours)? { Ok(()) } else { differ() }
            }
            _ if recorded == ours => Ok(()),
            _ => differ(),
        }
    }

    /// Ids that are paired already first, sorted by what they are called in the record.
    fn known_first<'a>(&self, ids: &'a [Value], ours: bool) -> Vec<&'a Value> {
        let mut ids: Vec<_> = ids.iter().collect();
        let names = if ours { &self.recorded } else { &self.ours };
        ids.sort_by_key(|id| {
            let id = id.as_str().unwrap_or_default();
            let uuid = uuids(id).last().copied().unwrap_or_default();
            let known = names.get(uuid);
            (known.is_none(), if ours { known.cloned() } else { known.map(|_| uuid.to_owned()) })
        });
        ids
    }

    fn strings(
        &self,
        trial: &mut Trial,
        path: &str,
        recorded: &str,
        ours: &str,
    ) -> Result<bool, String> {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if path.ends_with("/timestampMillis") {
            return Ok(digits(recorded) && digits(ours));
        }
        if path.ends_with("/serverId") {
            return Ok(uuids(ours) == [ours]);
        }
        if recorded.starts_with("v=0") && ours.starts_with("v=0") {
            trial.texts.push((recorded.to_owned(), ours.to_owned()));
            return sdp::compare(recorded, ours).map(|()| true);
        }
        if recorded.starts_with("candidate:") && ours.starts_with("candidate:") {
            trial.texts.push((recorded.to_owned(), ours.to_owned()));
            return Ok(sdp::candidate(recorded) == sdp::candidate(ours));
        }
        let (theirs, own) = (uuids(recorded), uuids(ours));
        if skeleton(recorded) != skeleton(ours) {
            return Ok(false);
        }
        for (theirs, own) in theirs.into_iter().zip(own) {
            let trial_pair =
                trial.names.iter().find(|(recorded, ours)| recorded == theirs || ours == own);
            let holds = match (self.ours.get(theirs), self.recorded.get(own), trial_pair) {
                (None, None, None) => {
                    trial.names.push((theirs.to_owned(), own.to_owned()));
                    true
                }
                (None, None, Some(pair)) => *pair == (theirs.to_owned(), own.to_owned()),
                (known, _, _) => known.is_some_and(|known| known == own),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares kinds of values only, and of objects the names of members.
    fn outline(
        &self,
        trial: &mut Trial,
        path: &str,
        recorded: &Value,
        ours: &Value,
    ) -> Result<(), String> {
        let kind = |value: &Value| match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "real",
            Value::Number(_) => "integer",
            Value::String(_) => "text",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        match (recorded, ours) {
            (Value::Object(theirs), Value::Object(members))
                if path.is_empty() || path == "/result" =>
            {
                for (name, member) in theirs {
                    let own =
                        members.get(name).ok_or_else(|| format!("no {name} in {}", short(ours)))?;
                    if name == "value" || name == "result" {
                        self.outline(trial, &format!("{path}/{name}"), member, own)?;
                    } else {
                        self.values(trial, &format!("{path}/{name}"), member, own)?;
                    }
                }
                Ok(())
            }
            (Value::Object(theirs), Value::Object(members)) => {
                // A register has its members; a map may have any.
                if theirs.contains_key("__type__") {
                    let missing = theirs.keys().find(|name| !members.contains_key(*name));
                    if let Some(name) = missing {
                        return Err(format!("at {path:?}: no member {name:?} in {}", short(ours)));
                    }
                    if theirs["__type__"] != members["__type__"] {
                        return Err(format!(
                            "at {path:?}: {} is not {}",
                            members["__type__"], theirs["__type__"]
                        ));
                    }
                }
                for (name, member) in theirs {
                    if let Some(own) = members.get(name) {
                        self.outline(trial, &format!("{path}/{name}"), member, own)?;
                    }
                }
                Ok(())
            }
            _ if kind(recorded) == kind(ours) => Ok(()),
            _ => Err(format!("at {path:?}: {} but ours: {}", short(recorded), short(ours))),
        }
    }
}

fn is_id(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !uuids(text).is_empty())
}

/// A text with its UUIDs blotted out.
fn skeleton(text: &str) -> String {
    uuids(text).into_iter().fold(text.to_owned(), |text, uuid| text.replacen(uuid, "#", 1))
}

/// A value for people.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

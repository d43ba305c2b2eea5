//! What came of a run, in numbers: written as JSON, and read again to compare with.
//!
//! Everything is optional when it is read, so that reports of other versions can be compared with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::scenario::{Options, Scenario};
use super::stage::Reading;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Report {
    /// `rivero` and its version: who measured.
    pub measured_by: String,
    pub scenario: String,
    pub clients: usize,
    /// For how long clients came, and for how long was measured, in seconds.
    pub over: f64,
    pub seconds: f64,
    pub way: Way,
    pub server: Server,
    pub machine: Machine,
    pub joins: Joins,
    pub media: MediaReport,
    pub cost: Cost,
    pub harness: Harness,
    /// If it was looked for; media and cost are then those of this load.
    pub largest: Option<Largest>,
    pub steps: Vec<Step>,
    /// What the scenario asks of the server, and whether it was so.
    pub verdicts: Vec<Verdict>,
    /// One for about each second, or each ten seconds of a churn.
    pub samples: Vec<Sample>,
}

/// How clients behave.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Way {
    /// Of publishers: the name of a size.
    pub pictures: String,
    /// How many times as often as a camera they send.
    pub rate: u32,
    pub room: Option<usize>,
    /// Of each, and how many of a client are under way.
    pub message_bytes: Option<usize>,
    pub messages_under_way: Option<usize>,
    pub transport_cc: bool,
    /// Viewers deciphered one of so many pictures, and read the headers of all others.
    pub opens_one_of: u32,
    /// Whether rows of datagrams could arrive as one (GRO), which spares the server's machine, too.
    pub rows: bool,
    pub threads: usize,
    /// Where both ran, if that was settled.
    pub server_cores: Vec<usize>,
    pub load_cores: Vec<usize>,
}

impl Way {
    pub fn of(options: &Options) -> Self {
        let data = options.scenario == Scenario::Data;
        Self {
            pictures: if data { String::new() } else { options.pictures.name().to_owned() },
            rate: options.rate,
            room: (options.scenario == Scenario::Rooms).then_some(options.room),
            message_bytes: data.then_some(options.chat.bytes),
            messages_under_way: data.then_some(options.chat.window),
            transport_cc: options.transport_cc,
            opens_one_of: options.opens,
            rows: options.rows,
            threads: options.threads,
            server_cores: Vec::new(),
            load_cores: Vec::new(),
        }
    }
}

/// What the load cost this program: where it is near its own limits, numbers tell of it and not of the
/// server.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Harness {
    /// Of one core: all of it, and its busiest thread of clients.
    pub cpu_percent: f64,
    pub busiest_percent: f64,
    /// From a datagram's arrival in the system until it was read; no part of the delays.
    pub wait_ms: Option<Spread>,
    /// Why it was the limit, if it was.
    pub limited: Option<String>,
}

/// The largest load at which all was well.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Largest {
    pub clients: usize,
    /// How many times as often as a camera publishers sent.
    pub rate: u32,
    /// What was wrong with more, and whether that was rather this program's doing.
    pub beyond: String,
    pub harness_limited: bool,
    /// The same measured at 70 % of that load.
    pub at_seventy_percent: Option<Box<Step>>,
}

/// One of the loads that were tried.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Step {
    pub clients: usize,
    pub rate: u32,
    pub passed: bool,
    /// Why not.
    pub reason: Option<String>,
    pub media: MediaReport,
    pub cost: Cost,
    pub harness: Harness,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Verdict {
    pub what: String,
    pub passed: bool,
    pub detail: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    pub url: String,
    pub version: String,
    pub pid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Before the run, over a minute.
    pub load_average: f64,
    /// What a packet takes that is only sealed and sent, see [`super::floor`].
    pub bare_us_per_packet: Option<f64>,
}

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spread {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Joins {
    pub asked: u64,
    pub joined: u64,
    pub failed: u64,
    /// How many ended with which reason.
    pub failures: BTreeMap<String, u64>,
    /// The call alone.
    pub process_offer_ms: Option<Spread>,
    /// From that call until DTLS was connected, and until the first keyframe was whole.
    pub connected_ms: Option<Spread>,
    pub first_frame_ms: Option<Spread>,
}

/// While it was measured, all clients together.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MediaReport {
    /// Seconds from the coming of the last client until packets were there soon, and it was measured.
    pub settled_after: f64,
    /// Packets that publishers sent.
    pub sent: u64,
    pub expected: u64,
    pub received: u64,
    pub lost: u64,
    pub lost_percent: f64,
    pub reordered: u64,
    pub duplicates: u64,
    /// What could not be deciphered, and what was not what had been sent.
    pub undecryptable: u64,
    pub foreign: u64,
    /// How many were deciphered; of the others the header was read.
    pub opened: u64,
    /// Packets that came once more without being asked for.
    pub repetitions: u64,
    /// Pictures and pieces of sound that were whole.
    pub frames: u64,
    pub received_per_second: f64,
    pub megabits_per_second: f64,
    /// From the stamp in the payload until this machine had the packet, or the message had come back.
    pub delay_ms: Option<Spread>,
    /// How often publishers were asked for a keyframe, and for how many packets again.
    pub keyframes_asked: u64,
    pub nacked: u64,
    /// Where this program was the bottleneck: datagrams that it was too slow to read or could not send,
    /// and packets that it did not even make in time. Numbers that are not 0 spoil those above.
    pub harness_overflown: u64,
    pub harness_refused: u64,
    pub harness_left_out: u64,
}

/// What it cost the server; missing where its process is not to be seen.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cost {
    /// Of one core.
    pub cpu_percent: Option<f64>,
    /// All of the server's time while it was measured, by packets that clients received.
    pub cpu_us_per_packet: Option<f64>,
    /// Time while clients came, less what those who were there cost with their packets, or, where no
    /// packets flow, with what keeps them connected; by clients.
    pub cpu_ms_per_join: Option<f64>,
    /// Clients by the cores that they took.
    pub clients_per_core: Option<f64>,
    /// Growth while clients came, by clients, in units of 1 024 bytes.
    pub memory_kb_per_client: Option<f64>,
    /// The same for endpoints before anybody called them.
    pub memory_kb_per_endpoint: Option<f64>,
    /// At the end, in units of 1 048 576 bytes.
    pub resident_mb: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sample {
    /// Seconds since the run began.
    pub at: f64,
    pub joined: u64,
    pub received_per_second: f64,
    pub lost: u64,
    pub cpu_percent: Option<f64>,
    pub resident_mb: Option<f64>,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
    pub delay_p50_ms: Option<f64>,
    pub delay_p99_ms: Option<f64>,
}

const MEGABYTE: f64 = 1_048_576.0;
/// Per cent of a core beyond which a thread has no time left, and milliseconds that are late.
const FULL: f64 = 95.0;
const LATE: f64 = 20.0;

pub fn spread(histogram: &Histogram) -> Option<Spread> {
    Some(Spread {
        p50: rounded(histogram.quantile(0.5)?),
        p90: rounded(histogram.quantile(0.9)?),
        p99: rounded(histogram.quantile(0.99)?),
        max: rounded(histogram.longest()?),
    })
}

/// Three digits after the point are more than is known.
pub fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

impl Sample {
    pub fn between(before: &Reading, after: &Reading, joined: u64) -> Self {
        let time = after.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let counts = after.tally.counts.since(&before.tally.counts);
        let cpu = after.cpu_since(before);
        Self {
            at: rounded(after.at.as_secs_f64()),
            joined,
            received_per_second: (counts.received as f64 / time).round(),
            lost: counts.expected.saturating_sub(counts.received),
            cpu_percent: cpu.map(|cpu| rounded(100.0 * cpu.as_secs_f64() / time)),
            resident_mb: after.usage.map(|usage| rounded(usage.resident as f64 / MEGABYTE)),
            threads: after.usage.and_then(|usage| usage.threads),
            descriptors: after.usage.and_then(|usage| usage.descriptors),
            delay_p50_ms: after.tally.delays.quantile(0.5).map(rounded),
            delay_p99_ms: after.tally.delays.quantile(0.99).map(rounded),
        }
    }
}

impl MediaReport {
    pub fn between(before: &Reading, after: &Reading, delays: &Histogram) -> Self {
        let time = after.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let (was, is) = (&before.tally, &after.tally);
        let counts = is.counts.since(&was.counts);
        let lost = counts.expected.saturating_sub(counts.received);
        Self {
            settled_after: 0.0,
            sent: is.sent.saturating_sub(was.sent),
            expected: counts.expected,
            received: counts.received,
            lost,
            lost_percent: rounded(100.0 * lost as f64 / counts.expected.max(1) as f64),
            reordered: counts.reordered,
            duplicates: counts.duplicates,
            undecryptable: is.undecryptable.saturating_sub(was.undecryptable),
            foreign: counts.foreign,
            opened: counts.opened,
            repetitions: is.repetitions.saturating_sub(was.repetitions),
            frames: counts.frames,
            received_per_second: (counts.received as f64 / time).round(),
            megabits_per_second: rounded(counts.bytes as f64 * 8.0 / time / 1e6),
            delay_ms: spread(delays),
            keyframes_asked: is.keyframes_asked.saturating_sub(was.keyframes_asked),
            nacked: is.nacked.saturating_sub(was.nacked),
            harness_overflown: is.overflown.saturating_sub(was.overflown),
            harness_refused: is.refused.saturating_sub(was.refused),
            harness_left_out: is.left_out.saturating_sub(was.left_out),
        }
    }
}

impl Harness {
    /// `cores` is how many this program may run on.
    pub fn between(before: &Reading, after: &Reading, waits: &Histogram, cores: usize) -> Self {
        let time = after.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let percent = |cpu: Duration| rounded(100.0 * cpu.as_secs_f64() / time);
        let threads = after.tally.threads.iter().zip(&before.tally.threads);
        let busiest = threads.map(|(is, was)| is.saturating_sub(*was)).max().unwrap_or_default();
        let (cpu_percent, busiest_percent) =
            (percent(after.own.saturating_sub(before.own)), percent(busiest));
        let (was, is) = (&before.tally, &after.tally);
        let spoilt = is.overflown.saturating_sub(was.overflown)
            + is.refused.saturating_sub(was.refused)
            + is.left_out.saturating_sub(was.left_out);
        let wait_ms = spread(waits);
        let late = wait_ms.map_or(0.0, |wait| wait.p99);
        let limited = if spoilt > 0 {
            Some(format!("this program was too slow for {spoilt} datagrams"))
        } else if busiest_percent > FULL {
            Some(format!("a thread of this program used {busiest_percent:.0} % of a core"))
        } else if cpu_percent > FULL * cores.max(1) as f64 {
            Some(format!("this program used {cpu_percent:.0} % of a core, and has {cores}"))
        } else if late > LATE {
            Some(format!("datagrams waited {late:.1} ms for this program"))
        } else {
            None
        };
        Self { cpu_percent, busiest_percent, wait_ms, limited }
    }
}

/// The readings that a cost is made of: before anybody came, when all were there, and at the ends of
/// the measured time.
pub struct Readings<'a> {
    pub empty: &'a Reading,
    pub joined: &'a Reading,
    pub begin: &'a Reading,
    pub end: &'a Reading,
    /// How many endpoints joined.
    pub joins: u64,
}

impl Cost {
    pub fn of(readings: &Readings<'_>) -> Self {
        let Readings { empty, joined, begin, end, joins } = *readings;
        let clients = joins.max(1) as f64;
        let received = |from: &Reading, to: &Reading| {
            to.tally.counts.received.saturating_sub(from.tally.counts.received) as f64
        };
        let time = end.at.saturating_sub(begin.at).as_secs_f64().max(1e-3);
        let busy = end.cpu_since(begin);
        let packets = received(begin, end);
        let per_packet =
            busy.filter(|_| packets > 0.0).map(|cpu| cpu.as_secs_f64() * 1e6 / packets);
        // With packets or without: those who were there cost what they cost later. They came evenly.
        let present = match (per_packet, busy) {
            (Some(per_packet), _) => per_packet / 1e6 * received(empty, joined),
            (None, Some(busy)) => {
                busy.as_secs_f64() / time * joined.at.saturating_sub(empty.at).as_secs_f64() / 2.0
            }
            (None, None) => 0.0,
        };
        let joining = joined.cpu_since(empty).map(|cpu| cpu.as_secs_f64() - present);
        Self {
            cpu_percent: busy.map(|cpu| rounded(100.0 * cpu.as_secs_f64() / time)),
            cpu_us_per_packet: per_packet.map(rounded),
            cpu_ms_per_join: joining.map(|seconds| rounded(seconds * 1e3 / clients)),
            clients_per_core: None,
            memory_kb_per_client: end
                .memory_since(empty)
                .map(|bytes| rounded(bytes / 1_024.0 / clients)),
            memory_kb_per_endpoint: None,
            resident_mb: end.usage.map(|usage| rounded(usage.resident as f64 / MEGABYTE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::process::Usage;
    use crate::load::stream::Counts;

    fn reading(seconds: u64, cpu_millis: u64, kilobytes: u64, received: u64) -> Reading {
        let usage = Usage {
            cpu: Duration::from_millis(cpu_millis),
            resident: kilobytes * 1_024,
            ..Usage::default()
        };
        let mut reading =
            Reading { at: Duration::from_secs(seconds), usage: Some(usage), ..Reading::default() };
        reading.tally.counts = Counts { expected: received + 10, received, ..Counts::default() };
        reading
    }

    #[test]
    fn joining_costs_what_is_left_when_those_who_are_there_are_paid_for() {
        let (empty, joined) = (reading(0, 0, 1_000, 0), reading(10, 1_000, 9_000, 50_000));
        let (begin, end) = (reading(11, 1_100, 9_000, 60_000), reading(21, 2_100, 9_000, 160_000));
        let readings =
            Readings { empty: &empty, joined: &joined, begin: &begin, end: &end, joins: 100 };
        let cost = Cost::of(&readings);
        assert_eq!((cost.cpu_percent, cost.cpu_us_per_packet), (Some(10.0), Some(10.0)));
        assert_eq!((cost.cpu_ms_per_join, cost.memory_kb_per_client), (Some(5.0), Some(80.0)));
        // Without packets, half of those who are there at the end were there on average.
        let silent = |mut reading: Reading| {
            reading.tally.counts = Counts::default();
            reading
        };
        let (joined, end) = (silent(joined.clone()), silent(end.clone()));
        let readings = Readings { joined: &joined, end: &end, ..readings };
        let cost = Cost::of(&readings);
        assert_eq!((cost.cpu_us_per_packet, cost.cpu_ms_per_join), (None, Some(5.0)));
        let hidden = Reading::default();
        let readings = Readings { empty: &hidden, end: &hidden, ..readings };
        assert_eq!(Cost::of(&readings).cpu_percent, None);
    }
}

//! All of it with one command: each scenario that there is a promise for, several times against a new
//! server each, and a table of the medians.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::Duration;

use super::publisher::Pictures;
use super::report::{Machine, Report};
use super::scenario::{Options, Scenario, Search};

/// What one of all the runs is.
pub struct Job {
    pub name: &'static str,
    pub workers: usize,
    adjust: fn(&mut Options),
    scenario: Scenario,
}

const fn job(name: &'static str, scenario: Scenario, adjust: fn(&mut Options)) -> Job {
    Job { name, workers: 1, adjust, scenario }
}

/// Of pictures that a viewer of a crowd deciphers: one of so many.
const SAMPLED: u32 = 8;

pub const JOBS: &[Job] = &[
    job("10 viewers", Scenario::OneToMany, |options| options.clients = 10),
    job("50 viewers", Scenario::OneToMany, |options| options.clients = 50),
    job("100 viewers", Scenario::OneToMany, |options| options.clients = 100),
    job("100 viewers without transport-cc", Scenario::OneToMany, |options| {
        options.clients = 100;
        options.transport_cc = false;
    }),
    job("500 viewers", Scenario::OneToMany, |options| {
        options.clients = 500;
        options.over = Duration::from_secs(5);
        options.opens = SAMPLED;
    }),
    job("join storm", Scenario::JoinStorm, |options| options.opens = SAMPLED),
    job("saturated", Scenario::OneToMany, |options| {
        options.clients = 300;
        options.over = Duration::from_secs(3);
        options.transport_cc = false;
        options.search = Some(Search::Rate);
        // A burst for all of them takes longer than others may be late.
        options.latest = 50.0;
        options.opens = SAMPLED;
    }),
    job("largest broadcast", Scenario::OneToMany, |options| {
        options.clients = 200;
        options.search = Some(Search::Clients);
        options.opens = SAMPLED;
    }),
    Job {
        workers: 2,
        ..job("largest broadcast, two workers", Scenario::OneToMany, |options| {
            options.clients = 400;
            options.search = Some(Search::Clients);
            options.opens = SAMPLED;
        })
    },
    job("largest broadcast of 600 kbit/s", Scenario::OneToMany, |options| {
        options.clients = 400;
        options.pictures = Pictures::Medium;
        options.search = Some(Search::Clients);
        // What is promised is that all of it arrives; each picture is a burst for all of them.
        options.latest = 50.0;
        options.opens = SAMPLED;
    }),
    job("most rooms", Scenario::Rooms, |options| {
        options.clients = 70;
        options.search = Some(Search::Clients);
        options.opens = SAMPLED;
    }),
    job("messages", Scenario::Data, |options| options.clients = 10),
];

impl Job {
    /// Its options; those who started it have a say in how long is measured, and how.
    pub fn options(&self, given: &Options) -> Options {
        let mut options = Options {
            measured: given.measured,
            patience: given.patience.max(Duration::from_secs(30)),
            threads: given.threads,
            rows: given.rows,
            ..Options::new(self.scenario)
        };
        (self.adjust)(&mut options);
        options
    }
}

/// What is promised: at most so much, or at least.
#[derive(Clone, Copy)]
enum Promise {
    AtMost(f64),
    AtLeast(f64),
    Nothing,
}

use Promise::{AtLeast, AtMost, Nothing};

struct Line {
    what: &'static str,
    unit: &'static str,
    promise: Promise,
    job: &'static str,
    read: fn(&Report) -> Option<f64>,
}

const fn line(
    what: &'static str,
    unit: &'static str,
    promise: Promise,
    job: &'static str,
    read: fn(&Report) -> Option<f64>,
) -> Line {
    Line { what, unit, promise, job, read }
}

const fn per_packet(report: &Report) -> Option<f64> {
    report.cost.cpu_us_per_packet
}

fn seventy(report: &Report) -> Option<f64> {
    let step = report.largest.as_ref()?.at_seventy_percent.as_ref()?;
    step.media.delay_ms.map(|delay| delay.p99)
}

const TWO_WORKERS: &str = "largest broadcast, two workers";

const LINES: &[Line] = &[
    line(
        "1 to 10 viewers, CPU per forwarded packet",
        "\u{b5}s",
        AtMost(6.0),
        "10 viewers",
        per_packet,
    ),
    line("1 to 50 viewers", "\u{b5}s", AtMost(2.5), "50 viewers", per_packet),
    line("1 to 100 viewers", "\u{b5}s", AtMost(2.0), "100 viewers", per_packet),
    line(
        "1 to 100 viewers without transport-cc",
        "\u{b5}s",
        Nothing,
        "100 viewers without transport-cc",
        per_packet,
    ),
    line("1 to 500 viewers", "\u{b5}s", AtMost(1.3), "500 viewers", per_packet),
    line(
        "1 to 300 viewers, as many packets as it bears, without transport-cc",
        "\u{b5}s",
        AtMost(0.9),
        "saturated",
        per_packet,
    ),
    line("the same, packets/s", "", AtLeast(1.1e6), "saturated", |report| {
        Some(report.media.received_per_second)
    }),
    line("the same, of a core that was used", "%", Nothing, "saturated", |report| {
        report.cost.cpu_percent
    }),
    line(
        "for comparison: only sealed and sent, without a server",
        "\u{b5}s",
        Nothing,
        "100 viewers",
        |report| report.machine.bare_us_per_packet,
    ),
    line(
        "viewers of one publisher on one core, 99 % within 5 ms",
        "",
        Nothing,
        "largest broadcast",
        |report| Some(report.clients as f64),
    ),
    line(
        "600 kbit/s viewers of one publisher on one core, loss below 0.1 %, 99 % within 50 ms",
        "",
        AtLeast(1_500.0),
        "largest broadcast of 600 kbit/s",
        |report| Some(report.clients as f64),
    ),
    line(
        "users on one core in rooms of 7, 500 kbit/s each",
        "",
        AtLeast(150.0),
        "most rooms",
        |report| Some(report.clients as f64),
    ),
    line("added latency at 50 viewers, median", "ms", AtMost(0.15), "50 viewers", |report| {
        report.media.delay_ms.map(|delay| delay.p50)
    }),
    line("added latency at 50 viewers, 99 %", "ms", AtMost(0.6), "50 viewers", |report| {
        report.media.delay_ms.map(|delay| delay.p99)
    }),
    line(
        "added latency at 70 % of the largest broadcast, 99 %",
        "ms",
        AtMost(4.0),
        "largest broadcast",
        seventy,
    ),
    line("memory for each connected viewer", "KB", AtMost(80.0), "500 viewers", |report| {
        report.cost.memory_kb_per_client
    }),
    line("CPU for each connection set up", "ms", AtMost(1.0), "join storm", |report| {
        report.cost.cpu_ms_per_join
    }),
    line("messages of 1 000 bytes through data channels", "/s", Nothing, "messages", |report| {
        Some(report.media.received_per_second)
    }),
    line("the same", "Mbit/s", Nothing, "messages", |report| {
        Some(report.media.megabits_per_second)
    }),
];

/// What came of all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Suite {
    pub measured_by: String,
    pub command: String,
    pub machine: Machine,
    pub server_cores: Vec<usize>,
    pub load_cores: Vec<usize>,
    pub runs: usize,
    pub seconds: f64,
    pub rows: Vec<Row>,
    pub jobs: Vec<Done>,
}

/// A job and its reports, one for each run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Done {
    pub name: String,
    pub reports: Vec<Report>,
    /// Why runs have no report.
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Row {
    pub what: String,
    pub unit: String,
    pub promise: String,
    /// Of the runs, in their order.
    pub values: Vec<f64>,
    pub median: Option<f64>,
    /// None if nothing is promised or known.
    pub kept: Option<bool>,
    /// What is to be known of the value, or why there is none.
    pub note: String,
}

impl Done {
    fn values(&self, read: fn(&Report) -> Option<f64>) -> Vec<f64> {
        self.reports.iter().filter_map(read).collect()
    }

    /// The run to show: the one in the middle by size, and then by cost.
    pub fn middle(&self) -> Option<&Report> {
        let mut sorted: Vec<_> = self.reports.iter().collect();
        sorted.sort_by(|a, b| {
            let key = |report: &Report| (report.clients as f64, per_packet(report).unwrap_or(0.0));
            key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal)
        });
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }

    fn note(&self) -> String {
        let limited = self.reports.iter().any(|report| {
            let own = report.largest.as_ref().map(|largest| largest.harness_limited);
            own.unwrap_or(report.harness.limited.is_some())
        });
        match (limited, self.failures.first()) {
            (_, Some(failure)) => format!("a run failed: {failure}"),
            (true, None) => "the load generator was the limit".to_owned(),
            (false, None) => String::new(),
        }
    }
}

/// Of an even count, the lower of both in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

impl Suite {
    /// Makes the table.
    pub fn tell(&mut self) {
        let done = |name: &str| self.jobs.iter().find(|done| done.name == name);
        let mut rows: Vec<Row> = LINES
            .iter()
            .map(|line| row(line.what, line.unit, line.promise, done(line.job), line.read))
            .collect();
        rows.push(two_workers(done("largest broadcast"), done(TWO_WORKERS)));
        self.rows = rows;
    }

    /// The table in Markdown, with what it takes to make it again.
    pub fn markdown(&self) -> String {
        let Machine { cpu, cores, kernel, .. } = &self.machine;
        let list = |cores: &[usize]| {
            let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
            if cores.is_empty() {
                "any core".to_owned()
            } else {
                format!("core {}", cores.join(", "))
            }
        };
        let mut text = format!(
            "{}, on {cpu}, {cores} cores, Linux {kernel}; the server on {}, the load on {}; medians of {} \
             runs, {} s each:\n\n```\n{}\n```\n\n| scenario | promised | measured | all runs | kept |\n\
             | --- | --- | --- | --- | --- |\n",
            self.measured_by,
            list(&self.server_cores),
            list(&self.load_cores),
            self.runs,
            self.seconds,
            self.command,
        );
        for Row { what, unit, promise, values, median, kept, note } in &self.rows {
            let values: Vec<_> = values.iter().map(|value| short(*value)).collect();
            let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
            let kept = kept.map_or("", |kept| if kept { "yes" } else { "no" });
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "| {what} | {promise} | {}{note} | {} | {kept} |",
                median.map_or("not measured".to_owned(), |median| with_unit(median, unit)),
                values.join(", "),
            );
        }
        text
    }
}

fn row(
    what: &str,
    unit: &str,
    promise: Promise,
    done: Option<&Done>,
    read: fn(&Report) -> Option<f64>,
) -> Row {
    let values = done.map(|done| done.values(read)).unwrap_or_default();
    let median = median(&values);
    let (promised, kept) = match promise {
        AtMost(most) => (format!("at most {}", with_unit(most, unit)), median.map(|it| it <= most)),
        AtLeast(least) => {
            (format!("at least {}", with_unit(least, unit)), median.map(|it| it >= least))
        }
        Nothing => (String::new(), None),
    };
    Row {
        what: what.to_owned(),
        unit: unit.to_owned(),
        promise: promised,
        values,
        median,
        kept,
        note: done.map(Done::note).unwrap_or_default(),
    }
}

fn two_workers(one: Option<&Done>, two: Option<&Done>) -> Row {
    let clients = |report: &Report| Some(report.clients as f64);
    let both = one.map(|one| one.values(clients)).unwrap_or_default();
    let two_values = two.map(|two| two.values(clients)).unwrap_or_default();
    let factors: Vec<f64> =
        two_values.iter().zip(&both).map(|(two, one)| two / one.max(1.0)).collect();
    let mut row = row("two workers, against one", "times", AtLeast(1.8), None, clients);
    row.median = median(&factors);
    row.kept = row.median.map(|factor| factor >= 1.8);
    row.values = factors;
    row.note = match two {
        Some(two) => two.note(),
        None => "takes a core more than there are".to_owned(),
    };
    row
}

fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => short(value),
        "/s" => format!("{}/s", short(value)),
        unit => format!("{} {unit}", short(value)),
    }
}

/// Three digits that count; thousands are set apart.
pub fn short(value: f64) -> String {
    if value.abs() < 1_000.0 {
        let digits = if value.abs() >= 100.0 { 0 } else { 2 };
        let text = format!("{value:.digits$}");
        return if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        };
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::{Cost, Largest};

    fn report(clients: usize, per_packet: f64) -> Report {
        let cost = Cost { cpu_us_per_packet: Some(per_packet), ..Cost::default() };
        Report { clients, cost, ..Report::default() }
    }

    #[test]
    fn the_table_has_medians_and_says_what_was_kept_and_why_something_is_missing() {
        let reports = vec![report(10, 5.0), report(10, 7.0), report(10, 5.5)];
        let done = Done { name: "10 viewers".to_owned(), reports, failures: Vec::new() };
        let limited = Largest { harness_limited: true, ..Largest::default() };
        let largest = Report { largest: Some(limited), ..report(1_234_567, 0.95) };
        let largest = Done {
            name: "largest broadcast".to_owned(),
            reports: vec![largest],
            failures: Vec::new(),
        };
        let mut suite = Suite { jobs: vec![done, largest], runs: 3, ..Suite::default() };
        suite.tell();
        let text = suite.markdown();
        for expected in [
            "| 1 to 10 viewers, CPU per forwarded packet | at most 6 \u{b5}s | 5.5 \u{b5}s | 5, 7, 5.5 | yes |",
            "| 1 to 50 viewers | at most 2.5 \u{b5}s | not measured |  |  |",
            "| viewers of one publisher on one core, 99 % within 5 ms |  | 1 234 567 (the load generator was the limit) | 1 234 567 |  |",
            "| two workers, against one | at least 1.8 times | not measured (takes a core more than there are) |  |  |",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert_eq!(suite.jobs[0].middle().and_then(per_packet), Some(5.5));
    }

    #[test]
    fn each_line_belongs_to_a_job_and_each_job_has_options() {
        let given = Options::new(Scenario::OneToMany);
        for line in LINES {
            assert!(JOBS.iter().any(|job| job.name == line.job), "{}", line.job);
        }
        for job in JOBS {
            assert!(job.options(&given).clients > 0);
        }
    }
}

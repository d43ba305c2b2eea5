//! Shell: the sub-command: its words, a server of its own if none is named, and where reports go.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command as Process, ExitCode, Stdio};
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum, value_parser};
use rivero::client::Trust;

use super::BenchError;
use super::page::page;
use super::progress::Progress;
use super::report::{Report, Spread};
use super::scenario::{Options, Scenario, run};

const SCENARIO: &str = "scenario";
const URL: &str = "url";
const CLIENTS: &str = "clients";
const OVER: &str = "over";
const SECONDS: &str = "seconds";
const PATIENCE: &str = "patience";
const THREADS: &str = "load-threads";
const PID: &str = "pid";
const TOKEN: &str = "bearer";
const INSECURE: &str = "insecure";
const JSON: &str = "json";
const HTML: &str = "html";
const COMPARE: &str = "compare";

impl ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}

/// The sub-command's own words. What it measures is another process, so no setting applies to it.
pub fn command() -> Command {
    let valued = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = |name, help| valued(name, "NUMBER", help).value_parser(value_parser!(usize));
    let seconds = |name, help| valued(name, "SECONDS", help).value_parser(seconds);
    Command::new("bench")
        .about("Fills a server with calls and reports what it made of them; exits with 0 if all could join")
        .arg(
            Arg::new(SCENARIO)
                .value_parser(value_parser!(Scenario))
                .default_value(Scenario::OneToMany.name())
                .help("What is done"),
        )
        .arg(valued(URL, "URL", "Any server of the Kurento Protocol, as ws://localhost:8888/kurento; without it, one is started for the run"))
        .arg(number(CLIENTS, "How many come, beside the publisher"))
        .arg(seconds(OVER, "Over which time they come"))
        .arg(seconds(SECONDS, "How long is measured when all are there [default: 10]"))
        .arg(seconds(PATIENCE, "The longest that anything may take [default: 10]"))
        .arg(number(THREADS, "Threads that carry the clients [default: 1]"))
        .arg(valued(PID, "PID", "The server's process, if it is not found by its port").value_parser(value_parser!(u32)))
        .arg(valued(TOKEN, "TOKEN", "A token for the server's door"))
        .arg(Arg::new(INSECURE).long(INSECURE).action(ArgAction::SetTrue).help("Believes any certificate of a server at wss://"))
        .arg(valued(JSON, "FILE", "Where the report goes, as JSON"))
        .arg(valued(HTML, "FILE", "Where the report goes, as a page to look at"))
        .arg(valued(COMPARE, "FILE", "An earlier report in JSON, shown beside this one on the page"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    if time > Duration::from_secs(86_400) { Err("more than a day".to_owned()) } else { Ok(time) }
}

fn options(given: &ArgMatches) -> Options {
    let scenario = given.get_one(SCENARIO).copied().unwrap_or(Scenario::OneToMany);
    let mut options = Options::new(scenario);
    let time = |name: &str| given.get_one::<Duration>(name).copied();
    options.clients = given.get_one(CLIENTS).copied().unwrap_or(options.clients);
    options.over = time(OVER).unwrap_or(options.over);
    options.measured = time(SECONDS).unwrap_or(options.measured);
    options.patience = time(PATIENCE).unwrap_or(options.patience);
    options.threads = given.get_one(THREADS).copied().unwrap_or(options.threads).clamp(1, 64);
    options.pid = given.get_one(PID).copied();
    options.token = given.get_one(TOKEN).cloned();
    if given.get_flag(INSECURE) {
        options.trust = Trust::DangerouslyTrustAnyone;
    }
    options
}

/// Runs what the words say.
pub fn main(given: &ArgMatches) -> ExitCode {
    match measure(given) {
        Ok(report) => {
            // Nobody may be reading, and that is no reason to fail.
            let _ = std::io::stdout().write_all(summary(&report).as_bytes());
            if report.joins.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("rivero bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(given: &ArgMatches) -> Result<Report, BenchError> {
    let mut options = options(given);
    let path = |name: &str| given.get_one::<String>(name);
    // Before the run: what cannot be read then would be a pity after it.
    let earlier = path(COMPARE).map(|path| read(path)).transpose()?;
    let own = match path(URL) {
        Some(_) => None,
        None => Some(OwnServer::start()?),
    };
    let url = match (&own, path(URL)) {
        (Some(own), _) => own.url.clone(),
        (None, url) => url.cloned().unwrap_or_default(),
    };
    options.pid = options.pid.or(own.as_ref().map(|own| own.process.id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let progress = Progress::new(options.clients);
    let report = runtime.block_on(run(&url, &options, |sample| progress.show(sample)));
    drop(progress);
    let report = report?;
    if let Some(path) = path(JSON) {
        let text = serde_json::to_string_pretty(&report);
        let text = text.map_err(|error| file(path, &error.to_string()))?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = path(HTML) {
        write(path, &page(&report, earlier.as_ref()))?;
    }
    Ok(report)
}

fn file(path: &str, reason: &str) -> BenchError {
    BenchError::File { path: path.to_owned(), reason: reason.to_owned() }
}

fn write(path: &str, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| file(path, &error.to_string()))
}

fn read(path: &str) -> Result<Report, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|error| file(path, &error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| file(path, &error.to_string()))
}

/// A server for one run: this program again, with one worker, on loopback.
struct OwnServer {
    process: Child,
    url: String,
}

impl OwnServer {
    fn start() -> Result<Self, BenchError> {
        let mut process = Process::new(std::env::current_exe()?)
            .args(["--bind", "127.0.0.1", "--port", "0", "--workers", "1"])
            .args(["--media-address", "127.0.0.1"])
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut own = Self { process, url: String::new() };
        let address = line.trim().split_once("http://").map(|(_, rest)| rest.trim_end_matches('/'));
        let address = address.ok_or_else(|| BenchError::Connect {
            url: "a server of its own".to_owned(),
            reason: "it did not start".to_owned(),
        })?;
        own.url = format!("ws://{address}/kurento");
        Ok(own)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It has nothing to keep, and may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn summary(report: &Report) -> String {
    let Report { joins, media, cost, .. } = report;
    let mut text = format!(
        "{} with {} clients at {} ({})\n  joined        {} of {}\n",
        report.scenario,
        report.clients,
        report.server.url,
        report.server.version,
        joins.joined,
        joins.asked
    );
    for (reason, count) in &joins.failures {
        text += &format!("  failed        {count}: {reason}\n");
    }
    let spread = |name: &str, spread: Option<Spread>| match spread {
        Some(Spread { p50, p90, p99, max }) => {
            format!(
                "  {name:<13} {p50:.2} / {p90:.2} / {p99:.2} / {max:.2} ms (50, 90, 99, 100 %)\n"
            )
        }
        None => String::new(),
    };
    text += &spread("processOffer", joins.process_offer_ms);
    text += &spread("connected", joins.connected_ms);
    text += &spread("first picture", joins.first_frame_ms);
    if media.expected > 0 {
        text += &format!(
            "  packets       {} received ({:.0}/s, {:.1} Mbit/s), {} lost ({} %), {} reordered, {} not deciphered\n",
            media.received,
            media.received_per_second,
            media.megabits_per_second,
            media.lost,
            media.lost_percent,
            media.reordered,
            media.undecryptable
        );
        text += &spread("delay", media.delay_ms);
    }
    let spoilt = media.harness_overflown + media.harness_refused + media.harness_left_out;
    if spoilt > 0 {
        text += &format!(
            "  this program was too slow for {spoilt} packets: loss and delay are its own too\n"
        );
    }
    let mut known = |name: &str, value: Option<f64>, unit: &str| {
        if let Some(value) = value {
            text += &format!("  server        {value:.2} {unit} {name}\n");
        }
    };
    known("of a core", cost.cpu_percent, "%");
    known("of CPU per packet received", cost.cpu_us_per_packet, "us");
    known("of CPU per client that joined", cost.cpu_ms_per_join, "ms");
    known("of memory per client", cost.memory_kb_per_client, "KB");
    known("of memory per endpoint that nobody calls", cost.memory_kb_per_endpoint, "KB");
    known("of memory", cost.resident_mb, "MB");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options_and_each_scenario_has_its_own_defaults() {
        command().debug_assert();
        let given = |line: &str| command().try_get_matches_from(line.split(' '));
        let storm = options(&given("bench join-storm --seconds 2.5").expect("parses"));
        assert_eq!((storm.scenario, storm.clients), (Scenario::JoinStorm, 500));
        assert_eq!(
            (storm.over, storm.measured),
            (Duration::from_secs(5), Duration::from_millis(2_500))
        );
        assert_eq!(options(&given("bench --clients 7").expect("parses")).clients, 7);
        for wrong in ["bench nonsense", "bench --seconds -1", "bench --over NaN", "bench --pid x"] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }
}

//! Shell: the sub-command: its words, a server of its own if none is named, and where reports go.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum, value_parser};
use rivero::client::Trust;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BenchError;
use super::own::{Cores, OwnServer};
use super::page::{page, suite_page};
use super::process;
use super::progress::Progress;
use super::publisher::{MOST_RATE, Pictures};
use super::report::{Largest, Report, Spread};
use super::scenario::{Options, Scenario, Search, run};
use super::suite::{Done, JOBS, Job, Suite};

const SCENARIO: &str = "scenario";
const URL: &str = "url";
const CLIENTS: &str = "clients";
const ROOM: &str = "room";
const SEARCH: &str = "search";
const RATE: &str = "rate";
const LATENCY: &str = "latency";
const OVER: &str = "over";
const SECONDS: &str = "seconds";
const PATIENCE: &str = "patience";
const THREADS: &str = "load-threads";
const PICTURES: &str = "pictures";
const NO_TRANSPORT_CC: &str = "no-transport-cc";
const OPENS: &str = "decipher-one-of";
const NO_ROWS: &str = "no-gro";
const MESSAGE: &str = "message-bytes";
const WINDOW: &str = "messages-under-way";
const WORKERS: &str = "workers";
const RUNS: &str = "runs";
const ONLY: &str = "only";
const PID: &str = "pid";
const TOKEN: &str = "bearer";
const INSECURE: &str = "insecure";
const JSON: &str = "json";
const HTML: &str = "html";
const MARKDOWN: &str = "markdown";
const COMPARE: &str = "compare";

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    One(Scenario),
    /// All that something is promised of.
    All,
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [What; Scenario::ALL.len() + 1] = {
            let mut all = [What::All; Scenario::ALL.len() + 1];
            let mut at = 0;
            while at < Scenario::ALL.len() {
                all[at] = What::One(Scenario::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::One(scenario) => PossibleValue::new(scenario.name()).help(scenario.about()),
            Self::All => PossibleValue::new("all").help(
                "what is promised of this server, each several times against a new one: a table",
            ),
        })
    }
}

impl ValueEnum for Pictures {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}

/// Flags whose values are nobody else's business.
const SECRET: [&str; 2] = ["--bearer", "--token"];

/// The sub-command's own words. What it measures is another process, so no setting applies to it.
pub fn command() -> Command {
    let valued = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = |name, help| valued(name, "NUMBER", help).value_parser(value_parser!(usize));
    let seconds = |name, help| valued(name, "SECONDS", help).value_parser(seconds);
    let switch =
        |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("bench")
        .about("Fills a server with calls and reports what it made of them; exits with 0 if all could join and nothing that the scenario asks for failed")
        .arg(
            Arg::new(SCENARIO)
                .value_parser(value_parser!(What))
                .default_value(Scenario::OneToMany.name())
                .help("What is done"),
        )
        .arg(valued(URL, "URL", "Any server of the Kurento Protocol, as ws://localhost:8888/kurento; without it, one is started for the run"))
        .arg(number(CLIENTS, "How many come, beside the publisher; of a search, the first that are tried; of a churn, all endpoints"))
        .arg(number(ROOM, "Users of each room [default: 7]"))
        .arg(valued(SEARCH, "WHAT", "Looks for the largest load with less than 0.1 % lost and 99 % there within 5 ms: how many clients, or how high a rate [clients, rate]").num_args(0..=1).default_missing_value("clients").value_parser(["clients", "rate"]).hide_possible_values(true))
        .arg(valued(LATENCY, "MILLISECONDS", "So late 99 of 100 packets may be in a search [default: 5]").value_parser(value_parser!(u32).range(1..=1_000)))
        .arg(number(RATE, "How many times as often as a camera publishers send [default: 1]"))
        .arg(seconds(OVER, "Over which time they come"))
        .arg(seconds(SECONDS, "How long is measured when all are there [default: 10, of a search and of all 5, of a churn 300]").visible_alias("duration"))
        .arg(seconds(PATIENCE, "The longest that anything may take [default: 10]"))
        .arg(valued(PICTURES, "SIZE", "What publishers send [default: large; in rooms and churn small]").value_parser(value_parser!(Pictures)))
        .arg(switch(NO_TRANSPORT_CC, "Viewers tell of no arrivals over all packets of their transport"))
        .arg(number(OPENS, "Of so many pictures a viewer deciphers one, and reads the headers of the others [default: 1, of a search 8]"))
        .arg(switch(NO_ROWS, "What the server sent as one message arrives cut up, as over a network"))
        .arg(number(MESSAGE, "Bytes of a message [default: 1000]"))
        .arg(number(WINDOW, "Messages of a client that are under way [default: 64]"))
        .arg(number(THREADS, "Threads that carry the clients [default: 1]"))
        .arg(number(WORKERS, "Media threads of the server that is started [default: 1]"))
        .arg(number(RUNS, "How often each is done, of all [default: 3]"))
        .arg(valued(ONLY, "TEXT", "Of all, those whose names have this in them"))
        .arg(valued(PID, "PID", "The server's process, if it is not found by its port").value_parser(value_parser!(u32)))
        .arg(valued(TOKEN, "TOKEN", "A token for the server's door"))
        .arg(switch(INSECURE, "Believes any certificate of a server at wss://"))
        .arg(valued(JSON, "FILE", "Where the report goes, as JSON"))
        .arg(valued(HTML, "FILE", "Where the report goes, as a page to look at"))
        .arg(valued(MARKDOWN, "FILE", "Where the table of all goes, in Markdown"))
        .arg(valued(COMPARE, "FILE", "An earlier report in JSON, shown beside this one on the page"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    if time > Duration::from_secs(86_400) { Err("more than a day".to_owned()) } else { Ok(time) }
}

fn what(given: &ArgMatches) -> What {
    given.get_one(SCENARIO).copied().unwrap_or(What::One(Scenario::OneToMany))
}

fn options(given: &ArgMatches, scenario: Scenario, search: Option<Search>) -> Options {
    /// Of a search.
    const SAMPLED: u32 = 8;
    const SHORT: Duration = Duration::from_secs(5);
    let mut options = Options::new(scenario);
    let time = |name: &str| given.get_one::<Duration>(name).copied();
    let number = |name: &str| given.get_one::<usize>(name).copied();
    if search.is_some() {
        (options.opens, options.measured) = (SAMPLED, SHORT);
        options.patience = Duration::from_secs(30);
    }
    options.search = search;
    options.clients = number(CLIENTS).unwrap_or(options.clients);
    options.latest = given.get_one::<u32>(LATENCY).map_or(options.latest, |&late| f64::from(late));
    options.room = number(ROOM).unwrap_or(options.room).clamp(2, 100);
    options.over = time(OVER).unwrap_or(options.over);
    options.measured = time(SECONDS).unwrap_or(options.measured);
    options.patience = time(PATIENCE).unwrap_or(options.patience);
    options.threads = number(THREADS).unwrap_or(options.threads).clamp(1, 64);
    options.pictures = given.get_one(PICTURES).copied().unwrap_or(options.pictures);
    options.transport_cc = !given.get_flag(NO_TRANSPORT_CC);
    let opens = number(OPENS).and_then(|opens| u32::try_from(opens).ok());
    let rate = number(RATE).and_then(|rate| u32::try_from(rate).ok());
    options.rate = rate.unwrap_or(options.rate).clamp(1, MOST_RATE);
    options.opens = opens.unwrap_or(options.opens).clamp(1, 1_000);
    options.rows = !given.get_flag(NO_ROWS);
    options.chat.bytes = number(MESSAGE).unwrap_or(options.chat.bytes).clamp(1, 262_144);
    options.chat.window = number(WINDOW).unwrap_or(options.chat.window).clamp(1, 100_000);
    options.pid = given.get_one(PID).copied();
    options.token = given.get_one(TOKEN).cloned();
    if given.get_flag(INSECURE) {
        options.trust = Trust::DangerouslyTrustAnyone;
    }
    options
}

/// Runs what the words say.
pub fn main(given: &ArgMatches) -> ExitCode {
    let done = match what(given) {
        What::One(scenario) => measure(given, scenario).map(|report| {
            let text = summary(&report);
            (text, report.joins.failed == 0 && report.verdicts.iter().all(|one| one.passed))
        }),
        What::All => all(given).map(|suite| {
            let ran = suite.jobs.iter().all(|done| done.failures.is_empty());
            (suite.markdown(), ran)
        }),
    };
    match done {
        Ok((text, well)) => {
            // Nobody may be reading, and that is no reason to fail.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("rivero bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn searched(given: &ArgMatches) -> Option<Search> {
    let what = given.get_one::<String>(SEARCH)?;
    Some(if what == "rate" { Search::Rate } else { Search::Clients })
}

fn workers(given: &ArgMatches) -> usize {
    given.get_one(WORKERS).copied().unwrap_or(1).clamp(1, 64)
}

fn measure(given: &ArgMatches, scenario: Scenario) -> Result<Report, BenchError> {
    let options = options(given, scenario, searched(given));
    let path = |name: &str| given.get_one::<String>(name);
    // Before the run: what cannot be read then would be a pity after it.
    let earlier = path(COMPARE).map(|path| read(path)).transpose()?;
    let report = match path(URL) {
        Some(url) => once(url, &options, String::new())?,
        None => with_own_server(&options, workers(given), String::new())?,
    };
    if let Some(path) = path(JSON) {
        write_json(path, &report)?;
    }
    if let Some(path) = path(HTML) {
        write(path, &page(&report, earlier.as_ref()))?;
    }
    Ok(report)
}

/// Against a server that is there.
fn once(url: &str, options: &Options, prefix: String) -> Result<Report, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let progress = Progress::new(prefix, options.search.is_none().then_some(options.clients));
    runtime.block_on(run(url, options, |sample| progress.show(sample)))
}

fn with_own_server(
    options: &Options,
    workers: usize,
    prefix: String,
) -> Result<Report, BenchError> {
    let own = OwnServer::start(workers)?;
    let options = Options { pid: options.pid.or(Some(own.pid())), ..options.clone() };
    let mut report = once(&own.url, &options, prefix)?;
    let Cores { server, load, .. } = own.cores.clone();
    (report.way.server_cores, report.way.load_cores) = (server, load);
    Ok(report)
}

/// Each job several times, and the table of them.
fn all(given: &ArgMatches) -> Result<Suite, BenchError> {
    let path = |name: &str| given.get_one::<String>(name);
    let earlier: Option<Suite> = path(COMPARE).map(|path| read(path)).transpose()?;
    let runs = given.get_one(RUNS).copied().unwrap_or(3_usize).clamp(1, 100);
    let given_options = options(given, Scenario::OneToMany, Some(Search::Clients));
    let Cores { server, load, .. } = Cores::share(1);
    let mut suite = Suite {
        measured_by: format!("rivero {}", env!("CARGO_PKG_VERSION")),
        command: command_line(std::env::args().skip(1)),
        machine: process::machine(),
        server_cores: server,
        load_cores: load,
        runs,
        seconds: given_options.measured.as_secs_f64(),
        ..Suite::default()
    };
    let wanted = path(ONLY);
    let jobs: Vec<&Job> = JOBS
        .iter()
        .filter(|job| wanted.is_none_or(|wanted| job.name.contains(wanted)))
        .filter(|job| job.workers == 1 || process::cores().len() > job.workers)
        .collect();
    for (at, job) in jobs.iter().enumerate() {
        let mut done = Done { name: job.name.to_owned(), ..Done::default() };
        for run in 1..=runs {
            let which = format!("{}/{} {}, run {run} of {runs}", at + 1, jobs.len(), job.name);
            eprintln!("{which}");
            let options = job.options(&given_options);
            match with_own_server(&options, job.workers, String::new()) {
                Ok(report) => done.reports.push(report),
                Err(error) => {
                    eprintln!("{which}: {error}");
                    done.failures.push(error.to_string());
                }
            }
        }
        suite.jobs.push(done);
        suite.tell();
        // After each job: what is known must not be lost with a run that is broken off.
        if let Some(path) = path(JSON) {
            write_json(path, &suite)?;
        }
        if let Some(path) = path(HTML) {
            write(path, &suite_page(&suite, earlier.as_ref()))?;
        }
        if let Some(path) = path(MARKDOWN) {
            write(path, &suite.markdown())?;
        }
    }
    Ok(suite)
}

/// How this program was called, without the folder it lies in, as a shell takes it. Reports are handed
/// on, so words that open doors are left out.
fn command_line(words: impl IntoIterator<Item = String>) -> String {
    let mut line = "rivero".to_owned();
    let mut secret = false;
    for word in words {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let shown = match value {
            _ if secret => "…".to_owned(),
            Some(_) if SECRET.contains(&name) => format!("{name}=…"),
            _ => quoted(&word),
        };
        secret = value.is_none() && !secret && SECRET.contains(&name);
        line += &format!(" {shown}");
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |one: char| one.is_alphanumeric() || "-_./:=,+@%".contains(one);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn file(path: &str, reason: &str) -> BenchError {
    BenchError::File { path: path.to_owned(), reason: reason.to_owned() }
}

fn write(path: &str, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| file(path, &error.to_string()))
}

fn write_json(path: &str, report: &impl Serialize) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(report);
    let text = text.map_err(|error| file(path, &error.to_string()))?;
    write(path, &(text + "\n"))
}

fn read<T: DeserializeOwned>(path: &str) -> Result<T, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|error| file(path, &error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| file(path, &error.to_string()))
}

fn summary(report: &Report) -> String {
    let Report { joins, media, cost, harness, .. } = report;
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
    text += &format!("  this program  {:.0} % of a core", harness.cpu_percent);
    if let Some(limited) = &harness.limited {
        text += &format!("; it was the limit: {limited}");
    }
    text.push('\n');
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
    if let Some(bare) = report.machine.bare_us_per_packet {
        text += &format!("  this machine  {bare:.2} us per packet that is only sealed and sent\n");
    }
    if let Some(largest) = &report.largest {
        let Largest { clients, rate, beyond, .. } = largest;
        text += &format!("  largest load  {clients} clients, rate {rate}; beyond: {beyond}\n");
        if largest.harness_limited {
            text += "                this program was the limit, and not the server\n";
        }
    }
    for verdict in &report.verdicts {
        let kept = if verdict.passed { "yes" } else { "NO " };
        text += &format!("  {kept}           {}: {}\n", verdict.what, verdict.detail);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it_and_without_what_opens_doors() {
        for (words, shown) in [
            (
                vec!["bench", "all", "--only", "100 viewers"],
                "rivero bench all --only '100 viewers'",
            ),
            (vec!["bench", "--bearer", "abc", "--rate", "2"], "rivero bench --bearer … --rate 2"),
            (vec!["bench", "--bearer=abc", "--token=d"], "rivero bench --bearer=… --token=…"),
            (vec!["bench", "--json", "it's"], r"rivero bench --json 'it'\''s'"),
        ] {
            assert_eq!(command_line(words.into_iter().map(str::to_owned)), shown);
        }
    }

    #[test]
    fn words_become_options_and_each_scenario_has_its_own_defaults() {
        command().debug_assert();
        let given = |line: &str| command().try_get_matches_from(line.split(' '));
        let options = |line: &str| {
            let given = given(line).expect("parses");
            let What::One(scenario) = what(&given) else { panic!("one of many") };
            options(&given, scenario, searched(&given))
        };
        let storm = options("bench join-storm --seconds 2.5");
        assert_eq!((storm.scenario, storm.clients), (Scenario::JoinStorm, 500));
        assert_eq!(
            (storm.over, storm.measured),
            (Duration::from_secs(5), Duration::from_millis(2_500))
        );
        assert_eq!(options("bench --clients 7").clients, 7);
        let rooms = options("bench rooms --room 4 --search --rate 3 --no-transport-cc --no-gro");
        assert_eq!((rooms.room, rooms.search, rooms.opens), (4, Some(Search::Clients), 8));
        assert_eq!(
            (rooms.pictures, rooms.transport_cc, rooms.rows),
            (Pictures::Small, false, false)
        );
        assert_eq!((rooms.rate, options("bench --search rate").search), (3, Some(Search::Rate)));
        let churn = options("bench churn --duration 3600 --pictures large --decipher-one-of 0");
        assert_eq!((churn.measured, churn.opens), (Duration::from_secs(3_600), 1));
        assert_eq!((churn.pictures, churn.clients), (Pictures::Large, 300));
        assert_eq!(what(&given("bench all").expect("parses")), What::All);
        for wrong in ["bench nonsense", "bench --seconds -1", "bench --over NaN", "bench --pid x"] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }
}

//! What is done to a server. A further scenario is a variant, its defaults, and what its users do in
//! [`super::crowd`]; all else is the same for all.

use std::sync::Arc;
use std::time::Duration;

use rivero::client::Trust;
use tokio::time::{interval, sleep};

use super::BenchError;
use super::chat;
use super::churn::churn;
use super::crowd::Crowd;
use super::join::{Failure, Part, create};
use super::process;
use super::publisher::Pictures;
use super::report::{
    Cost, Harness, Largest, MediaReport, Readings, Report, Sample, Server, Step, Verdict, Way,
    rounded,
};
use super::search::search;
use super::stage::{Reading, Stage};

/// Between two steps of the progress display.
const STEPS: Duration = Duration::from_secs(1);
/// The longest that is waited until a load has settled: senders that estimate what a way carries begin
/// low, and hold back what they think it does not.
const SETTLING: Duration = Duration::from_secs(12);
/// For what is under way when the last client has come.
pub const SETTLE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scenario {
    /// Each client in a pipeline of its own, connected to itself.
    Loopback,
    /// One publisher, and all others watch it.
    OneToMany,
    /// Rooms in which all publish, and watch all others.
    Rooms,
    /// One publisher, and all others come in a rush.
    JoinStorm,
    /// Two publishers, between whom the viewers are switched while some come and go.
    Churn,
    /// Messages that come back to their senders.
    Data,
    /// Endpoints that are connected to nothing: what they cost by themselves.
    Idle,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Loopback,
        Self::OneToMany,
        Self::Rooms,
        Self::JoinStorm,
        Self::Churn,
        Self::Data,
        Self::Idle,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::OneToMany => "one-to-many",
            Self::Rooms => "rooms",
            Self::JoinStorm => "join-storm",
            Self::Churn => "churn",
            Self::Data => "data",
            Self::Idle => "idle",
        }
    }

    pub const fn about(self) -> &'static str {
        match self {
            Self::Loopback => "each client sees itself, in a pipeline of its own",
            Self::OneToMany => "one publishes, all others watch",
            Self::Rooms => "rooms of --room users, each of whom publishes and watches all others",
            Self::JoinStorm => "one publishes, all others come within seconds and watch",
            Self::Churn => {
                "one comes and one goes each second, all change over to another source every 5 s; \
                 fails if those who stay lose something, or the server grows"
            }
            Self::Data => "each client sends messages over a data channel and gets them back",
            Self::Idle => "endpoints that are called and connected to nothing",
        }
    }

    /// Clients, and the time over which they come.
    pub const fn defaults(self) -> (usize, Duration) {
        match self {
            Self::Loopback | Self::Data => (10, Duration::from_secs(2)),
            Self::OneToMany => (50, Duration::from_secs(2)),
            Self::Rooms => (14, Duration::from_secs(2)),
            Self::JoinStorm => (500, Duration::from_secs(5)),
            Self::Churn => (300, Duration::from_secs(6)),
            Self::Idle => (500, Duration::from_secs(10)),
        }
    }

    /// Whether all watch the same one.
    pub const fn has_host(self) -> bool {
        matches!(self, Self::OneToMany | Self::JoinStorm | Self::Churn)
    }
}

/// What grows when the largest load is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Search {
    Clients,
    /// How often publishers send.
    Rate,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub scenario: Scenario,
    /// Beside the publisher, if there is one for all; when the largest load is looked for, the first
    /// that is tried.
    pub clients: usize,
    /// Users of a room.
    pub room: usize,
    /// The time over which they come.
    pub over: Duration,
    /// How long is measured when all are there; in a churn, how long it takes.
    pub measured: Duration,
    /// The longest that anything may take.
    pub patience: Duration,
    /// That carry the clients.
    pub threads: usize,
    pub pictures: Pictures,
    /// How many times as often as a camera publishers send.
    pub rate: u32,
    /// Whether viewers tell of arrivals over all packets of their transport.
    pub transport_cc: bool,
    /// Of so many pictures a viewer deciphers one.
    pub opens: u32,
    /// Whether what the server sent as one message may arrive as one.
    pub rows: bool,
    pub chat: chat::Settings,
    /// Whether the largest load is looked for, and the most that is tried.
    pub search: Option<Search>,
    pub most: usize,
    /// So late, in milliseconds, 99 of 100 packets may be at the largest load; and what a settled load
    /// looks like.
    pub latest: f64,
    /// Between two samples of the report.
    pub samples: Duration,
    /// The server's process, if it is not to be looked for.
    pub pid: Option<u32>,
    pub token: Option<String>,
    pub trust: Trust,
}

impl Options {
    pub fn new(scenario: Scenario) -> Self {
        let (clients, over) = scenario.defaults();
        let churn = scenario == Scenario::Churn;
        Self {
            scenario,
            clients,
            room: 7,
            over,
            measured: Duration::from_secs(if churn { 300 } else { 10 }),
            patience: Duration::from_secs(10),
            threads: 1,
            pictures: match scenario {
                Scenario::Rooms | Scenario::Churn => Pictures::Small,
                _ => Pictures::Large,
            },
            rate: 1,
            transport_cc: true,
            opens: 1,
            rows: true,
            chat: chat::Settings { bytes: 1_000, window: 64 },
            search: None,
            most: 60_000,
            latest: 5.0,
            samples: Duration::from_secs(if churn { 10 } else { 1 }),
            pid: None,
            token: None,
            trust: Trust::default(),
        }
    }
}

/// What a run is made of beside its times.
#[derive(Default)]
pub struct Outcome {
    pub media: MediaReport,
    pub cost: Cost,
    pub harness: Harness,
    pub steps: Vec<Step>,
    pub largest: Option<Largest>,
    pub verdicts: Vec<Verdict>,
}

/// Runs a scenario against the server at `url`; `watch` is shown each sample.
///
/// # Errors
/// [`BenchError`]. That some clients could not join is no error but in the report.
pub async fn run(
    url: &str,
    options: &Options,
    mut watch: impl FnMut(&Sample),
) -> Result<Report, BenchError> {
    let machine = process::machine();
    let stage = Arc::new(Stage::build(url, options).await?);
    let version = stage.version().await?;
    // Both go on at the same time: each waits for readings that the other may have begun.
    let watching = async {
        let mut ticks = interval(STEPS);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            stage.read().await;
            stage.last_sample().iter().for_each(&mut watch);
        }
    };
    let outcome: Outcome = tokio::select! {
        outcome = play(&stage, options) => outcome?,
        never = watching => never,
    };
    let Outcome { media, cost, harness, steps, largest, verdicts } = outcome;
    let report = Report {
        measured_by: format!("rivero {}", env!("CARGO_PKG_VERSION")),
        scenario: options.scenario.name().to_owned(),
        clients: largest.as_ref().map_or(options.clients, |largest| largest.clients),
        over: options.over.as_secs_f64(),
        seconds: options.measured.as_secs_f64(),
        way: Way::of(options),
        server: Server { url: url.to_owned(), version, pid: stage.pid() },
        machine,
        joins: stage.joins(),
        media,
        cost,
        harness,
        largest,
        steps,
        verdicts,
        samples: stage.samples(),
    };
    stage.end().await;
    Ok(report)
}

async fn play(stage: &Arc<Stage>, options: &Options) -> Result<Outcome, BenchError> {
    match options.scenario {
        Scenario::Idle => idle(stage, options).await,
        Scenario::Churn => churn(stage, options).await,
        _ if options.search.is_some() => search(stage, options).await,
        _ => steady(stage, options).await,
    }
}

/// The ends of a measured time.
pub struct Measured {
    pub begin: Reading,
    pub end: Reading,
}

/// Waits until packets are there soon, or until it is plain that they will not be; how long it took.
pub async fn settle(stage: &Stage) -> Duration {
    let begin = stage.now();
    sleep(SETTLE).await;
    let streams = !matches!(stage.options().scenario, Scenario::Idle | Scenario::Data);
    while streams && stage.now() - begin < SETTLING {
        stage.read().await;
        stage.forget_delays();
        sleep(STEPS).await;
        stage.read().await;
        if stage.delays().quantile(0.99).is_some_and(|late| late < stage.options().latest) {
            break;
        }
    }
    stage.now() - begin
}

impl Measured {
    /// Everybody is there: measures.
    pub async fn take(stage: &Stage, time: Duration) -> Self {
        let begin = stage.read().await;
        stage.forget_delays();
        sleep(time).await;
        Self { begin, end: stage.read().await }
    }

    /// What it tells of `clients`, of whom more is known if it is known what was before they came.
    pub fn outcome(&self, stage: &Stage, before: Option<[&Reading; 2]>, clients: usize) -> Outcome {
        let Self { begin, end } = self;
        let [empty, joined] = before.unwrap_or([begin, begin]);
        // A room's user has several endpoints, each of which joined.
        let joins = stage.joins().joined;
        let readings = Readings { empty, joined, begin, end, joins };
        let mut cost = Cost::of(&readings);
        if before.is_none() {
            (cost.cpu_ms_per_join, cost.memory_kb_per_client) = (None, None);
        }
        cost.clients_per_core = cost
            .cpu_percent
            .filter(|percent| *percent > 0.0)
            .map(|percent| rounded(clients as f64 * 100.0 / percent));
        let media = MediaReport::between(begin, end, &stage.delays());
        let harness = Harness::between(begin, end, &stage.waits(), process::cores().len());
        Outcome { media, cost, harness, ..Outcome::default() }
    }
}

async fn steady(stage: &Arc<Stage>, options: &Options) -> Result<Outcome, BenchError> {
    let mut crowd = Crowd::open(stage).await?;
    sleep(SETTLE).await;
    let empty = stage.read().await;
    crowd.resize(options.clients, options.over).await?;
    let joined = stage.read().await;
    let settled = settle(stage).await;
    let measured = Measured::take(stage, options.measured).await;
    let mut outcome = measured.outcome(stage, Some([&empty, &joined]), crowd.size());
    outcome.media.settled_after = rounded(settled.as_secs_f64());
    Ok(outcome)
}

async fn idle(stage: &Arc<Stage>, options: &Options) -> Result<Outcome, BenchError> {
    let pipeline = stage.pipeline().await?;
    // What the first one makes, all others share.
    let first = stage.join(&pipeline, Part::Idles).await;
    let _first = first.map_err(|failure| BenchError::NobodyJoined(failure.to_string()))?;
    let before = stage.read().await;
    let mut endpoints = Vec::with_capacity(options.clients);
    for _ in 0..options.clients {
        let endpoint = create(&pipeline, Part::Idles).await;
        let endpoint = endpoint
            .map_err(|Failure { step, reason }| BenchError::Refused { what: step, reason })?;
        endpoints.push(endpoint);
    }
    sleep(SETTLE).await;
    let empty = stage.read().await;
    let join = |number: usize| {
        let (stage, endpoint) = (stage.clone(), endpoints[number].clone());
        async move { stage.admit_to(endpoint, Part::Idles).await }
    };
    let members = stage.join_all(options.clients, options.over, join).await?;
    let joined = stage.read().await;
    let settled = settle(stage).await;
    let measured = Measured::take(stage, options.measured).await;
    let mut outcome = measured.outcome(stage, Some([&empty, &joined]), members.len());
    outcome.media.settled_after = rounded(settled.as_secs_f64());
    let grown = empty.memory_since(&before);
    outcome.cost.memory_kb_per_endpoint =
        grown.map(|bytes| rounded(bytes / 1_024.0 / options.clients.max(1) as f64));
    Ok(outcome)
}

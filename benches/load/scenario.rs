//! What is done to a server. A further scenario is a variant, its defaults, and a function that brings
//! clients in between readings; all else is the same for all.

use std::sync::Arc;
use std::time::Duration;

use rivero::client::Trust;
use tokio::time::{interval, sleep};

use super::BenchError;
use super::join::{Failure, Part, create};
use super::process;
use super::report::{Cost, MediaReport, Readings, Report, Sample, Server, rounded};
use super::stage::{Reading, Stage};

/// Between two samples, which are also the steps of the progress display.
const SAMPLES: Duration = Duration::from_secs(1);
/// For what is under way when the last client has come.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scenario {
    /// Each client in a pipeline of its own, connected to itself.
    Loopback,
    /// One publisher, and all others watch it.
    OneToMany,
    /// The same, in a rush.
    JoinStorm,
    /// Endpoints that are connected to nothing: what they cost by themselves.
    Idle,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::Loopback, Self::OneToMany, Self::JoinStorm, Self::Idle];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::OneToMany => "one-to-many",
            Self::JoinStorm => "join-storm",
            Self::Idle => "idle",
        }
    }

    pub const fn about(self) -> &'static str {
        match self {
            Self::Loopback => "each client sees itself, in a pipeline of its own",
            Self::OneToMany => "one publishes, all others watch",
            Self::JoinStorm => "the same, and all come within seconds",
            Self::Idle => "endpoints that are called and connected to nothing",
        }
    }

    /// Clients, and the time over which they come.
    pub const fn defaults(self) -> (usize, Duration) {
        match self {
            Self::Loopback => (10, Duration::from_secs(2)),
            Self::OneToMany => (50, Duration::from_secs(2)),
            Self::JoinStorm => (500, Duration::from_secs(5)),
            Self::Idle => (500, Duration::from_secs(10)),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub scenario: Scenario,
    /// Beside the publisher, if there is one for all.
    pub clients: usize,
    /// The time over which they come.
    pub over: Duration,
    /// How long is measured when all are there.
    pub measured: Duration,
    /// The longest that anything may take.
    pub patience: Duration,
    /// That carry the clients.
    pub threads: usize,
    /// The server's process, if it is not to be looked for.
    pub pid: Option<u32>,
    pub token: Option<String>,
    pub trust: Trust,
}

impl Options {
    pub fn new(scenario: Scenario) -> Self {
        let (clients, over) = scenario.defaults();
        Self {
            scenario,
            clients,
            over,
            measured: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            threads: 1,
            pid: None,
            token: None,
            trust: Trust::default(),
        }
    }
}

/// The readings of a run; see [`Readings`].
struct Course {
    empty: Reading,
    joined: Reading,
    begin: Reading,
    end: Reading,
    memory_per_endpoint: Option<f64>,
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
    let course = {
        let mut course = std::pin::pin!(play(&stage, options));
        let mut ticks = interval(SAMPLES);
        ticks.tick().await;
        loop {
            tokio::select! {
                course = &mut course => break course?,
                _ = ticks.tick() => {
                    stage.read().await;
                    stage.last_sample().iter().for_each(&mut watch);
                }
            }
        }
    };
    let joins = stage.joins();
    let readings = Readings {
        empty: &course.empty,
        joined: &course.joined,
        begin: &course.begin,
        end: &course.end,
        clients: joins.joined,
    };
    let cost = Cost { memory_kb_per_endpoint: course.memory_per_endpoint, ..Cost::of(&readings) };
    let report = Report {
        measured_by: format!("rivero {}", env!("CARGO_PKG_VERSION")),
        scenario: options.scenario.name().to_owned(),
        clients: options.clients,
        over: options.over.as_secs_f64(),
        seconds: options.measured.as_secs_f64(),
        server: Server { url: url.to_owned(), version, pid: stage.pid() },
        machine,
        joins,
        media: MediaReport::between(&course.begin, &course.end, &stage.delays()),
        cost,
        samples: stage.samples(),
    };
    stage.end().await;
    Ok(report)
}

async fn play(stage: &Arc<Stage>, options: &Options) -> Result<Course, BenchError> {
    match options.scenario {
        Scenario::Loopback => loopback(stage, options).await,
        Scenario::OneToMany | Scenario::JoinStorm => one_to_many(stage, options).await,
        Scenario::Idle => idle(stage, options).await,
    }
}

/// Everybody is there: measures.
async fn measure(
    stage: &Arc<Stage>,
    options: &Options,
    empty: Reading,
) -> Result<Course, BenchError> {
    let joined = stage.read().await;
    sleep(SETTLE).await;
    let begin = stage.read().await;
    stage.forget_delays();
    sleep(options.measured).await;
    let end = stage.read().await;
    Ok(Course { empty, joined, begin, end, memory_per_endpoint: None })
}

async fn loopback(stage: &Arc<Stage>, options: &Options) -> Result<Course, BenchError> {
    // What the first one makes, all others share.
    let first = stage.join(&stage.pipeline().await?, Part::Idles).await;
    let _first = first.map_err(|failure| BenchError::NobodyJoined(failure.to_string()))?;
    let mut pipelines = Vec::with_capacity(options.clients);
    for _ in 0..options.clients {
        pipelines.push(stage.pipeline().await?);
    }
    let empty = stage.read().await;
    let join = |number: usize| {
        let (stage, pipeline) = (stage.clone(), pipelines[number].clone());
        async move { stage.join(&pipeline, Part::Mirrors).await }
    };
    let _members = stage.join_all(options.clients, options.over, join).await?;
    measure(stage, options, empty).await
}

async fn one_to_many(stage: &Arc<Stage>, options: &Options) -> Result<Course, BenchError> {
    let pipeline = stage.pipeline().await?;
    let publisher = stage.join(&pipeline, Part::Publishes).await;
    let publisher = publisher.map_err(|failure| BenchError::NobodyJoined(failure.to_string()))?;
    sleep(SETTLE).await;
    let empty = stage.read().await;
    let source = publisher.endpoint.clone();
    let join = |_| {
        let (stage, pipeline, source) = (stage.clone(), pipeline.clone(), source.clone());
        async move { stage.join(&pipeline, Part::Watches(&source)).await }
    };
    let _members = stage.join_all(options.clients, options.over, join).await?;
    measure(stage, options, empty).await
}

async fn idle(stage: &Arc<Stage>, options: &Options) -> Result<Course, BenchError> {
    let pipeline = stage.pipeline().await?;
    // What the first one makes, all others share.
    let first = stage.join(&pipeline, Part::Idles).await;
    let _first = first.map_err(|failure| BenchError::NobodyJoined(failure.to_string()))?;
    let before = stage.read().await;
    let mut endpoints = Vec::with_capacity(options.clients);
    for _ in 0..options.clients {
        let endpoint = create(&pipeline).await;
        let endpoint = endpoint
            .map_err(|Failure { step, reason }| BenchError::Refused { what: step, reason })?;
        endpoints.push(endpoint);
    }
    sleep(SETTLE).await;
    let empty = stage.read().await;
    let join = |number: usize| {
        let (stage, endpoint) = (stage.clone(), endpoints[number].clone());
        async move { stage.bring(endpoint, Part::Idles).await }
    };
    let _members = stage.join_all(options.clients, options.over, join).await?;
    let course = measure(stage, options, empty).await?;
    let grown = course.empty.memory_since(&before);
    let memory_per_endpoint =
        grown.map(|bytes| rounded(bytes / 1_024.0 / options.clients.max(1) as f64));
    Ok(Course { memory_per_endpoint, ..course })
}

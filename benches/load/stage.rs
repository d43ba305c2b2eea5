//! What scenarios stand on: the connection to the server, the threads of the clients, and readings of
//! both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rivero::client::kurento::MediaPipeline;
use rivero::client::{Kurento, Options as ClientOptions};
use rivero::clock::Clock;
use rivero::transport::{Certificate, KeyKind};
use tokio::task::JoinSet;

use super::BenchError;
use super::histogram::Histogram;
use super::join::{Failure, Times};
use super::media::{Media, Tally};
use super::process::{Probe, Usage};
use super::report::{Joins, Sample, spread};
use super::scenario::Options;

/// What clients and server were at one moment.
#[derive(Clone, Default)]
pub struct Reading {
    pub at: Duration,
    pub usage: Option<Usage>,
    /// This process's own processor time.
    pub own: Duration,
    pub tally: Tally,
}

impl Reading {
    /// The server's processor time since an earlier reading.
    pub fn cpu_since(&self, earlier: &Self) -> Option<Duration> {
        Some(self.usage?.cpu.saturating_sub(earlier.usage?.cpu))
    }

    /// The server's memory beyond that of an earlier reading.
    pub fn memory_since(&self, earlier: &Self) -> Option<f64> {
        Some(self.usage?.resident as f64 - earlier.usage?.resident as f64)
    }
}

pub struct Stage {
    clock: Clock,
    origin: Instant,
    kurento: Kurento,
    media: Vec<Media>,
    probe: Probe,
    certificate: Arc<Certificate>,
    options: Options,
    numbers: AtomicUsize,
    log: Mutex<Log>,
    /// One reading after the other, for each tells what changed since the last.
    reading: tokio::sync::Mutex<()>,
}

/// What is written down while it happens.
#[derive(Default)]
struct Log {
    asked: u64,
    failures: BTreeMap<String, u64>,
    times: Vec<Times>,
    samples: Vec<Sample>,
    /// What changed since the last reading, and since the one that the last sample kept ended with.
    latest: Option<Sample>,
    last: Reading,
    kept: Reading,
    /// Since the last sample that was kept.
    recent: Histogram,
    /// Since the measured time began: of packets, and of the threads here.
    delays: Histogram,
    waits: Histogram,
}

impl Stage {
    /// Connects, and starts the threads.
    ///
    /// # Errors
    /// [`BenchError::Connect`], [`BenchError::Machine`].
    pub async fn build(url: &str, options: &Options) -> Result<Self, BenchError> {
        let (clock, origin) = (Clock::start(), Clock::start().now());
        let client = ClientOptions {
            token: options.token.as_deref().map(Into::into),
            trust: options.trust.clone(),
            request_timeout: options.patience,
            connection_timeout: options.patience,
            heartbeat: None,
            reconnect: None,
            in_flight: 100_000,
            queue: 100_000,
            event_queue: 100_000,
            subscriptions: 1_000_000,
            ..ClientOptions::default()
        };
        let refused = |reason: String| BenchError::Connect { url: url.to_owned(), reason };
        let kurento = Kurento::connect_with(url, client).await;
        let kurento = kurento.map_err(|error| refused(error.to_string()))?;
        let certificate = Certificate::generate(KeyKind::Ecdsa);
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        let media = (0..options.threads.max(1))
            .map(|number| Media::start(number, clock, origin, options.rows));
        Ok(Self {
            clock,
            origin,
            kurento,
            media: media.collect::<std::io::Result<_>>()?,
            probe: Probe::find(url, options.pid).await,
            certificate: Arc::new(certificate),
            options: options.clone(),
            numbers: AtomicUsize::new(0),
            log: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn pid(&self) -> Option<u32> {
        self.probe.pid()
    }

    pub fn certificate(&self) -> &Arc<Certificate> {
        &self.certificate
    }

    pub const fn patience(&self) -> Duration {
        self.options.patience
    }

    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// A number for the next client.
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The thread of a client.
    pub fn media(&self, number: usize) -> &Media {
        &self.media[number % self.media.len()]
    }

    /// Those who publish now do so as many times as often.
    pub fn set_rate(&self, rate: u32) {
        self.media.iter().for_each(|media| media.set_rate(rate));
    }

    /// # Errors
    /// [`BenchError::Refused`]
    pub async fn pipeline(&self) -> Result<MediaPipeline, BenchError> {
        self.kurento.create_media_pipeline().await.map_err(|error| BenchError::Refused {
            what: "create a pipeline",
            reason: error.to_string(),
        })
    }

    /// The version that the server says it has.
    ///
    /// # Errors
    /// [`BenchError::Refused`]
    pub async fn version(&self) -> Result<String, BenchError> {
        let info = self.kurento.server_manager().get_info().await;
        info.map(|info| info.version).map_err(|error| BenchError::Refused {
            what: "say who it is",
            reason: error.to_string(),
        })
    }

    /// Starts `count` joinings, evenly over a time, and waits for all of them; those that came in.
    ///
    /// # Errors
    /// [`BenchError::NobodyJoined`]
    pub async fn join_all<F, T>(
        self: &Arc<Self>,
        count: usize,
        over: Duration,
        join: impl Fn(usize) -> F,
    ) -> Result<Vec<T>, BenchError>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
        T: Send + 'static,
    {
        let begin = tokio::time::Instant::now();
        let mut under_way = JoinSet::new();
        let (mut joined, mut reason) = (Vec::with_capacity(count), "none was started".to_owned());
        let mut started = 0;
        while started < count || !under_way.is_empty() {
            let next = begin + over.mul_f64(started as f64 / count.max(1) as f64);
            tokio::select! {
                () = tokio::time::sleep_until(next), if started < count => {
                    under_way.spawn(join(started));
                    started += 1;
                }
                Some(done) = under_way.join_next() => match done {
                    Ok(Ok(one)) => joined.push(one),
                    Ok(Err(failure)) => reason = failure.to_string(),
                    Err(error) => reason = self.note(&error.to_string()),
                },
            }
        }
        if joined.is_empty() { Err(BenchError::NobodyJoined(reason)) } else { Ok(joined) }
    }

    /// Writes down what came of one joining.
    pub fn note_join(&self, joined: Result<Times, &Failure>) {
        self.log().asked += 1;
        match joined {
            Ok(times) => self.log().times.push(times),
            Err(failure) => drop(self.note(&failure.to_string())),
        }
    }

    /// Writes down something that failed.
    pub fn note(&self, failure: &str) -> String {
        *self.log().failures.entry(failure.to_owned()).or_default() += 1;
        failure.to_owned()
    }

    /// How things are, and how they changed since the last time.
    pub async fn read(&self) -> Reading {
        let _turn = self.reading.lock().await;
        let mut reading = Reading {
            at: self.now() - self.origin,
            usage: self.probe.usage().await,
            own: self.clock.cpu_time(),
            ..Reading::default()
        };
        for media in &self.media {
            if let Some(tally) = media.tell().await {
                reading.tally.add(&tally);
            }
        }
        let mut log = self.log();
        let log = &mut *log;
        let joined = log.times.len() as u64;
        log.latest = Some(Sample::between(&log.last, &reading, joined));
        log.delays.merge(&reading.tally.delays);
        log.waits.merge(&reading.tally.waits);
        log.recent.merge(&reading.tally.delays);
        log.last = reading.clone();
        // A little less, for ticks are not quite even.
        if reading.at + Duration::from_millis(100) >= log.kept.at + self.options.samples {
            let mut whole = reading.clone();
            whole.tally.delays = std::mem::take(&mut log.recent);
            log.samples.push(Sample::between(&log.kept, &whole, joined));
            log.kept = reading.clone();
        }
        reading
    }

    /// What the report says of delays counts from now on.
    pub fn forget_delays(&self) {
        let mut log = self.log();
        (log.delays, log.waits) = (Histogram::default(), Histogram::default());
    }

    pub fn delays(&self) -> Histogram {
        self.log().delays.clone()
    }

    /// How long datagrams waited for the threads here.
    pub fn waits(&self) -> Histogram {
        self.log().waits.clone()
    }

    pub fn samples(&self) -> Vec<Sample> {
        self.log().samples.clone()
    }

    pub fn last_sample(&self) -> Option<Sample> {
        self.log().latest.clone()
    }

    pub fn joins(&self) -> Joins {
        let log = self.log();
        let of = |pick: fn(&Times) -> Option<Duration>| {
            let mut histogram = Histogram::default();
            log.times.iter().filter_map(pick).for_each(|time| histogram.record(time));
            spread(&histogram)
        };
        Joins {
            asked: log.asked,
            joined: log.times.len() as u64,
            failed: log.failures.values().sum(),
            failures: log.failures.clone(),
            process_offer_ms: of(|times| Some(times.process_offer)),
            connected_ms: of(|times| Some(times.connected)),
            first_frame_ms: of(|times| times.first_frame),
        }
    }

    /// Ends the session, and with it all that was made in it.
    pub async fn end(&self) {
        self.kurento.close(true).await;
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing that is done under the lock panics half-way.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What the server counts, and its text form for Prometheus.
//!
//! Everything here is shared by all threads. The plain counters are single atomics; those with a
//! label look their counter up behind a lock, so media workers add sums of a whole batch or
//! second to them and not single packets. Of a worker's own there are distributions and levels, see
//! [`WorkerMetrics`]; it has them in its hands from the start, and needs no lock. Labels come from fixed sets only: whatever a client can
//! choose freely is folded into `other`.

mod measures;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub use measures::{Distribution, Tally};

/// A level of something of one worker.
pub type Level = Gauge;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Code {
    code: i32,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Class {
    class: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Way {
    way: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Flow {
    direction: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct What {
    what: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfWorker {
    worker: u64,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Queue {
    worker: u64,
    queue: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Memory {
    worker: u64,
    kind: &'static str,
}

/// The first edges: microseconds of a turn, datagrams of a batch.
const SHORTEST_TURN: u64 = 16;
const SMALLEST_BATCH: u64 = 1;
/// What is counted in microseconds is shown in seconds.
const MICROSECONDS: f64 = 1e6;

/// What one media worker tells of itself.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// Of microseconds.
    pub turns: Distribution,
    pub batches: Distribution,
    pub sessions: Level,
    pub handshakes_under_way: Level,
    pub commands_waiting: Level,
    pub handshakes_waiting: Level,
    pub packets_paced: Level,
    pub message_bytes_waiting: Level,
    /// Of all workers: control reads them in one line.
    pub notices_waiting: Level,
    pub histories: Level,
    pub notes: Level,
    pub send_slots: Level,
    pub handshake_bytes: Level,
}

/// Lines of the log that were lost. The log is the process's and not a server's, and so is this.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// All counters and gauges of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Method, Counter>,
    errors: Family<Code, Counter>,
    objects: Family<Class, Gauge>,
    sessions: Gauge,
    subscriptions: Gauge,
    connections: Gauge,
    connections_refused: Family<Reason, Counter>,
    connections_cut: Family<Reason, Counter>,
    answers_repeated: Counter,
    answers_forgotten: Counter,
    kept_bytes: Gauge,
    requests_abandoned: Counter,
    events: Counter,
    events_dropped: Family<Reason, Counter>,
    packets_in: Counter,
    bytes_in: Counter,
    packets_out: Counter,
    bytes_out: Counter,
    messages_out: Counter,
    shares_helped: Counter,
    dropped: Family<Reason, Counter>,
    switches: Family<Way, Counter>,
    handshakes: Family<Outcome, Counter>,
    estimators: Family<What, Counter>,
    turns: Family<OfWorker, Distribution, fn() -> Distribution>,
    batches: Family<OfWorker, Distribution, fn() -> Distribution>,
    media_sessions: Family<OfWorker, Gauge>,
    handshakes_under_way: Family<OfWorker, Gauge>,
    queues: Family<Queue, Gauge>,
    notices_waiting: Gauge,
    memory: Family<Memory, Gauge>,
    log_lines_dropped: Counter,
    uptime: Gauge<f64, AtomicU64>,
    cpu_seconds: Counter<f64, AtomicU64>,
    resident: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let packets = Family::<Flow, Counter>::default();
        let bytes = Family::<Flow, Counter>::default();
        let (inward, outward) = (Flow { direction: "in" }, Flow { direction: "out" });
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            errors: Family::default(),
            objects: Family::default(),
            sessions: Gauge::default(),
            subscriptions: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            connections_cut: Family::default(),
            answers_repeated: Counter::default(),
            answers_forgotten: Counter::default(),
            kept_bytes: Gauge::default(),
            requests_abandoned: Counter::default(),
            events: Counter::default(),
            events_dropped: Family::default(),
            packets_in: packets.get_or_create_owned(&inward),
            bytes_in: bytes.get_or_create_owned(&inward),
            packets_out: packets.get_or_create_owned(&outward),
            bytes_out: bytes.get_or_create_owned(&outward),
            messages_out: Counter::default(),
            shares_helped: Counter::default(),
            dropped: Family::default(),
            switches: Family::default(),
            handshakes: Family::default(),
            estimators: Family::default(),
            turns: Family::new_with_constructor(|| Distribution::new(SHORTEST_TURN, MICROSECONDS)),
            batches: Family::new_with_constructor(|| Distribution::new(SMALLEST_BATCH, 1.0)),
            media_sessions: Family::default(),
            handshakes_under_way: Family::default(),
            queues: Family::default(),
            notices_waiting: Gauge::default(),
            memory: Family::default(),
            log_lines_dropped: Counter::default(),
            uptime: Gauge::default(),
            cpu_seconds: Counter::default(),
            resident: Gauge::default(),
        };
        let all = &mut metrics.registry;
        all.register("rivero_requests", "Requests by method", metrics.requests.clone());
        all.register("rivero_request_errors", "Error replies by code", metrics.errors.clone());
        all.register("rivero_objects", "Living objects by class", metrics.objects.clone());
        all.register("rivero_sessions", "Sessions that used an object", metrics.sessions.clone());
        all.register(
            "rivero_subscriptions",
            "Subscriptions to events of objects",
            metrics.subscriptions.clone(),
        );
        all.register("rivero_connections", "Open WebSockets", metrics.connections.clone());
        all.register(
            "rivero_connections_refused",
            "Connections and requests that were not let in, by reason",
            metrics.connections_refused.clone(),
        );
        all.register(
            "rivero_connections_cut",
            "Connections that the server cut, by reason",
            metrics.connections_cut.clone(),
        );
        all.register(
            "rivero_answers_repeated",
            "Requests that were answered as they had been before",
            metrics.answers_repeated.clone(),
        );
        all.register(
            "rivero_answers_forgotten",
            "Answers for those who ask again that were dropped before their time",
            metrics.answers_forgotten.clone(),
        );
        all.register(
            "rivero_answers_bytes",
            "Bytes of answers kept for those who ask again",
            metrics.kept_bytes.clone(),
        );
        all.register(
            "rivero_requests_abandoned",
            "Requests dropped with their connection because too many were going on without one",
            metrics.requests_abandoned.clone(),
        );
        all.register("rivero_events", "Event messages handed to clients", metrics.events.clone());
        all.register(
            "rivero_events_dropped",
            "Event messages lost, by reason",
            metrics.events_dropped.clone(),
        );
        all.register("rivero_media_packets", "Datagrams of media, by direction", packets);
        all.register("rivero_media_bytes", "Bytes of those datagrams, by direction", bytes);
        all.register(
            "rivero_media_shares_helped",
            "Shares of packets for many viewers that helpers served",
            metrics.shares_helped.clone(),
        );
        all.register(
            "rivero_media_messages",
            "What the kernel was given for the datagrams sent: fewer where some leave together",
            metrics.messages_out.clone(),
        );
        all.register(
            "rivero_media_dropped",
            "Datagrams and packets dropped, by reason",
            metrics.dropped.clone(),
        );
        all.register(
            "rivero_encoding_switches",
            "Times that a receiver went over to another encoding of what it gets",
            metrics.switches.clone(),
        );
        all.register(
            "rivero_handshakes",
            "DTLS handshakes, by how far they came: begun, done, failed",
            metrics.handshakes.clone(),
        );
        all.register(
            "rivero_handshakes_under_way",
            "DTLS handshakes that have begun and not ended, by worker",
            metrics.handshakes_under_way.clone(),
        );
        all.register(
            "rivero_estimators",
            "What estimates of bandwidth refused to believe, and probes that told nothing",
            metrics.estimators.clone(),
        );
        all.register_with_unit(
            "rivero_worker_turn",
            "How long turns of a media worker take, waiting left out",
            Unit::Seconds,
            metrics.turns.clone(),
        );
        all.register(
            "rivero_worker_batch",
            "Datagrams that a media worker received at once",
            metrics.batches.clone(),
        );
        all.register(
            "rivero_worker_sessions",
            "Transport sessions of a media worker",
            metrics.media_sessions.clone(),
        );
        all.register(
            "rivero_worker_queue",
            "What waits at a media worker: commands, handshakes (datagrams), pacers (packets), \
             data_channels (bytes)",
            metrics.queues.clone(),
        );
        all.register(
            "rivero_events_waiting",
            "Events of media workers that control has yet to read",
            metrics.notices_waiting.clone(),
        );
        all.register_with_unit(
            "rivero_worker_memory",
            "What a media worker keeps, by kind",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        all.register(
            "rivero_log_lines_dropped",
            "Lines of the log that were lost because it could not be written fast enough",
            metrics.log_lines_dropped.clone(),
        );
        all.register("rivero_uptime_seconds", "Time since the start", metrics.uptime.clone());
        all.register("process_cpu_seconds", "Processor time used", metrics.cpu_seconds.clone());
        all.register("process_resident_memory_bytes", "Resident memory", metrics.resident.clone());
        metrics
    }

    /// A request came in; `method` must come from a fixed set.
    pub fn request(&self, method: &'static str) {
        self.requests.get_or_create(&Method { method }).inc();
    }

    /// A request was answered with an error.
    pub fn error(&self, code: i32) {
        self.errors.get_or_create(&Code { code }).inc();
    }

    pub fn object_created(&self, class: &'static str) {
        self.objects.get_or_create(&Class { class }).inc();
    }

    pub fn object_destroyed(&self, class: &'static str) {
        self.objects.get_or_create(&Class { class }).dec();
    }

    pub fn set_sessions(&self, count: usize) {
        self.sessions.set(count as i64);
    }

    pub fn set_subscriptions(&self, count: usize) {
        self.subscriptions.set(count as i64);
    }

    pub fn set_connections(&self, count: usize) {
        self.connections.set(count as i64);
    }

    /// A connection or request was not let in.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }

    /// The server cut a connection.
    pub fn connection_cut(&self, reason: &'static str) {
        self.connections_cut.get_or_create(&Reason { reason }).inc();
    }

    /// A request came again and got the answer it had got before.
    pub fn answer_repeated(&self) {
        self.answers_repeated.inc();
    }

    /// `count` answers were dropped before their time.
    pub fn answers_forgotten(&self, count: u64) {
        self.answers_forgotten.inc_by(count);
    }

    pub fn set_kept_bytes(&self, bytes: usize) {
        self.kept_bytes.set(bytes as i64);
    }

    /// A request was dropped with its connection.
    pub fn request_abandoned(&self) {
        self.requests_abandoned.inc();
    }

    /// An event message went into a client's queue.
    pub fn event_sent(&self) {
        self.events.inc();
    }

    /// `count` event messages were lost.
    pub fn events_dropped(&self, reason: &'static str, count: u64) {
        self.events_dropped.get_or_create(&Reason { reason }).inc_by(count);
    }

    /// Datagrams of media that were received.
    pub fn received(&self, packets: u64, bytes: u64) {
        self.packets_in.inc_by(packets);
        self.bytes_in.inc_by(bytes);
    }

    /// Helpers served so many shares.
    pub fn helped(&self, shares: u64) {
        self.shares_helped.inc_by(shares);
    }

    /// Datagrams of media that were sent, as `messages` of the kernel's.
    pub fn sent(&self, packets: u64, bytes: u64, messages: u64) {
        self.messages_out.inc_by(messages);
        self.packets_out.inc_by(packets);
        self.bytes_out.inc_by(bytes);
    }

    /// `count` datagrams or packets of media were dropped.
    pub fn dropped(&self, reason: &'static str, count: u64) {
        self.dropped.get_or_create(&Reason { reason }).inc_by(count);
    }

    /// Receivers went over to another encoding so often: `up` to a better one, `down` to a lesser one.
    pub fn switched(&self, way: &'static str, count: u64) {
        self.switches.get_or_create(&Way { way }).inc_by(count);
    }

    /// DTLS handshakes that began, succeeded and failed.
    pub fn handshakes(&self, begun: u64, done: u64, failed: u64) {
        for (outcome, count) in [("begun", begun), ("done", done), ("failed", failed)] {
            if count > 0 {
                self.handshakes.get_or_create(&Outcome { outcome }).inc_by(count);
            }
        }
    }

    /// Estimates of bandwidth met `count` times with something they could not use.
    pub fn estimators(&self, what: &'static str, count: u64) {
        self.estimators.get_or_create(&What { what }).inc_by(count);
    }

    /// What a media worker tells of itself, for it to keep.
    pub fn worker(&self, id: usize) -> WorkerMetrics {
        let worker = id as u64;
        let own = OfWorker { worker };
        let queue = |queue| self.queues.get_or_create_owned(&Queue { worker, queue });
        let memory = |kind| self.memory.get_or_create_owned(&Memory { worker, kind });
        WorkerMetrics {
            turns: self.turns.get_or_create_owned(&own),
            batches: self.batches.get_or_create_owned(&own),
            sessions: self.media_sessions.get_or_create_owned(&own),
            handshakes_under_way: self.handshakes_under_way.get_or_create_owned(&own),
            commands_waiting: queue("commands"),
            handshakes_waiting: queue("handshakes"),
            packets_paced: queue("pacers"),
            message_bytes_waiting: queue("data_channels"),
            notices_waiting: self.notices_waiting.clone(),
            histories: memory("histories"),
            notes: memory("sent_notes"),
            send_slots: memory("send_slots"),
            handshake_bytes: memory("handshakes"),
        }
    }

    /// The text that Prometheus reads; what concerns the process is passed in as it is now.
    pub fn to_text(&self, uptime: Duration, cpu_time: Duration) -> String {
        self.uptime.set(uptime.as_secs_f64());
        let counted = self.cpu_seconds.get();
        self.cpu_seconds.inc_by((cpu_time.as_secs_f64() - counted).max(0.0));
        let lost = LOG_LINES_DROPPED.load(Ordering::Relaxed);
        self.log_lines_dropped.inc_by(lost.saturating_sub(self.log_lines_dropped.get()));
        self.resident.set(resident_memory() as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a string does not fail");
        text
    }
}

/// Bytes of memory that the process occupies; 0 where the system does not say.
pub fn resident_memory() -> u64 {
    // SAFETY: the call reads a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(0) as u64;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page
}

/// Files that the process has open; 0 where the system does not say.
pub fn open_files() -> u64 {
    // Linux counts them in the folder's size since 6.2; before that they must be counted here.
    match std::fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        Ok(0) => std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        Ok(count) => count,
        Err(_) => 0,
    }
}

/// Threads of the process; 0 where the system does not say.
pub fn threads() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may hold anything, so fields are counted from the parenthesis behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(17).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What the system limits for a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    Files,
    Threads,
}

/// How much of it the process may have; none without a limit.
pub fn resource_limit(of: Resource) -> Option<u64> {
    let resource = match of {
        Resource::Files => libc::RLIMIT_NOFILE,
        Resource::Threads => libc::RLIMIT_NPROC,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes into the structure it is given and keeps nothing of it.
    let done = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (done == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.request("create");
        metrics.error(40101);
        metrics.object_created("MediaPipeline");
        metrics.received(3, 3_600);
        metrics.dropped("replayed", 2);
        metrics.events_dropped("nobody_bound", 1);
        metrics.handshakes(2, 1, 0);
        metrics.estimators("clock_jumps", 4);
        let worker = metrics.worker(1);
        let mut turns = worker.turns.tally();
        for turn in [10, 20, 1_000_000_000] {
            turns.note(turn);
        }
        worker.turns.take(&mut turns);
        worker.sessions.set(9);
        worker.packets_paced.set(5);
        worker.histories.set(65_536);
        let text = metrics.to_text(Duration::from_secs(7), Duration::from_millis(250));
        for line in [
            "rivero_requests_total{method=\"create\"} 1",
            "rivero_request_errors_total{code=\"40101\"} 1",
            "rivero_objects{class=\"MediaPipeline\"} 1",
            "rivero_media_packets_total{direction=\"in\"} 3",
            "rivero_media_bytes_total{direction=\"in\"} 3600",
            "rivero_media_dropped_total{reason=\"replayed\"} 2",
            "rivero_events_dropped_total{reason=\"nobody_bound\"} 1",
            "rivero_handshakes_total{outcome=\"begun\"} 2",
            "rivero_handshakes_total{outcome=\"done\"} 1",
            "rivero_estimators_total{what=\"clock_jumps\"} 4",
            "rivero_worker_turn_seconds_bucket{le=\"0.000016\",worker=\"1\"} 1",
            "rivero_worker_turn_seconds_bucket{le=\"+Inf\",worker=\"1\"} 3",
            "rivero_worker_turn_seconds_count{worker=\"1\"} 3",
            "rivero_worker_sessions{worker=\"1\"} 9",
            "rivero_worker_queue{worker=\"1\",queue=\"pacers\"} 5",
            "rivero_worker_memory_bytes{worker=\"1\",kind=\"histories\"} 65536",
            "process_cpu_seconds_total 0.25",
            "rivero_uptime_seconds 7.0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_running_process_occupies_memory_files_and_threads() {
        assert!(resident_memory() > 1_000_000);
        assert!(open_files() >= 3);
        assert!(threads() >= 1);
        assert!(resource_limit(Resource::Files).is_none_or(|limit| limit >= open_files()));
    }
}

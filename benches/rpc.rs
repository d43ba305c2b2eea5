//! What the control plane carries, seen from outside: the program is started and spoken to over
//! WebSockets on loopback. One line per figure; `cargo bench --bench rpc -- <name>…` picks some of
//! `round_trip rate idle release churn`, and `CHURN_SECONDS` says how long the last one lasts (20).

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rivero::client::{ClientError, Kurento};
use rivero::clock::Clock;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_rivero"))
            .args(["--port", "0"])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says that it is ready");
        let address = line.trim().rsplit_once("//").map(|(_, rest)| rest.trim_end_matches('/'));
        let address = address.and_then(|text| text.parse().ok());
        Self { process, address: address.expect("its address is in the line") }
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("it runs");
        let fields: Vec<&str> =
            stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        // User and system time, in the hundredths of a second that Linux counts in.
        [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number") / 100.0).sum()
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    socket: WebSocketStream<TcpStream>,
    id: u64,
}

impl Client {
    async fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP option");
        let (socket, _) =
            client_async(format!("ws://{server}/kurento"), stream).await.expect("a WebSocket");
        Self { socket, id: 0 }
    }

    fn request(&mut self, method: &str, params: &Value) -> Message {
        self.id += 1;
        Message::text(
            json!({"id": self.id, "jsonrpc": "2.0", "method": method, "params": params})
                .to_string(),
        )
    }

    async fn reply(&mut self) -> Value {
        let message = self.socket.next().await.expect("open").expect("a message");
        serde_json::from_str(message.to_text().expect("a text")).expect("JSON")
    }

    async fn call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = self.request(method, params);
        self.socket.send(request).await.expect("open");
        let mut reply = self.reply().await;
        match reply.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(reply),
        }
    }

    async fn create(&mut self, class: &str, params: Value) -> Result<String, Value> {
        let params = json!({"type": class, "constructorParams": params});
        let result = self.call("create", &params).await?;
        Ok(result["value"].as_str().expect("an id").to_owned())
    }
}

fn get_name(object: &str) -> Value {
    json!({"object": object, "operation": "getName"})
}

fn now() -> Instant {
    Clock::start().now()
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// One request in flight.
async fn round_trip() {
    let server = Server::start();
    let mut client = Client::connect(server.address).await;
    let pipeline = client.create("MediaPipeline", json!({})).await.expect("made");
    let params = get_name(&pipeline);
    let mut times = Vec::new();
    for _ in 0..20_000 {
        let start = now();
        client.call("invoke", &params).await.expect("answered");
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "round_trip: getName, one in flight: median {:?}, p99 {:?}, worst {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
        times[times.len() - 1]
    );
}

/// Many requests in flight over one connection.
async fn rate() {
    const REQUESTS: usize = 200_000;
    for window in [16, 64, 256] {
        let server = Server::start();
        let mut client = Client::connect(server.address).await;
        let pipeline = client.create("MediaPipeline", json!({})).await.expect("made");
        let params = get_name(&pipeline);
        let mut texts: VecDeque<_> =
            (0..REQUESTS).map(|_| client.request("invoke", &params)).collect();
        let (mut sink, mut stream) = client.socket.split();
        let places = Arc::new(tokio::sync::Semaphore::new(window));
        let (cpu, start) = (server.cpu(), now());
        let free = places.clone();
        let sender = tokio::spawn(async move {
            while let Some(text) = texts.pop_front() {
                free.acquire().await.expect("open").forget();
                sink.feed(text).await.expect("open");
                // What waits goes out when no more may be sent, or when there is much of it.
                if free.available_permits() == 0 || texts.len() % 16 == 0 {
                    sink.flush().await.expect("open");
                }
            }
        });
        for _ in 0..REQUESTS {
            let message = stream.next().await.expect("open").expect("a message");
            assert!(message.to_text().expect("a text").contains("\"result\""));
            places.add_permits(1);
        }
        sender.await.expect("all were sent");
        let (wall, cpu) = (start.elapsed().as_secs_f64(), server.cpu() - cpu);
        println!(
            "rate: getName, {window} in flight over one connection: {:.0} per second, {:.1} us CPU \
             each, {:.0} per second and core used",
            REQUESTS as f64 / wall,
            cpu / REQUESTS as f64 * 1e6,
            REQUESTS as f64 / cpu
        );
    }
}

/// Sessions that do nothing.
async fn idle() {
    const SESSIONS: usize = 9_900;
    let server = Server::start();
    let before = server.resident();
    let mut clients = Vec::new();
    let start = now();
    for _ in 0..SESSIONS {
        let mut client = Client::connect(server.address).await;
        let describe = json!({"object": "manager_ServerManager"});
        client.call("describe", &describe).await.expect("answered");
        clients.push(client);
    }
    let cpu = server.cpu();
    let resident = server.resident();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "idle: {SESSIONS} sessions opened in {:.1?}: {resident} kB resident ({before} kB before, \
         {:.1} kB each), {:.2} s of CPU in 5 s of doing nothing, {} kB then",
        start.elapsed(),
        (resident - before) as f64 / SESSIONS as f64,
        server.cpu() - cpu,
        server.resident()
    );
}

/// A pipeline with a thousand elements ends.
async fn release() {
    let server = Server::start();
    let mut client = Client::connect(server.address).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let pipeline = client.create("MediaPipeline", json!({})).await.expect("made");
        for _ in 0..1_000 {
            let parent = json!({"mediaPipeline": pipeline});
            client.create("PassThrough", parent).await.expect("made");
        }
        let start = now();
        client.call("release", &json!({"object": pipeline})).await.expect("released");
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "release: a pipeline of 1 000 elements: median {:?}, worst {:?}",
        percentile(&times, 50),
        times[times.len() - 1]
    );
}

/// Connections that make and release pipelines all the time, with the client of this crate.
async fn churn() {
    const CONNECTIONS: usize = 500;
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(20);
    let server = Server::start();
    let (rounds, errors) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let (address, stop) = (server.address, stop.clone());
        let (rounds, errors) = (rounds.clone(), errors.clone());
        tasks.push(tokio::spawn(async move {
            let kurento = Kurento::connect(&format!("ws://{address}/kurento")).await;
            let kurento = kurento.expect("the server listens");
            while !stop.load(Ordering::Relaxed) {
                match one_round(&kurento).await {
                    Ok(()) => rounds.fetch_add(1, Ordering::Relaxed),
                    Err(_) => errors.fetch_add(1, Ordering::Relaxed),
                };
            }
        }));
    }
    let start = now();
    let step = Duration::from_secs((seconds / 10).max(1));
    while start.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(step).await;
        println!(
            "churn: after {:.0?}: {} pipelines of four elements, {} errors, {} kB resident",
            start.elapsed(),
            rounds.load(Ordering::Relaxed),
            errors.load(Ordering::Relaxed),
            server.resident()
        );
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no connection was cut");
    }
}

async fn one_round(kurento: &Kurento) -> Result<(), ClientError> {
    let pipeline = kurento.create_media_pipeline().await?;
    pipeline.create_web_rtc_endpoint().await?;
    pipeline.create_pass_through().await?;
    pipeline.create_dispatcher_one_to_many().await?;
    pipeline.create_web_rtc_endpoint().await?;
    pipeline.release().await
}

fn main() {
    let mut names: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if names.is_empty() {
        names = ["round_trip", "rate", "idle", "release", "churn"].map(str::to_owned).to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for name in names {
        match name.as_str() {
            "round_trip" => runtime.block_on(round_trip()),
            "rate" => runtime.block_on(rate()),
            "idle" => runtime.block_on(idle()),
            "release" => runtime.block_on(release()),
            "churn" => runtime.block_on(churn()),
            unknown => eprintln!("there is no figure called {unknown}"),
        }
    }
}

//! The program: flags, logs, start, signals.

use std::io::{IsTerminal, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rivero::config::Config;
use rivero::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Control is little work; media has threads of its own.
const CONTROL_THREADS: usize = 2;
/// What is logged unless `RUST_LOG` says otherwise: no state changes inside libraries.
const DEFAULT_LOG: &str = "info,rtc_ice=warn,rtc_dtls=warn,rtc_sctp=warn";
/// How long a server may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A WebRTC media server that speaks the Kurento Protocol.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Asks a running server whether it is well; exits with 0 if so
    Health(Place),
}

#[derive(Args)]
struct Place {
    /// Address of the control port
    #[arg(long, env = "RIVERO_BIND", default_value_t = Config::default().control.bind)]
    bind: IpAddr,
    /// The control port; 0 takes a free one
    #[arg(long, env = "RIVERO_PORT", default_value_t = Config::default().control.port)]
    port: u16,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Media threads [default: one per core]
    #[arg(long, env = "RIVERO_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    workers: Option<u16>,
    /// Local addresses for media [default: all usable ones]
    #[arg(long, env = "RIVERO_MEDIA_ADDRESS", value_delimiter = ',', value_name = "ADDR,…")]
    media_address: Vec<IpAddr>,
    /// First UDP port for media, one per media thread; 0 takes free ones
    #[arg(long, env = "RIVERO_MEDIA_PORT", value_name = "PORT", default_value_t = Config::default().media.port)]
    media_port: u16,
}

impl Serve {
    fn config(self) -> Config {
        let mut config = Config::default();
        config.control.bind = self.place.bind;
        config.control.port = self.place.port;
        config.media.workers = self.workers.map(usize::from);
        config.media.addresses = self.media_address;
        config.media.port = self.media_port;
        config
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Subcommands::Health(place)) => health(SocketAddr::new(place.bind, place.port)),
        None => serve(cli.serve.config()),
    }
}

fn serve(config: Config) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    let result = runtime.and_then(|runtime| runtime.block_on(run(config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivero cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config).await?;
    // Nobody may be reading, and that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "Rivero is ready: http://{}/", server.address());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// Asks `/health` in the simplest way there is.
fn health(mut address: SocketAddr) -> ExitCode {
    // A server that listens everywhere is asked at home.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    match ask(address) {
        Ok(response) => {
            let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
            println!("{body}");
            if head.starts_with("HTTP/1.1 200 ") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("no answer from {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(64 * 1_024).read_to_string(&mut response)?;
    Ok(response)
}

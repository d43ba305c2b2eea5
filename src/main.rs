//! The program: flags, settings, logs, start, signals.
//!
//! Under the name `kurento-media-server` it takes what that program takes: unknown words and options
//! are passed over, and the main file of settings must be there.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use rivero::config::{self, Loaded, LogFormat, Origin, Sources};
use rivero::doctor::{self, Finding, Severity};
use rivero::logs::Logs;
use rivero::model::class::{self, API_VERSION};
use rivero::server::Server;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod flags;
#[path = "../benches/load/mod.rs"]
mod load;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Control is little work, and media has threads of its own. A second thread for it is woken by the first to
/// look for work that is done already, so there is one for so many cores.
const CORES_PER_CONTROL_THREAD: usize = 8;
/// For what still runs when everything has ended that matters.
const LAST_TASKS: Duration = Duration::from_millis(100);
/// Exit status when somebody could not wait for an orderly end.
const IMPATIENT: i32 = 130;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let as_kurento = flags::as_kurento(words.first());
    let given = match flags::parse(words, as_kurento) {
        Ok(given) => given,
        Err(error) => {
            // Help is no error, and nobody may be reading it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if given.get_flag(flags::VERSION) {
        return print(&version(as_kurento));
    }
    if given.get_flag(flags::LIST) {
        return print(&factories());
    }
    if let Some((flags::BENCH, options)) = given.subcommand() {
        raise_file_limit();
        return load::main(options);
    }
    let read = flags::sources(&given, as_kurento)
        .and_then(|sources| Ok((load(&sources, as_kurento)?, sources)));
    let (loaded, sources) = match read {
        Ok(read) => read,
        Err(error) => {
            eprintln!("Error reading configuration: {error}");
            return ExitCode::FAILURE;
        }
    };
    match given.subcommand() {
        Some(("config", options)) => show(&loaded, options),
        Some(("doctor", options)) => examine(&loaded, options),
        Some(("health", _)) => health(&loaded),
        _ => serve(&loaded, &sources, as_kurento),
    }
}

fn load(sources: &Sources, as_kurento: bool) -> Result<Loaded, config::ConfigError> {
    let mut loaded = config::read(sources, &|name| std::env::var(name))?;
    if as_kurento {
        // Tools that read the original's files expect its lines there.
        let format = config::find("rivero.logs.format").expect("the table has it");
        if loaded.origin(format) == Origin::Default {
            loaded.config.logs.format = LogFormat::Kurento;
        }
    }
    Ok(loaded)
}

/// Nobody may be reading, and that is no reason to fail.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn version(as_kurento: bool) -> String {
    let mut text = if as_kurento {
        format!("Kurento Media Server version: {API_VERSION}\n")
    } else {
        format!("rivero {} (Kurento API {API_VERSION})\n", env!("CARGO_PKG_VERSION"))
    };
    text += "Found modules:\n";
    for module in class::MODULES {
        text += &format!("\t'{}' version {API_VERSION}\n", module.name);
    }
    text
}

fn factories() -> String {
    let creatable = class::CLASSES.iter().filter(|class| class::factory(class.name).is_some());
    let mut names: Vec<_> = creatable.flat_map(|class| [class.name, class.qualified]).collect();
    names.sort_unstable();
    let names: String = names.iter().map(|name| format!("\t{name}\n")).collect();
    format!("Available factories:\n{names}")
}

fn show(loaded: &Loaded, options: &ArgMatches) -> ExitCode {
    for warning in loaded.warnings.iter().chain(&loaded.config.warnings()) {
        eprintln!("warning: {warning}");
    }
    if options.get_flag(flags::JSON) {
        print(&format!("{:#}\n", loaded.to_json()))
    } else {
        print(&loaded.to_text())
    }
}

fn serve(loaded: &Loaded, sources: &Sources, as_kurento: bool) -> ExitCode {
    let logs = match Logs::start(&loaded.config.logs) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("rivero cannot log: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / CORES_PER_CONTROL_THREAD).max(1))
        .thread_name("control")
        .enable_all()
        .build();
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(run(loaded, sources, as_kurento, &logs));
        // A name that is being looked up would be waited for as long as its server pleases.
        runtime.shutdown_timeout(LAST_TASKS.min(loaded.config.control.stop));
        result
    });
    if let Err(error) = &result {
        tracing::error!("cannot start: {error}");
        eprintln!("rivero cannot start: {error}");
    }
    logs.flush();
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sockets are files, and the usual limit of 1 024 is no more than a habit: what the administrator
/// allows is taken.
fn raise_file_limit() {
    const ENOUGH: libc::rlim_t = 1 << 20;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the call, which writes nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    let wanted = limit.rlim_max.min(ENOUGH);
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted;
        // SAFETY: the pointer is valid for the call, which only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            tracing::warn!(limit = wanted, "the limit of open files stays as it is");
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when somebody wants the end.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn run(
    loaded: &Loaded,
    sources: &Sources,
    as_kurento: bool,
    logs: &Logs,
) -> std::io::Result<()> {
    let name = if as_kurento { "Kurento Media Server" } else { "Rivero" };
    let version = if as_kurento { API_VERSION } else { env!("CARGO_PKG_VERSION") };
    tracing::info!("{name} version: {version}");
    let mut signals = Signals::listen()?;
    let server = Server::start(loaded.config.clone()).await?;
    let scheme = if server.secure_address() == Some(server.address()) { "https" } else { "http" };
    let ready = format!("Rivero is ready: {scheme}://{}/\n", server.address());
    print(&ready);
    tracing::info!("{name} started");
    tell(&[NotifyState::Ready]);
    follow(&mut signals, &server, loaded, sources, as_kurento, logs).await;
    tracing::info!("stopping");
    tell(&[NotifyState::Stopping]);
    let mut stopping = std::pin::pin!(server.stop());
    tokio::select! {
        () = &mut stopping => {}
        () = tokio::time::sleep(loaded.config.control.stop) => {
            tracing::error!("connections or pipelines did not end in time");
            tracing::info!("{name} stopped");
            logs.flush();
            // What did not end would have to be waited for.
            std::process::exit(0);
        }
        () = signals.stop() => {
            tracing::error!("told to stop again, ending at once");
            logs.flush();
            std::process::exit(IMPATIENT);
        }
    }
    tracing::info!("{name} stopped");
    Ok(())
}

/// Until somebody wants the end: reloads when told to, and shows the watchdog that all is well.
async fn follow(
    signals: &mut Signals,
    server: &Server,
    started: &Loaded,
    sources: &Sources,
    as_kurento: bool,
    logs: &Logs,
) {
    // A period of 0 switches it off, which systemd itself says by saying nothing.
    let watchdog = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
    let watchdog = watchdog.map(|period| period / 2);
    // What is in force, of which nothing may go missing.
    let mut accepted = started.clone();
    // Without a watchdog nobody looks at the ticks.
    let mut ticks = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3_600)));
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => return,
            _ = signals.hangup.recv() => {
                match NotifyState::monotonic_usec_now() {
                    Ok(now) => tell(&[NotifyState::Reloading, now]),
                    Err(_) => tell(&[NotifyState::Reloading]),
                }
                match load(sources, as_kurento).and_then(|fresh| {
                    fresh.may_follow(&accepted)?;
                    Ok(fresh)
                }) {
                    Ok(fresh) => {
                        reload(server, started, &fresh, logs);
                        accepted = fresh;
                    }
                    Err(error) => {
                        tracing::error!("Error reading configuration: {error}");
                        tracing::error!("all settings stay as they are");
                    }
                }
                tell(&[NotifyState::Ready]);
            }
            _ = ticks.tick(), if watchdog.is_some() => {
                // A server that is not well stays silent, and is started again.
                if server.check() {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

/// Takes over what can be; names what would need a restart to be as in the settings.
fn reload(server: &Server, started: &Loaded, fresh: &Loaded, logs: &Logs) {
    for warning in &fresh.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = logs.reload(&fresh.config.logs) {
        tracing::error!(%error, "the log's levels stay as they are");
    }
    if let Err(error) = server.reload(&fresh.config) {
        tracing::error!(%error, "the certificate stays as it is");
    }
    for setting in fresh.changed(started).filter(|setting| !setting.live) {
        tracing::warn!("{} has changed, which takes a restart", setting.key);
    }
    tracing::info!("settings reloaded");
}

/// Tells the service manager, where there is one that wants to know.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Whether a server can run and be used with these settings.
fn examine(loaded: &Loaded, options: &ArgMatches) -> ExitCode {
    let mut findings = doctor::examine(&loaded.config);
    findings.extend(loaded.warnings.iter().map(|warning| Finding {
        severity: Severity::Warning,
        subject: "settings",
        seen: warning.clone(),
        advice: String::new(),
    }));
    let text = if options.get_flag(flags::JSON) {
        let list: Vec<_> = findings.iter().map(Finding::to_json).collect();
        format!("{:#}\n", serde_json::Value::from(list))
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    };
    print(&text);
    let worst = findings.iter().map(|finding| finding.severity).max();
    if worst == Some(Severity::Trouble) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Asks a server that should be running.
fn health(loaded: &Loaded) -> ExitCode {
    let control = &loaded.config.control;
    if !control.plain {
        eprintln!("the server speaks TLS only, and this does not");
        return ExitCode::FAILURE;
    }
    let ip = control.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let address = SocketAddr::new(ip, control.port);
    match doctor::ask(address) {
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

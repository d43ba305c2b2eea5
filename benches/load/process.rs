//! Shell: what the server's process uses, from the system if it runs here, else from `/metrics`.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use rivero::clock::Clock;

use super::floor;

/// How long a server may take to show its metrics, and how long they may be.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_METRICS: u64 = 1 << 20;
/// A listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Since the process started, and now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu: Duration,
    pub resident: u64,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
}

/// Where the usage is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    Process(u32),
    Metrics(SocketAddr),
    /// The server is not to be seen, or is this process.
    Nothing,
}

impl Probe {
    /// Looks for the process that listens where the URL says.
    pub async fn find(url: &str, pid: Option<u32>) -> Self {
        if let Some(pid) = pid {
            return Self::Process(pid);
        }
        let Some(address) = address_of(url) else { return Self::Nothing };
        let own = std::process::id();
        match listener(address) {
            Some(pid) if pid == own => Self::Nothing,
            Some(pid) => Self::Process(pid),
            None => {
                let metrics = Self::Metrics(address);
                if metrics.usage().await.is_some() { metrics } else { Self::Nothing }
            }
        }
    }

    pub async fn usage(&self) -> Option<Usage> {
        match self {
            Self::Process(pid) => Some(Usage {
                cpu: cpu_time(*pid)?,
                resident: resident(*pid)?,
                threads: entries(*pid, "task"),
                descriptors: entries(*pid, "fd"),
            }),
            Self::Metrics(address) => read_metrics(&metrics(*address).await?),
            Self::Nothing => None,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(pid) => Some(*pid),
            _ => None,
        }
    }
}

/// Host and port of a URL.
fn address_of(url: &str) -> Option<SocketAddr> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    let port = if scheme == "wss" { 443 } else { 80 };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let text = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    // Names of this machine are what is of interest; the first address will do.
    text.to_socket_addrs().ok()?.next()
}

/// The process of this machine that listens on a port, if the address may be this machine's and we may
/// look.
fn listener(address: SocketAddr) -> Option<u32> {
    let local = match address.ip() {
        IpAddr::V4(ip) => super::sockets::is_own(ip),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let inodes: HashSet<String> = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().filter_map(|line| listening(line, address.port())))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if !local || inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
    })
}

/// The inode of a listening socket on this port, from a line of the table.
fn listening(line: &str, port: u16) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let (_, found) = local.rsplit_once(':')?;
    (state == LISTENING && u16::from_str_radix(found, 16) == Ok(port)).then(|| words.nth(5))?
}

/// Of all its threads, dead ones too.
fn cpu_time(pid: u32) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both places are valid for the calls, which write nothing else.
    let read = unsafe {
        libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    read.then(|| {
        Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
    })
}

fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// How many entries a folder of the process has.
fn entries(pid: u32, folder: &str) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/{folder}")).ok()?.count() as u64)
}

/// Processor time of the thread that asks.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is valid for the call, which writes nothing else. It cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// The cores that this process, and what it starts from now on, may run on.
pub fn cores() -> Vec<usize> {
    // SAFETY: zeros are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has the size that is named, and the call writes nothing else.
    let read = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    // SAFETY: the numbers are within the set.
    let has = |core: &usize| unsafe { libc::CPU_ISSET(*core, &set) };
    if read == 0 {
        (0..libc::CPU_SETSIZE as usize).filter(|core| has(core)).collect()
    } else {
        Vec::new()
    }
}

/// Holds this thread, and what it starts from now on, to some cores.
///
/// # Errors
/// What the system says.
pub fn stay_on(cores: &[usize]) -> std::io::Result<()> {
    // SAFETY: zeros are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is within the set.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: the set has the size that is named.
    let set = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

async fn metrics(address: SocketAddr) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.take(MAX_METRICS).read_to_string(&mut text).await.ok()?;
        Some(text)
    };
    timeout(PATIENCE, ask).await.ok()?
}

fn read_metrics(text: &str) -> Option<Usage> {
    let value = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
    };
    let cpu = value("process_cpu_seconds_total")?;
    let resident = value("process_resident_memory_bytes")? as u64;
    let descriptors = value("process_open_fds").map(|value| value as u64);
    let threads = value("process_threads").map(|value| value as u64);
    Some(Usage { cpu: Duration::try_from_secs_f64(cpu).ok()?, resident, threads, descriptors })
}

/// What the machine is, for the report.
pub fn machine() -> super::report::Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let load = read("/proc/loadavg");
    // All of them, and not only those that this process is held to.
    // SAFETY: no pointers.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    super::report::Machine {
        cpu: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
        cores: usize::try_from(cores).unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_average: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        bare_us_per_packet: floor::microseconds_per_packet(&Clock::start()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_behind_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("is bound");
        assert_eq!(listener(address), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(address), None);
    }

    #[test]
    fn a_url_says_where_to_look() {
        for (url, expected) in [
            ("ws://127.0.0.1:8888/kurento", Some("127.0.0.1:8888")),
            ("wss://127.0.0.1/kurento?a=b", Some("127.0.0.1:443")),
            ("ws://user@127.0.0.1:9", Some("127.0.0.1:9")),
            ("ws://[::1]:9/kurento", Some("[::1]:9")),
            ("nonsense", None),
        ] {
            let expected = expected.map(|text| text.parse::<SocketAddr>().expect("an address"));
            assert_eq!(address_of(url), expected, "{url}");
        }
    }

    #[test]
    fn the_time_and_memory_of_a_process_are_read() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_some_and(|time| time > Duration::ZERO));
        assert!(resident(pid).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident(u32::MAX), None);
        assert!(entries(pid, "fd") >= Some(3) && entries(pid, "task") >= Some(1));
        assert_eq!(entries(u32::MAX, "fd"), None);
    }

    #[test]
    fn a_thread_is_held_to_a_core() {
        // On a thread of its own, for it stays there.
        std::thread::spawn(|| {
            let all = cores();
            let last = all.last().copied().expect("there is one");
            stay_on(&[last]).expect("it is allowed");
            assert_eq!(cores(), [last]);
            assert!(stay_on(&[]).is_err());
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn metrics_are_read_and_nonsense_is_not() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP x\nprocess_cpu_seconds_total 0.25\n\
                    process_resident_memory_bytes 4096\n";
        let expected =
            Usage { cpu: Duration::from_millis(250), resident: 4_096, ..Usage::default() };
        assert_eq!(read_metrics(text), Some(expected));
        assert_eq!(read_metrics("process_cpu_seconds_total -1\n"), None);
        assert_eq!(read_metrics("process_cpu_seconds_total NaN\n"), None);
    }
}

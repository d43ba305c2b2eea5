//! Shell: a server of its own for a run: this program again, on loopback, and apart from the load as
//! far as the machine has cores.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::BenchError;
use super::process::{cores, stay_on};

/// How the machine's cores are shared out; empty where it has too few to be shared.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cores {
    pub server: Vec<usize>,
    pub load: Vec<usize>,
    all: Vec<usize>,
}

impl Cores {
    /// So many for the server, one for each worker, and the rest for the load.
    pub fn share(workers: usize) -> Self {
        Self::share_of(cores(), workers)
    }

    fn share_of(all: Vec<usize>, workers: usize) -> Self {
        if all.len() <= workers {
            return Self { all, ..Self::default() };
        }
        let (server, load) = all.split_at(workers);
        Self { server: server.to_vec(), load: load.to_vec(), all }
    }
}

/// While it is there, the server runs, and this thread and what it starts stay where the load belongs.
pub struct OwnServer {
    process: Child,
    pub url: String,
    pub cores: Cores,
}

impl OwnServer {
    /// # Errors
    /// [`BenchError::Machine`], [`BenchError::Connect`] if it does not start.
    pub fn start(workers: usize) -> Result<Self, BenchError> {
        let cores = Cores::share(workers);
        // What is started stays where its parent was.
        if !cores.server.is_empty() {
            stay_on(&cores.server)?;
        }
        let process = Command::new(std::env::current_exe()?)
            .args(["--bind", "127.0.0.1", "--port", "0", "--workers", &workers.to_string()])
            .args(["--media-address", "127.0.0.1"])
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        if !cores.load.is_empty() {
            stay_on(&cores.load)?;
        }
        let mut own = Self { process: process?, url: String::new(), cores };
        let mut line = String::new();
        if let Some(stdout) = own.process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().split_once("http://").map(|(_, rest)| rest.trim_end_matches('/'));
        let address = address.ok_or_else(|| BenchError::Connect {
            url: "a server of its own".to_owned(),
            reason: "it did not start".to_owned(),
        })?;
        own.url = format!("ws://{address}/kurento");
        Ok(own)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It has nothing to keep, and may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Where this is not allowed, it was not done before.
        let _ = stay_on(&self.cores.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_gets_what_the_workers_leave_and_one_core_is_not_shared() {
        let shared = Cores::share_of(vec![0, 2, 3], 2);
        assert_eq!((shared.server, shared.load), (vec![0, 2], vec![3]));
        for (all, workers) in [(vec![0], 1), (vec![0, 1], 2), (vec![], 1)] {
            let none = Cores::share_of(all.clone(), workers);
            assert_eq!(none, Cores { all, ..Cores::default() });
        }
    }
}

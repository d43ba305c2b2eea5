//! How much of what the system allows a process is in use. Beyond a share of it nothing more is
//! created; beyond another, the server asks to be stopped once nobody uses it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config::ResourceConfig;
use crate::metrics::{self, Resource};
use crate::model::RemoteError;

/// How long a look at the process is good for.
const FRESH: Duration = Duration::from_millis(500);

/// Files and threads of this process against their limits.
#[derive(Debug)]
pub struct Resources {
    exception_limit: f64,
    kill_limit: Option<f64>,
    clock: Clock,
    last: Mutex<Option<(Instant, Usage)>>,
}

/// Of each resource: how much is used, and how much is allowed.
type Usage = [(Resource, u64, Option<u64>); 2];

impl Resources {
    pub fn new(config: &ResourceConfig, clock: Clock) -> Self {
        Self {
            exception_limit: config.exception_limit,
            kill_limit: config.kill_limit,
            clock,
            last: Mutex::new(None),
        }
    }

    /// Whether something more may be created.
    ///
    /// # Errors
    /// [`RemoteError::NotEnoughResources`]
    pub fn check(&self) -> Result<(), RemoteError> {
        check(self.usage(), self.exception_limit)
    }

    /// The last object is gone. A server that lost too much by then ends, as its operator wished.
    pub fn everything_ended(&self) {
        if let Some(limit) = self.kill_limit
            && let Err(error) = check(look(), limit)
        {
            tracing::warn!(%error, "stopping, as nobody is there and resources are short");
            // SAFETY: the signal goes to this process, which handles it as a wish to stop.
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        }
    }

    fn usage(&self) -> Usage {
        let now = self.clock.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, usage)) if now < at + FRESH => usage,
            _ => {
                let usage = look();
                *last = Some((now, usage));
                usage
            }
        }
    }
}

fn look() -> Usage {
    [
        (Resource::Threads, metrics::threads(), metrics::resource_limit(Resource::Threads)),
        (Resource::Files, metrics::open_files(), metrics::resource_limit(Resource::Files)),
    ]
}

fn check(usage: Usage, share: f64) -> Result<(), RemoteError> {
    for (resource, used, limit) in usage {
        let Some(limit) = limit else { continue };
        let allowed = (limit as f64 * share) as u64;
        if used > allowed {
            let name = match resource {
                Resource::Files => "files",
                Resource::Threads => "threads",
            };
            return Err(RemoteError::NotEnoughResources(format!(
                "Reached KMS {name} limit: {allowed}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(threads: (u64, Option<u64>), files: (u64, Option<u64>)) -> Result<(), String> {
        let usage =
            [(Resource::Threads, threads.0, threads.1), (Resource::Files, files.0, files.1)];
        check(usage, 0.8).map_err(|error| error.to_string())
    }

    #[test]
    fn a_share_of_what_the_system_allows_is_the_limit() {
        assert_eq!(with((80, Some(100)), (5, None)), Ok(()));
        assert_eq!(
            with((81, Some(100)), (5, None)),
            Err("Reached KMS threads limit: 80".to_owned())
        );
        assert_eq!(with((1, None), (9, Some(10))), Err("Reached KMS files limit: 8".to_owned()));
    }
}

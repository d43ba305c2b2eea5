//! The one object that speaks for the whole server. It lives in control, not in a pipeline.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::control::Shared;
use crate::clock::Clock;
use crate::config::Config;
use crate::jsonrpc::Server;
use crate::metrics;
use crate::model::class::{self, API_VERSION};
use crate::model::types::{ModuleInfo, ServerInfo, ServerType, Tag};
use crate::model::{ObjectId, ObjectLimits, RemoteError};

mod operations {
    // Written from the descriptors, with every path in full.
    #![allow(unused_qualifications)]
    use serde_json::Value;

    use super::ServerManager;
    use crate::model::{Args, FromArg, Method, RemoteError, reply};

    include!(concat!(env!("OUT_DIR"), "/manager.rs"));
}
pub use operations::invoke;

mod kmd {
    include!(concat!(env!("OUT_DIR"), "/kmd.rs"));
}

/// Milliseconds for which a client may have the processor watched; its connection waits meanwhile.
const LONGEST_LOOK: u64 = 600_000;

/// The body of class `ServerManager`.
pub struct ServerManager {
    shared: Arc<Shared>,
    server: Arc<Server>,
    limits: ObjectLimits,
    metadata: String,
    clock: Clock,
    /// When the program was built, as `getInfo` writes it.
    built: String,
}

impl ServerManager {
    pub(super) fn new(
        shared: Arc<Shared>,
        server: Arc<Server>,
        config: &Config,
        clock: Clock,
    ) -> Self {
        let metadata = match &config.metadata {
            empty if empty.is_empty() => String::new(),
            members => serde_json::Value::Object(members.clone()).to_string(),
        };
        let limits = (&config.limits).into();
        Self {
            shared,
            server,
            limits,
            metadata,
            clock,
            built: c_date(file_time().unwrap_or_default()),
        }
    }

    pub async fn get_info(&self) -> Result<ServerInfo, RemoteError> {
        let modules = class::MODULES.iter().map(|module| ModuleInfo {
            version: API_VERSION.to_owned(),
            name: module.name.to_owned(),
            generation_time: self.built.clone(),
            factories: module.factories.iter().map(ToString::to_string).collect(),
        });
        Ok(ServerInfo {
            version: API_VERSION.to_owned(),
            modules: modules.collect(),
            r#type: ServerType::Kms,
            capabilities: vec!["transactions".to_owned()],
        })
    }

    pub async fn get_pipelines(&self) -> Result<Vec<ObjectId>, RemoteError> {
        Ok(self.shared.lock().registry.pipelines())
    }

    /// Ids of all sessions that used an object, sorted.
    pub async fn get_sessions(&self) -> Result<Vec<String>, RemoteError> {
        Ok(self.server.sessions())
    }

    /// What the operator has to say to clients, as JSON text; empty when that is nothing.
    pub async fn get_metadata(&self) -> Result<String, RemoteError> {
        Ok(self.metadata.clone())
    }

    /// A listed module as JSON text: its classes with constructors, properties, methods and events,
    /// its complex types, and its events.
    pub async fn get_kmd(&self, module_name: String) -> Result<String, RemoteError> {
        let module = kmd::KMD.iter().find(|(name, _)| *name == module_name);
        module.map(|(_, text)| (*text).to_owned()).ok_or(RemoteError::ModuleNotFound)
    }

    pub async fn get_cpu_count(&self) -> Result<i32, RemoteError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(i32::try_from(cores).unwrap_or(i32::MAX))
    }

    /// Percent of one core that the process uses during the next `interval` milliseconds; no number
    /// when there is no interval to look at.
    pub async fn get_used_cpu(&self, interval: i32) -> Result<f32, RemoteError> {
        let Some(interval) = u64::try_from(interval).ok().filter(|millis| *millis > 0) else {
            return Ok(f32::NAN);
        };
        if interval > LONGEST_LOOK {
            return Err(RemoteError::IllegalParameter(format!(
                "'interval' should be at most {LONGEST_LOOK} ms"
            )));
        }
        let (before, used) = (self.clock.now(), self.clock.cpu_time());
        tokio::time::sleep(Duration::from_millis(interval)).await;
        let used = self.clock.cpu_time().saturating_sub(used);
        Ok(100.0 * used.as_secs_f32() / (self.clock.now() - before).as_secs_f32())
    }

    /// Resident memory in KiB.
    pub async fn get_used_memory(&self) -> Result<i64, RemoteError> {
        Ok(i64::try_from(metrics::resident_memory() / 1_024).unwrap_or(i64::MAX))
    }

    pub async fn get_media_pipeline(&self) -> Result<Option<ObjectId>, RemoteError> {
        Ok(None)
    }

    pub async fn get_parent(&self) -> Result<Option<ObjectId>, RemoteError> {
        Ok(None)
    }

    pub async fn get_id(&self) -> Result<String, RemoteError> {
        Ok(ObjectId::SERVER_MANAGER.to_owned())
    }

    /// None: clients find pipelines with `getPipelines`.
    pub async fn get_children(&self) -> Result<Vec<ObjectId>, RemoteError> {
        Ok(Vec::new())
    }

    pub async fn get_name(&self) -> Result<String, RemoteError> {
        Ok(self.shared.lock().manager.name().to_owned())
    }

    pub async fn set_name(&self, name: String) -> Result<(), RemoteError> {
        self.shared.lock().manager.set_name(name, &self.limits)
    }

    pub async fn get_send_tags_in_events(&self) -> Result<bool, RemoteError> {
        Ok(self.shared.lock().manager.send_tags_in_events)
    }

    pub async fn set_send_tags_in_events(&self, send: bool) -> Result<(), RemoteError> {
        self.shared.lock().manager.send_tags_in_events = send;
        Ok(())
    }

    pub async fn get_creation_time(&self) -> Result<i32, RemoteError> {
        Ok(self.shared.lock().manager.creation_time)
    }

    pub async fn add_tag(&self, key: String, value: String) -> Result<(), RemoteError> {
        self.shared.lock().manager.add_tag(key, value, &self.limits)
    }

    pub async fn remove_tag(&self, key: String) -> Result<(), RemoteError> {
        self.shared.lock().manager.remove_tag(&key, &self.limits);
        Ok(())
    }

    pub async fn get_tag(&self, key: String) -> Result<String, RemoteError> {
        self.shared.lock().manager.tag(&key)
    }

    pub async fn get_tags(&self) -> Result<Vec<Tag>, RemoteError> {
        Ok(self.shared.lock().manager.tags())
    }
}

/// Seconds since the Unix epoch at which the program's file was written.
fn file_time() -> Option<u64> {
    let file = std::env::current_exe().ok()?.metadata().ok()?;
    Some(file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// A time in UTC as C compilers write the date of a build: `Mar 20 2025 10:11:12`.
fn c_date(unix_seconds: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (mut day, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let mut text = String::new();
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let _ =
        write!(text, "{} {:2} {year} {hour:02}:{minute:02}:{second:02}", MONTHS[month], day + 1);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_a_compiler_writes_them() {
        for (seconds, text) in [
            (0, "Jan  1 1970 00:00:00"),
            (951_782_399, "Feb 28 2000 23:59:59"),
            (951_782_400, "Feb 29 2000 00:00:00"),
            (1_742_465_472, "Mar 20 2025 10:11:12"),
            (1_798_761_599, "Dec 31 2026 23:59:59"),
        ] {
            assert_eq!(c_date(seconds), text);
        }
    }
}

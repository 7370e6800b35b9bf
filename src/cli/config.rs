//! The configuration file: one TOML, unknown keys are errors, and the whole file is checked before anything opens.
//!
//! Every problem that the checks find is reported at once. What a section means stands with the module that owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::{Clock as _, Shares, SystemClock};
use crate::ingest::WatchSettings;
use crate::resources::{FunctionSettings, LambdaSettings, NotifySettings, RetentionSettings, TableSettings};
use crate::schedule::ScheduleSettings;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// Appears in ARNs: twelve digits.
    pub account: String,
    pub region: String,
    pub shares: BTreeMap<String, ShareSettings>,
    /// Who may come in. Required as soon as `listen` is not loopback.
    pub credentials: Vec<Credential>,
    pub lanes: LaneSettings,
    pub watch: Vec<WatchSettings>,
    pub schedules: BTreeMap<String, ScheduleSettings>,
    pub notify: NotifySettings,
    pub retention: RetentionSettings,
    pub functions: BTreeMap<String, FunctionSettings>,
    pub lambda: LambdaSettings,
    pub tables: BTreeMap<String, TableSettings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSettings {
    pub path: PathBuf,
    /// Whether `/media` hands out its files; the share `outputs` always is.
    #[serde(default)]
    pub serve: bool,
}

/// One way in: the same pair is a user and password for the dashboard, and an access key for AWS clients.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// How much each lane carries at once; what is absent follows the box.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LaneSettings {
    pub cpu: Option<u32>,
    pub io: Option<u32>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("/var/lib/conveyor"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            shares: BTreeMap::new(),
            credentials: Vec::new(),
            lanes: LaneSettings::default(),
            watch: Vec::new(),
            schedules: BTreeMap::new(),
            notify: NotifySettings::default(),
            retention: RetentionSettings::default(),
            functions: BTreeMap::new(),
            lambda: LambdaSettings::default(),
            tables: BTreeMap::new(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a valid configuration", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{} has {} fault(s):\n{}", path.display(), faults.len(), list(faults))]
    Faults { path: PathBuf, faults: Vec<String> },
}

fn list(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("  - {fault}")).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to the folder that it stands in.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let mut config: Config = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data_dir = folder.join(&config.data_dir);
        config.shares.values_mut().for_each(|share| share.path = folder.join(&share.path));
        config.notify.log = config.notify.log.map(|log| folder.join(log));
        for function in config.functions.values_mut() {
            function.dir = Some(folder.join(function.dir.take().unwrap_or_default()));
        }
        match config.faults() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(ConfigError::Faults { path: path.into(), faults }),
        }
    }

    pub fn shares(&self) -> Shares {
        Shares::new(self.shares.iter().map(|(name, share)| (name.clone(), share.path.clone())))
    }

    /// Everything that is wrong, each with its key.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.account.len() != 12 || !self.account.bytes().all(|b| b.is_ascii_digit()) {
            faults.push(format!("account: '{}' is not twelve digits, as ARNs have it", self.account));
        }
        if !is_region(&self.region) {
            faults.push(format!("region: '{}' is not of the form us-east-1", self.region));
        }
        for name in self.shares.keys().filter(|name| !is_bucket_name(name)) {
            faults.push(format!("shares.{name}: a share's name has 3 to 63 of a-z, 0-9, '.', '-' (as S3's buckets)"));
        }
        if !self.listen.ip().is_loopback() && self.credentials.is_empty() {
            faults.push(format!(
                "listen: {} can be reached from other hosts, so [[credentials]] must be set (or listen on 127.0.0.1)",
                self.listen
            ));
        }
        let mut seen = BTreeSet::new();
        for (n, credential) in self.credentials.iter().enumerate() {
            if credential.access_key_id.is_empty() || !seen.insert(&credential.access_key_id) {
                faults.push(format!("credentials[{n}].access_key_id: is empty or used twice"));
            }
            if credential.secret_access_key.len() < 12 {
                faults.push(format!("credentials[{n}].secret_access_key: needs at least 12 characters"));
            }
        }
        for (lane, capacity) in [("cpu", self.lanes.cpu), ("io", self.lanes.io)] {
            if capacity == Some(0) {
                faults.push(format!("lanes.{lane}: a lane without capacity would let its work wait for ever"));
            }
        }
        faults.extend(self.faults_of_sections());
        faults
    }

    fn faults_of_sections(&self) -> Vec<String> {
        let shares = self.shares();
        let mut faults = Vec::new();
        for (n, watch) in self.watch.iter().enumerate() {
            faults.extend(watch.faults(&shares).into_iter().map(|fault| format!("watch[{n}]: {fault}")));
        }
        let now = SystemClock.now();
        for (name, schedule) in &self.schedules {
            faults.extend(schedule.faults(now).into_iter().map(|fault| format!("schedules.{name}: {fault}")));
        }
        for (name, function) in &self.functions {
            faults.extend(function.faults().into_iter().map(|fault| format!("functions.{name}: {fault}")));
        }
        faults.extend(self.retention.faults().into_iter().map(|fault| format!("retention.{fault}")));
        faults.extend(self.notify.faults().into_iter().map(|fault| format!("notify: {fault}")));
        faults
    }

    /// Shares whose files `/media` hands out.
    pub fn served(&self) -> BTreeSet<String> {
        let served = self.shares.iter().filter(|(name, share)| share.serve || *name == "outputs");
        served.map(|(name, _)| name.clone()).collect()
    }
}

fn is_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    parts.len() >= 3
        && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// S3's rule for bucket names, so that a share's name can stand wherever a bucket's does.
fn is_bucket_name(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_come_at_once() {
        let config: Config = toml::from_str(
            r#"
            listen = "0.0.0.0:80"
            account = "12"
            region = "here"
            [shares.A_B]
            path = "x"
            [lanes]
            cpu = 0
            "#,
        )
        .unwrap();
        let faults = config.faults();
        for key in ["account", "region", "shares.A_B", "listen", "lanes.cpu"] {
            assert!(faults.iter().any(|f| f.starts_with(key)), "{key} in {faults:?}");
        }
        assert!(Config::default().faults().is_empty());
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<Config>("data_dri = 'x'").is_err());
    }
}

//! The configuration file: one TOML, unknown keys are errors, and the whole file is checked before anything opens.
//!
//! Every problem that the checks find is reported at once. What a section means stands with the module that owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use conveyor_api::{Role, Tls, TlsError, TlsSettings, Transport};
use conveyor_base::limits::Quotas;
use conveyor_base::{Clock as _, Shares, SystemClock};
use conveyor_ingest::WatchSettings;
use conveyor_job::Acceleration;
use conveyor_logs::LogSettings;
use conveyor_resources::builtin::Substitutions;
use conveyor_resources::forward::AwsSettings;
use conveyor_resources::functions::{FunctionSettings, LambdaSettings};
use conveyor_resources::housekeeping::RetentionSettings;
use conveyor_resources::http::ConnectionSettings;
use conveyor_sandbox::Sandbox;
use conveyor_services::events::RuleSettings;
use conveyor_services::items::{TableSettings, name_fault};
use conveyor_services::notifications::NotifySettings;
use conveyor_services::queues::QueueSettings;
use conveyor_services::schedules::ScheduleSettings;
use serde::Deserialize;

use super::document::{self, Document, DocumentFault};
use super::lanes::LaneSettings;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    pub data_dir: PathBuf,
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// With it all that is said over the network is sealed.
    pub tls: Option<TlsSettings>,
    /// Whether other hosts may reach the box without TLS all the same.
    pub plain: bool,
    /// Reverse proxies that speak TLS for the box: who asks through them is whom they say.
    pub proxies: BTreeSet<IpAddr>,
    /// Appears in ARNs: twelve digits.
    pub account: String,
    pub region: String,
    pub shares: BTreeMap<String, ShareSettings>,
    /// Who may come in. Required as soon as `listen` is not loopback.
    pub credentials: Vec<Credential>,
    /// How much each lane carries at once; what is absent follows the box.
    pub lanes: LaneSettings,
    /// Whether jobs that do not say so themselves may use GPUs.
    pub acceleration: Acceleration,
    /// How the children that open media are held.
    pub sandbox: Sandbox,
    pub watch: Vec<WatchSettings>,
    pub schedules: BTreeMap<String, ScheduleSettings>,
    pub notify: NotifySettings,
    pub retention: RetentionSettings,
    pub logs: LogSettings,
    pub limits: Quotas,
    pub functions: BTreeMap<String, FunctionSettings>,
    pub lambda: LambdaSettings,
    pub aws: AwsSettings,
    pub tables: BTreeMap<String, TableSettings>,
    pub queues: BTreeMap<String, QueueSettings>,
    pub rules: BTreeMap<String, RuleSettings>,
    pub connections: BTreeMap<String, ConnectionSettings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSettings {
    pub path: PathBuf,
    /// Whether `/media` hands out its files; the share `outputs` always is.
    #[serde(default)]
    pub serve: bool,
    /// Whether the path must be a mount point. Where nobody says, it must be once it was seen to be one.
    pub mounted: Option<bool>,
}

/// One way in: the same pair is a user and password for the dashboard, and an access key for AWS clients.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    pub access_key_id: String,
    pub secret_access_key: String,
    /// What that user may do.
    #[serde(default)]
    pub role: Role,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("access_key_id", &self.access_key_id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            file: None,
            data_dir: PathBuf::from("/var/lib/conveyor"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            plain: false,
            proxies: BTreeSet::new(),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            shares: BTreeMap::new(),
            credentials: Vec::new(),
            lanes: LaneSettings::default(),
            acceleration: Acceleration::default(),
            sandbox: Sandbox::default(),
            watch: Vec::new(),
            schedules: BTreeMap::new(),
            notify: NotifySettings::default(),
            retention: RetentionSettings::default(),
            logs: LogSettings::default(),
            limits: Quotas::default(),
            functions: BTreeMap::new(),
            lambda: LambdaSettings::default(),
            aws: AwsSettings::default(),
            tables: BTreeMap::new(),
            queues: BTreeMap::new(),
            rules: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} has {} fault{}:\n{}", path.display(), faults.len(), plural(faults), list(faults))]
    Faults { path: PathBuf, faults: Vec<DocumentFault> },
}

fn plural(faults: &[DocumentFault]) -> &'static str {
    if faults.len() == 1 { "" } else { "s" }
}

fn list(faults: &[DocumentFault]) -> String {
    faults.iter().map(|fault| format!("  - {fault}")).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to the folder that it stands in.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let Document { value, mut faults, taken_out } = document::read::<Config>(&text);
        if let Some(mut config) = value {
            // A bare file name has an empty folder.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let real = folder.canonicalize().map_err(|source| ConfigError::Read { path: path.into(), source })?;
            config.set_folder(&real);
            config.file = path.canonicalize().ok();
            // What follows only from a part that could not be read would be a fault of its own making.
            let torn = |fault: &String| taken_out.iter().any(|key| follows(fault, key));
            let meant = config.faults().into_iter().filter(|fault| !torn(fault));
            faults.extend(meant.map(|what| DocumentFault { line: document::line_of(&text, place(&what)), what }));
            faults.sort_by_key(|fault| fault.line);
            if faults.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigError::Faults { path: path.into(), faults })
    }

    /// Relative paths begin at the folder in which the file stands, which is given without symbolic links.
    fn set_folder(&mut self, folder: &Path) {
        self.data_dir = below(folder, &self.data_dir);
        if let Some(tls) = &mut self.tls {
            tls.certificate = below(folder, &tls.certificate);
            tls.key = below(folder, &tls.key);
        }
        self.shares.values_mut().for_each(|share| share.path = below(folder, &share.path));
        self.notify.log = self.notify.log.take().map(|log| below(folder, &log));
        for function in self.functions.values_mut() {
            function.dir = Some(below(folder, &function.dir.take().unwrap_or_default()));
        }
    }

    pub fn shares(&self) -> Shares {
        let mounted = self.shares.iter().filter_map(|(name, share)| Some((name.clone(), share.mounted?)));
        Shares::new(self.shares.iter().map(|(name, share)| (name.clone(), share.path.clone()))).with_mounted(mounted)
    }

    /// What stands for the placeholders of the built-in definitions.
    pub fn substitutions(&self) -> Substitutions {
        Substitutions {
            region: self.region.clone(),
            account: self.account.clone(),
            outputs: "outputs".to_owned(),
            archive: "archive".to_owned(),
            quarantine: "quarantine".to_owned(),
        }
    }

    /// Everything that is wrong, each with its key and a colon before it.
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
        if !self.listen.ip().is_loopback() && self.tls.is_none() && !self.plain && self.proxies.is_empty() {
            faults.push(format!(
                "listen: passwords would cross the network readable to all on the way to {}: set [tls] (`conveyor tls` makes \
                 a certificate), name the reverse proxy that speaks TLS for this box in proxies, or say plain = true",
                self.listen
            ));
        }
        if !self.proxies.is_empty() && self.credentials.is_empty() {
            faults.push(
                "proxies: whoever comes through a proxy is not on this box, so [[credentials]] must be set".to_owned(),
            );
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
        faults.extend(self.faults_of_folders());
        faults.extend(super::lanes::faults(&self.lanes));
        faults.extend(self.faults_of_sections());
        faults
    }

    /// Folders that would get into each other's way.
    fn faults_of_folders(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let folders: Vec<(&str, PathBuf)> =
            self.shares.iter().map(|(name, s)| (name.as_str(), plain(&s.path))).collect();
        for (n, (name, folder)) in folders.iter().enumerate() {
            if let Some((other, _)) = folders[..n].iter().find(|(_, other)| other == folder) {
                faults.push(format!("shares.{name}: is the same folder as the share '{other}'; each needs its own"));
            }
        }
        let data_dir = plain(&self.data_dir);
        let mut watched = BTreeSet::new();
        for (n, watch) in self.watch.iter().enumerate() {
            if !watched.insert(&watch.share) {
                faults.push(format!("watch[{n}].share: '{}' is watched already; name all suffixes there", watch.share));
                continue;
            }
            let Some((_, root)) = folders.iter().find(|(name, _)| *name == watch.share) else { continue };
            let inside = |folder: &Path| folder != root && folder.starts_with(root);
            for (name, _) in folders.iter().filter(|(_, folder)| inside(folder)) {
                faults.push(format!(
                    "shares.{name}: lies inside the watched share '{}', so its files would be taken for new ones; move it",
                    watch.share
                ));
            }
            if data_dir.starts_with(root) {
                faults
                    .push(format!("data_dir: lies inside the watched share '{}'; choose a local folder", watch.share));
            }
        }
        faults
    }

    fn faults_of_sections(&self) -> Vec<String> {
        let shares = self.shares();
        let mut faults = Vec::new();
        for (n, watch) in self.watch.iter().enumerate() {
            faults.extend(watch.faults(&shares).into_iter().map(|fault| within(&format!("watch[{n}]"), &fault)));
        }
        let now = SystemClock.now();
        for (name, schedule) in &self.schedules {
            faults.extend(schedule.faults(now).into_iter().map(|fault| within(&format!("schedules.{name}"), &fault)));
        }
        for (name, function) in &self.functions {
            faults.extend(function.faults().into_iter().map(|fault| within(&format!("functions.{name}"), &fault)));
        }
        for name in self.tables.keys().filter(|name| name_fault(name).is_some()) {
            faults.push(format!(
                "tables.{name}: a table's name has 3 to 255 of a-z, A-Z, 0-9, '_', '-', '.' (as DynamoDB's)"
            ));
        }
        let has_queue = |queue: &str| self.queues.contains_key(queue);
        for (name, queue) in &self.queues {
            let found = queue.faults(name, has_queue);
            faults.extend(found.into_iter().map(|fault| within(&format!("queues.{name}"), &fault)));
        }
        for (name, rule) in &self.rules {
            let found = rule.faults(has_queue, |connection| self.connections.contains_key(connection));
            faults.extend(found.into_iter().map(|fault| within(&format!("rules.{name}"), &fault)));
        }
        for (name, connection) in &self.connections {
            let found = connection.faults();
            faults.extend(found.into_iter().map(|fault| within(&format!("connections.{name}"), &fault)));
        }
        faults.extend(self.retention.faults().into_iter().map(|fault| within("retention", &fault)));
        faults.extend(self.limits.faults().into_iter().map(|fault| within("limits", &fault)));
        faults.extend(self.logs.faults().into_iter().map(|fault| within("logs", &fault)));
        faults.extend(self.notify.faults().into_iter().map(|fault| within("notify", &fault)));
        faults.extend(self.aws.faults().into_iter().map(|fault| within("aws", &fault)));
        faults
    }

    /// Whether the file itself says what nobody else may know.
    pub fn has_secrets(&self) -> bool {
        !self.credentials.is_empty()
            || !self.connections.is_empty()
            || self.notify.secret.is_some()
            || self.aws.secret_access_key.is_some()
    }

    /// How connections are taken.
    ///
    /// # Errors
    /// The certificate or its key cannot be used.
    pub fn transport(&self) -> Result<Transport, TlsError> {
        let tls = self.tls.as_ref().map(Tls::load).transpose()?;
        // With proxies and no word of plain connections, others may not come past them.
        let past = tls.is_some() || self.plain || self.proxies.is_empty();
        Ok(Transport { tls, only: (!past).then(|| self.proxies.clone()) })
    }

    /// Shares whose files `/media` hands out.
    pub fn served(&self) -> BTreeSet<String> {
        let served = self.shares.iter().filter(|(name, share)| share.serve || *name == "outputs");
        served.map(|(name, _)| name.clone()).collect()
    }
}

/// A path as people write it: what goes up from a real folder does so before anything is appended.
fn below(folder: &Path, path: &Path) -> PathBuf {
    let mut whole = folder.to_owned();
    for part in path.components() {
        match part {
            // Behind a name that may be a symbolic link, `..` is the file system's to say.
            Component::ParentDir if folder.starts_with(&whole) => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    whole
}

/// The folder as it really is, as far as it exists; without `.` and `..` otherwise.
fn plain(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

fn listen_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!("'{text}' is not an address and a port; write it as in \"127.0.0.1:8080\""))
    })
}

/// Whether a fault speaks of a part that was taken out, or only follows from its absence.
fn follows(fault: &str, taken_out: &str) -> bool {
    let place = place(fault);
    let inside = place.strip_prefix(taken_out).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    // Behind an item that was taken out the others have moved up.
    let moved = taken_out
        .strip_suffix(']')
        .and_then(|key| key.rfind('['))
        .is_some_and(|at| place.starts_with(&taken_out[..=at]));
    inside || moved || (taken_out.starts_with("shares.") && fault.contains("no share named"))
}

/// A section's own fault with the section before it: `notify` and `secret: …` are `notify.secret: …`.
fn within(section: &str, fault: &str) -> String {
    let names_key =
        fault.split_once(": ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    format!("{section}{}{fault}", if names_key { "." } else { ": " })
}

/// The key before a fault's words.
fn place(fault: &str) -> &str {
    fault.split_once(": ").map_or("", |(place, _)| place)
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
    use serde_json::Value;

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
            [shares.inside]
            path = "x/y/../z"
            [shares.same]
            path = "./x/z"
            [[watch]]
            share = "A_B"
            [lanes]
            cpu = 0
            "gpu0.nvenc" = 0
            gpu = 1
            [tables."$audit"]
            key = "Id"
            "#,
        )
        .unwrap();
        let faults = config.faults();
        let keys =
            ["account", "region", "shares.A_B", "shares.inside", "shares.same", "listen", "lanes.cpu", "lanes.gpu:"];
        for key in keys.into_iter().chain(["tables.$audit"]) {
            assert!(faults.iter().any(|f| f.starts_with(key)), "{key} in {faults:?}");
        }
        assert!(Config::default().faults().is_empty());
    }

    #[test]
    fn a_file_gets_all_its_faults_each_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(
            &path,
            "data_dri = 'x'\nlisten = 'here'\naccount = '12'\n\n[shares.in_]\npath = 'in'\n[shares.outputs]\nserve = 1\n             [[watch]]\nshare = 'nowhere'\nsettle = '2 parsecs'\ncolour = 'red'\n[lanes]\ncpu = 0\n[notify]\nsecret = 's'\n",
        )
        .unwrap();
        let text = Config::read(&path).unwrap_err().to_string();
        for (line, word) in [
            (1, "data_dri"),
            (2, "listen"),
            (3, "account"),
            (5, "shares.in_"),
            (8, "shares.outputs.serve"),
            (7, "path"),
            (11, "watch[0].settle"),
            (12, "colour"),
            (14, "lanes.cpu"),
            (16, "notify"),
        ] {
            let start = format!("  - line {line}: ");
            let found = text.lines().filter(|l| l.starts_with(&start)).any(|l| l.contains(word));
            assert!(found, "line {line}, {word} in:\n{text}");
        }
    }

    /// The pointers (RFC 6901) of all tables of a document.
    fn tables(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(table) => {
                found.push(at.to_owned());
                table.iter().for_each(|(key, value)| tables(value, &format!("{at}/{key}"), found));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(n, value)| tables(value, &format!("{at}/{n}"), found));
            }
            _ => {}
        }
    }

    #[test]
    fn the_file_that_documents_the_settings_has_every_key_and_works_as_a_whole() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/conveyor.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let is_off =
            |line: &&str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let on = |line| str::strip_prefix(line, "# ").filter(is_off).unwrap_or(line);
        let file: Value = toml::from_str(&text.lines().map(on).collect::<Vec<_>>().join("\n")).unwrap();
        let config: Config = serde_json::from_value(file.clone()).unwrap();
        assert_eq!(config.faults(), Vec::<String>::new());

        // Which keys a table may have says whoever reads it, asked with one that nobody knows. Tables of the same keys are
        // of one kind, and show them together.
        let mut kinds: BTreeMap<BTreeSet<String>, BTreeSet<String>> = BTreeMap::new();
        let mut found = Vec::new();
        tables(&file, "", &mut found);
        for table in found {
            let mut asked = file.clone();
            asked.pointer_mut(&table).unwrap()["no key"] = true.into();
            let refused = serde_json::from_value::<Config>(asked).err().map(|e| e.to_string()).unwrap_or_default();
            // Without such a list, names are the user's own.
            let Some((_, keys)) = refused.split_once("unknown field `no key`, expected ") else { continue };
            let keys = keys.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let shown = file.pointer(&table).and_then(Value::as_object).unwrap().keys().cloned();
            kinds.entry(keys).or_default().extend(shown);
        }
        assert!(kinds.len() > 10, "{kinds:#?}");
        for (keys, shown) in kinds {
            assert_eq!(keys.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "missing beside {shown:?}");
        }
    }
}

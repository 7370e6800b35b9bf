//! State machines: their rows, and their definitions parsed once per revision.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use conveyor_asl::{self as asl, Severity, StateMachine, WorkflowType};
use conveyor_base::Fault;
use conveyor_base::limits::quotas;
use conveyor_interpreter::{Env, MachineRef, Status};
use conveyor_store::{Commit, MachineKind, MachineRow, RevisionRow, Scans, Tag, unless_damaged};
use parking_lot::Mutex;

use super::audit::By;
use super::core::Core;
use super::{LogTarget, Refused, events};

/// A revision of a definition, ready to run.
#[derive(Debug)]
pub struct Machine {
    pub definition: StateMachine,
    pub env: Env,
    /// Where its executions' events are logged.
    pub logging: Option<Arc<LogTarget>>,
}

/// A machine to be made.
#[derive(Clone, Debug, Default)]
pub struct NewMachine {
    pub name: String,
    pub definition: String,
    pub role_arn: String,
    pub express: bool,
    /// Logging, tracing and encryption settings as JSON; empty for none.
    pub settings: String,
    pub tags: Vec<Tag>,
    /// Publishes the first version too, with this description.
    pub publish: Option<String>,
}

/// What changes about a machine; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct MachineChange {
    pub definition: Option<String>,
    pub role_arn: Option<String>,
    pub settings: Option<String>,
    /// Publishes what comes out as a version, with this description.
    pub publish: Option<String>,
    /// The revision that was changed: where it is not the newest one any more the change is refused.
    pub based_on: Option<u64>,
}

/// A machine as a change left it.
#[derive(Clone, Debug)]
pub struct Changed {
    pub machine: MachineRow,
    pub revision_id: Option<String>,
    /// The version that was asked to be published.
    pub version: Option<u64>,
}

/// Parsed definitions kept in memory, in bytes of their texts: parsed, the worst take some fifty times as much. Beyond it all
/// are dropped and parsed again when needed.
const PARSED_TEXT_BYTES_MAX: usize = 8 << 20;

/// Parsed definitions by machine and revision.
#[derive(Default)]
struct Parsed {
    machines: HashMap<(String, u64), Arc<Machine>>,
    text_bytes: usize,
}

pub(super) struct Catalog {
    account: String,
    region: String,
    parsed: Mutex<Parsed>,
    /// Changes of machines happen one after another.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Machines that go when their last execution has ended.
    leaving: Mutex<HashSet<String>>,
}

impl Catalog {
    pub fn new(account: String, region: String) -> Catalog {
        Catalog {
            account,
            region,
            parsed: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            leaving: Mutex::default(),
        }
    }

    fn env(&self, machine: &MachineRow, row: &RevisionRow) -> Env {
        let env = Env::new(&self.region, &self.account, &machine.name, &row.role_arn);
        match machine.kind {
            MachineKind::Standard => env,
            MachineKind::Express => env.as_express(),
        }
    }
}

/// The definition, or AWS's text with all of its problems.
fn parse(text: &str, kind: MachineKind) -> Result<StateMachine, Refused> {
    let bytes_max = quotas().definition_bytes();
    if text.len() > bytes_max {
        let what = format!("the definition has {} bytes; {bytes_max} are allowed", text.len());
        return Err(Refused::new("InvalidDefinition", format!("Invalid State Machine Definition: '{what}'")));
    }
    let workflow = match kind {
        MachineKind::Standard => WorkflowType::Standard,
        MachineKind::Express => WorkflowType::Express,
    };
    let (definition, mut problems) = asl::check(text, workflow);
    definition.ok_or_else(|| {
        problems.retain(|problem| problem.severity == Severity::Error);
        let words = format!("Invalid State Machine Definition: '{}'", asl::describe(&problems));
        Refused::new("InvalidDefinition", words)
    })
}

impl Core {
    /// The definition that an execution is pinned to.
    pub fn machine(&self, machine: &MachineRef) -> Result<Arc<Machine>, Fault> {
        let key = (machine.name.clone(), machine.revision);
        if let Some(known) = self.catalog.parsed.lock().machines.get(&key) {
            return Ok(known.clone());
        }
        // A repair of the store may have had to leave it out.
        let gone = || {
            let what = format!("revision {} of state machine '{}' is gone", machine.revision, machine.name);
            Fault::damaged_plain(format!("{what}: a repair of the store says so, or restore it from a backup"))
        };
        let row = self.reader.revision(&machine.name, machine.revision)?.ok_or_else(gone)?;
        let definition = asl::parse(&row.definition).map_err(|problems| {
            let problems = asl::describe(&problems);
            events::DefinitionUnreadable { machine: &machine.name, revision: machine.revision, problems: &problems }
                .emit();
            Fault::Retryable {
                what: format!("this release refuses the stored definition of '{}': {problems}", machine.name),
                source: None,
            }
        })?;
        let env = match self.reader.machine(&machine.name)? {
            Some(owner) => self.catalog.env(&owner, &row),
            // Deleted while its executions run on.
            None => Env::new(&self.region, &self.account, &machine.name, &row.role_arn),
        };
        let machine = Machine { definition, env, logging: LogTarget::of(&row.settings) };
        Ok(self.keep(key, machine, row.definition.len()))
    }

    /// Something to fail executions with whose own definition cannot be read.
    pub fn stand_in(&self, name: &str) -> Option<Arc<Machine>> {
        let definition = asl::parse(r#"{"StartAt": "Unread", "States": {"Unread": {"Type": "Fail"}}}"#).ok()?;
        let env = Env::new(&self.region, &self.account, name, "");
        Some(Arc::new(Machine { definition, env, logging: None }))
    }

    /// What can never happen is looked for too, which may take seconds.
    async fn parse(&self, text: &str, kind: MachineKind) -> Result<StateMachine, Refused> {
        let text = text.to_owned();
        self.analyses.run(move || parse(&text, kind)).await?
    }

    fn keep(&self, key: (String, u64), machine: Machine, text_bytes: usize) -> Arc<Machine> {
        let machine = Arc::new(machine);
        let mut parsed = self.catalog.parsed.lock();
        if parsed.text_bytes + text_bytes > PARSED_TEXT_BYTES_MAX {
            *parsed = Parsed::default();
        }
        if parsed.machines.insert(key, machine.clone()).is_none() {
            parsed.text_bytes += text_bytes;
        }
        machine
    }

    /// CreateStateMachine. Creating the same machine again answers the one that is there, as on AWS, whatever its role
    /// and tags.
    pub async fn create_machine(&self, new: NewMachine, by: By<'_>) -> Result<Changed, Refused> {
        let kind = if new.express { MachineKind::Express } else { MachineKind::Standard };
        let definition = self.parse(&new.definition, kind).await?;
        let _one_at_a_time = self.catalog.changing.lock().await;
        let there = self.reader.machine(&new.name)?;
        if let Some(there) = &there {
            self.refuse_if_leaving(there)?;
        }
        // One whose definition was lost with damaged bytes is made anew.
        let found =
            there.as_ref().map(|there| self.reader.revision(&there.name, there.revision)).transpose()?.flatten();
        if let (Some(there), Some(row)) = (there, found) {
            let same = row.definition == new.definition && row.settings == new.settings && there.kind == kind;
            if !same {
                let what = format!("State Machine Already Exists: '{}'", self.machine_arn(&new.name));
                return Err(Refused::new("StateMachineAlreadyExists", what));
            }
            return self.publish_if_asked(there, row, new.publish, by).await;
        }
        let now = self.clock.wall();
        // Revisions of an earlier machine of this name may still be run by its executions.
        let revision = self.newest_revision(&new.name).await?.unwrap_or(0) + 1;
        let mut row = MachineRow {
            name: new.name,
            kind,
            revision,
            version: 0,
            deleting: false,
            created_at: now.into(),
            updated_at: now.into(),
            tags: new.tags,
        };
        let revision_row = RevisionRow {
            definition: new.definition,
            role_arn: new.role_arn,
            settings: new.settings,
            revision_id: None,
            created_at: now.into(),
        };
        let version = self.store_revision(&mut row, revision_row, definition, new.publish, by).await?;
        Ok(Changed { machine: row, revision_id: None, version })
    }

    /// UpdateStateMachine: a new revision; executions that run keep theirs. What changes nothing makes none.
    pub async fn update_machine(&self, name: &str, change: MachineChange, by: By<'_>) -> Result<Changed, Refused> {
        // Looked through before anybody waits for it. Should the machine be another one by then, it is looked through anew.
        let kind = self.changeable(name)?.kind;
        let parsed = match &change.definition {
            Some(definition) => Some(self.parse(definition, kind).await?),
            None => None,
        };
        let _one_at_a_time = self.catalog.changing.lock().await;
        let mut row = self.changeable(name)?;
        if let Some(based_on) = change.based_on.filter(|revision| *revision != row.revision) {
            let what = format!(
                "'{name}' is at revision {} by now, and this change was made to revision {based_on}; look at it first",
                row.revision
            );
            return Err(Refused::new("ConflictException", what));
        }
        let old = self.current(&row)?;
        let now = self.clock.wall();
        let new = RevisionRow {
            definition: change.definition.unwrap_or_else(|| old.definition.clone()),
            role_arn: change.role_arn.unwrap_or_else(|| old.role_arn.clone()),
            settings: change.settings.unwrap_or_else(|| old.settings.clone()),
            revision_id: old.revision_id.clone(),
            created_at: old.created_at,
        };
        if new == old {
            return self.publish_if_asked(row, old, change.publish, by).await;
        }
        let parsed = match parsed.filter(|_| row.kind == kind) {
            Some(parsed) => parsed,
            None => self.parse(&new.definition, row.kind).await?,
        };
        let revision_id = Some(uuid::Uuid::new_v4().to_string());
        let new = RevisionRow { revision_id: revision_id.clone(), created_at: now.into(), ..new };
        row.revision = self.newest_revision(name).await?.unwrap_or(row.revision) + 1;
        row.updated_at = now.into();
        let version = self.store_revision(&mut row, new, parsed, change.publish, by).await?;
        Ok(Changed { machine: row, revision_id, version })
    }

    /// TagResource and UntagResource on a machine: `change` makes the new tags of the old ones.
    pub async fn retag_machine(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<Tag>) -> Result<(), Refused>,
        by: By<'_>,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let mut row = self.changeable(name)?;
        change(&mut row.tags)?;
        let mut commit = Commit::new();
        commit.put_machine(&row);
        Ok(self.commit_for(commit, by).await?)
    }

    async fn publish_if_asked(
        &self,
        machine: MachineRow,
        revision: RevisionRow,
        publish: Option<String>,
        by: By<'_>,
    ) -> Result<Changed, Refused> {
        let revision_id = revision.revision_id;
        let Some(description) = publish else { return Ok(Changed { machine, revision_id, version: None }) };
        let (machine, version, _) = self.publish(machine, description, by).await?;
        Ok(Changed { machine, revision_id, version: Some(version) })
    }

    /// The machine, if it may be changed.
    pub(super) fn changeable(&self, name: &str) -> Result<MachineRow, Refused> {
        let row = self.reader.machine(name)?.ok_or_else(|| Refused::no_machine(&self.machine_arn(name)))?;
        self.refuse_if_leaving(&row)?;
        Ok(row)
    }

    fn refuse_if_leaving(&self, row: &MachineRow) -> Result<(), Refused> {
        if !row.deleting {
            return Ok(());
        }
        let what = format!("State Machine is being deleted: '{}'", self.machine_arn(&row.name));
        Err(Refused::new("StateMachineDeleting", what))
    }

    fn current(&self, row: &MachineRow) -> Result<RevisionRow, Refused> {
        let found = self.reader.revision(&row.name, row.revision)?;
        found.ok_or_else(|| Refused::no_machine(&self.machine_arn(&row.name)))
    }

    async fn store_revision(
        &self,
        row: &mut MachineRow,
        revision: RevisionRow,
        parsed: StateMachine,
        publish: Option<String>,
        by: By<'_>,
    ) -> Result<Option<u64>, Refused> {
        let env = self.catalog.env(row, &revision);
        let mut commit = Commit::new();
        let version = match publish {
            None => None,
            Some(description) => Some(self.add_version(&mut commit, row, description).await?),
        };
        commit.put_machine(row).put_revision(&row.name, row.revision, &revision);
        self.commit_for(commit, by).await?;
        let logging = LogTarget::of(&revision.settings);
        let machine = Machine { definition: parsed, env, logging };
        self.keep((row.name.clone(), row.revision), machine, revision.definition.len());
        Ok(version)
    }

    /// DeleteStateMachine, with its versions and aliases, once none of its executions runs. Deleting what does not
    /// exist succeeds, as on AWS.
    pub async fn delete_machine(&self, name: &str, by: By<'_>) -> Result<(), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let Some(mut row) = self.reader.machine(name)? else { return Ok(()) };
        if self.reader.count_of(name, Status::Running) == 0 {
            return Ok(self.remove(name, by).await?);
        }
        row.deleting = true;
        let mut commit = Commit::new();
        commit.put_machine(&row);
        self.commit_for(commit, by).await?;
        self.catalog.leaving.lock().insert(name.to_owned());
        // The last one may have ended meanwhile, and told nobody.
        if self.reader.count_of(name, Status::Running) == 0 {
            self.remove(name, None).await?;
        }
        Ok(())
    }

    async fn newest_revision(&self, name: &str) -> Result<Option<u64>, Fault> {
        let name = name.to_owned();
        self.reader.blocking(move |rows| rows.newest_revision(&name)).await
    }

    async fn remove(&self, name: &str, by: By<'_>) -> Result<(), Fault> {
        let machine = name.to_owned();
        let gather = move |rows: &Scans| {
            let mut commit = Commit::new();
            for (version, _) in rows.versions(&machine, None, usize::MAX)? {
                commit.delete_version(&machine, version);
            }
            for (alias, _) in rows.aliases(&machine)? {
                commit.delete_alias(&machine, &alias);
            }
            commit.delete_machine(&machine);
            Ok::<_, Fault>(commit)
        };
        let commit = self.reader.blocking(gather).await?;
        self.commit_for(commit, by).await?;
        self.catalog.leaving.lock().remove(name);
        Ok(())
    }

    /// Whether the machine waits for the end of its last execution.
    pub fn is_leaving(&self, machine: &str) -> bool {
        let leaving = self.catalog.leaving.lock();
        !leaving.is_empty() && leaving.contains(machine)
    }

    /// Deletes the machine for good if it was to go with its last execution, and that has ended.
    pub async fn leave(&self, name: &str) -> Result<(), Fault> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let waits = self.reader.machine(name)?.is_some_and(|row| row.deleting);
        match waits && self.reader.count_of(name, Status::Running) == 0 {
            true => self.remove(name, None).await,
            false => Ok(()),
        }
    }

    /// After a restart: machines that were to go.
    pub async fn leave_all(&self) -> Result<(), Fault> {
        let machines = self.reader.blocking(|rows| rows.machines(None, usize::MAX)).await?;
        for row in machines.into_iter().filter(|row| row.deleting) {
            self.catalog.leaving.lock().insert(row.name.clone());
            unless_damaged(self.leave(&row.name).await)?;
        }
        Ok(())
    }
}

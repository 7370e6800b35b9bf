//! State machines: their rows, and their definitions parsed once per revision.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::core::Core;
use super::{Refused, events};
use crate::asl::{self, StateMachine};
use crate::base::Fault;
use crate::base::limits::DEFINITION_BYTES_MAX;
use crate::interpreter::{Env, MachineRef};
use crate::store::{Commit, MachineKind, MachineRow, RevisionRow};

/// A revision of a definition, ready to run.
#[derive(Debug)]
pub struct Machine {
    pub definition: StateMachine,
    pub env: Env,
}

/// A machine to be made.
#[derive(Clone, Debug)]
pub struct NewMachine {
    pub name: String,
    pub definition: String,
    pub role_arn: String,
    pub express: bool,
    /// Logging and tracing settings and tags, as JSON.
    pub settings: String,
}

/// What changes about a machine; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct MachineChange {
    pub definition: Option<String>,
    pub role_arn: Option<String>,
    pub settings: Option<String>,
}

/// Parsed definitions kept in memory; beyond this many, all are dropped and parsed again when needed.
const PARSED_MAX: usize = 4_096;

pub(super) struct Catalog {
    account: String,
    region: String,
    parsed: Mutex<HashMap<(String, u64), Arc<Machine>>>,
    /// Changes of machines happen one after another.
    changing: tokio::sync::Mutex<()>,
}

impl Catalog {
    pub fn new(account: String, region: String) -> Catalog {
        Catalog { account, region, parsed: Mutex::default(), changing: tokio::sync::Mutex::new(()) }
    }

    fn env(&self, machine: &MachineRow, row: &RevisionRow) -> Env {
        let mut env = Env::new(&self.region, &self.account, &machine.name, &row.role_arn);
        env.express = machine.kind == MachineKind::Express;
        env
    }
}

/// The definition, or AWS's text with all of its problems.
fn parse(text: &str) -> Result<StateMachine, Refused> {
    if text.len() > DEFINITION_BYTES_MAX {
        let what = format!("the definition has {} bytes; {DEFINITION_BYTES_MAX} are allowed", text.len());
        return Err(Refused::new("InvalidDefinition", format!("Invalid State Machine Definition: '{what}'")));
    }
    asl::parse(text).map_err(|problems| {
        Refused::new("InvalidDefinition", format!("Invalid State Machine Definition: '{}'", asl::describe(&problems)))
    })
}

impl Core {
    /// The definition that an execution is pinned to.
    pub fn machine(&self, machine: &MachineRef) -> Result<Arc<Machine>, Fault> {
        let key = (machine.name.clone(), machine.revision);
        if let Some(known) = self.catalog.parsed.lock().get(&key) {
            return Ok(known.clone());
        }
        let gone =
            || Fault::fatal_plain(format!("revision {} of state machine '{}' is gone", machine.revision, machine.name));
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
        Ok(self.keep(key, Machine { definition, env }))
    }

    fn keep(&self, key: (String, u64), machine: Machine) -> Arc<Machine> {
        let machine = Arc::new(machine);
        let mut parsed = self.catalog.parsed.lock();
        if parsed.len() >= PARSED_MAX {
            parsed.clear();
        }
        parsed.insert(key, machine.clone());
        machine
    }

    /// CreateStateMachine. Creating the same machine again answers the one that is there, as on AWS.
    pub async fn create_machine(&self, new: NewMachine) -> Result<MachineRow, Refused> {
        let definition = parse(&new.definition)?;
        let _one_at_a_time = self.catalog.changing.lock().await;
        let kind = if new.express { MachineKind::Express } else { MachineKind::Standard };
        if let Some(there) = self.reader.machine(&new.name)? {
            let arn = self.machine_arn(&new.name);
            let row = self.reader.revision(&there.name, there.revision)?;
            let same = row.is_some_and(|row| row.definition == new.definition && row.role_arn == new.role_arn);
            if there.deleting {
                let what = format!("State Machine is being deleted: '{arn}'");
                return Err(Refused::new("StateMachineDeleting", what));
            }
            if same && there.kind == kind && there.settings == new.settings {
                return Ok(there);
            }
            return Err(Refused::new("StateMachineAlreadyExists", format!("State Machine Already Exists: '{arn}'")));
        }
        let now = self.clock.now();
        // Revisions of an earlier machine of this name may still be run by its executions.
        let revision = self.reader.newest_revision(&new.name)?.unwrap_or(0) + 1;
        let row = MachineRow {
            name: new.name.clone(),
            kind,
            revision,
            version: 0,
            deleting: false,
            created_at: now.into(),
            updated_at: now.into(),
            settings: new.settings,
        };
        let revision_row = RevisionRow {
            definition: new.definition,
            role_arn: new.role_arn,
            revision_id: uuid::Uuid::new_v4().to_string(),
            created_at: now.into(),
        };
        self.store_revision(&row, revision_row, definition).await?;
        Ok(row)
    }

    /// UpdateStateMachine: a new revision; executions that run keep theirs.
    pub async fn update_machine(&self, name: &str, change: MachineChange) -> Result<MachineRow, Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let arn = self.machine_arn(name);
        let mut row = self.reader.machine(name)?.ok_or_else(|| Refused::no_machine(&arn))?;
        let old = self.reader.revision(name, row.revision)?.ok_or_else(|| Refused::no_machine(&arn))?;
        let definition = change.definition.unwrap_or(old.definition);
        let parsed = parse(&definition)?;
        let now = self.clock.now();
        row.revision = self.reader.newest_revision(name)?.unwrap_or(row.revision) + 1;
        row.updated_at = now.into();
        row.settings = change.settings.unwrap_or(row.settings);
        let revision_row = RevisionRow {
            definition,
            role_arn: change.role_arn.unwrap_or(old.role_arn),
            revision_id: uuid::Uuid::new_v4().to_string(),
            created_at: now.into(),
        };
        self.store_revision(&row, revision_row, parsed).await?;
        Ok(row)
    }

    async fn store_revision(
        &self,
        row: &MachineRow,
        revision: RevisionRow,
        parsed: StateMachine,
    ) -> Result<(), Refused> {
        let env = self.catalog.env(row, &revision);
        let mut commit = Commit::new();
        commit.put_machine(row).put_revision(&row.name, row.revision, &revision);
        self.commit(commit).await?;
        self.keep((row.name.clone(), row.revision), Machine { definition: parsed, env });
        Ok(())
    }

    /// DeleteStateMachine. Deleting what does not exist succeeds, as on AWS.
    pub async fn delete_machine(&self, name: &str) -> Result<(), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        if self.reader.machine(name)?.is_none() {
            return Ok(());
        }
        let mut commit = Commit::new();
        commit.delete_machine(name);
        Ok(self.commit(commit).await?)
    }
}

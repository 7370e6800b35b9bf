//! What a fresh box brings along: the nine workflows, the machine behind MediaConvert's jobs, the job templates.
//!
//! In a definition `${Region}`, `${Account}`, `${Outputs}`, `${Archive}` and `${Quarantine}` are filled in when it
//! is installed, as AWS SAM's DefinitionSubstitutions are.

use conveyor_base::Fault;
use conveyor_run::{Handle, MachineChange, NewMachine, Refused};
use conveyor_store::Commit;
use serde_json::Value;

use super::jobs;

/// The one workflow that a box without shares has work for.
pub const HOUSEKEEPING: &str = "housekeeping";

/// Name and definition of each workflow.
pub const WORKFLOWS: &[(&str, &str)] = &[
    ("main", include_str!("../../configs/workflows/main.asl.json")),
    ("sanitize", include_str!("../../configs/workflows/sanitize.asl.json")),
    ("preprocess", include_str!("../../configs/workflows/preprocess.asl.json")),
    ("labels", include_str!("../../configs/workflows/labels.asl.json")),
    ("transcript", include_str!("../../configs/workflows/transcript.asl.json")),
    ("meaning", include_str!("../../configs/workflows/meaning.asl.json")),
    ("brief", include_str!("../../configs/workflows/brief.asl.json")),
    ("deliver", include_str!("../../configs/workflows/deliver.asl.json")),
    (HOUSEKEEPING, include_str!("../../configs/workflows/housekeeping.asl.json")),
    (jobs::MACHINE, JOB),
];

/// File and text of each job template.
pub const JOB_TEMPLATES: &[(&str, &str)] = &[("ladder.json", include_str!("../../configs/jobs/ladder.json"))];

/// A job is one Task. Faults are tried again here, so that who polls the job never sees them; what is wrong with the
/// file or the settings stays wrong and is not.
const JOB: &str = r#"{
  "Comment": "One MediaConvert job: an execution of this machine.",
  "StartAt": "Transcode",
  "TimeoutSeconds": 259200,
  "States": {
    "Transcode": {
      "Type": "Task",
      "Resource": "arn:aws:states:::conveyor:transcode",
      "TimeoutSeconds": 172800,
      "HeartbeatSeconds": 300,
      "Retry": [
        {
          "ErrorEquals": ["Media.ShareUnreachable"],
          "IntervalSeconds": 5,
          "MaxAttempts": 150,
          "BackoffRate": 2.0,
          "MaxDelaySeconds": 60
        },
        {
          "ErrorEquals": ["Stage.LimitExceeded", "Stage.Jail"],
          "IntervalSeconds": 5,
          "MaxAttempts": 1
        },
        {
          "ErrorEquals": ["States.Timeout", "States.HeartbeatTimeout", "Stage.Crashed", "Stage.Failed", "Stage.BadReport", "Stage.Panicked", "Media.Stalled",
            "Media.DiskFull", "Media.WorkDir", "Media.Failed", "Media.OutputIncomplete"],
          "IntervalSeconds": 10,
          "MaxAttempts": 3,
          "BackoffRate": 3.0,
          "MaxDelaySeconds": 300,
          "JitterStrategy": "FULL"
        }
      ],
      "End": true
    }
  }
}
"#;

/// What stands for `${…}` in definitions.
#[derive(Clone, Debug)]
pub struct Substitutions {
    pub region: String,
    pub account: String,
    pub outputs: String,
    pub archive: String,
    pub quarantine: String,
}

impl Substitutions {
    /// The definition with its placeholders filled in. Others stay as they are.
    pub fn apply(&self, definition: &str) -> String {
        let mut text = definition.to_owned();
        for (name, value) in [
            ("Region", &self.region),
            ("Account", &self.account),
            ("Outputs", &self.outputs),
            ("Archive", &self.archive),
            ("Quarantine", &self.quarantine),
        ] {
            let quoted = Value::String(value.clone()).to_string();
            text = text.replace(&format!("${{{name}}}"), quoted.trim_matches('"'));
        }
        text
    }
}

/// What became of a definition at its installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    Created,
    Updated,
    Unchanged,
    /// People have changed it: theirs stays.
    KeptTheirs,
}

/// Why a definition could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("the workflow '{name}' was refused")]
    Refused { name: String, source: Refused },
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Creates the workflow, or brings it up to date where nobody has changed it since it was installed.
pub async fn install(handle: &Handle, name: &str, definition: &str) -> Result<Installed, InstallError> {
    let refused = |source| InstallError::Refused { name: name.to_owned(), source };
    let setting = format!("builtin.{name}");
    let ours = blake3::hash(definition.as_bytes()).to_hex().to_string();
    let reader = handle.reader();
    let current = match reader.machine(name)? {
        Some(machine) => reader.revision(name, machine.revision)?.map(|row| row.definition),
        None => None,
    };
    let installed = match current {
        None => {
            let role_arn = format!("arn:aws:iam::{}:role/conveyor", handle.account());
            let new = NewMachine {
                name: name.to_owned(),
                definition: definition.to_owned(),
                role_arn,
                ..NewMachine::default()
            };
            handle.create_machine(new).await.map_err(refused)?;
            Installed::Created
        }
        Some(current) if current == definition => Installed::Unchanged,
        Some(current) => {
            let installed = reader.setting(&setting)?.unwrap_or_default();
            if installed != blake3::hash(current.as_bytes()).to_hex().as_bytes() {
                return Ok(Installed::KeptTheirs);
            }
            let change = MachineChange { definition: Some(definition.to_owned()), ..MachineChange::default() };
            handle.update_machine(name, change).await.map_err(refused)?;
            Installed::Updated
        }
    };
    if reader.setting(&setting)?.as_deref() != Some(ours.as_bytes()) {
        let mut commit = Commit::new();
        commit.put_setting(&setting, ours.as_bytes());
        handle.commit(commit).await?;
    }
    Ok(installed)
}

/// Installs all that a fresh box brings along; without shares it is an API, and has no files to work on.
pub async fn install_all(handle: &Handle, fill: &Substitutions, has_shares: bool) -> Result<(), InstallError> {
    for (name, text) in WORKFLOWS.iter().filter(|(name, _)| has_shares || *name == HOUSEKEEPING) {
        let installed = install(handle, name, &fill.apply(text)).await?;
        if installed != Installed::Unchanged {
            tracing::info!(workflow = name, ?installed, "a built-in workflow");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_definition_is_valid() {
        let fill = Substitutions {
            region: "us-east-1".into(),
            account: "000000000000".into(),
            outputs: "outputs".into(),
            archive: "archive".into(),
            quarantine: "quarantine".into(),
        };
        for (name, text) in WORKFLOWS {
            let text = fill.apply(text);
            assert!(!text.contains("${"), "{name} keeps a placeholder");
            conveyor_asl::parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        }
    }
}

//! ARNs: how state machines, executions and activities are named on the wire.

use conveyor_base::arn;

use super::ApiError;

/// Reads and writes ARNs: the account and the region of this box, which stand in every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArnFormat {
    pub region: String,
    pub account: String,
}

/// What an ARN names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Machine { name: String, qualifier: Option<String> },
    Execution { machine: String, name: String },
    Express { machine: String, name: String, run: String },
    Activity { name: String },
    MapRun { machine: String, label: String, run: String },
}

impl ArnFormat {
    pub fn machine(&self, name: &str) -> String {
        arn::machine(&self.region, &self.account, name)
    }

    /// A version or an alias of a machine.
    pub fn qualified(&self, name: &str, qualifier: &str) -> String {
        format!("{}:{qualifier}", self.machine(name))
    }

    pub fn execution(&self, machine: &str, name: &str) -> String {
        arn::execution(&self.region, &self.account, machine, name)
    }

    /// An execution of an express state machine.
    pub fn express(&self, machine: &str, name: &str, run: impl std::fmt::Display) -> String {
        arn::express(&self.region, &self.account, machine, name, run)
    }

    /// A run of a distributed Map.
    pub fn map_run(&self, machine: &str, label: &str, run: impl std::fmt::Display) -> String {
        arn::map_run(&self.region, &self.account, machine, label, run)
    }

    pub fn activity(&self, name: &str) -> String {
        arn::activity(&self.region, &self.account, name)
    }

    pub fn read_machine(&self, arn: &str) -> Result<(String, Option<String>), ApiError> {
        match self.read(arn)? {
            // Of the form MACHINE/LABEL: a distributed Map.
            Named::Machine { name, .. } if name.contains('/') => {
                Err(ApiError::validation(format!("'{arn}' refers to a Distributed Map state, not to a state machine")))
            }
            Named::Machine { name, qualifier } => Ok((name, qualifier)),
            other => Err(out_of_place(&other)),
        }
    }

    /// The machine and the number of a version.
    pub fn read_version(&self, arn: &str) -> Result<(String, u64), ApiError> {
        match self.read_machine(arn)? {
            (name, Some(version)) => {
                let number = version.parse();
                Ok((name, number.map_err(|_| ApiError::invalid_arn(format_args!("Invalid ARN resource: {arn}")))?))
            }
            (_, None) => Err(ApiError::invalid_arn("Resource type not valid in this context: stateMachine")),
        }
    }

    /// The machine and the name of an alias.
    pub fn read_alias(&self, arn: &str) -> Result<(String, String), ApiError> {
        match self.read_machine(arn)? {
            (name, Some(alias)) if alias.parse::<u64>().is_err() => Ok((name, alias)),
            _ => Err(ApiError::invalid_arn("Resource type not valid in this context: stateMachine")),
        }
    }

    pub fn read_execution(&self, arn: &str) -> Result<(String, String), ApiError> {
        match self.read(arn)? {
            Named::Execution { machine, name } => Ok((machine, name)),
            other => Err(out_of_place(&other)),
        }
    }

    /// The machine and the label of a distributed Map, and the number of its run.
    pub fn read_map_run(&self, arn: &str) -> Result<(String, String, String), ApiError> {
        match self.read(arn)? {
            Named::MapRun { machine, label, run } => Ok((machine, label, run)),
            other => Err(out_of_place(&other)),
        }
    }

    pub fn read_activity(&self, arn: &str) -> Result<String, ApiError> {
        match self.read(arn)? {
            Named::Activity { name } => Ok(name),
            other => Err(out_of_place(&other)),
        }
    }

    pub fn read(&self, arn: &str) -> Result<Named, ApiError> {
        let prefix = || ApiError::invalid_arn(format_args!("Invalid ARN prefix: {arn}"));
        let mut parts = arn.splitn(6, ':');
        if parts.next() != Some("arn") || !parts.next().is_some_and(|p| p.starts_with("aws")) {
            return Err(prefix());
        }
        let (service, region, account) = (parts.next(), parts.next(), parts.next());
        let rest = parts.next().ok_or_else(prefix)?;
        if service != Some("states") {
            return Err(prefix());
        }
        if region != Some(&*self.region) || account != Some(&*self.account) {
            let ours = format!("this box is arn:aws:states:{}:{}", self.region, self.account);
            return Err(ApiError::invalid_arn(format_args!("{arn} names another region or account; {ours}")));
        }
        let parts: Vec<&str> = rest.split(':').collect();
        let own = |s: &&str| (*s).to_owned();
        Ok(match parts.as_slice() {
            ["stateMachine", name] => Named::Machine { name: own(name), qualifier: None },
            ["stateMachine", name, qualifier] => Named::Machine { name: own(name), qualifier: Some(own(qualifier)) },
            ["execution", machine, name] => Named::Execution { machine: own(machine), name: own(name) },
            ["express", machine, name, run] => Named::Express { machine: own(machine), name: own(name), run: own(run) },
            ["mapRun", map, run] if map.contains('/') => {
                let (machine, label) = map.split_once('/').unwrap_or((map, ""));
                Named::MapRun { machine: own(&machine), label: own(&label), run: own(run) }
            }
            ["activity", name] => Named::Activity { name: own(name) },
            _ => return Err(ApiError::invalid_arn(format_args!("Invalid ARN resource: {arn}"))),
        })
    }
}

fn out_of_place(named: &Named) -> ApiError {
    let kind = match named {
        Named::Machine { .. } => "stateMachine",
        Named::Execution { .. } => "execution",
        Named::Express { .. } => "express",
        Named::Activity { .. } => "activity",
        Named::MapRun { .. } => "mapRun",
    };
    ApiError::invalid_arn(format_args!("Resource type not valid in this context: {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_name_what_they_name_and_nothing_else() {
        let arns = ArnFormat { region: "us-east-1".into(), account: "000000000000".into() };
        let arn = arns.execution("main", "clip.mp4");
        assert_eq!(arns.read_execution(&arn), Ok(("main".into(), "clip.mp4".into())));
        assert_eq!(arns.read_machine(&arns.qualified("main", "3")), Ok(("main".into(), Some("3".into()))));
        for (bad, says) in [
            ("nonsense", "Invalid Arn: 'Invalid ARN prefix: nonsense'"),
            (arn.as_str(), "Invalid Arn: 'Resource type not valid in this context: execution'"),
        ] {
            assert_eq!(arns.read_machine(bad).unwrap_err().message, says);
        }
        assert!(arns.read_machine("arn:aws:states:eu-west-1:000000000000:stateMachine:main").is_err());
    }
}

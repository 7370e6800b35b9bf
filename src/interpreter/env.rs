//! What an execution may know of the place it runs in: the names that its context object and history show.

use conveyor_base::{arn, limits};

use super::execution::Header;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    pub region: String,
    pub account: String,
    pub role_arn: String,
    pub machine_arn: String,
    pub express: bool,
    /// Longest that the execution may take, whatever the definition says: express ones.
    pub execution_ms_max: Option<i64>,
    /// Most events in the history; the quota but for measurements.
    pub history_events_max: u64,
}

impl Env {
    pub fn new(region: &str, account: &str, machine: &str, role_arn: &str) -> Env {
        Env {
            region: region.to_owned(),
            account: account.to_owned(),
            role_arn: role_arn.to_owned(),
            machine_arn: arn::machine(region, account, machine),
            express: false,
            execution_ms_max: None,
            history_events_max: limits::quotas().history_events,
        }
    }

    /// As an express state machine's: five minutes at most, and a history that is not kept may be long.
    pub fn as_express(mut self) -> Env {
        self.express = true;
        self.execution_ms_max = Some(limits::EXPRESS_MS_MAX);
        self.history_events_max = u64::MAX;
        self
    }

    /// Whether the execution is express: its machine is, or it is a distributed Map's child and those are.
    pub fn is_express(&self, header: &Header) -> bool {
        header.child.as_ref().map_or(self.express, |child| child.express)
    }

    pub fn execution_arn(&self, header: &Header) -> String {
        let (region, account, machine, name) = (&self.region, &self.account, &header.arn_machine(), &header.name);
        match self.is_express(header) {
            false => arn::execution(region, account, machine, name),
            true => arn::express(region, account, machine, name, header.id),
        }
    }
}

//! What an execution may know of the place it runs in: the names that its context object and history show.

use super::execution::Header;
use crate::base::{arn, limits};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    pub region: String,
    pub account: String,
    pub role_arn: String,
    pub machine_arn: String,
    pub express: bool,
    /// Most events in the history; [`limits::HISTORY_EVENTS_MAX`] but for measurements.
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
            history_events_max: limits::HISTORY_EVENTS_MAX,
        }
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

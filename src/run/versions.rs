//! Versions, which pin a revision under a number, and aliases, which lead to one version or to two by weight.
//!
//! Invariants: a number is given once in a machine's life; an alias never leads to a version that is gone; which version
//! an alias led an execution to is stored with that execution, so nothing is drawn twice.

use conveyor_base::{ExecutionId, Fault};
use conveyor_interpreter::Qualifier;
use conveyor_store::{AliasRow, Commit, MachineRow, Route, VersionRow};

use super::Refused;
use super::audit::By;
use super::core::Core;

/// AWS: 1,000 versions of one machine.
const VERSIONS_MAX: usize = 1_000;
/// AWS: 100 aliases of one machine.
const ALIASES_MAX: usize = 100;

/// An alias to be made or changed; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AliasChange {
    pub description: Option<String>,
    pub routes: Option<Vec<Route>>,
}

impl Core {
    /// PublishStateMachineVersion: the newest revision. Publishing it again answers the version that is there.
    pub async fn publish_version(
        &self,
        machine: &str,
        revision_id: Option<String>,
        description: String,
        by: By<'_>,
    ) -> Result<(u64, VersionRow), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let row = self.changeable(machine)?;
        let current = self.reader.revision(machine, row.revision)?.and_then(|revision| revision.revision_id);
        let current = current.as_deref().unwrap_or("INITIAL");
        if let Some(wanted) = revision_id.filter(|wanted| wanted != current) {
            let what = format!(
                "Failed to publish the State Machine version for revision {wanted}. The current State Machine revision \
                 is {current}."
            );
            return Err(Refused::new("ConflictException", what));
        }
        let (_, number, version) = self.publish(row, description, by).await?;
        Ok((number, version))
    }

    pub(super) async fn publish(
        &self,
        mut row: MachineRow,
        description: String,
        by: By<'_>,
    ) -> Result<(MachineRow, u64, VersionRow), Refused> {
        let newest = self.versions(&row.name, 1).await?.pop();
        if let Some((number, version)) = newest.filter(|(_, version)| version.revision == row.revision) {
            return Ok((row, number, version));
        }
        let mut commit = Commit::new();
        let number = self.add_version(&mut commit, &mut row, description).await?;
        commit.put_machine(&row);
        self.commit_for(commit, by).await?;
        let missing = || Refused::no_machine(&self.version_arn(&row.name, number));
        let version = self.reader.version(&row.name, number)?.ok_or_else(missing)?;
        Ok((row, number, version))
    }

    /// The machine's row is changed too, and is the caller's to store.
    pub(super) async fn add_version(
        &self,
        commit: &mut Commit,
        row: &mut MachineRow,
        description: String,
    ) -> Result<u64, Refused> {
        if row.version as usize >= VERSIONS_MAX && self.versions(&row.name, VERSIONS_MAX).await?.len() >= VERSIONS_MAX {
            let what = format!("The state machine has {VERSIONS_MAX} versions; delete some");
            return Err(Refused::new("ServiceQuotaExceededException", what));
        }
        row.version += 1;
        let version = VersionRow { revision: row.revision, description, created_at: self.clock.wall().into() };
        commit.put_version(&row.name, row.version, &version);
        Ok(row.version)
    }

    /// The newest versions.
    async fn versions(&self, machine: &str, limit: usize) -> Result<Vec<(u64, VersionRow)>, Fault> {
        let machine = machine.to_owned();
        self.reader.blocking(move |rows| rows.versions(&machine, None, limit)).await
    }

    async fn aliases(&self, machine: &str) -> Result<Vec<(String, AliasRow)>, Fault> {
        let machine = machine.to_owned();
        self.reader.blocking(move |rows| rows.aliases(&machine)).await
    }

    /// DeleteStateMachineVersion. Deleting what does not exist succeeds.
    pub async fn delete_version(&self, machine: &str, version: u64, by: By<'_>) -> Result<(), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        if self.reader.version(machine, version)?.is_none() {
            return Ok(());
        }
        let leads_here = |row: &AliasRow| row.routes.iter().any(|route| route.version == version);
        let aliases = self.aliases(machine).await?;
        let names: Vec<&str> = aliases.iter().filter(|(_, row)| leads_here(row)).map(|(name, _)| &**name).collect();
        if !names.is_empty() {
            let what = format!(
                "Version to be deleted must not be referenced by an alias. Current list of aliases referencing this \
                 version: [{}]",
                names.join(", ")
            );
            return Err(Refused::new("ConflictException", what));
        }
        let mut commit = Commit::new();
        commit.delete_version(machine, version);
        Ok(self.commit_for(commit, by).await?)
    }

    /// CreateStateMachineAlias. Creating the same alias again answers the one that is there.
    pub async fn create_alias(
        &self,
        machine: &str,
        name: &str,
        new: AliasChange,
        by: By<'_>,
    ) -> Result<AliasRow, Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        self.changeable(machine)?;
        let (description, routes) = (new.description.unwrap_or_default(), new.routes.unwrap_or_default());
        self.check_routes(machine, &routes)?;
        if let Some(there) = self.reader.alias(machine, name)? {
            if there.description == description && there.routes == routes {
                return Ok(there);
            }
            let what = "Failed to create alias because an alias with the same name and a different routing \
                        configuration already exists.";
            return Err(Refused::new("ConflictException", what));
        }
        if self.aliases(machine).await?.len() >= ALIASES_MAX {
            let what = format!("The state machine has {ALIASES_MAX} aliases; delete some");
            return Err(Refused::new("ServiceQuotaExceededException", what));
        }
        let now = self.clock.wall().into();
        let row = AliasRow { description, routes, created_at: now, updated_at: now };
        self.store_alias(machine, name, row, by).await
    }

    /// UpdateStateMachineAlias.
    pub async fn update_alias(
        &self,
        machine: &str,
        name: &str,
        change: AliasChange,
        by: By<'_>,
    ) -> Result<AliasRow, Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        let mut row = self.reader.alias(machine, name)?.ok_or_else(Refused::no_reference)?;
        self.changeable(machine)?;
        if let Some(routes) = change.routes {
            self.check_routes(machine, &routes)?;
            row.routes = routes;
        }
        row.description = change.description.unwrap_or(row.description);
        row.updated_at = self.clock.wall().into();
        self.store_alias(machine, name, row, by).await
    }

    /// DeleteStateMachineAlias.
    pub async fn delete_alias(&self, machine: &str, name: &str, by: By<'_>) -> Result<(), Refused> {
        let _one_at_a_time = self.catalog.changing.lock().await;
        if self.reader.alias(machine, name)?.is_none() {
            return Err(Refused::no_reference());
        }
        let mut commit = Commit::new();
        commit.delete_alias(machine, name);
        Ok(self.commit_for(commit, by).await?)
    }

    async fn store_alias(&self, machine: &str, name: &str, row: AliasRow, by: By<'_>) -> Result<AliasRow, Refused> {
        let mut commit = Commit::new();
        commit.put_alias(machine, name, &row);
        self.commit_for(commit, by).await?;
        Ok(row)
    }

    fn check_routes(&self, machine: &str, routes: &[Route]) -> Result<(), Refused> {
        for route in routes {
            if self.reader.version(machine, route.version)?.is_none() {
                return Err(Refused::no_reference());
            }
        }
        Ok(())
    }

    /// The version or alias that an ARN's last part names, and the revision that it leads to. An alias of two versions
    /// is decided by the new execution's id.
    pub fn resolve(&self, machine: &str, qualifier: &str, id: ExecutionId) -> Result<(Qualifier, u64), Refused> {
        let missing = || Refused::no_machine(&self.qualified_arn(machine, qualifier));
        let qualifier = match qualifier.parse::<u64>() {
            Ok(version) => Qualifier::Version(version),
            Err(_) => {
                let alias = self.reader.alias(machine, qualifier)?.ok_or_else(missing)?;
                let version = routed(&alias.routes, id).ok_or_else(missing)?;
                Qualifier::Alias { name: qualifier.to_owned(), version }
            }
        };
        let version = self.reader.version(machine, qualifier.version())?.ok_or_else(missing)?;
        Ok((qualifier, version.revision))
    }

    fn qualified_arn(&self, machine: &str, qualifier: &str) -> String {
        format!("{}:{qualifier}", self.machine_arn(machine))
    }

    fn version_arn(&self, machine: &str, version: u64) -> String {
        self.qualified_arn(machine, &version.to_string())
    }
}

/// Of a hundred executions, each version gets as many as its weight says, near enough.
fn routed(routes: &[Route], id: ExecutionId) -> Option<u64> {
    // The low half of an id is random; mixed, so that it need not be evenly so.
    let mut place = conveyor_asl::mix(id.0 as u64) % 100;
    for route in routes {
        let weight = u64::from(route.weight_percent);
        if place < weight {
            return Some(route.version);
        }
        place -= weight;
    }
    routes.last().map(|route| route.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide_and_the_same_id_is_led_to_the_same_version() {
        let routes = [Route { version: 1, weight_percent: 90 }, Route { version: 2, weight_percent: 10 }];
        let led = |n: u128| routed(&routes, ExecutionId(n));
        let second = (0..10_000).filter(|n| led(*n) == Some(2)).count();
        assert!((800..1_200).contains(&second), "{second} of 10,000");
        assert!((0..100).all(|n| led(n) == led(n)));
        let all = [Route { version: 7, weight_percent: 100 }, Route { version: 8, weight_percent: 0 }];
        assert!((0..1_000).all(|n| routed(&all, ExecutionId(n)) == Some(7)));
    }
}

//! The adapters of this box, by the names that Resources have. Knows none of them: the wiring adds them.
//!
//! A name is what follows `arn:aws:states:::`, such as `conveyor:claim`; `aws-sdk:s3:*` is each name that begins so.
//! Invariant: a name has one adapter, or the box does not start.

use std::collections::HashMap;
use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_interpreter::map_run::ReadItems;
use conveyor_interpreter::{Header, Json, Status};
use conveyor_run::{Announced, Fill, ItemSink, Resource, Resources};
use conveyor_services::events::{self, Events};
use conveyor_store::Commit;
use futures::future::BoxFuture;
use serde_json::Value;

use super::adapter::{Adapted, Adapter};
use super::map_items::Buckets;

/// A child execution that has ended.
pub struct EndedChild<'a> {
    pub header: &'a Header,
    pub arn: &'a str,
    pub machine_arn: &'a str,
}

/// What the end of a child means to the Task that waits for it.
pub type OnChildEnded = Box<dyn Fn(EndedChild<'_>) -> Result<Value, TaskError> + Send + Sync>;

/// A name, or the shape of a child's end, that two adapters want to have.
#[derive(Debug, thiserror::Error)]
#[error("two adapters are registered for '{0}'")]
pub struct NameTaken(String);

/// Service of the ARN, and the rest of it: for Tasks `states` and the name.
type Name<'a> = (&'a str, &'a str);

/// For names that nothing else has.
struct Rest {
    takes: fn(&str) -> bool,
    resource: Arc<dyn Resource>,
}

/// All resources of this box.
pub struct Registry {
    named: HashMap<Name<'static>, Arc<dyn Resource>>,
    /// With the beginning that their names share.
    families: Vec<(Name<'static>, Arc<dyn Resource>)>,
    rest: Option<Rest>,
    shapes: HashMap<&'static str, OnChildEnded>,
    events: Events,
    buckets: Buckets,
}

impl Registry {
    /// `events` hears of the statuses of executions; `buckets` have the items and results of distributed Maps.
    pub fn new(events: Events, buckets: Buckets) -> Registry {
        let (named, families, shapes) = (HashMap::new(), Vec::new(), HashMap::new());
        Registry { named, families, rest: None, shapes, events, buckets }
    }

    /// `name`: `conveyor:claim`, `aws-sdk:s3:*`, or an ARN of another service, `arn:aws:lambda:*:*:function:*`.
    pub fn add(&mut self, name: &'static str, adapter: Arc<dyn Adapter>) -> Result<(), NameTaken> {
        let taken = || NameTaken(name.to_owned());
        let (service, rest) = split(name).ok_or_else(taken)?;
        let resource: Arc<dyn Resource> = Arc::new(Adapted(adapter));
        if self.families.iter().any(|(family, _)| begins(*family, (service, rest))) {
            return Err(taken());
        }
        match rest.strip_suffix('*') {
            Some(start) => {
                let family = (service, start);
                let inside = |known: &Name<'_>| begins(family, *known);
                if self.named.keys().any(inside) || self.families.iter().any(|(known, _)| inside(known)) {
                    return Err(taken());
                }
                self.families.push((family, resource));
            }
            None => {
                if self.named.insert((service, rest), resource).is_some() {
                    return Err(taken());
                }
            }
        }
        Ok(())
    }

    /// Takes the Tasks whose names no other adapter has, as far as `takes` says so of the name.
    pub fn add_rest(&mut self, takes: fn(&str) -> bool, adapter: Arc<dyn Adapter>) {
        self.rest = Some(Rest { takes, resource: Arc::new(Adapted(adapter)) });
    }

    /// Says what the end of a child means whose [`Parent`](conveyor_interpreter::Parent) has that shape.
    pub fn add_shape(&mut self, shape: &'static str, ended: OnChildEnded) -> Result<(), NameTaken> {
        match self.shapes.insert(shape, ended) {
            None => Ok(()),
            Some(_) => Err(NameTaken(shape.to_owned())),
        }
    }
}

/// Whether a name as [`Registry::add`] takes it stands for this Resource.
pub fn covers(name: &str, resource: &str) -> bool {
    let (Some((service, name)), Some(resource)) = (split(name), named_by(resource)) else { return false };
    match name.strip_suffix('*') {
        Some(start) => begins((service, start), resource),
        None => (service, name) == resource,
    }
}

fn begins(family: Name<'_>, name: Name<'_>) -> bool {
    family.0 == name.0 && name.1.starts_with(family.1)
}

/// What an adapter's name stands for.
fn split(name: &str) -> Option<Name<'_>> {
    if name.starts_with("arn:") { named_by(name) } else { Some(("states", name)) }
}

/// What a Resource names, whatever its region and account.
fn named_by(resource: &str) -> Option<Name<'_>> {
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    let [_, _, service, _, _, rest] = parts.as_slice() else { return None };
    Some((service, rest))
}

/// The name of a Task's Resource: what follows `arn:aws:states:::`.
pub fn task_name(resource: &str) -> Option<&str> {
    named_by(resource).filter(|(service, _)| *service == "states").map(|(_, name)| name)
}

impl Resources for Registry {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        let name = named_by(resource)?;
        let family = || self.families.iter().find(|(family, _)| begins(*family, name)).map(|(_, found)| found);
        let rest = || {
            let Rest { takes, resource: found } = self.rest.as_ref()?;
            takes(task_name(resource)?).then_some(found)
        };
        self.named.get(&name).or_else(family).or_else(rest).cloned()
    }

    fn child_ended(&self, shape: &str, header: &Header, arn: &str, machine_arn: &str) -> Result<Json, TaskError> {
        let unknown = || TaskError::new("States.Runtime", format!("no Task waits for the end of a child as '{shape}'"));
        let ended = self.shapes.get(shape).ok_or_else(unknown)?;
        ended(EndedChild { header, arn, machine_arn }).map(|value| value.to_string().into())
    }

    fn begun(&self, header: &Header, commit: &mut Commit) -> Vec<Announced> {
        let mut announced = self.events.status_changed(&events::begun(header), header.started_at, commit);
        if header.status != Status::Running {
            announced.extend(self.status_changed(header, commit));
        }
        announced
    }

    fn status_changed(&self, header: &Header, commit: &mut Commit) -> Vec<Announced> {
        let at = header.stopped_at.or(header.redriven_at).unwrap_or(header.started_at);
        self.events.status_changed(header, at, commit)
    }

    fn announced(&self, announced: Vec<Announced>) {
        self.events.stored(announced);
    }

    fn read_items(&self, reader: ReadItems, sink: ItemSink) -> BoxFuture<'static, Result<(), TaskError>> {
        Box::pin(self.buckets.clone().read(reader, sink))
    }

    fn write_object(&self, bucket: String, key: String, fill: Fill) -> BoxFuture<'static, Result<u64, TaskError>> {
        Box::pin(self.buckets.clone().write(bucket, key, fill))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use conveyor_base::{ShareIo, Shares};

    use super::super::adapter::{Call, CallFuture};
    use super::*;

    struct Nothing;

    impl Adapter for Nothing {
        fn call<'a>(&'a self, _: &'a Call) -> CallFuture<'a> {
            Box::pin(async { Err(TaskError::new("States.Runtime", "it does nothing")) })
        }
    }

    fn registry(names: &[&'static str]) -> Result<Registry, NameTaken> {
        let events = Events::new(&BTreeMap::new(), "000000000000", "us-east-1");
        let mut registry = Registry::new(events, Buckets::new(ShareIo::new(Shares::default()), None));
        names.iter().try_for_each(|name| registry.add(name, Arc::new(Nothing)))?;
        Ok(registry)
    }

    #[test]
    fn a_name_has_one_adapter() {
        for twice in [
            ["conveyor:claim", "conveyor:claim"],
            ["aws-sdk:s3:*", "aws-sdk:s3:*"],
            ["aws-sdk:s3:*", "aws-sdk:s3:getObject"],
            ["aws-sdk:s3:getObject", "aws-sdk:s3:*"],
            ["aws-sdk:s3:get*", "aws-sdk:s3:*"],
        ] {
            assert!(registry(&twice).is_err(), "{twice:?}");
        }
        let mut registry = registry(&["conveyor:claim", "conveyor:claims"]).unwrap();
        registry.add_shape("sync", Box::new(|_| Ok(Value::Null))).unwrap();
        assert!(registry.add_shape("sync", Box::new(|_| Ok(Value::Null))).is_err());
    }

    #[test]
    fn names_are_those_of_their_service_alone() {
        let mut registry = registry(&["conveyor:claim", "aws-sdk:s3:*", "arn:aws:lambda:*:*:function:*"]).unwrap();
        registry.add_rest(|name| name == "ecs:runTask", Arc::new(Nothing));
        for known in [
            "arn:aws:states:::conveyor:claim",
            "arn:aws:states:::aws-sdk:s3:copyObject",
            "arn:aws:lambda:eu-west-1:123456789012:function:qc:live",
            "arn:aws:states:::ecs:runTask",
        ] {
            assert!(registry.find(known).is_some(), "{known}");
        }
        for unknown in [
            "arn:aws:states:::conveyor:claim.sync",
            "arn:aws:states:::function:qc",
            "arn:aws:lambda:us-east-1:000000000000:conveyor:claim",
            "arn:aws:lambda:us-east-1:000000000000:ecs:runTask",
            "arn:aws:sqs:::conveyor:claim",
            "conveyor:claim",
            "",
        ] {
            assert!(registry.find(unknown).is_none(), "{unknown}");
        }
    }
}

//! The parts of a box, each made once of what it needs, and the adapters that Tasks find by their names.
//!
//! An integration is a file of `resources` and its line in [`LOCAL`].

use std::path::Path;
use std::sync::Arc;

use conveyor_base::{Fault, ShareIo};
use conveyor_resources::events::OutsideTargets;
use conveyor_resources::forward::{AwsSettings, Endpoint, Fallback, RemoteJobs};
use conveyor_resources::functions::Functions;
use conveyor_resources::housekeeping::RetentionSettings;
use conveyor_resources::http::{Connections, gateway};
use conveyor_resources::jobs::{Jobs, Templates};
use conveyor_resources::map_items::Buckets;
use conveyor_resources::media::Stages;
use conveyor_resources::objects::Objects;
use conveyor_resources::predict::Predictor;
use conveyor_resources::wire::Messaging;
use conveyor_resources::{
    Adapter, NameTaken, Registry, activities, approve, builtin, claims, covers, events, executions, forward, functions,
    housekeeping, http, items, jobs, media, notify, objects, queues, topics,
};
use conveyor_run::Handle;
use conveyor_sandbox::{Functions as Jail, Spawn};
use conveyor_services::approvals::Approvals;
use conveyor_services::audit;
use conveyor_services::claims::Claims;
use conveyor_services::events::{Events, Targets};
use conveyor_services::items::Tables;
use conveyor_services::notifications::Notifications;
use conveyor_services::predictions::Predictions;
use conveyor_services::queues::Queues;
use conveyor_services::sessions::Sessions;
use conveyor_services::uploads::Uploads;
use conveyor_store::Reader;

use super::config::Config;

/// What makes the adapter of a name.
type Make = fn(&Parts, &'static str) -> Arc<dyn Adapter>;

/// Every integration that this box carries out itself: its names, and what its adapter is made of.
const LOCAL: &[(&[&str], Make)] = &[
    (activities::NAMES, |_, name| activities::adapter(name)),
    (approve::NAMES, |parts, _| approve::adapter(&parts.approvals)),
    (claims::NAMES, |parts, name| claims::adapter(name, &parts.claims)),
    (events::NAMES, |parts, name| events::adapter(name, &parts.events, &parts.fallback)),
    (executions::NAMES, |_, name| executions::adapter(name)),
    (functions::NAMES, |parts, name| functions::adapter(name, &parts.functions, &parts.events)),
    (housekeeping::NAMES, |parts, _| housekeeping::adapter(parts.retention, &parts.stages, &parts.reader)),
    (http::NAMES, |parts, _| http::adapter(&parts.connections, &parts.region)),
    (items::NAMES, |parts, name| items::adapter(name, &parts.tables, &parts.fallback)),
    (jobs::NAMES, |parts, name| jobs::adapter(name, &parts.jobs)),
    (media::NAMES, |parts, name| media::adapter(name, &parts.stages)),
    (notify::NAMES, |parts, _| notify::adapter(&parts.notifications)),
    (objects::NAMES, |parts, _| objects::adapter(&parts.objects, &parts.fallback)),
    (queues::NAMES, |parts, name| queues::adapter(name, &parts.queues, &parts.fallback)),
    (topics::NAMES, |parts, name| topics::adapter(name, &parts.notifications, &parts.fallback)),
];

/// The services of one box.
pub struct Parts {
    region: String,
    retention: RetentionSettings,
    reader: Reader,
    /// Who does anything with the files of shares goes by this one.
    pub io: ShareIo,
    /// Where calls go that this box does not serve itself.
    endpoint: Option<Arc<Endpoint>>,
    fallback: Fallback,
    pub approvals: Approvals,
    claims: Claims,
    connections: Arc<Connections>,
    events: Events,
    functions: Arc<Functions>,
    jobs: Arc<Jobs>,
    pub notifications: Notifications,
    objects: Arc<Objects>,
    pub predictions: Predictions,
    pub queues: Queues,
    pub remote_jobs: RemoteJobs,
    stages: Arc<Stages>,
    tables: Tables,
    pub sessions: Sessions,
    pub uploads: Uploads,
}

impl Parts {
    /// `aws`: the configuration's, with what the surroundings add to it; `spawn` runs media stages.
    pub fn new(
        config: &Config,
        aws: &AwsSettings,
        data_dir: &Path,
        reader: &Reader,
        spawn: Arc<dyn Spawn>,
        jail: Option<Jail>,
    ) -> anyhow::Result<Parts> {
        let (account, region, shares) = (&config.account, &config.region, config.shares());
        let io = ShareIo::new(shares.clone());
        let endpoint = Endpoint::new(aws, account, region).map(Arc::new);
        let remote_jobs = RemoteJobs::new(endpoint.clone(), reader.clone());
        let templates = Templates::read(builtin::JOB_TEMPLATES.iter().copied())
            .map_err(|what| anyhow::anyhow!("a built-in job template is refused: {what}"))?;
        let functions = Functions::new(config.functions.clone(), &config.lambda, endpoint.clone(), account, region);
        let functions = functions.in_jail(jail);
        let predictions = Predictions::default();
        let predictor = Predictor::new(reader.clone(), predictions.clone(), data_dir.to_owned(), shares, spawn.clone());
        let stages = Stages {
            data_dir: data_dir.to_owned(),
            io: io.clone(),
            acceleration: config.acceleration,
            spawn,
            predictor: Arc::new(predictor),
            watched: config.watch.iter().map(|watch| watch.share.clone()).collect(),
        };
        Ok(Parts {
            fallback: Fallback(endpoint.as_ref().map(|endpoint| forward::adapter(endpoint, &remote_jobs))),
            approvals: Approvals::default(),
            claims: Claims::default(),
            connections: Arc::new(Connections::new(&config.connections)?),
            events: Events::new(&config.rules, account, region),
            functions: Arc::new(functions),
            jobs: Arc::new(Jobs::new(templates, reader.clone(), account, region)),
            predictions,
            notifications: Notifications::new(config.notify.clone()),
            objects: Arc::new(Objects::new(io.clone(), reader.clone())),
            queues: Queues::new(&config.queues, account, region),
            stages: Arc::new(stages),
            tables: Tables::new(config.tables.clone()),
            sessions: Sessions::default(),
            uploads: Uploads::new(io.clone()),
            region: region.clone(),
            retention: config.retention,
            reader: reader.clone(),
            remote_jobs,
            endpoint,
            io,
        })
    }

    /// All that Tasks may name on this box.
    pub fn registry(&self) -> Result<Registry, NameTaken> {
        let buckets = Buckets::new(self.io.clone(), self.endpoint.clone());
        let mut registry = Registry::new(self.events.clone(), buckets);
        for (names, make) in LOCAL {
            names.iter().try_for_each(|name| registry.add(name, make(self, name)))?;
        }
        for (shape, ended) in executions::shapes().into_iter().chain(jobs::shapes(&self.jobs)) {
            registry.add_shape(shape, ended)?;
        }
        if let (Some(endpoint), Some(forward)) = (&self.endpoint, &self.fallback.0) {
            gateway::NAMES.iter().try_for_each(|name| registry.add(name, gateway::adapter(endpoint)))?;
            registry.add_rest(forward::is_operation, forward.clone());
        }
        Ok(registry)
    }

    /// Starts the services, with what the store holds.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        self.queues.start(handle).await?;
        self.approvals.start(handle).await?;
        self.claims.start(handle).await?;
        self.tables.start(handle).await?;
        self.uploads.start(handle).await?;
        self.sessions.start(handle).await?;
        self.predictions.start(handle).await?;
        audit::keep_trimmed(handle).await?;
        self.notifications.start(handle).await?;
        let outside =
            Arc::new(OutsideTargets { functions: self.functions.clone(), connections: self.connections.clone() });
        let (queues, notifications) = (self.queues.clone(), self.notifications.clone());
        self.events.start(handle, Targets { queues, notifications, outside }).await
    }

    /// What answers other services' calls that come in from outside.
    pub fn messaging(&self) -> Messaging {
        Messaging { queues: self.queues.clone(), events: self.events.clone() }
    }
}

/// Whether a Resource is one that this release has an adapter of its own for.
pub fn is_local(resource: &str) -> bool {
    let names = LOCAL.iter().map(|(names, _)| *names).chain([gateway::NAMES]);
    names.flatten().any(|name| covers(name, resource))
}

#[cfg(test)]
mod tests {
    use conveyor_base::TaskError;
    use conveyor_job::Job;
    use conveyor_run::Resources as _;
    use conveyor_sandbox::OnProgress;
    use conveyor_store::{self as store, Options};
    use futures::future::BoxFuture;
    use serde_json::Value;

    use super::*;

    struct Nobody;

    impl Spawn for Nobody {
        fn spawn(&self, _: Job, _: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>> {
            Box::pin(async { Err(TaskError::new("Stage.Failed", "there are no stages here")) })
        }
    }

    /// The resources of a box with and without an endpoint.
    fn registry(endpoint: Option<&str>) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let (_writer, reader) = store::open(Options::at(dir.path().join("store"))).unwrap();
        let aws = AwsSettings { endpoint: endpoint.map(str::to_owned), ..AwsSettings::default() };
        let parts = Parts::new(&Config::default(), &aws, dir.path(), &reader, Arc::new(Nobody), None).unwrap();
        parts.registry().unwrap()
    }

    /// As the README's table has them.
    const NAMES: &[&str] = &[
        "conveyor:sanitize",
        "conveyor:probe",
        "conveyor:transcode",
        "conveyor:quality",
        "conveyor:labels",
        "conveyor:transcript",
        "conveyor:meaning",
        "conveyor:brief",
        "conveyor:fingerprint",
        "conveyor:publish",
        "conveyor:archive",
        "conveyor:quarantine",
        "conveyor:offer",
        "conveyor:claim",
        "conveyor:release",
        "conveyor:record",
        "conveyor:approve.waitForTaskToken",
        "conveyor:notify",
        "conveyor:housekeeping",
        "sns:publish",
        "aws-sdk:sns:publishBatch",
        "sqs:sendMessage",
        "sqs:sendMessage.waitForTaskToken",
        "aws-sdk:sqs:receiveMessage",
        "aws-sdk:sqs:DeleteMessage",
        "events:putEvents",
        "http:invoke",
        "mediaconvert:createJob",
        "mediaconvert:createJob.sync",
        "aws-sdk:mediaconvert:getJob",
        "states:startExecution",
        "states:startExecution.sync",
        "states:startExecution.sync:2",
        "states:startExecution.waitForTaskToken",
        "dynamodb:putItem",
        "dynamodb:getItem",
        "dynamodb:updateItem",
        "aws-sdk:dynamodb:deleteItem",
        "aws-sdk:s3:copyObject",
        "aws-sdk:s3:listBuckets",
        "lambda:invoke",
        "aws-sdk:sfn:getActivityTask",
        "aws-sdk:sfn:sendTaskSuccess",
        "aws-sdk:sfn:sendTaskFailure",
        "aws-sdk:sfn:sendTaskHeartbeat",
    ];
    const ELSEWHERE: &[&str] = &[
        "ecs:runTask",
        "batch:submitJob.sync",
        "aws-sdk:ssm:getParameter",
        "aws-sdk:sqs:addPermission",
        "apigateway:invoke",
    ];

    #[test]
    fn resources_are_found_by_their_arn() {
        let (alone, connected) = (registry(None), registry(Some("http://127.0.0.1:1")));
        let arn = |name: &&str| format!("arn:aws:states:::{name}");
        let function = "arn:aws:lambda:us-east-1:000000000000:function:qc".to_owned();
        for here in NAMES.iter().map(arn).chain([function]) {
            assert!(alone.find(&here).is_some() && is_local(&here), "{here}");
            assert!(connected.find(&here).is_some(), "{here}");
        }
        for there in ELSEWHERE.iter().map(arn) {
            assert!(alone.find(&there).is_none() && connected.find(&there).is_some(), "{there}");
        }
        for unknown in [
            "arn:aws:states:::conveyor:nonsense",
            "arn:aws:states:::conveyor:approve",
            "arn:aws:states:::ecs:stopTask.sync",
            "arn:aws:states:::aws-sdk:sqs:sing",
            // The box's own Step Functions is nobody else's.
            "arn:aws:states:::aws-sdk:sfn:deleteStateMachine",
            "x",
            "",
        ] {
            assert!(connected.find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn every_built_in_definition_names_what_this_box_has() {
        let registry = registry(None);
        for (name, text) in builtin::WORKFLOWS {
            let machine = conveyor_asl::parse(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            for state in machine.states.values() {
                if let conveyor_asl::Kind::Task(task) = &state.kind {
                    let found = registry.find(&task.resource);
                    assert!(found.is_some(), "{name}/{}: {}", state.name, task.resource);
                }
            }
        }
    }
}

//! S3's operations as Tasks.

use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_interpreter::RunTask;
use conveyor_run::Demand;

use super::Objects;
use crate::forward::Fallback;
use crate::{Adapter, Call, CallFuture, CallOutcome, aws, task_name};

/// Also operations that there are none of: they are refused with a list of those that there are.
pub const NAMES: &[&str] = &["aws-sdk:s3:*"];

pub fn adapter(objects: &Arc<Objects>, fallback: &Fallback) -> Arc<dyn Adapter> {
    Arc::new(Operating { objects: objects.clone(), fallback: fallback.clone() })
}

struct Operating {
    objects: Arc<Objects>,
    fallback: Fallback,
}

impl Adapter for Operating {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        Some(Demand::disks())
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.answer(call))
    }
}

impl Operating {
    async fn answer(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let is_own = self.objects.has(call.text("Bucket").unwrap_or_default());
        if let Some(answer) = self.fallback.answer(is_own, call).await {
            return answer;
        }
        let operation = task_name(&call.task.resource).and_then(|name| name.strip_prefix("aws-sdk:s3:"));
        let (parameters, id) = (call.parameters.clone(), aws::request_id(call));
        self.objects.call(&call.handle, operation.unwrap_or_default(), parameters, id).await
    }
}

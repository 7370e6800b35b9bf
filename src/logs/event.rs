//! How a history event looks on the wire (AWS Step Functions API reference, HistoryEvent).
//!
//! Owns the spelling only. It must never decide what happened: that stands in [`HistoryKind`].

use conveyor_interpreter::{Failure, HistoryEvent, HistoryKind as K};
use serde_json::{Map, Value, json};

/// The event as AWS writes it. Without `include_data`, inputs, outputs and parameters are left out.
pub fn wire(event: &HistoryEvent, include_data: bool) -> Value {
    let mut body = Map::new();
    body.insert("timestamp".into(), json!(event.at.as_seconds()));
    body.insert("type".into(), json!(type_name(&event.kind)));
    body.insert("id".into(), json!(event.id.0));
    body.insert("previousEventId".into(), json!(event.previous.0));
    let mut details = Details { fields: Map::new(), include_data };
    if let Some(key) = details.fill(&event.kind) {
        body.insert(key.into(), Value::Object(details.fields));
    }
    Value::Object(body)
}

/// The event's details by themselves; empty for events that have none.
pub fn details(kind: &K, include_data: bool) -> Map<String, Value> {
    let mut details = Details { fields: Map::new(), include_data };
    details.fill(kind);
    details.fields
}

/// The event's `type`.
pub fn type_name(kind: &K) -> String {
    let fixed = match kind {
        K::StateEntered { state_type, .. } => return format!("{}StateEntered", state_type.name()),
        K::StateExited { state_type, .. } => return format!("{}StateExited", state_type.name()),
        K::StateAborted { state_type } => return format!("{}StateAborted", state_type.name()),
        K::ExecutionStarted { .. } => "ExecutionStarted",
        K::ExecutionSucceeded { .. } => "ExecutionSucceeded",
        K::ExecutionFailed(_) => "ExecutionFailed",
        K::ExecutionAborted(_) => "ExecutionAborted",
        K::ExecutionTimedOut(_) => "ExecutionTimedOut",
        K::ExecutionRedriven { .. } => "ExecutionRedriven",
        K::ParallelStateStarted => "ParallelStateStarted",
        K::ParallelStateSucceeded => "ParallelStateSucceeded",
        K::ParallelStateFailed(_) => "ParallelStateFailed",
        K::MapStateStarted { .. } => "MapStateStarted",
        K::MapStateSucceeded => "MapStateSucceeded",
        K::MapStateFailed(_) => "MapStateFailed",
        K::MapRunStarted { .. } => "MapRunStarted",
        K::MapRunSucceeded => "MapRunSucceeded",
        K::MapRunFailed(_) => "MapRunFailed",
        K::MapRunAborted => "MapRunAborted",
        K::MapRunRedriven { .. } => "MapRunRedriven",
        K::MapIterationStarted { .. } => "MapIterationStarted",
        K::MapIterationSucceeded { .. } => "MapIterationSucceeded",
        K::MapIterationFailed { .. } => "MapIterationFailed",
        K::MapIterationAborted { .. } => "MapIterationAborted",
        K::TaskScheduled { .. } => "TaskScheduled",
        K::TaskStarted { .. } => "TaskStarted",
        K::TaskSubmitted { .. } => "TaskSubmitted",
        K::TaskSucceeded { .. } => "TaskSucceeded",
        K::TaskFailed { .. } => "TaskFailed",
        K::TaskTimedOut { .. } => "TaskTimedOut",
        K::TaskStartFailed { .. } => "TaskStartFailed",
        K::TaskSubmitFailed { .. } => "TaskSubmitFailed",
        K::ActivityScheduled { .. } => "ActivityScheduled",
        K::ActivityStarted { .. } => "ActivityStarted",
        K::ActivitySucceeded { .. } => "ActivitySucceeded",
        K::ActivityFailed(_) => "ActivityFailed",
        K::ActivityTimedOut(_) => "ActivityTimedOut",
        K::ActivityScheduleFailed(_) => "ActivityScheduleFailed",
        K::LambdaFunctionScheduled { .. } => "LambdaFunctionScheduled",
        K::LambdaFunctionStarted => "LambdaFunctionStarted",
        K::LambdaFunctionSucceeded { .. } => "LambdaFunctionSucceeded",
        K::LambdaFunctionFailed(_) => "LambdaFunctionFailed",
        K::LambdaFunctionTimedOut(_) => "LambdaFunctionTimedOut",
        K::LambdaFunctionScheduleFailed(_) => "LambdaFunctionScheduleFailed",
        K::LambdaFunctionStartFailed(_) => "LambdaFunctionStartFailed",
        K::EvaluationFailed { .. } => "EvaluationFailed",
    };
    fixed.to_owned()
}

struct Details {
    fields: Map<String, Value>,
    include_data: bool,
}

impl Details {
    /// Fills in the details and names the field that holds them; `None` for events that have none.
    fn fill(&mut self, kind: &K) -> Option<&'static str> {
        Some(match kind {
            K::ExecutionStarted { input, role_arn } => {
                self.data("input", input).put("roleArn", role_arn.as_str());
                "executionStartedEventDetails"
            }
            K::ExecutionSucceeded { output } => {
                self.data("output", output);
                "executionSucceededEventDetails"
            }
            K::ExecutionFailed(failure) => self.failure(failure, "executionFailedEventDetails"),
            K::ExecutionAborted(failure) => self.failure(failure, "executionAbortedEventDetails"),
            K::ExecutionTimedOut(failure) => self.failure(failure, "executionTimedOutEventDetails"),
            K::ExecutionRedriven { redrive_count } => {
                self.put("redriveCount", *redrive_count);
                "executionRedrivenEventDetails"
            }
            K::StateEntered { name, input, .. } => {
                self.put("name", &**name).data("input", input);
                "stateEnteredEventDetails"
            }
            K::StateExited { name, output, assigned, .. } => {
                self.put("name", &**name).data("output", output).assigned(assigned);
                "stateExitedEventDetails"
            }
            K::MapStateStarted { length } => {
                self.put("length", *length);
                "mapStateStartedEventDetails"
            }
            K::MapRunStarted { arn } => {
                self.put("mapRunArn", arn.as_str());
                "mapRunStartedEventDetails"
            }
            K::MapRunFailed(failure) => self.failure(failure, "mapRunFailedEventDetails"),
            K::MapIterationStarted { name, index } => self.iteration(name, *index, "mapIterationStartedEventDetails"),
            K::MapIterationSucceeded { name, index } => {
                self.iteration(name, *index, "mapIterationSucceededEventDetails")
            }
            K::MapRunRedriven { arn, redrive_count } => {
                self.put("mapRunArn", arn.as_str()).put("redriveCount", *redrive_count);
                "mapRunRedrivenEventDetails"
            }
            K::MapIterationFailed { name, index } => self.iteration(name, *index, "mapIterationFailedEventDetails"),
            K::MapIterationAborted { name, index } => self.iteration(name, *index, "mapIterationAbortedEventDetails"),
            K::EvaluationFailed { failure, location, state } => {
                self.put("state", &**state).put_some("location", location.as_deref());
                self.failure(failure, "evaluationFailedEventDetails")
            }
            K::StateAborted { .. }
            | K::ParallelStateStarted
            | K::ParallelStateSucceeded
            | K::ParallelStateFailed(_)
            | K::MapStateSucceeded
            | K::MapStateFailed(_)
            | K::MapRunSucceeded
            | K::MapRunAborted
            | K::LambdaFunctionStarted => return None,
            _ => return self.fill_task(kind),
        })
    }

    /// The events of an attempt of a service task.
    fn fill_task(&mut self, kind: &K) -> Option<&'static str> {
        Some(match kind {
            K::TaskScheduled { resource_type, resource, region, parameters, timeout_seconds, heartbeat_seconds } => {
                self.resource(resource_type, resource).put("region", region.as_str());
                if self.include_data {
                    self.put("parameters", &**parameters);
                }
                self.limits(*timeout_seconds, *heartbeat_seconds);
                "taskScheduledEventDetails"
            }
            K::TaskStarted { resource_type, resource } => {
                self.resource(resource_type, resource);
                "taskStartedEventDetails"
            }
            K::TaskSubmitted { resource_type, resource, output } => {
                self.resource(resource_type, resource).data("output", output);
                "taskSubmittedEventDetails"
            }
            K::TaskSucceeded { resource_type, resource, output } => {
                self.resource(resource_type, resource).data("output", output);
                "taskSucceededEventDetails"
            }
            K::TaskFailed { resource_type, resource, failure } => {
                self.resource(resource_type, resource).failure(failure, "taskFailedEventDetails")
            }
            K::TaskTimedOut { resource_type, resource, failure } => {
                self.resource(resource_type, resource).failure(failure, "taskTimedOutEventDetails")
            }
            K::TaskStartFailed { resource_type, resource, failure } => {
                self.resource(resource_type, resource).failure(failure, "taskStartFailedEventDetails")
            }
            K::TaskSubmitFailed { resource_type, resource, failure } => {
                self.resource(resource_type, resource).failure(failure, "taskSubmitFailedEventDetails")
            }
            _ => return self.fill_worker(kind),
        })
    }

    /// The events of an attempt of an activity or a function.
    fn fill_worker(&mut self, kind: &K) -> Option<&'static str> {
        Some(match kind {
            K::ActivityScheduled { resource, input, timeout_seconds, heartbeat_seconds } => {
                self.put("resource", resource.as_str()).data("input", input);
                self.limits(*timeout_seconds, *heartbeat_seconds);
                "activityScheduledEventDetails"
            }
            K::ActivityStarted { worker } => {
                self.put_some("workerName", worker.as_deref());
                "activityStartedEventDetails"
            }
            K::ActivitySucceeded { output } => {
                self.data("output", output);
                "activitySucceededEventDetails"
            }
            K::ActivityFailed(failure) => self.failure(failure, "activityFailedEventDetails"),
            K::ActivityTimedOut(failure) => self.failure(failure, "activityTimedOutEventDetails"),
            K::ActivityScheduleFailed(failure) => self.failure(failure, "activityScheduleFailedEventDetails"),
            K::LambdaFunctionScheduled { resource, input, timeout_seconds } => {
                self.put("resource", resource.as_str()).data("input", input);
                self.limits(*timeout_seconds, None);
                "lambdaFunctionScheduledEventDetails"
            }
            K::LambdaFunctionSucceeded { output } => {
                self.data("output", output);
                "lambdaFunctionSucceededEventDetails"
            }
            K::LambdaFunctionFailed(failure) => self.failure(failure, "lambdaFunctionFailedEventDetails"),
            K::LambdaFunctionTimedOut(failure) => self.failure(failure, "lambdaFunctionTimedOutEventDetails"),
            K::LambdaFunctionScheduleFailed(failure) => {
                self.failure(failure, "lambdaFunctionScheduleFailedEventDetails")
            }
            K::LambdaFunctionStartFailed(failure) => self.failure(failure, "lambdaFunctionStartFailedEventDetails"),
            _ => return None,
        })
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Details {
        self.fields.insert(key.into(), value.into());
        self
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) -> &mut Details {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    /// A payload and the word that it is whole: `input` and `inputDetails`.
    fn data(&mut self, key: &str, text: &str) -> &mut Details {
        if self.include_data {
            self.put(key, text).put(&format!("{key}Details"), json!({"truncated": false}));
        }
        self
    }

    fn resource(&mut self, resource_type: &str, resource: &str) -> &mut Details {
        self.put("resourceType", resource_type).put("resource", resource)
    }

    fn limits(&mut self, timeout_seconds: Option<i64>, heartbeat_seconds: Option<i64>) {
        self.put_some("timeoutInSeconds", timeout_seconds).put_some("heartbeatInSeconds", heartbeat_seconds);
    }

    fn iteration(&mut self, name: &str, index: u32, key: &'static str) -> &'static str {
        self.put("name", name).put("index", index);
        key
    }

    fn assigned(&mut self, assigned: &[(String, conveyor_interpreter::Json)]) -> &mut Details {
        if assigned.is_empty() || !self.include_data {
            return self;
        }
        let variables: Map<String, Value> =
            assigned.iter().map(|(name, text)| (name.clone(), Value::from(&**text))).collect();
        self.put("assignedVariables", variables).put("assignedVariablesDetails", json!({"truncated": false}))
    }

    fn failure(&mut self, failure: &Failure, key: &'static str) -> &'static str {
        self.put_some("error", failure.error.as_deref()).put_some("cause", failure.cause.as_deref());
        key
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::{EventId, Timestamp};
    use conveyor_interpreter::StateType;

    use super::*;

    #[test]
    fn data_and_absent_fields_are_left_out() {
        let event = |kind| HistoryEvent { id: EventId(2), previous: EventId(1), at: Timestamp(1_500), kind };
        let entered = event(K::StateEntered { state_type: StateType::Pass, name: "A".into(), input: "{ }".into() });
        assert_eq!(
            wire(&entered, true),
            json!({"timestamp": 1.5, "type": "PassStateEntered", "id": 2, "previousEventId": 1,
                "stateEnteredEventDetails": {"name": "A", "input": "{ }", "inputDetails": {"truncated": false}}})
        );
        assert_eq!(wire(&entered, false)["stateEnteredEventDetails"], json!({"name": "A"}));
        let failed = event(K::ExecutionFailed(Failure::default()));
        assert_eq!(wire(&failed, true)["executionFailedEventDetails"], json!({}));
        assert_eq!(wire(&event(K::MapStateSucceeded), true).as_object().map(|o| o.len()), Some(4));
    }
}

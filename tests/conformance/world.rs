//! A small world around `step`: machines, executions, activities and a clock that jumps to the next event.

use std::collections::{BTreeMap, VecDeque};

use conveyor_asl::{self as asl, StateMachine};
use conveyor_base::{Attempt, ExecutionId, TaskToken, TimerId, Timestamp};
use conveyor_interpreter::map_run::{self, Feed, Plan};
use conveyor_interpreter::{
    Command, Effort, Entry, Env, Event, Execution, HistoryEvent, MachineRef, MapChild, Outcome, Partial, RunTask,
    Status, step,
};
use conveyor_logs::event::wire;
use serde_json::{Value, json};

const START: i64 = 1_760_000_000_000;

#[derive(Default)]
pub struct World {
    machines: BTreeMap<String, StateMachine>,
    executions: Vec<Run>,
    activities: BTreeMap<String, VecDeque<(usize, RunTask)>>,
    /// Long polls that no activity's task has answered yet.
    polls: BTreeMap<String, VecDeque<(usize, Attempt, Value)>>,
    /// What will happen: by time, then by the order in which it was decided.
    agenda: BTreeMap<(i64, u64), (usize, Event)>,
    now: i64,
    count: u64,
}

struct Run {
    execution: Execution,
    machine: String,
    history: Vec<HistoryEvent>,
    timers: BTreeMap<TimerId, (i64, u64)>,
    /// The task that waits for this execution's end.
    parent: Option<(usize, Attempt)>,
    /// The runs of distributed Maps in it, with their children.
    map_runs: Vec<(Attempt, Vec<usize>)>,
}

impl World {
    pub fn call(&mut self, op: &str, request: &Value) -> Result<Value, String> {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        match op {
            "CreateActivity" => {
                Ok(json!({"activityArn": format!("arn:aws:states:us-east-1:000000000000:activity:{}", text("name"))}))
            }
            "CreateStateMachine" => {
                let definition = match &request["definition"] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let machine = asl::parse(&definition).map_err(|problems| format!("{problems:?}"))?;
                let arn = format!("arn:aws:states:us-east-1:000000000000:stateMachine:machine{}", self.machines.len());
                self.machines.insert(arn.clone(), machine);
                Ok(json!({"stateMachineArn": arn}))
            }
            "DeleteStateMachine" => Ok(json!(self.machines.remove(&text("stateMachineArn")).is_some())),
            "StartExecution" | "StartSyncExecution" => {
                let input = request["input"].as_str().unwrap_or("{}");
                let name = request["name"].as_str().map_or_else(|| format!("run{}", self.executions.len()), Into::into);
                let at = self.start(&text("stateMachineArn"), name, input, None);
                Ok(json!({"executionArn": self.arn(at), "startDate": 0}))
            }
            "GetExecutionHistory" => {
                let arn = text("executionArn");
                let at = (0..self.executions.len()).find(|at| self.arn(*at) == arn).ok_or("no such execution")?;
                self.run_until_ended(at)?;
                let events: Vec<Value> = self.executions[at].history.iter().map(|e| wire(e, true)).collect();
                Ok(json!({"events": events}))
            }
            other => Err(format!("this harness knows no {other}")),
        }
    }

    fn env(&self, at: usize) -> Env {
        let machine = self.executions[at].machine.rsplit(':').next().unwrap();
        Env::new("us-east-1", "000000000000", machine, "arn:aws:iam::000000000000:role/conveyor")
    }

    fn arn(&self, at: usize) -> String {
        self.env(at).execution_arn(&self.executions[at].execution.header)
    }

    fn start(&mut self, machine: &str, name: String, input: &str, parent: Option<(usize, Attempt)>) -> usize {
        let at = self.executions.len();
        let reference =
            MachineRef { name: machine.rsplit(':').next().unwrap().to_owned(), revision: 1, qualifier: None };
        let id = ExecutionId(at as u128 + 1);
        let now = Timestamp(START + self.now);
        self.executions.push(Run {
            execution: Execution::start(id, name, reference, input.into(), now),
            machine: machine.to_owned(),
            history: Vec::new(),
            timers: BTreeMap::new(),
            parent,
            map_runs: Vec::new(),
        });
        self.later(0, at, Event::Started);
        at
    }

    fn later(&mut self, ms: i64, at: usize, event: Event) -> (i64, u64) {
        self.count += 1;
        let key = (self.now + ms, self.count);
        self.agenda.insert(key, (at, event));
        key
    }

    fn run_until_ended(&mut self, at: usize) -> Result<(), String> {
        for _ in 0..100_000 {
            if self.executions[at].execution.header.status != Status::Running {
                return Ok(());
            }
            let Some(((time, _), (who, event))) = self.agenda.pop_first() else {
                return Err(format!("waits for ever: {:?}", self.executions[at].execution));
            };
            self.now = self.now.max(time);
            self.happen(who, event);
        }
        Err("does not end".into())
    }

    fn happen(&mut self, at: usize, event: Event) {
        let env = self.env(at);
        let run = &mut self.executions[at];
        let machine = &self.machines[&run.machine];
        self.count += 1;
        let seed = u128::from(self.count).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let entry = Entry { at: Timestamp(START + self.now), box_at: Timestamp(START + self.now), seed, event };
        let step = step(machine, &run.execution, &entry, &env);
        run.execution.apply(&step);
        run.history.extend(step.history.iter().cloned());
        for command in step.commands {
            match command {
                Command::SetTimer { timer, due } => {
                    let ms = (due.moment().0 - START - self.now).max(0);
                    let key = self.later(ms, at, Event::TimerFired { timer });
                    self.executions[at].timers.insert(timer, key);
                }
                Command::ClearTimer { timer, .. } => {
                    if let Some(key) = self.executions[at].timers.remove(&timer) {
                        self.agenda.remove(&key);
                    }
                }
                Command::RunTask(task) => self.play(at, *task),
                Command::CancelTask { .. } => {}
                Command::Deliver(outcome) => self.deliver(at, &outcome),
            }
        }
    }

    /// Starts the children of a distributed Map, all at once.
    fn run_map(&mut self, at: usize, run: u128, task: &RunTask) {
        let env = self.env(at);
        let (machine, now) = (self.executions[at].machine.clone(), Timestamp(START + self.now));
        let parent = &self.executions[at].execution;
        let plan: Plan = serde_json::from_str(&task.parameters).unwrap();
        let looked_at = Partial::from(parent.clone());
        let effort = Effort::unbounded();
        let feed = Feed::of(&self.machines[&machine], &looked_at, task.branch, &env, &effort);
        let mut feed = feed.unwrap().unwrap();
        let mut children = Vec::new();
        for (number, item) in (0..).zip(feed.items().unwrap()) {
            let of = MapChild {
                run,
                parent: parent.header.id,
                attempt: task.attempt,
                state: task.state.clone(),
                label: plan.label.as_str().into(),
                express: plan.express,
                number,
                items: 1,
            };
            let input = feed.select(number, &item).unwrap().to_string();
            children.push((of, input));
        }
        let header = parent.header.clone();
        let mut started = Vec::new();
        for (of, input) in children {
            let id = ExecutionId(self.executions.len() as u128 + 1);
            started.push(self.executions.len());
            self.executions.push(Run {
                execution: map_run::child(id, &header, of, input.into(), now),
                machine: machine.clone(),
                history: Vec::new(),
                timers: BTreeMap::new(),
                parent: None,
                map_runs: Vec::new(),
            });
        }
        for child in &started {
            self.later(0, *child, Event::Started);
        }
        self.executions[at].map_runs.push((task.attempt, started));
        self.end_map_runs(at);
    }

    /// Tells the Map of a run whose children have all ended.
    fn end_map_runs(&mut self, at: usize) {
        let runs = std::mem::take(&mut self.executions[at].map_runs);
        let (over, open) = runs.into_iter().partition(|(_, children)| {
            let ended = |child: &usize| self.executions[*child].execution.header.outcome.is_some();
            children.iter().all(ended)
        });
        self.executions[at].map_runs = open;
        let over: Vec<(Attempt, Vec<usize>)> = over;
        for (attempt, children) in over {
            let (mut outputs, mut failed) = (Vec::new(), 0);
            for child in &children {
                match &self.executions[*child].execution.header.outcome {
                    Some(Outcome::Succeeded { output }) => outputs.push(output.to_string()),
                    _ => failed += 1,
                }
            }
            let header = &self.executions[at].execution.header;
            assert!(header.outcome.is_none());
            let failure = map_run::threshold_exceeded();
            let event = match failed {
                0 => Event::TaskSucceeded { attempt, output: format!("[{}]", outputs.join(",")).into() },
                _ => Event::TaskFailed { attempt, error: failure.error, cause: failure.cause },
            };
            self.later(0, at, event);
        }
    }

    fn play(&mut self, at: usize, task: RunTask) {
        let attempt = task.attempt;
        if let Some(run) = map_run::run_of(&task.resource) {
            return self.run_map(at, run, &task);
        }
        if task.resource.contains(":activity:") {
            let arn = task.resource.clone();
            self.activities.entry(arn.clone()).or_default().push_back((at, task));
            if let Some((poller, attempt, parameters)) = self.polls.get_mut(&arn).and_then(VecDeque::pop_front) {
                self.poll(poller, attempt, &parameters);
            }
            return;
        }
        let parameters: Value = serde_json::from_str(&task.parameters).unwrap();
        let action = task.resource.splitn(6, ':').nth(5).unwrap_or_default().to_owned();
        let answer = match action.as_str() {
            "states:startExecution" | "states:startExecution.sync" => self.nested(at, attempt, &action, &parameters),
            "aws-sdk:sfn:getActivityTask" => return self.poll(at, attempt, &parameters),
            "aws-sdk:sfn:sendTaskSuccess" | "aws-sdk:sfn:sendTaskFailure" | "aws-sdk:sfn:sendTaskHeartbeat" => {
                Some(self.send(&action, &parameters))
            }
            "conveyor:scripted" => scripted(&parameters),
            other => Some(Err(("States.TaskFailed".into(), format!("nobody plays {other}")))),
        };
        let event = match answer {
            None => return,
            Some(Ok(output)) => Event::TaskSucceeded { attempt, output: output.to_string().into() },
            Some(Err((error, cause))) => Event::TaskFailed { attempt, error: Some(error), cause: Some(cause) },
        };
        self.later(0, at, event);
    }

    /// Runs one definition to its end: the events as the API spells them.
    pub fn history_of(&mut self, definition: &Value, input: &str) -> Vec<Value> {
        let machine = self.call("CreateStateMachine", &json!({"definition": definition.to_string()})).unwrap();
        let request = json!({"stateMachineArn": machine["stateMachineArn"], "name": "run", "input": input});
        let execution = self.call("StartExecution", &request).unwrap();
        let history = self.call("GetExecutionHistory", &json!({"executionArn": execution["executionArn"]})).unwrap();
        history["events"].as_array().unwrap().clone()
    }

    fn nested(
        &mut self,
        at: usize,
        attempt: Attempt,
        action: &str,
        parameters: &Value,
    ) -> Option<Result<Value, (String, String)>> {
        let arn = parameters["StateMachineArn"].as_str().unwrap_or_default().to_owned();
        if !self.machines.contains_key(&arn) {
            return Some(Err((
                "StepFunctions.StateMachineDoesNotExistException".into(),
                format!(
                    "State Machine Does Not Exist: '{arn}' (Service: AWSStepFunctions; Status Code: 400; Error Code: StateMachineDoesNotExist; Request ID: 1; Proxy: null)"
                ),
            )));
        }
        let input = match &parameters["Input"] {
            Value::Null => "{}".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let waits = action.ends_with(".sync");
        let name = parameters["Name"].as_str().unwrap_or("nested").to_owned();
        let child = self.start(&arn, name, &input, waits.then_some((at, attempt)));
        let output = json!({
            "ExecutionArn": self.arn(child),
            "StartDate": 1,
        });
        if !waits {
            return Some(Ok(output));
        }
        self.later(0, at, Event::TaskSubmitted { attempt, output: output.to_string().into() });
        None
    }

    fn deliver(&mut self, at: usize, outcome: &Outcome) {
        if let Some(child) = self.executions[at].execution.header.child.clone() {
            return self.end_map_runs(child.parent.0 as usize - 1);
        }
        let Some((parent, attempt)) = self.executions[at].parent else { return };
        let header = &self.executions[at].execution.header;
        let mut result = json!({
            "ExecutionArn": self.arn(at), "Input": &*header.input, "InputDetails": {"Included": true},
            "Name": header.name, "StateMachineArn": self.executions[at].machine, "StartDate": 1, "StopDate": 2,
        });
        let event = match outcome {
            Outcome::Succeeded { output } => {
                result["Output"] = json!(&**output);
                result["OutputDetails"] = json!({"Included": true});
                result["Status"] = json!("SUCCEEDED");
                Event::TaskSucceeded { attempt, output: result.to_string().into() }
            }
            Outcome::Failed { error, cause }
            | Outcome::TimedOut { error, cause }
            | Outcome::Aborted { error, cause } => {
                result["Error"] = json!(error);
                result["Cause"] = json!(cause);
                result["Status"] = json!("FAILED");
                let error = Some("States.TaskFailed".to_owned());
                Event::TaskFailed { attempt, error, cause: Some(result.to_string()) }
            }
        };
        self.later(0, parent, event);
    }

    fn poll(&mut self, poller: usize, poll: Attempt, parameters: &Value) {
        let arn = parameters["ActivityArn"].as_str().unwrap_or_default();
        let Some((at, task)) = self.activities.get_mut(arn).and_then(VecDeque::pop_front) else {
            let polls = self.polls.entry(arn.to_owned()).or_default();
            return polls.push_back((poller, poll, parameters.clone()));
        };
        let worker = parameters["WorkerName"].as_str().map(str::to_owned);
        self.later(0, at, Event::TaskStarted { attempt: task.attempt, worker });
        let answer = json!({"TaskToken": task.token.unwrap().to_string(), "Input": &*task.parameters});
        self.later(0, poller, Event::TaskSucceeded { attempt: poll, output: answer.to_string().into() });
    }

    fn send(&mut self, action: &str, parameters: &Value) -> Result<Value, (String, String)> {
        let text = |key: &str| parameters[key].as_str().map(str::to_owned);
        let Ok(token) = text("TaskToken").unwrap_or_default().parse::<TaskToken>() else {
            return Err(("Sfn.InvalidTokenException".into(), "Invalid Token: 'Invalid token'".into()));
        };
        let attempt = token.attempt;
        let event = match action.rsplit(':').next() {
            Some("sendTaskSuccess") => {
                Event::TaskSucceeded { attempt, output: text("Output").unwrap_or_default().into() }
            }
            Some("sendTaskFailure") => Event::TaskFailed { attempt, error: text("Error"), cause: text("Cause") },
            _ => Event::HeartbeatSeen { attempt },
        };
        self.later(0, token.execution.0 as usize - 1, event);
        Ok(json!({}))
    }
}

/// A service that does as it is told: `{"output": …}`, `{"error", "cause"}`, `{"bytes": 300000}`; silence otherwise.
fn scripted(parameters: &Value) -> Option<Result<Value, (String, String)>> {
    let text = |key: &str| parameters[key].as_str().unwrap_or_default().to_owned();
    match parameters {
        p if p.get("error").is_some() => Some(Err((text("error"), text("cause")))),
        p if p.get("output").is_some() => Some(Ok(p["output"].clone())),
        p if p.get("bytes").is_some() => Some(Ok(json!("x".repeat(p["bytes"].as_u64().unwrap() as usize)))),
        _ => None,
    }
}

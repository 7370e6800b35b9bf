//! How data goes through a state: InputPath, Parameters, ResultSelector, ResultPath, OutputPath, Assign
//! (specification, "Input and Output Processing").

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::context;
use super::draft::{Draft, Payload};
use super::event::Json;
use super::inspect::Watch;
use super::raise::{RUNTIME, Raised};
use crate::asl::{InputPath, Query, ResultPath, Scope, State, Template, Variables};
use crate::base::{BranchId, EventId, TaskToken, limits};

/// What the expressions of a state may look at, but for the input.
pub(super) struct Surroundings {
    context: Arc<Value>,
    variables: Variables,
    seed: u64,
    entered: EventId,
    watch: Option<Watch>,
}

/// A state's output on its way to the next one.
pub(super) struct Output {
    pub payload: Payload,
    pub assigned: Vec<(String, Arc<Value>, Json)>,
}

impl Surroundings {
    pub fn of(draft: &mut Draft, id: BranchId, token: Option<TaskToken>) -> Surroundings {
        let (seed, watch) = (draft.draw(), draft.trial.clone());
        let Some(branch) = draft.branch(id).cloned() else {
            return Surroundings {
                context: Arc::new(Value::Null),
                variables: Variables::new(),
                seed,
                entered: EventId(0),
                watch,
            };
        };
        // Making it reads the execution's whole input, so only a state that asks for it pays.
        let given = watch.as_ref().map(Watch::context);
        let context = match draft.machine.state(&branch.state).is_some_and(State::reads_context) {
            true => context::of(draft, &branch, token),
            false => Arc::new(Value::Null),
        };
        let context = given.unwrap_or(context);
        Surroundings { watch, context, entered: branch.state_entered_event, variables: branch.variables, seed }
    }

    /// Where a state is tried out: shows what its data is at a point on the way.
    pub fn note(&self, what: &'static str, value: &Arc<Value>) {
        if let Some(watch) = &self.watch {
            watch.note(what, value);
        }
    }

    pub fn note_with(&self, what: &'static str, value: impl FnOnce() -> Value) {
        if let Some(watch) = &self.watch {
            watch.note(what, &Arc::new(value()));
        }
    }

    /// The same with another `$$.Map.Item`.
    pub fn with_item(mut self, index: u32, item: &Value) -> Surroundings {
        if let Value::Object(fields) = Arc::make_mut(&mut self.context) {
            fields.insert("Map".into(), serde_json::json!({"Item": {"Index": index, "Value": item}}));
        }
        self
    }

    pub fn scope<'s>(&'s self, input: &'s Value) -> Scope<'s> {
        Scope::new(input, &self.context, &self.variables, self.seed)
    }

    /// AWS's sentence around what an expression said.
    pub fn raised(&self, state: &State, error: &str, message: &str) -> Raised {
        Raised::in_state(&state.name, self.entered, error, message)
    }

    fn path<T>(&self, state: &State, result: Result<T, crate::asl::EvalError>) -> Result<T, Raised> {
        result.map_err(|e| self.raised(state, e.error, &e.message))
    }

    /// The effective input: InputPath applied to the raw input.
    pub fn input(&self, state: &State, raw: &Arc<Value>) -> Result<Arc<Value>, Raised> {
        let input = self.through(state, &state.flow.input_path, raw)?;
        self.note("afterInputPath", &input);
        Ok(input)
    }

    pub fn parameters(&self, state: &State, input: &Arc<Value>) -> Result<Arc<Value>, Raised> {
        let parameters = match &state.flow.parameters {
            None => input.clone(),
            Some(template) => self.template(state, template, input)?,
        };
        self.note("afterParameters", &parameters);
        Ok(parameters)
    }

    pub fn template(&self, state: &State, template: &Template, input: &Value) -> Result<Arc<Value>, Raised> {
        self.path(state, template.eval(&self.scope(input))).map(Arc::new)
    }

    fn through(&self, state: &State, path: &InputPath, value: &Arc<Value>) -> Result<Arc<Value>, Raised> {
        match path {
            InputPath::Whole => Ok(value.clone()),
            InputPath::Discard => Ok(Arc::new(Value::Object(Default::default()))),
            InputPath::Path(path) => self.path(state, path.eval(&self.scope(value))).map(Arc::new),
        }
    }

    /// From a state's result to its output.
    pub fn result(&self, state: &State, raw: &Arc<Value>, result: Arc<Value>) -> Result<Output, Raised> {
        let result = match &state.flow.result_selector {
            None => result,
            Some(template) => self.template(state, template, &result)?,
        };
        self.note("afterResultSelector", &result);
        let assigned = self.assigned(state, state.flow.assign.as_ref(), &result)?;
        let placed = self.placed(&state.flow.result_path, raw, result)?;
        self.note("afterResultPath", &placed);
        let output = self.through(state, &state.flow.output_path, &placed)?;
        Ok(Output { payload: self.bounded(state, output)?, assigned })
    }

    /// Of states that have no result: the effective input, through OutputPath.
    pub fn pass_on(&self, state: &State, input: &Arc<Value>) -> Result<Output, Raised> {
        let assigned = self.assigned(state, state.flow.assign.as_ref(), input)?;
        let output = self.through(state, &state.flow.output_path, input)?;
        Ok(Output { payload: self.bounded(state, output)?, assigned })
    }

    pub fn placed(&self, place: &ResultPath, raw: &Arc<Value>, result: Arc<Value>) -> Result<Arc<Value>, Raised> {
        match place {
            ResultPath::Whole => Ok(result),
            ResultPath::Discard => Ok(raw.clone()),
            ResultPath::Into(path) => {
                let result = Arc::try_unwrap(result).unwrap_or_else(|shared| (*shared).clone());
                path.insert((**raw).clone(), result).map(Arc::new).map_err(Raised::result_path)
            }
        }
    }

    pub fn assigned(
        &self,
        state: &State,
        assign: Option<&Template>,
        input: &Value,
    ) -> Result<Vec<(String, Arc<Value>, Json)>, Raised> {
        let Some(template) = assign else { return Ok(Vec::new()) };
        match self.path(state, template.eval(&self.scope(input)))? {
            Value::Object(fields) => Ok(fields
                .into_iter()
                .map(|(name, value)| {
                    let text = value.to_string().into();
                    (name, Arc::new(value), text)
                })
                .collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// What a field that ends in `Path` refers to.
    pub fn referenced<'v>(
        &'v self,
        state: &State,
        field: &str,
        query: &Query,
        input: &'v Value,
    ) -> Result<Cow<'v, Value>, Raised> {
        query.get(&self.scope(input)).map_err(|_| {
            let message = format!("The {field} parameter does not reference an input value: {}", query.text());
            self.raised(state, RUNTIME, &message)
        })
    }

    /// A number of seconds that a `…SecondsPath` refers to.
    pub fn seconds(&self, state: &State, field: &str, query: &Query, input: &Value) -> Result<i64, Raised> {
        let path = query.text();
        let value = self.referenced(state, field, query, input)?;
        let message = match value.as_i64() {
            Some(seconds) if seconds >= 0 => return Ok(seconds),
            Some(seconds) => format!("The {field} parameter references a negative value: {path} == {seconds}"),
            None => format!("The {field} parameter cannot be parsed as a long value: {path} == {value}"),
        };
        Err(self.raised(state, RUNTIME, &message))
    }

    pub fn bounded(&self, state: &State, value: Arc<Value>) -> Result<Payload, Raised> {
        let payload = Payload::of(value);
        match payload.text.len() <= limits::PAYLOAD_BYTES_MAX {
            true => Ok(payload),
            false => Err(Raised::too_large(&state.name)),
        }
    }
}

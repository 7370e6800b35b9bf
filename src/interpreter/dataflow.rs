//! How data goes through a state: InputPath, Parameters, ResultSelector, ResultPath, OutputPath, Assign
//! (specification, "Input and Output Processing").

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use conveyor_asl::{Effort, EvalError, InputPath, Query, QueryLanguage, ResultPath, Scope, State, Template, Variables};
use conveyor_base::{BranchId, EventId, TaskToken, limits};
use serde_json::Value;

use super::context;
use super::draft::{Draft, Payload};
use super::event::Json;
use super::execution::Item;
use super::observer::Observer;
use super::raise::{RUNTIME, Raised};

/// How many bytes of a payload's text are made in a unit of [`Effort`].
const BYTES_PER_UNIT: u64 = 32;

/// What the expressions of a state may look at, but for the input.
pub(super) struct Surroundings<'e> {
    effort: &'e Effort,
    context: Arc<Value>,
    variables: Variables,
    seed: u64,
    now_ms: i64,
    entered: EventId,
}

/// A state's output on its way to the next one.
pub(super) struct Output {
    pub payload: Payload,
    pub assigned: Vec<Assigned>,
}

/// A variable: its name, its value, and that as text.
pub(super) type Assigned = (String, Arc<Value>, Json);

impl<'e> Surroundings<'e> {
    pub fn of(draft: &mut Draft<'e, impl Observer>, id: BranchId, token: Option<TaskToken>) -> Surroundings<'e> {
        let effort = draft.effort;
        let seed = draft.draw();
        let Some(branch) = draft.branch(id).cloned() else {
            return Surroundings {
                effort,
                context: Arc::new(Value::Null),
                variables: Variables::new(),
                seed,
                now_ms: draft.at.0,
                entered: EventId(0),
            };
        };
        let read = draft.machine.state(&branch.state).map(State::context_use).unwrap_or_default();
        let context = context::of(draft, &branch, token, read);
        Surroundings {
            effort,
            context,
            entered: branch.state_entered_event,
            variables: branch.variables,
            seed,
            now_ms: draft.at.0,
        }
    }

    /// Turns to another `$$.Map.Item`.
    pub fn set_item(&mut self, index: u32, item: &Item) {
        if let Value::Object(fields) = Arc::make_mut(&mut self.context) {
            fields.insert("Map".into(), context::map_part(index, item));
        }
    }

    /// The same, drawing from other randomness: what is decided twice is decided the same.
    pub fn seeded(self, seed: u64) -> Surroundings<'e> {
        Surroundings { seed, ..self }
    }

    pub fn scope<'s>(&'s self, input: &'s Value) -> Scope<'s> {
        Scope::new(input, &self.context, &self.variables, self.seed).at(self.now_ms).within(self.effort)
    }

    /// AWS's sentence around what an expression said.
    pub fn raised(&self, state: &State, error: &str, message: &str) -> Raised {
        Raised::in_state(&state.name, self.entered, error, message)
    }

    /// What a failed expression raises.
    pub fn failed(&self, state: &State, failed: EvalError) -> Raised {
        let raised = self.raised(state, failed.error, &failed.message);
        match failed.location {
            None => raised,
            location => raised.evaluating(location),
        }
    }

    fn evaluated<T>(&self, state: &State, result: Result<T, EvalError>) -> Result<T, Raised> {
        result.map_err(|failed| self.failed(state, failed))
    }

    /// The effective input: InputPath applied to the raw input.
    pub fn input(&self, seen: &mut impl Observer, state: &State, raw: &Arc<Value>) -> Result<Arc<Value>, Raised> {
        let input = self.through(state, &state.flow.input_path, raw)?;
        seen.observe("afterInputPath", || input.clone());
        Ok(input)
    }

    pub fn parameters(
        &self,
        seen: &mut impl Observer,
        state: &State,
        input: &Arc<Value>,
    ) -> Result<Arc<Value>, Raised> {
        let parameters = match &state.flow.parameters {
            None => input.clone(),
            Some(template) => self.template(state, template, input)?,
        };
        match state.query_language {
            QueryLanguage::JsonPath => seen.observe("afterParameters", || parameters.clone()),
            QueryLanguage::Jsonata if state.flow.parameters.is_some() => {
                seen.observe("afterArguments", || parameters.clone())
            }
            QueryLanguage::Jsonata => {}
        }
        Ok(parameters)
    }

    pub fn template(&self, state: &State, template: &Template, input: &Value) -> Result<Arc<Value>, Raised> {
        self.evaluated(state, template.eval(&self.scope(input))).map(Arc::new)
    }

    fn through(&self, state: &State, path: &InputPath, value: &Arc<Value>) -> Result<Arc<Value>, Raised> {
        match path {
            InputPath::Whole => Ok(value.clone()),
            InputPath::Discard => Ok(Arc::new(Value::Object(Default::default()))),
            InputPath::Path(path) => self.evaluated(state, path.eval(&self.scope(value))).map(Arc::new),
        }
    }

    /// From a state's result to its output.
    pub fn result(
        &self,
        seen: &mut impl Observer,
        state: &State,
        raw: &Arc<Value>,
        result: Arc<Value>,
    ) -> Result<Output, Raised> {
        let flow = &state.flow;
        if state.query_language == QueryLanguage::Jsonata {
            let scope = self.scope(raw).with_result(&result);
            return self.shaped(state, &scope, flow.assign.as_ref(), flow.output.as_ref(), &result);
        }
        let result = match &flow.result_selector {
            None => result,
            Some(template) => self.template(state, template, &result)?,
        };
        seen.observe("afterResultSelector", || result.clone());
        let assigned = self.assigned(state, flow.assign.as_ref(), &self.scope(&result))?;
        let placed = self.placed(&flow.result_path, raw, result)?;
        seen.observe("afterResultPath", || placed.clone());
        let output = self.through(state, &flow.output_path, &placed)?;
        Ok(Output { payload: self.bounded(state, output)?, assigned })
    }

    /// Of states that have no result: the effective input, through OutputPath or Output.
    pub fn pass_on(&self, state: &State, input: &Arc<Value>) -> Result<Output, Raised> {
        self.passed(state, input, state.flow.assign.as_ref(), state.flow.output.as_ref())
    }

    /// As [`Surroundings::pass_on`], with the Assign and Output of a choice rule.
    pub fn passed(
        &self,
        state: &State,
        input: &Arc<Value>,
        assign: Option<&Template>,
        output: Option<&Template>,
    ) -> Result<Output, Raised> {
        if state.query_language == QueryLanguage::Jsonata {
            return self.shaped(state, &self.scope(input), assign, output, input);
        }
        let assigned = self.assigned(state, assign, &self.scope(input))?;
        let output = self.through(state, &state.flow.output_path, input)?;
        Ok(Output { payload: self.bounded(state, output)?, assigned })
    }

    /// JSONata's Assign and Output. Both see the variables as they were.
    pub fn shaped(
        &self,
        state: &State,
        scope: &Scope,
        assign: Option<&Template>,
        output: Option<&Template>,
        default: &Arc<Value>,
    ) -> Result<Output, Raised> {
        let assigned = self.assigned(state, assign, scope)?;
        let output = match output {
            None => default.clone(),
            Some(template) => self.evaluated(state, template.eval(scope)).map(Arc::new)?,
        };
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

    /// What Assign assigns; all of it together is no larger than a payload may be, and what the line of control then has is
    /// bounded too: each of its steps stores it anew.
    pub fn assigned(&self, state: &State, assign: Option<&Template>, scope: &Scope) -> Result<Vec<Assigned>, Raised> {
        let Some(template) = assign else { return Ok(Vec::new()) };
        let Value::Object(fields) = self.evaluated(state, template.eval(scope))? else { return Ok(Vec::new()) };
        if fields.values().any(|value| is_too_deep(value, 1)) {
            return Err(Raised::too_deep(&state.name));
        }
        let assigned: Vec<Assigned> = fields
            .into_iter()
            .map(|(name, value)| {
                let text = value.to_string().into();
                (name, Arc::new(value), text)
            })
            .collect();
        let bytes: usize = assigned.iter().map(|(_, _, text)| text.len()).sum();
        if bytes > limits::quotas().payload_bytes() {
            return Err(Raised::too_large(&state.name));
        }
        let kept = self.variables.iter().filter(|(name, _)| assigned.iter().all(|(new, ..)| new != *name));
        let bytes = kept.fold(bytes, |sum, (_, value)| sum + text_len(value));
        self.effort.spend(bytes as u64 / BYTES_PER_UNIT);
        match bytes <= limits::quotas().variables_bytes() {
            true => Ok(assigned),
            false => Err(Raised::too_many_variables(&state.name, bytes)),
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
            let message = format!("The {field}Path parameter does not reference an input value: {}", query.text());
            self.raised(state, RUNTIME, &message)
        })
    }

    /// A number of seconds that a `…SecondsPath` refers to or an expression gives.
    pub fn seconds(&self, state: &State, field: &str, query: &Query, input: &Value) -> Result<i64, Raised> {
        if let Query::Jsonata(expression) = query {
            let value = self.evaluated(state, expression.eval_as("number", &self.scope(input)))?;
            let message = match value.as_i64() {
                Some(seconds) if seconds >= 0 => return Ok(seconds),
                Some(seconds) => format!("The {field} field references a negative value: {seconds}"),
                None => format!("The {field} field cannot be parsed as a long value: {value}"),
            };
            return Err(self.failed(state, expression.refused(&message)));
        }
        let path = query.text();
        let value = self.referenced(state, field, query, input)?;
        let message = match value.as_i64() {
            Some(seconds) if seconds >= 0 => return Ok(seconds),
            Some(seconds) => format!("The {field}Path parameter references a negative value: {path} == {seconds}"),
            None => format!("The {field}Path parameter cannot be parsed as a long value: {path} == {value}"),
        };
        Err(self.raised(state, RUNTIME, &message))
    }

    pub fn bounded(&self, state: &State, value: Arc<Value>) -> Result<Payload, Raised> {
        if is_too_deep(&value, 0) {
            return Err(Raised::too_deep(&state.name));
        }
        let payload = Payload::of(value);
        self.effort.spend(payload.text.len() as u64 / BYTES_PER_UNIT);
        match payload.text.len() <= limits::quotas().payload_bytes() {
            true => Ok(payload),
            false => Err(Raised::too_large(&state.name)),
        }
    }
}

/// Bytes of the value's text, which is not made.
fn text_len(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // A value is always JSON.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Whether the value is nested deeper than what may be stored. Looks no deeper than that.
fn is_too_deep(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= limits::PAYLOAD_DEPTH_MAX => true,
        Value::Array(items) => items.iter().any(|item| is_too_deep(item, depth + 1)),
        Value::Object(fields) => fields.values().any(|field| is_too_deep(field, depth + 1)),
        _ => false,
    }
}

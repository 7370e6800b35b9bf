//! What each kind of state does to the data that goes through it.

use serde_json::Value;

use super::findings::{listed, shown};
use super::shape::{FIELDS_MAX, Found, Kinds, Shape};
use super::variables::{Variable, Variables};
use super::{Exit, Finding, Flow, Point};
use crate::machine::*;
use crate::path::Root;
use crate::template::{Node, Segment};
use crate::{Jsonata, Path, Query, Template};

/// A field that is read: where it stands, and what it may look at.
#[derive(Clone, Copy)]
pub(super) struct Reading<'r> {
    pub state: &'r State,
    /// Below the state, to the object around the field.
    pub place: &'r [Segment],
    /// What `$` stands for.
    pub input: &'r Shape,
    pub point: &'r Point,
    /// Whether the field is evaluated whenever the state is entered.
    pub certain: bool,
}

impl Flow<'_> {
    /// Where the state leads, and with what.
    pub(super) fn exits(&mut self, state: &State, point: Point) -> Vec<(Exit, Point)> {
        let input = self.through(state, "InputPath", &state.flow.input_path, &point.data, &point);
        let mut exits = match &state.kind {
            Kind::Choice(choice) => self.choose(state, choice, &input, &point),
            Kind::Fail { error, cause } => {
                self.text(state, "Error", error, &point);
                self.text(state, "Cause", cause, &point);
                Vec::new()
            }
            Kind::Succeed => {
                let flow = &state.flow;
                vec![(Exit::End, self.pass_on(state, &[], None, flow.output.as_ref(), &input, &point))]
            }
            Kind::Wait(wait) => {
                if let Wait::SecondsQuery(query) | Wait::TimestampQuery(query) = wait {
                    let field = if matches!(wait, Wait::SecondsQuery(_)) { "Seconds" } else { "Timestamp" };
                    self.refers(state, field, query, &input, &point);
                }
                let flow = &state.flow;
                let passed = self.pass_on(state, &[], flow.assign.as_ref(), flow.output.as_ref(), &input, &point);
                vec![(onwards(state), passed)]
            }
            Kind::Pass { result } => vec![(onwards(state), self.pass(state, result.as_ref(), &input, &point))],
            Kind::Task(_) | Kind::Parallel(_) | Kind::Map(_) => {
                let result = self.result_of(state, &input, &point);
                match result {
                    Some(result) => vec![(onwards(state), self.result(state, result, &point))],
                    // A branch of it never ends well.
                    None => Vec::new(),
                }
            }
        };
        for at in 0..state.catch.len() {
            if !self.budget.spend(LIST_WORK) {
                break;
            }
            exits.push(self.caught(state, at, &point));
        }
        exits
    }

    fn pass(&mut self, state: &State, result: Option<&Value>, input: &Shape, point: &Point) -> Point {
        if state.query_language == QueryLanguage::Jsonata {
            let flow = &state.flow;
            return self.pass_on(state, &[], flow.assign.as_ref(), flow.output.as_ref(), input, point);
        }
        let parameters = self.parameters(state, input, point);
        let result = match result {
            Some(result) => Shape::of(result, &self.budget),
            None => parameters,
        };
        self.result(state, result, point)
    }

    fn parameters(&mut self, state: &State, input: &Shape, point: &Point) -> Shape {
        let field = if state.query_language == QueryLanguage::Jsonata { "Arguments" } else { "Parameters" };
        match &state.flow.parameters {
            None => input.clone(),
            Some(template) => self.template(state, &[], field, template, input, point, true),
        }
    }

    /// What a Task, Parallel or Map comes to; `None` where it never ends well.
    fn result_of(&mut self, state: &State, input: &Shape, point: &Point) -> Option<Shape> {
        match &state.kind {
            Kind::Task(task) => {
                self.parameters(state, input, point);
                for (field, seconds) in [("TimeoutSeconds", &task.timeout), ("HeartbeatSeconds", &task.heartbeat)] {
                    if let Seconds::Query(query) = seconds {
                        self.refers(state, field, query, input, point);
                    }
                }
                if let Some(credentials) = &task.credentials {
                    // Whether they are evaluated is the resource's affair.
                    self.template(state, &[], "Credentials", credentials, &Shape::any(), point, false);
                }
                Some(Shape::any())
            }
            Kind::Parallel(branches) => {
                let parameters = self.parameters(state, input, point);
                let start = Point { data: parameters, variables: point.variables.clone() };
                let mut ends = Vec::with_capacity(branches.len());
                for branch in branches {
                    if !self.budget.spend(LIST_WORK) {
                        return None;
                    }
                    ends.push(self.processor(&branch.start_at, start.clone()).map(|end| end.data));
                }
                let ends: Option<Vec<Shape>> = ends.into_iter().collect();
                let length = branches.len();
                let budget = &self.budget;
                ends.map(|ends| Shape::array(ends.into_iter().reduce(|a, b| a.or(&b, budget)), Some(length), budget))
            }
            Kind::Map(map) => {
                let item = self.items(state, map, input, point);
                let variables = match map.processor.mode {
                    ProcessorMode::Inline => point.variables.clone(),
                    ProcessorMode::Distributed => Variables::default(),
                };
                let end = self.processor(&map.processor.start_at, Point { data: item, variables });
                // An iteration that never ends well may be tolerated, or there may be none.
                let items = match (map.processor.mode, end) {
                    (ProcessorMode::Inline, Some(end)) if !tolerates(map) => Some(end.data),
                    _ => None,
                };
                match &map.distributed.writer {
                    // A ResultWriter's answer is an object.
                    Some(_) => Some(Shape::any()),
                    None => Some(Shape::array(items, None, &self.budget)),
                }
            }
            _ => Some(Shape::any()),
        }
    }

    /// What an iteration begins with.
    fn items(&mut self, state: &State, map: &Map, input: &Shape, point: &Point) -> Shape {
        let reading = Reading { state, place: &[], input, point, certain: true };
        let reads_elsewhere = map.distributed.reader.is_some();
        let items = match &map.items {
            _ if reads_elsewhere => Shape::any(),
            Items::Input => input.clone(),
            Items::Query(Query::Path(path)) => self.path(path, "ItemsPath", &reading).unwrap_or_else(Shape::any),
            Items::Query(query) => {
                self.query(query, "ItemsPath", &reading);
                Shape::any()
            }
            Items::Template(template) => self.template(state, &[], "Items", template, input, point, true),
        };
        if items.length() == Some(0) {
            self.report(state, &[], "", "MAP_HAS_NO_ITEMS", "There is never an item: the Map does nothing.", false);
        }
        let counts = [
            ("MaxConcurrency", &map.max_concurrency),
            ("ToleratedFailureCount", &map.tolerated_failure_count),
            ("ToleratedFailurePercentage", &map.tolerated_failure_percentage),
        ];
        for (field, count) in counts {
            if let Count::Query(query) = count {
                self.refers(state, field, query, input, point);
            }
        }
        let selected = match &map.item_selector {
            None => items.item(),
            // With no item at all it is not evaluated.
            Some(selector) => self.template(state, &[], "ItemSelector", selector, input, point, false),
        };
        let batches = map.distributed.batcher.is_some();
        if batches { Shape::any() } else { selected }
    }

    /// From a state's result to what the next one gets.
    fn result(&mut self, state: &State, result: Shape, point: &Point) -> Point {
        let flow = &state.flow;
        if state.query_language == QueryLanguage::Jsonata {
            return self.shaped(state, &[], flow.assign.as_ref(), flow.output.as_ref(), result, point);
        }
        let result = match &flow.result_selector {
            None => result,
            Some(template) => self.template(state, &[], "ResultSelector", template, &result, point, true),
        };
        let variables = self.assign(state, &[], flow.assign.as_ref(), &result, point);
        let placed = self.placed(state, &[], &flow.result_path, result, point);
        let data = self.through(state, "OutputPath", &flow.output_path, &placed, point);
        Point { data, variables }
    }

    /// Of states and rules that have no result.
    pub(super) fn pass_on(
        &mut self,
        state: &State,
        place: &[Segment],
        assign: Option<&Template>,
        output: Option<&Template>,
        input: &Shape,
        point: &Point,
    ) -> Point {
        if state.query_language == QueryLanguage::Jsonata {
            return self.shaped(state, place, assign, output, input.clone(), point);
        }
        let variables = self.assign(state, place, assign, input, point);
        let data = self.through(state, "OutputPath", &state.flow.output_path, input, point);
        Point { data, variables }
    }

    fn shaped(
        &mut self,
        state: &State,
        place: &[Segment],
        assign: Option<&Template>,
        output: Option<&Template>,
        default: Shape,
        point: &Point,
    ) -> Point {
        let any = Shape::any();
        let variables = self.assign(state, place, assign, &any, point);
        let data = match output {
            None => default,
            Some(template) => self.template(state, place, "Output", template, &any, point, false),
        };
        Point { data, variables }
    }

    fn caught(&mut self, state: &State, at: usize, point: &Point) -> (Exit, Point) {
        let catcher = &state.catch[at];
        let place = [Segment::Key("Catch".into()), Segment::Index(at)];
        let error = self.error.clone();
        let exit = Exit::To(catcher.next.clone());
        let passed = match state.query_language {
            QueryLanguage::Jsonata => {
                self.shaped(state, &place, catcher.assign.as_ref(), catcher.output.as_ref(), error, point)
            }
            QueryLanguage::JsonPath => {
                let variables = self.assign(state, &place, catcher.assign.as_ref(), &error, point);
                let data = self.placed(state, &place, &catcher.result_path, error, point);
                Point { data, variables }
            }
        };
        (exit, passed)
    }

    fn placed(&mut self, state: &State, place: &[Segment], to: &ResultPath, result: Shape, point: &Point) -> Shape {
        match to {
            ResultPath::Whole => result,
            ResultPath::Discard => point.data.clone(),
            ResultPath::Into(path) => point.data.insert(path.path(), result, &self.budget).unwrap_or_else(|| {
                if self.speaks() {
                    let words = format!(
                        "The result cannot be put at '{}': what reaches the state has something else in the way.",
                        shown(path.text())
                    );
                    self.report(state, place, "ResultPath", "RESULT_HAS_NO_PLACE", &words, place.is_empty());
                }
                Shape::any()
            }),
        }
    }

    fn through(&mut self, state: &State, field: &str, path: &InputPath, data: &Shape, point: &Point) -> Shape {
        match path {
            InputPath::Whole => data.clone(),
            InputPath::Discard => Shape::object([], &self.budget),
            InputPath::Path(path) => {
                let reading = Reading { state, place: &[], input: data, point, certain: true };
                self.path(path, field, &reading).unwrap_or_else(Shape::any)
            }
        }
    }

    fn assign(
        &mut self,
        state: &State,
        place: &[Segment],
        assign: Option<&Template>,
        input: &Shape,
        point: &Point,
    ) -> Variables {
        let mut variables = point.variables.clone();
        let Some(template) = assign else { return variables };
        // A Choice's own Assign is for its Default alone.
        let always = state.query_language == QueryLanguage::JsonPath && !matches!(state.kind, Kind::Choice(_));
        let shape = self.template(state, place, "Assign", template, input, point, always && place.is_empty());
        if self.speaks() {
            // Where this leads is known by now.
            return variables;
        }
        for name in template.field_names() {
            let variable = Variable { shape: shape.field(name), always: true };
            variables.insert(name, variable, &self.names, &self.budget);
            if self.budget.is_spent() {
                break;
            }
        }
        variables
    }

    #[allow(clippy::too_many_arguments)]
    fn template(
        &mut self,
        state: &State,
        place: &[Segment],
        field: &str,
        template: &Template,
        input: &Shape,
        point: &Point,
        certain: bool,
    ) -> Shape {
        let mut below = place.to_vec();
        below.push(Segment::Key(field.into()));
        self.node(template.root(), &mut below, "", &Reading { state, place: &[], input, point, certain })
    }

    fn node(&mut self, node: &Node, place: &mut Vec<Segment>, field: &str, reading: &Reading) -> Shape {
        if !self.budget.spend(1) {
            return Shape::any();
        }
        match node {
            Node::Literal(value) => Shape::of(value, &self.budget),
            Node::Array(nodes) => {
                let mut items: Option<Shape> = None;
                for (at, node) in nodes.iter().enumerate() {
                    place.push(Segment::Index(at));
                    let item = self.node(node, place, "", reading);
                    place.pop();
                    items = Some(match items {
                        Some(before) => before.or(&item, &self.budget),
                        None => item,
                    });
                    if self.budget.is_spent() {
                        break;
                    }
                }
                Shape::array(items, Some(nodes.len()), &self.budget)
            }
            Node::Object(fields) => {
                let mut shapes = Vec::new();
                for (name, node) in fields {
                    let inner = matches!(node, Node::Array(_) | Node::Object(_));
                    if inner {
                        place.push(Segment::Key(name.clone()));
                    }
                    let shape = self.node(node, place, name, reading);
                    if inner {
                        place.pop();
                    }
                    if self.budget.is_spent() {
                        break;
                    }
                    // Of more fields than are followed none is.
                    if fields.len() <= FIELDS_MAX {
                        shapes.push((name.clone(), shape, true));
                    }
                }
                match fields.len() <= FIELDS_MAX {
                    true => Shape::object(shapes, &self.budget),
                    false => Shape::some(Kinds::OBJECT),
                }
            }
            Node::Query { field, query } => self.query(query, field, &Reading { place, ..*reading }),
            Node::Expression(expression) => {
                self.expression(expression, field, &Reading { place, ..*reading });
                Shape::any()
            }
        }
    }

    fn query(&mut self, query: &Query, field: &str, reading: &Reading) -> Shape {
        match query {
            Query::Path(path) => self.path(path, field, reading).unwrap_or_else(Shape::any),
            Query::Intrinsic(call) => {
                if self.speaks() {
                    call.each_path(&mut |path| drop(self.path(path, field, reading)));
                }
                Shape::any()
            }
            Query::Jsonata(expression) => {
                self.expression(expression, field, reading);
                Shape::any()
            }
        }
    }

    /// A field in `…Path` or an expression. Whether it looks at the state's input before or after InputPath is not
    /// asked: it must be missing in both.
    fn refers(&mut self, state: &State, field: &str, query: &Query, input: &Shape, point: &Point) {
        if !self.speaks() {
            return;
        }
        let reading = Reading { state, place: &[], input, point, certain: true };
        let field = match query {
            Query::Jsonata(_) => field.to_owned(),
            _ => format!("{field}Path"),
        };
        match query {
            Query::Path(path) if !matches!(self.found(path, &point.data, point), Found::Never) => {
                let quiet = Reading { input: &point.data, ..reading };
                self.path(path, &field, &quiet);
            }
            query => drop(self.query(query, &field, &reading)),
        }
    }

    fn text(&mut self, state: &State, field: &str, text: &Text, point: &Point) {
        if let Text::Query(query) = text {
            self.refers(state, field, query, &point.data, point);
        }
    }

    /// What a path comes to, wherever it begins.
    pub(super) fn found(&self, path: &Path, input: &Shape, point: &Point) -> Found {
        match path.root() {
            Root::Input => input.find(path, &self.budget),
            Root::Context => Found::Value { shape: Shape::any(), always: false },
            Root::Variable(name) => match point.variables.get(name, &self.names) {
                Some(variable) => variable.shape.find(path, &self.budget),
                None => Found::Never,
            },
        }
    }

    /// The same, and says what is wrong with it. `None` where it never finds anything.
    pub(super) fn path(&mut self, path: &Path, field: &str, reading: &Reading) -> Option<Shape> {
        if !self.budget.spend(1 + path.text().len() / BYTES_PER_WORK) {
            return None;
        }
        if let Some(name) = path.variable() {
            match reading.point.variables.get(name, &self.names) {
                None => {
                    let words = format!("The variable '${}' is assigned on no way to this state.", shown(name));
                    self.report(reading.state, reading.place, field, "VARIABLE_NOT_ASSIGNED", &words, reading.certain);
                    return None;
                }
                Some(Variable { always: false, .. }) if self.speaks() => {
                    let words = format!("The variable '${}' is not assigned on every way to this state.", shown(name));
                    self.report(reading.state, reading.place, field, "VARIABLE_MAY_NOT_BE_ASSIGNED", &words, false);
                }
                Some(_) => {}
            }
        }
        match self.found(path, reading.input, reading.point) {
            Found::Value { shape, .. } => Some(shape),
            Found::Never if !self.speaks() => None,
            Found::Never => {
                let known = match (path.root(), reading.input.field_names()) {
                    (Root::Input, Some(names)) if names.len() == 0 => " It is an empty object.".to_owned(),
                    (Root::Input, Some(names)) => format!(" It has the fields: {}.", listed(names)),
                    _ => String::new(),
                };
                let text = shown(path.text());
                let words = format!("The path '{text}' never finds anything in what it is applied to.{known}");
                self.report(reading.state, reading.place, field, "PATH_FINDS_NOTHING", &words, reading.certain);
                None
            }
        }
    }

    /// The variables that an expression reads. One that is not there is nothing, which is no failure by itself.
    pub(super) fn expression(&mut self, expression: &Jsonata, field: &str, reading: &Reading) {
        if !self.speaks() {
            return;
        }
        for name in expression.free_variables() {
            if !self.budget.spend(LIST_WORK + name.len() / BYTES_PER_WORK) {
                return;
            }
            let (code, how) = match reading.point.variables.get(name, &self.names) {
                Some(Variable { always: true, .. }) => continue,
                Some(_) => ("VARIABLE_MAY_NOT_BE_ASSIGNED", "not assigned on every way"),
                None => {
                    // A name that is nowhere assigned may be one of the expression's own.
                    self.budget.spend(expression.text().len() / BYTES_PER_WORK * 8);
                    if self.budget.is_spent() {
                        return;
                    }
                    if !self.names.has(name) && expression.may_bind(name) {
                        continue;
                    }
                    ("VARIABLE_NOT_ASSIGNED", "assigned on no way")
                }
            };
            let words = format!("The variable '${}' is {how} to this state.", shown(name));
            self.report(reading.state, reading.place, field, code, &words, false);
        }
    }

    pub(super) fn report(
        &mut self,
        state: &State,
        place: &[Segment],
        field: &str,
        code: &'static str,
        message: &str,
        certain: bool,
    ) {
        if self.speaks() && self.budget.spend(LIST_WORK + place.len()) {
            let (state, field, message) = (state.name.clone(), field.to_owned(), message.to_owned());
            self.findings.push(Finding { state, place: place.to_vec(), field, code, message, certain });
        }
    }
}

/// What an entry of a list costs beside what it holds.
const LIST_WORK: usize = 4;
/// How much of a text is read for a unit of work.
const BYTES_PER_WORK: usize = 32;

fn onwards(state: &State) -> Exit {
    match &state.transition {
        Some(Transition::Next(next)) => Exit::To(next.clone()),
        _ => Exit::End,
    }
}

fn tolerates(map: &Map) -> bool {
    !matches!(map.tolerated_failure_count, Count::Absent) || !matches!(map.tolerated_failure_percentage, Count::Absent)
}

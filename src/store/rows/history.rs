//! Rows of the event history: the events of one step in one row.
//!
//! An event is a kind number and tagged fields, so that a kind or a field can come in later and old rows stay
//! readable. Texts are pooled: what a state gives back is what the next one is given, and stands in the row once.
//! Invariants: a number or tag, once released, keeps its meaning; the events of a row are numbered without a gap.

use std::sync::Arc;

use conveyor_base::{EventId, Fault, Timestamp};
use conveyor_interpreter::{Failure, HistoryEvent, HistoryKind, Json, StateType};
use rkyv::{Archive, Serialize};

use super::{Row, damaged};
use crate::tables::Table;

#[derive(Archive, Serialize)]
pub(crate) struct HistoryRow {
    /// The number of the first event.
    first: u64,
    events: Vec<EventRow>,
    /// The fields of all events, one event after the other.
    texts: Vec<TextField>,
    numbers: Vec<NumberField>,
    pool: Vec<String>,
}

#[derive(Archive, Serialize)]
struct EventRow {
    /// How many events back its previous one is.
    back: u32,
    at: i64,
    kind: u8,
    /// How many of the fields are its own.
    texts: u32,
    numbers: u8,
}

#[derive(Archive, Serialize)]
struct TextField {
    tag: u8,
    /// Its place in the pool.
    text: u32,
}

#[derive(Archive, Serialize)]
struct NumberField {
    tag: u8,
    number: i64,
}

/// How many of the newest texts are compared before a text is stored anew: enough for the events of a few states.
const POOL_WINDOW: usize = 12;

impl Row for HistoryRow {}

mod tag {
    pub const INPUT: u8 = 1;
    pub const OUTPUT: u8 = 2;
    pub const NAME: u8 = 3;
    pub const ERROR: u8 = 4;
    pub const CAUSE: u8 = 5;
    pub const RESOURCE: u8 = 6;
    pub const RESOURCE_TYPE: u8 = 7;
    pub const REGION: u8 = 8;
    pub const PARAMETERS: u8 = 9;
    pub const ROLE_ARN: u8 = 10;
    pub const WORKER: u8 = 11;
    pub const LOCATION: u8 = 12;
    /// Name and value of an assigned variable follow one another, as often as there are variables.
    pub const ASSIGNED_NAME: u8 = 13;
    pub const ASSIGNED_VALUE: u8 = 14;
    pub const ARN: u8 = 15;

    pub const STATE_TYPE: u8 = 1;
    pub const INDEX: u8 = 2;
    pub const LENGTH: u8 = 3;
    pub const TIMEOUT_SECONDS: u8 = 4;
    pub const HEARTBEAT_SECONDS: u8 = 5;
    pub const REDRIVE_COUNT: u8 = 6;
}

impl HistoryRow {
    pub fn new(events: &[HistoryEvent]) -> HistoryRow {
        let mut fields = Fields::default();
        let first = events.first().map_or(0, |event| event.id.0);
        let events = (first..).zip(events).map(|(id, event)| {
            debug_assert_eq!(event.id.0, id, "the events of a step follow one another");
            let (texts, numbers) = (fields.texts.len(), fields.numbers.len());
            let kind = write_kind(&event.kind, &mut fields);
            EventRow {
                back: (event.id.0 - event.previous.0) as u32,
                at: event.at.0,
                kind,
                texts: (fields.texts.len() - texts) as u32,
                numbers: (fields.numbers.len() - numbers) as u8,
            }
        });
        let events = events.collect();
        HistoryRow { first, events, texts: fields.texts, numbers: fields.numbers, pool: fields.pool }
    }
}

/// The events of a row, oldest first.
pub(crate) fn events_from(row: &ArchivedHistoryRow) -> Result<Vec<HistoryEvent>, Fault> {
    let pool: Vec<Arc<str>> = row.pool.iter().map(|text| Arc::from(text.as_str())).collect();
    let (mut texts, mut numbers) = (row.texts.as_slice(), row.numbers.as_slice());
    let events = (row.first.to_native()..).zip(row.events.iter()).map(|(id, event)| {
        let fields = texts.split_at_checked(event.texts.to_native() as usize);
        let more = numbers.split_at_checked(usize::from(event.numbers));
        let (Some((own_texts, later_texts)), Some((own_numbers, later_numbers))) = (fields, more) else {
            return Err(damaged(Table::History, &format!("event {id} lacks its fields")));
        };
        (texts, numbers) = (later_texts, later_numbers);
        let found = Found { id, kind: event.kind, texts: own_texts, numbers: own_numbers, pool: &pool };
        Ok(HistoryEvent {
            id: EventId(id),
            previous: EventId(id.saturating_sub(event.back.to_native().into())),
            at: Timestamp(event.at.to_native()),
            kind: read_kind(&found)?,
        })
    });
    events.collect()
}

/// When the newest event of a row was.
pub(crate) fn newest_at(row: &ArchivedHistoryRow) -> Option<Timestamp> {
    row.events.last().map(|event| Timestamp(event.at.to_native()))
}

/// Collects the fields of the events.
#[derive(Default)]
struct Fields {
    texts: Vec<TextField>,
    numbers: Vec<NumberField>,
    pool: Vec<String>,
}

impl Fields {
    fn text(&mut self, tag: u8, text: &str) -> &mut Fields {
        let newest = self.pool.iter().enumerate().rev().take(POOL_WINDOW);
        let known = newest.into_iter().find(|(_, known)| known.as_str() == text).map(|(place, _)| place);
        let place = known.unwrap_or_else(|| {
            self.pool.push(text.to_owned());
            self.pool.len() - 1
        });
        self.texts.push(TextField { tag, text: place as u32 });
        self
    }

    fn maybe(&mut self, tag: u8, text: Option<&str>) -> &mut Fields {
        match text {
            Some(text) => self.text(tag, text),
            None => self,
        }
    }

    fn number(&mut self, tag: u8, number: impl Into<i64>) -> &mut Fields {
        self.numbers.push(NumberField { tag, number: number.into() });
        self
    }

    fn seconds(&mut self, tag: u8, seconds: Option<i64>) -> &mut Fields {
        match seconds {
            Some(seconds) => self.number(tag, seconds),
            None => self,
        }
    }

    fn failure(&mut self, failure: &Failure) -> &mut Fields {
        self.maybe(tag::ERROR, failure.error.as_deref()).maybe(tag::CAUSE, failure.cause.as_deref())
    }

    fn resource(&mut self, resource_type: &str, resource: &str) -> &mut Fields {
        self.text(tag::RESOURCE_TYPE, resource_type).text(tag::RESOURCE, resource)
    }

    fn state(&mut self, state_type: StateType) -> &mut Fields {
        self.number(tag::STATE_TYPE, state_type_code(state_type))
    }

    fn iteration(&mut self, name: &str, index: u32) -> &mut Fields {
        self.text(tag::NAME, name).number(tag::INDEX, index)
    }
}

/// Writes a kind's fields and says its number. The numbers are the format; a new kind does not compile until it has
/// one.
fn write_kind(kind: &HistoryKind, f: &mut Fields) -> u8 {
    use HistoryKind as K;
    match kind {
        K::ExecutionStarted { input, role_arn } => {
            f.text(tag::INPUT, input).text(tag::ROLE_ARN, role_arn);
            1
        }
        K::ExecutionSucceeded { output } => {
            f.text(tag::OUTPUT, output);
            2
        }
        K::ExecutionFailed(failure) => failed(f, failure, 3),
        K::ExecutionAborted(failure) => failed(f, failure, 4),
        K::ExecutionTimedOut(failure) => failed(f, failure, 5),
        K::ExecutionRedriven { redrive_count } => {
            f.number(tag::REDRIVE_COUNT, *redrive_count);
            6
        }
        K::StateEntered { state_type, name, input } => {
            f.state(*state_type).text(tag::NAME, name).text(tag::INPUT, input);
            7
        }
        K::StateExited { state_type, name, output, assigned } => {
            f.state(*state_type).text(tag::NAME, name).text(tag::OUTPUT, output);
            for (name, value) in assigned {
                f.text(tag::ASSIGNED_NAME, name).text(tag::ASSIGNED_VALUE, value);
            }
            8
        }
        K::StateAborted { state_type } => {
            f.state(*state_type);
            9
        }
        K::ParallelStateStarted => 10,
        K::ParallelStateSucceeded => 11,
        K::ParallelStateFailed(failure) => failed(f, failure, 12),
        K::MapStateStarted { length } => {
            f.number(tag::LENGTH, *length);
            13
        }
        K::MapStateSucceeded => 14,
        K::MapStateFailed(failure) => failed(f, failure, 15),
        K::MapIterationStarted { name, index } => iteration(f, name, *index, 16),
        K::MapIterationSucceeded { name, index } => iteration(f, name, *index, 17),
        K::MapIterationFailed { name, index } => iteration(f, name, *index, 18),
        K::MapIterationAborted { name, index } => iteration(f, name, *index, 19),
        K::EvaluationFailed { failure, location, state } => {
            f.failure(failure).maybe(tag::LOCATION, location.as_deref()).text(tag::NAME, state);
            42
        }
        K::MapRunStarted { arn } => {
            f.text(tag::ARN, arn);
            43
        }
        K::MapRunSucceeded => 44,
        K::MapRunFailed(failure) => failed(f, failure, 45),
        K::MapRunAborted => 46,
        K::MapRunRedriven { arn, redrive_count } => {
            f.text(tag::ARN, arn).number(tag::REDRIVE_COUNT, *redrive_count);
            47
        }
        K::TaskScheduled { resource_type, resource, region, parameters, timeout_seconds, heartbeat_seconds } => {
            f.resource(resource_type, resource).text(tag::REGION, region).text(tag::PARAMETERS, parameters);
            f.seconds(tag::TIMEOUT_SECONDS, *timeout_seconds).seconds(tag::HEARTBEAT_SECONDS, *heartbeat_seconds);
            20
        }
        K::TaskStarted { resource_type, resource } => {
            f.resource(resource_type, resource);
            21
        }
        K::TaskSubmitted { resource_type, resource, output } => {
            f.resource(resource_type, resource).text(tag::OUTPUT, output);
            22
        }
        K::TaskSucceeded { resource_type, resource, output } => {
            f.resource(resource_type, resource).text(tag::OUTPUT, output);
            23
        }
        K::TaskFailed { resource_type, resource, failure } => failed(f.resource(resource_type, resource), failure, 24),
        K::TaskTimedOut { resource_type, resource, failure } => {
            failed(f.resource(resource_type, resource), failure, 25)
        }
        K::TaskStartFailed { resource_type, resource, failure } => {
            failed(f.resource(resource_type, resource), failure, 26)
        }
        K::TaskSubmitFailed { resource_type, resource, failure } => {
            failed(f.resource(resource_type, resource), failure, 27)
        }
        K::ActivityScheduled { resource, input, timeout_seconds, heartbeat_seconds } => {
            f.text(tag::RESOURCE, resource).text(tag::INPUT, input);
            f.seconds(tag::TIMEOUT_SECONDS, *timeout_seconds).seconds(tag::HEARTBEAT_SECONDS, *heartbeat_seconds);
            28
        }
        K::ActivityStarted { worker } => {
            f.maybe(tag::WORKER, worker.as_deref());
            29
        }
        K::ActivitySucceeded { output } => {
            f.text(tag::OUTPUT, output);
            30
        }
        K::ActivityFailed(failure) => failed(f, failure, 31),
        K::ActivityTimedOut(failure) => failed(f, failure, 32),
        K::ActivityScheduleFailed(failure) => failed(f, failure, 33),
        K::LambdaFunctionScheduled { resource, input, timeout_seconds } => {
            f.text(tag::RESOURCE, resource).text(tag::INPUT, input).seconds(tag::TIMEOUT_SECONDS, *timeout_seconds);
            34
        }
        K::LambdaFunctionStarted => 35,
        K::LambdaFunctionSucceeded { output } => {
            f.text(tag::OUTPUT, output);
            36
        }
        K::LambdaFunctionFailed(failure) => failed(f, failure, 37),
        K::LambdaFunctionTimedOut(failure) => failed(f, failure, 38),
        K::LambdaFunctionScheduleFailed(failure) => failed(f, failure, 39),
        K::LambdaFunctionStartFailed(failure) => failed(f, failure, 40),
    }
}

fn failed(f: &mut Fields, failure: &Failure, number: u8) -> u8 {
    f.failure(failure);
    number
}

fn iteration(f: &mut Fields, name: &str, index: u32, number: u8) -> u8 {
    f.iteration(name, index);
    number
}

/// One event of a row, with the fields that are its own.
struct Found<'a> {
    id: u64,
    kind: u8,
    texts: &'a [ArchivedTextField],
    numbers: &'a [ArchivedNumberField],
    pool: &'a [Json],
}

impl Found<'_> {
    fn pooled(&self, field: &ArchivedTextField) -> Option<&Json> {
        self.pool.get(field.text.to_native() as usize)
    }

    fn find(&self, tag: u8) -> Option<&Json> {
        self.texts.iter().find(|f| f.tag == tag).and_then(|f| self.pooled(f))
    }

    fn json(&self, tag: u8) -> Result<Json, Fault> {
        let found = self.find(tag).cloned();
        found.ok_or_else(|| damaged(Table::History, &format!("event {} lacks text {tag}", self.id)))
    }

    fn owned(&self, tag: u8) -> Result<String, Fault> {
        self.json(tag).map(|text| text.to_string())
    }

    fn maybe(&self, tag: u8) -> Option<String> {
        self.find(tag).map(|text| text.to_string())
    }

    fn seconds(&self, tag: u8) -> Option<i64> {
        self.numbers.iter().find(|f| f.tag == tag).map(|f| f.number.to_native())
    }

    fn number(&self, tag: u8) -> Result<u32, Fault> {
        let found = self.seconds(tag).and_then(|n| u32::try_from(n).ok());
        found.ok_or_else(|| damaged(Table::History, &format!("event {} lacks number {tag}", self.id)))
    }

    fn failure(&self) -> Failure {
        Failure { error: self.maybe(tag::ERROR), cause: self.maybe(tag::CAUSE) }
    }

    fn state_type(&self) -> Result<StateType, Fault> {
        let code = self.number(tag::STATE_TYPE)?;
        let found = STATE_TYPES.get(code as usize).copied();
        found.ok_or_else(|| damaged(Table::History, &format!("event {} is of a state type {code}", self.id)))
    }

    fn assigned(&self) -> Vec<(String, Json)> {
        let of = |tag| self.texts.iter().filter(move |f| f.tag == tag).filter_map(|f| self.pooled(f));
        of(tag::ASSIGNED_NAME).map(|name| name.to_string()).zip(of(tag::ASSIGNED_VALUE).cloned()).collect()
    }
}

const STATE_TYPES: [StateType; 8] = [
    StateType::Task,
    StateType::Choice,
    StateType::Wait,
    StateType::Parallel,
    StateType::Map,
    StateType::Pass,
    StateType::Succeed,
    StateType::Fail,
];

fn state_type_code(state_type: StateType) -> u32 {
    match state_type {
        StateType::Task => 0,
        StateType::Choice => 1,
        StateType::Wait => 2,
        StateType::Parallel => 3,
        StateType::Map => 4,
        StateType::Pass => 5,
        StateType::Succeed => 6,
        StateType::Fail => 7,
    }
}

fn read_kind(row: &Found<'_>) -> Result<HistoryKind, Fault> {
    use HistoryKind as K;
    Ok(match row.kind {
        1 => K::ExecutionStarted { input: row.json(tag::INPUT)?, role_arn: row.owned(tag::ROLE_ARN)? },
        2 => K::ExecutionSucceeded { output: row.json(tag::OUTPUT)? },
        3 => K::ExecutionFailed(row.failure()),
        4 => K::ExecutionAborted(row.failure()),
        5 => K::ExecutionTimedOut(row.failure()),
        6 => K::ExecutionRedriven { redrive_count: row.number(tag::REDRIVE_COUNT)? },
        7 => {
            K::StateEntered { state_type: row.state_type()?, name: row.json(tag::NAME)?, input: row.json(tag::INPUT)? }
        }
        8 => K::StateExited {
            state_type: row.state_type()?,
            name: row.json(tag::NAME)?,
            output: row.json(tag::OUTPUT)?,
            assigned: row.assigned(),
        },
        9 => K::StateAborted { state_type: row.state_type()? },
        10 => K::ParallelStateStarted,
        11 => K::ParallelStateSucceeded,
        12 => K::ParallelStateFailed(row.failure()),
        13 => K::MapStateStarted { length: row.number(tag::LENGTH)? },
        14 => K::MapStateSucceeded,
        15 => K::MapStateFailed(row.failure()),
        16 => K::MapIterationStarted { name: row.json(tag::NAME)?, index: row.number(tag::INDEX)? },
        17 => K::MapIterationSucceeded { name: row.json(tag::NAME)?, index: row.number(tag::INDEX)? },
        18 => K::MapIterationFailed { name: row.json(tag::NAME)?, index: row.number(tag::INDEX)? },
        19 => K::MapIterationAborted { name: row.json(tag::NAME)?, index: row.number(tag::INDEX)? },
        42 => K::EvaluationFailed {
            failure: row.failure(),
            location: row.maybe(tag::LOCATION),
            state: row.json(tag::NAME)?,
        },
        43 => K::MapRunStarted { arn: row.owned(tag::ARN)? },
        44 => K::MapRunSucceeded,
        45 => K::MapRunFailed(row.failure()),
        46 => K::MapRunAborted,
        47 => K::MapRunRedriven { arn: row.owned(tag::ARN)?, redrive_count: row.number(tag::REDRIVE_COUNT)? },
        _ => read_task_kind(row)?,
    })
}

fn read_task_kind(row: &Found<'_>) -> Result<HistoryKind, Fault> {
    use HistoryKind as K;
    let timeout_seconds = row.seconds(tag::TIMEOUT_SECONDS);
    let heartbeat_seconds = row.seconds(tag::HEARTBEAT_SECONDS);
    if (20..=27).contains(&row.kind) {
        let (resource_type, resource) = (row.owned(tag::RESOURCE_TYPE)?, row.owned(tag::RESOURCE)?);
        let failure = row.failure();
        return Ok(match row.kind {
            20 => K::TaskScheduled {
                resource_type,
                resource,
                region: row.owned(tag::REGION)?,
                parameters: row.json(tag::PARAMETERS)?,
                timeout_seconds,
                heartbeat_seconds,
            },
            21 => K::TaskStarted { resource_type, resource },
            22 => K::TaskSubmitted { resource_type, resource, output: row.json(tag::OUTPUT)? },
            23 => K::TaskSucceeded { resource_type, resource, output: row.json(tag::OUTPUT)? },
            24 => K::TaskFailed { resource_type, resource, failure },
            25 => K::TaskTimedOut { resource_type, resource, failure },
            26 => K::TaskStartFailed { resource_type, resource, failure },
            _ => K::TaskSubmitFailed { resource_type, resource, failure },
        });
    }
    Ok(match row.kind {
        28 => K::ActivityScheduled {
            resource: row.owned(tag::RESOURCE)?,
            input: row.json(tag::INPUT)?,
            timeout_seconds,
            heartbeat_seconds,
        },
        29 => K::ActivityStarted { worker: row.maybe(tag::WORKER) },
        30 => K::ActivitySucceeded { output: row.json(tag::OUTPUT)? },
        31 => K::ActivityFailed(row.failure()),
        32 => K::ActivityTimedOut(row.failure()),
        33 => K::ActivityScheduleFailed(row.failure()),
        34 => K::LambdaFunctionScheduled {
            resource: row.owned(tag::RESOURCE)?,
            input: row.json(tag::INPUT)?,
            timeout_seconds,
        },
        35 => K::LambdaFunctionStarted,
        36 => K::LambdaFunctionSucceeded { output: row.json(tag::OUTPUT)? },
        37 => K::LambdaFunctionFailed(row.failure()),
        38 => K::LambdaFunctionTimedOut(row.failure()),
        39 => K::LambdaFunctionScheduleFailed(row.failure()),
        40 => K::LambdaFunctionStartFailed(row.failure()),
        other => {
            let what = format!("event {} is of a kind {other} that this release does not know", row.id);
            return Err(damaged(Table::History, &what));
        }
    })
}

//! Every bound of the program, with its unit in the name and where the figure comes from.
//!
//! A limit is not configuration: an operator who needs another value needs another release, or one of
//! the few settings that the configuration file documents.

/// Largest input or output of a state, in bytes of JSON (AWS: 256 KiB; `States.DataLimitExceeded`).
pub const PAYLOAD_BYTES_MAX: usize = 262_144;
/// Most events in one execution's history (AWS Standard: 25,000).
pub const HISTORY_EVENTS_MAX: u64 = 25_000;
/// Largest definition of a state machine, in bytes (AWS: 1 MiB).
pub const DEFINITION_BYTES_MAX: usize = 1_048_576;
/// Longest name of a state machine, execution or activity, in characters (AWS: 80).
pub const NAME_CHARS_MAX: usize = 80;
/// Longest name of a state, in characters (Amazon States Language specification, "States").
pub const STATE_NAME_CHARS_MAX: usize = 80;
/// Deepest nesting of Parallel and Map that a definition may have.
pub const NESTING_DEPTH_MAX: usize = 32;
/// Deepest nesting of JSON that is read from outside.
pub const JSON_DEPTH_MAX: usize = 100;
/// Longest Wait, in seconds, before AWS says "Wait state delay is too long" (24,855 days).
pub const WAIT_SECONDS_MAX: i64 = 24_855 * 86_400;
/// Most effect-free states that one step runs before it must commit, so that a definition that loops
/// through Pass and Choice for ever cannot hold the machine.
pub const STATES_PER_STEP_MAX: usize = 1_000;
/// Largest request body at the API, in bytes.
pub const REQUEST_BYTES_MAX: usize = 2 * 1_048_576;
/// Longest `error` of a failure, in characters (AWS API reference, SendTaskFailure).
pub const ERROR_CHARS_MAX: usize = 256;
/// Longest `cause` of a failure, in characters (AWS API reference, SendTaskFailure).
pub const CAUSE_CHARS_MAX: usize = 32_768;
/// How much of a child's standard error rides in a failure's cause, in bytes.
pub const STDERR_TAIL_BYTES_MAX: usize = 8_192;
/// Largest line that a child may write on its report pipe, in bytes.
pub const REPORT_LINE_BYTES_MAX: usize = 4 * 1_048_576;
/// How long after its end an unsuccessful execution can be redriven, in milliseconds (AWS: 14 days).
pub const REDRIVABLE_MS: i64 = 14 * 86_400_000;
/// Children of one Map run that are in flight, where the run has no lower bound (AWS: 10,000).
pub const CHILDREN_IN_FLIGHT_MAX: u64 = 10_000;
/// Executions that have started and not ended, above which the API answers 429.
pub const EXECUTIONS_ACTIVE_MAX: usize = 2_000_000;

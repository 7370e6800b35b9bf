//! Every bound of the program, with its unit in the name and where the figure comes from.
//!
//! A limit is not configuration: an operator who needs another value needs another release. Some of AWS's quotas are
//! where a box may be more generous than AWS: [`Quotas`], which are set once, before anything runs, and only upwards.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// `[limits]`: AWS's quotas that a box may raise, and what a file may ask of its decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Largest input or output of a state, in KiB (AWS: 256).
    pub payload_kib: usize,
    /// Most events in the history of a standard execution (AWS: 25,000).
    pub history_events: u64,
    /// Largest definition, in KiB (AWS: 1,024).
    pub definition_kib: usize,
    /// Standard executions that run at the same time.
    pub executions: usize,
    /// Express executions that run at the same time.
    pub express_executions: usize,
    /// Tags of a state machine or activity (AWS: 50).
    pub tags: usize,
    /// Largest picture that is decoded, in pixels: width times height.
    pub pixels: u64,
    /// Most pictures a second, on the average of a file.
    pub frames_per_second: u64,
    /// Most streams of a file.
    pub streams: u64,
}

static QUOTAS: OnceLock<Quotas> = OnceLock::new();

/// Those of this process: AWS's, where none were set.
pub fn quotas() -> &'static Quotas {
    QUOTAS.get_or_init(Quotas::default)
}

/// Sets the quotas of this process. False where they are in use already.
pub fn set_quotas(quotas: Quotas) -> bool {
    QUOTAS.set(quotas).is_ok()
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas {
            payload_kib: PAYLOAD_BYTES_MAX / KIB,
            history_events: HISTORY_EVENTS_MAX,
            definition_kib: DEFINITION_BYTES_MAX / KIB,
            executions: EXECUTIONS_ACTIVE_MAX,
            express_executions: EXPRESS_ACTIVE_MAX,
            tags: TAGS_MAX,
            pixels: PIXELS_MAX,
            frames_per_second: FRAMES_PER_SECOND_MAX,
            streams: STREAMS_MAX,
        }
    }
}

impl Quotas {
    pub fn payload_bytes(&self) -> usize {
        self.payload_kib.saturating_mul(KIB)
    }

    /// Most that the variables of one line of control may make, in bytes of JSON (AWS: 10 MiB, 40 payloads, of all lines of an
    /// execution).
    pub fn variables_bytes(&self) -> usize {
        self.payload_bytes().saturating_mul(40)
    }

    pub fn definition_bytes(&self) -> usize {
        self.definition_kib.saturating_mul(KIB)
    }

    /// Largest request body at the API: a payload or a definition may be escaped in it.
    pub fn request_bytes(&self) -> usize {
        REQUEST_BYTES_MAX.max(2 * self.payload_bytes() + self.definition_bytes())
    }

    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        let aws = Quotas::default();
        let mut faults = Vec::new();
        let mut check = |key: &str, value: u64, least: u64, most: u64| {
            if value < least {
                faults.push(format!("{key}: {value} is below AWS's {least}; what runs there would not run here"));
            } else if value > most {
                faults.push(format!("{key}: {value} is more than this release carries ({most})"));
            }
        };
        check("payload_kib", self.payload_kib as u64, aws.payload_kib as u64, PAYLOAD_KIB_MAX);
        check("history_events", self.history_events, aws.history_events, HISTORY_EVENTS_RAISED_MAX);
        check("definition_kib", self.definition_kib as u64, aws.definition_kib as u64, DEFINITION_KIB_MAX);
        check("executions", self.executions as u64, 1, u64::MAX);
        check("express_executions", self.express_executions as u64, 1, u64::MAX);
        check("tags", self.tags as u64, aws.tags as u64, TAGS_RAISED_MAX);
        for (key, value) in
            [("pixels", self.pixels), ("frames_per_second", self.frames_per_second), ("streams", self.streams)]
        {
            if value == 0 {
                faults.push(format!("{key}: with 0 no file could be done"));
            }
        }
        faults
    }
}

const KIB: usize = 1_024;
/// How far an operator may raise a quota: beyond it the store's batches and the readers' memory are not made for it.
const PAYLOAD_KIB_MAX: u64 = 2_048;
const HISTORY_EVENTS_RAISED_MAX: u64 = 1_000_000;
const DEFINITION_KIB_MAX: u64 = 8_192;
const TAGS_RAISED_MAX: u64 = 1_000;
/// Tags of one resource (AWS: 50).
const TAGS_MAX: usize = 50;
/// Largest picture, in pixels: 8,192 by 8,192, which holds 8K (UHD and DCI) and square 8K for headsets. A decoder keeps
/// some seventeen of them, 100 MB each.
const PIXELS_MAX: u64 = 8_192 * 8_192;
/// Most pictures a second: the EBU's 300, above the 240 of telephones' slow motion.
const FRAMES_PER_SECOND_MAX: u64 = 300;
/// Most streams of a file: a whole transponder's forty services have some 200. Each costs a file's opening some 40 ms.
const STREAMS_MAX: u64 = 256;
/// What the paths, templates and intrinsic functions of one field may copy together, in bytes: a definition may name the
/// same large input ten thousand times.
pub const COPIED_BYTES_MAX: usize = 16 * 1_048_576;
/// Deepest nesting of a state's input or output. What is stored must be readable again, by a reader whose own bound is
/// 128; a definition that loops could nest without end otherwise.
pub const PAYLOAD_DEPTH_MAX: usize = 100;

/// Largest input or output of a state, in bytes of JSON (AWS: 256 KiB; `States.DataLimitExceeded`).
pub const PAYLOAD_BYTES_MAX: usize = 262_144;
/// Most events in one execution's history (AWS Standard: 25,000).
pub const HISTORY_EVENTS_MAX: u64 = 25_000;
/// Largest definition of a state machine, in bytes (AWS: 1 MiB).
const DEFINITION_BYTES_MAX: usize = 1_048_576;
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
/// Most work that the expressions of one state may do together, in units of about 100 ns; of AWS's bound nothing is
/// published but its message, which is the one that is given here.
pub const STATE_WORK_MAX: u64 = 5_000_000;
/// Work of ItemSelectors after which a batch of a distributed Map takes no further item.
pub const CHILD_WORK_MAX: u64 = 20_000_000;
/// Work after which a step leaves further states to the next one, so that an execution's other events get their turn.
pub const STEP_WORK_MAX: u64 = 500_000;
/// The same of a step on a thread of the runtime, which no state may hold for longer: some 5 ms.
pub const BRIEF_WORK_MAX: u64 = 50_000;
/// Largest request body at the API, in bytes.
const REQUEST_BYTES_MAX: usize = 2 * 1_048_576;
/// Longest `error` of a failure, in characters (AWS API reference, SendTaskFailure).
pub const ERROR_CHARS_MAX: usize = 256;
/// Longest `cause` of a failure, in characters (AWS API reference, SendTaskFailure).
pub const CAUSE_CHARS_MAX: usize = 32_768;
/// How much of a child's standard error rides in a failure's cause, in bytes.
pub const STDERR_TAIL_BYTES_MAX: usize = 8_192;
/// Largest line that a child may write on its report pipe, in bytes.
pub const REPORT_LINE_BYTES_MAX: usize = 4 * 1_048_576;
/// How long an upload is kept that nothing comes of any more, in milliseconds: a week, so that what broke off before a long
/// weekend can still be gone on with.
pub const UPLOAD_IDLE_MS: i64 = 7 * 86_400_000;
/// How long after its end an unsuccessful execution can be redriven, in milliseconds (AWS: 14 days).
pub const REDRIVABLE_MS: i64 = 14 * 86_400_000;
/// Longest that an express execution may take, in milliseconds (AWS: five minutes).
pub const EXPRESS_MS_MAX: i64 = 300_000;
/// Express executions in memory at once, above which the API answers 429.
const EXPRESS_ACTIVE_MAX: usize = 100_000;
/// Express executions that screens show of those that run, and of those that succeeded lately.
pub const EXPRESS_SHOWN_MAX: usize = 200;
/// Express executions that screens show of those that failed lately.
pub const EXPRESS_FAILED_SHOWN_MAX: usize = 500;
/// Size of the record of express starts beyond which what has ended is taken out of it, in bytes.
pub const EXPRESS_RECORD_BYTES_MAX: u64 = 16 * 1_048_576;
/// Execution events that wait to be written to log files, in bytes; more are dropped and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 64 * 1_048_576;
/// Children of one Map run that are in flight, where the run has no lower bound (AWS: 10,000).
pub const CHILDREN_IN_FLIGHT_MAX: u64 = 10_000;
/// Executions that have started and not ended, above which the API answers 429.
const EXECUTIONS_ACTIVE_MAX: usize = 2_000_000;

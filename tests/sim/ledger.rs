//! What people were told, and what the rows say of it: at each start of the box, when nothing runs yet, and at the end.
//!
//! Reads what is stored and shares no code with the services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use conveyor_base::{Attempt, ExecutionId, Timestamp};
use conveyor_interpreter::{Doing, Header, Status, TaskPhase};
use conveyor_services::alarms::Conditions;
use conveyor_store::{AuditRow, ExecutionFilter, ExecutionSummary, MessageRow, Reader, Scans};
use serde_json::Value;

use super::files::contents;

/// What was asked of the box, and what it said.
#[derive(Default)]
pub struct Told {
    /// When the power went in this boot, which may be noticed later.
    pub down_at: Option<Timestamp>,
    /// Bodies of a FIFO queue's messages → whether the sending was acknowledged.
    pub ordered: BTreeMap<String, bool>,
    /// When a FIFO queue's message was sent first.
    pub first_sent_at: BTreeMap<String, Timestamp>,
    /// Bodies of a standard queue's messages → how often they were sent and how often that was acknowledged.
    pub plain: BTreeMap<String, (u32, u32)>,
    /// Sequence numbers of messages whose sending was acknowledged: by queue.
    pub sent: BTreeSet<(String, u64)>,
    /// Sequence numbers whose deletion was asked for: by queue.
    pub delete_asked: BTreeSet<(String, u64)>,
    /// Messages whose deletion was acknowledged: by id, since a sequence number may be given again after a power cut.
    pub deleted: BTreeSet<String>,
    /// Bodies of the standard queue's messages of which a deletion was asked for.
    pub plain_delete_asked: BTreeSet<String>,
    /// When each message was given to a receiver: by id.
    pub receptions: BTreeMap<String, Vec<i64>>,
    /// The group of each message of the FIFO queue that was received.
    pub groups: BTreeMap<u64, String>,
    pub machines: BTreeMap<String, bool>,
    pub executions: BTreeMap<String, bool>,
    /// Executions that ask a person → whose decision was said to count.
    pub decided: BTreeMap<String, Vec<String>>,
    /// Express executions whose start was acknowledged.
    pub express: BTreeSet<String>,
    /// Attempts whose times were told of → whether that was acknowledged.
    pub taught: BTreeMap<(ExecutionId, Attempt), bool>,
    pub uploads: BTreeMap<String, Upload>,
    /// Files that were dropped into the watched folder.
    pub dropped: BTreeSet<String>,
    /// Nobody dies, the clock was never set, and the power never went.
    pub is_calm: bool,
    /// When the power went, and when it came back.
    pub outages: Vec<(Timestamp, Timestamp)>,
    /// How often somebody set the clock.
    pub set: usize,
    /// The time of the box's life.
    pub lived_ms: i64,
    /// When all was over; `None` where somebody sets the clock.
    pub over_at: Option<Timestamp>,
}

/// A file that somebody uploads.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    /// How often it was begun, and the newest upload that was acknowledged.
    pub begun: u32,
    pub id: Option<String>,
    /// How many bytes the box has said to have.
    pub acknowledged: u64,
    /// Every byte was handed over at least once.
    pub all_sent: bool,
    pub end: Option<UploadEnd>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum UploadEnd {
    /// It became the file of that key.
    Landed(String),
    Terminated,
}

/// The states of `effects`, in their order.
pub const STATES: [&str; 8] = ["Count", "Total", "Send", "Tell", "Notify", "Claim", "Rest", "End"];

/// What has happened to an execution of `effects`: how many of its states are behind it.
fn states_done(reader: &Scans, header: &Header) -> usize {
    if header.status != Status::Running {
        return STATES.len();
    }
    let execution = reader.execution(header.id).unwrap().unwrap();
    let branch = execution.branches.values().next().expect("a running execution is somewhere");
    STATES.iter().position(|state| *state == &*branch.state).expect("a state of `effects`")
}

fn messages(reader: &Scans, queue: &str) -> Vec<(u64, MessageRow)> {
    let rows = reader.messages(queue, 0, usize::MAX).unwrap();
    rows.into_iter().filter(|(_, row)| !row.deleted).collect()
}

fn notifications(reader: &Scans) -> Vec<String> {
    let waiting = reader.outbox(None, usize::MAX).unwrap().into_iter().map(|(_, row)| row.body);
    waiting.chain(reader.delivered(usize::MAX).unwrap().into_iter().map(|(_, row)| row.body)).collect()
}

fn executions(reader: &Scans, machine: &str) -> Vec<ExecutionSummary> {
    let filter = ExecutionFilter { machine: Some(machine.to_owned()), ..ExecutionFilter::default() };
    reader.executions(&filter, None, 10_000).unwrap().items
}

fn names(text: &str, name: &str) -> bool {
    text.contains(&format!("\"{name}\""))
}

/// What holds between any two commits: rows that become durable together are both there or neither.
pub fn check_halves(reader: &Scans, told: &Told) {
    let (tasks, told_of) = (messages(reader, "tasks"), notifications(reader));
    let items = reader.items("counters", None, usize::MAX).unwrap();
    for name in told.executions.keys() {
        let Some(id) = reader.by_name("effects", name).unwrap() else { continue };
        let done = states_done(reader, &reader.header(id).unwrap().unwrap());
        let is_behind = |state: &str| done > STATES.iter().position(|other| *other == state).unwrap();
        let counted = items.iter().any(|(key, _)| names(key, name));
        assert_eq!(counted, is_behind("Count"), "{name}: its counter and the end of its Task are one commit");
        let sent = tasks.iter().any(|(_, row)| row.body == *name);
        assert_eq!(sent, is_behind("Send"), "{name}: its message and the end of its Task are one commit");
        let notified = told_of.iter().any(|body| names(body, "notified") && names(body, name));
        assert_eq!(notified, is_behind("Notify"), "{name}: its notification and the end of its Task are one commit");
    }
    let asked = reader.approvals(None, usize::MAX).unwrap();
    for (id, attempt, row) in &asked {
        let Some(execution) = reader.execution(*id).unwrap() else { panic!("{} asks and is no execution", row.title) };
        for branch in execution.branches.values() {
            if let Doing::Task { attempt: open, phase, .. } = &branch.doing {
                let is_submitted = *phase == TaskPhase::Submitted;
                assert!(open != attempt || is_submitted, "{} is asked before its Task says so", row.title);
            }
        }
    }
    for summary in executions(reader, "asks").iter().filter(|summary| summary.status == Status::Running) {
        let execution = reader.execution(summary.id).unwrap().unwrap();
        for branch in execution.branches.values() {
            if let Doing::Task { attempt, phase: TaskPhase::Submitted, .. } = &branch.doing {
                let row = asked.iter().any(|(id, of, _)| (id, of) == (&summary.id, attempt));
                assert!(row, "{} waits for a person, and nobody is asked", summary.name);
            }
        }
    }
    let entries = entries(reader);
    check_machines(reader, told, &entries);
    check_decisions(reader, told, &entries, false);
    let (raised, heard) = alarm(reader);
    assert_eq!(
        raised,
        heard.last().is_some_and(|last| *last),
        "the alarm and what is told of it are one commit: {heard:?}"
    );
}

/// Whether the only alarm there is is raised, and what was told of that.
fn alarm(reader: &Scans) -> (bool, Vec<bool>) {
    let raised = reader.alarms().unwrap().iter().any(|(_, row)| row.raised);
    let delivered = reader.delivered(usize::MAX).unwrap().into_iter().map(|(number, row)| (number, row.body));
    let waiting = reader.outbox(None, usize::MAX).unwrap().into_iter().map(|(number, row)| (number, row.body));
    let mut told: Vec<(u64, String)> = delivered.chain(waiting).filter(|(_, body)| body.contains("alarm.")).collect();
    told.sort_unstable();
    (raised, told.iter().map(|(_, body)| body.contains("alarm.raised")).collect())
}

/// The alarm says what the world is like, and of each change a person hears once.
pub fn check_alarms(reader: &Scans, weather: &Conditions) {
    let (raised, heard) = alarm(reader);
    assert_eq!(raised, !weather.is_empty(), "the alarm, and what it is about");
    let turns = heard.iter().enumerate().all(|(n, raised)| *raised == (n % 2 == 0));
    assert!(turns, "an alarm is told of twice, or not at all: {heard:?}");
}

/// Samples count once each.
fn check_learnt(reader: &Reader, told: &Told) {
    let Some(row) = reader.calibration().unwrap() else {
        assert!(told.taught.values().all(|heard| !heard), "nothing was learnt");
        return;
    };
    let of: BTreeSet<_> = row.newest.iter().map(|of| (ExecutionId::from(of.execution), Attempt(of.attempt))).collect();
    assert_eq!((row.newest.len(), row.cores.jobs as usize), (of.len(), of.len()), "a sample counts twice");
    assert!(of.iter().all(|of| told.taught.contains_key(of)), "{of:?} of {:?}", told.taught);
    // Of what the service is told while it is being started again nobody hears that it was learnt.
    let lost: Vec<_> = told.taught.iter().filter(|(taught, heard)| **heard && !of.contains(taught)).collect();
    assert!(lost.is_empty(), "learnt and forgotten: {lost:?}");
}

fn entries(reader: &Scans) -> Vec<AuditRow> {
    reader.audit(None, usize::MAX).unwrap().into_iter().map(|(_, row)| row).collect()
}

fn entries_of(entries: &[AuditRow], what: &str, to: &str) -> usize {
    entries.iter().filter(|row| row.what == what && row.to == to).count()
}

/// What holds when all has ended. `log` is the file that notifications go to.
pub fn check(rows: &Reader, told: &Told, log: &Path) {
    let reader = &rows.on_this_thread();
    check_learnt(rows, told);
    let entries = entries(reader);
    check_messages(reader, told, &entries);
    check_tasks(reader, told);
    check_machines(reader, told, &entries);
    assert!(told.machines.iter().all(|(name, told)| !told || reader.machine(name).unwrap().is_some()));
    check_decisions(reader, told, &entries, true);
    check_notifications(reader, told, log);
    check_schedules(reader, told);
    assert!(reader.events(None, 10).unwrap().is_empty(), "an event waits for its target");
    let (timers, outstanding) = (reader.timers(Timestamp::MAX, 10).unwrap(), reader.outstanding(None, 10).unwrap());
    assert!(timers.is_empty(), "timers are left of no execution: {timers:?}");
    assert!(outstanding.is_empty(), "attempts are left of no execution: {outstanding:?}");
}

fn check_messages(reader: &Scans, told: &Told, entries: &[AuditRow]) {
    // In order: each message once, as long as nobody has asked for its deletion.
    let ordered = messages(reader, "ordered.fifo");
    for (body, acknowledged) in &told.ordered {
        assert!(*acknowledged);
        let copies = ordered.iter().filter(|(_, row)| row.body == *body).count();
        assert!(copies <= 1, "{body} is there {copies} times");
        let told: Vec<_> = entries.iter().filter(|row| row.what == "SendMessage" && row.to == *body).collect();
        let rows = reader.messages("ordered.fifo", 0, usize::MAX).unwrap();
        let rows: Vec<_> = rows.iter().filter(|(_, row)| row.body == *body).collect();
        assert_eq!(told.len(), 1, "{body}: entries of the audit log: {told:#?} {rows:#?}");
    }
    // Plainly: as many as were acknowledged at least, as were sent at most; what was received too often is dead.
    let (plain, dead) = (messages(reader, "plain"), messages(reader, "dead"));
    for (body, (sent, acknowledged)) in &told.plain {
        let there = plain.iter().chain(&dead).filter(|(_, row)| row.body == *body).count();
        assert!(there <= *sent as usize, "{body} was sent {sent} times and is there {there} times");
        assert!(*acknowledged > 0);
        let entries = entries_of(entries, "SendMessage", body);
        if told.plain_delete_asked.contains(body) {
            assert!(
                entries >= there.max(*acknowledged as usize) && entries <= *sent as usize,
                "{body}: {entries} entries"
            );
        } else {
            assert!(there >= *acknowledged as usize, "{body} was sent and is lost");
            assert_eq!(there, entries, "{body}: entries of the audit log");
        }
    }
    for (_, row) in ordered.iter().chain(&plain) {
        assert!(!told.deleted.contains(&row.id), "{} was deleted and is there", row.body);
    }
    let known: BTreeSet<u64> = ordered.iter().map(|(sequence, _)| *sequence).collect();
    let acknowledged = told.sent.iter().filter(|(queue, _)| queue == "ordered.fifo").map(|(_, sequence)| sequence);
    for sequence in told.groups.keys().chain(acknowledged) {
        let deleted = told.delete_asked.contains(&("ordered.fifo".to_owned(), *sequence));
        assert!(deleted || known.contains(sequence), "a message that nobody deleted is gone");
    }
}

/// Of what somebody receives all the time nothing lies about, and nothing comes more often than its queue gives it.
pub fn check_deliveries(reader: &Scans, now: Timestamp) {
    const WAITS_MS_MAX: i64 = 10_000;
    for (queue, most) in [("ordered.fifo", u32::MAX), ("plain", 4)] {
        for (_, row) in messages(reader, queue) {
            let waits_ms = now.since_ms(row.visible_at.into());
            assert!(waits_ms < WAITS_MS_MAX, "{} waits for {waits_ms} ms, and nobody gets it: {row:?}", row.body);
            assert!(row.received <= most, "{} was received {} times", row.body, row.received);
        }
    }
}

/// How many messages the queues are to say that they have.
pub fn counts(reader: &Scans) -> BTreeMap<&'static str, usize> {
    ["ordered.fifo", "plain", "dead", "tasks", "seen"].map(|queue| (queue, messages(reader, queue).len())).into()
}

fn check_machines(reader: &Scans, told: &Told, entries: &[AuditRow]) {
    for name in told.machines.keys() {
        let exists = reader.machine(name).unwrap().is_some();
        let count = entries_of(entries, "CreateStateMachine", name);
        assert_eq!(count, usize::from(exists), "{name}: {count} entries of the audit log, exists: {exists}");
    }
}

/// What Tasks did, they did once.
fn check_tasks(reader: &Scans, told: &Told) {
    let rows = |queue: &str| reader.messages(queue, 0, usize::MAX).unwrap();
    let (tasks, seen) = (rows("tasks"), rows("seen"));
    let items = reader.items("counters", None, usize::MAX).unwrap();
    let count_of = |name: &str| {
        let (_, item) = items.iter().find(|(key, _)| names(key, name)).expect("its counter");
        serde_json::from_str::<Value>(item).unwrap()["n"]["N"].as_str().unwrap().to_owned()
    };
    let mut claims: BTreeMap<String, u32> = BTreeMap::new();
    for name in told.executions.keys() {
        let header = succeeded(reader, "effects", name);
        let output: Value = serde_json::from_str(header.output().unwrap()).unwrap();
        *claims.entry(output["content"].as_str().unwrap().to_owned()).or_default() +=
            u32::from(output["claim"]["claimed"] == true);
        assert_eq!(count_of(name), "1", "{name} counted twice");
        let sent = tasks.iter().filter(|(_, row)| row.body == *name).count();
        assert_eq!(sent, 1, "{name} sent {sent} messages");
        let events = seen.iter().filter(|(_, row)| names(&row.body, name)).count();
        assert_eq!(events, 1, "{events} events of {name} came");
        if told.is_calm {
            let took_ms = header.stopped_at.unwrap().since_ms(header.started_at);
            assert!(took_ms >= 1_000, "{name} did not rest: {took_ms} ms");
        }
    }
    // Nothing of an express execution is stored: the power takes it along, and its Task fails where the service dies.
    for name in told.express.iter().filter(|_| told.is_calm) {
        let runs: u32 = count_of(name).parse().unwrap();
        assert!(runs >= 1, "{name} never ran");
    }
    if !told.executions.is_empty() {
        assert_eq!(count_of("total"), told.executions.len().to_string(), "what all counted together");
    }
    assert!(claims.values().all(|holders| *holders == 1), "holders of contents: {claims:?}");
}

fn succeeded(reader: &Scans, machine: &str, name: &str) -> Header {
    let id = reader.by_name(machine, name).unwrap().unwrap_or_else(|| panic!("{name} is lost"));
    let header = reader.header(id).unwrap().unwrap();
    assert_eq!(header.status, Status::Succeeded, "{name}: {:?}", header.outcome);
    header
}

/// One decision counts at most, and it is the one that the Task ended with.
fn check_decisions(reader: &Scans, told: &Told, entries: &[AuditRow], is_over: bool) {
    let asked = reader.approvals(None, usize::MAX).unwrap();
    for (name, counted) in &told.decided {
        assert!(counted.len() <= 1, "{name} was decided {} times", counted.len());
        let header = reader.by_name("asks", name).unwrap().and_then(|id| reader.header(id).unwrap());
        let ended = header.filter(|header| header.status != Status::Running);
        let winner = ended.as_ref().and_then(|header| {
            assert_eq!(header.status, Status::Succeeded, "{name}: {:?}", header.outcome);
            let output: Value = serde_json::from_str(header.output().unwrap()).unwrap();
            let decision = &output["decision"];
            let is_rejected = decision["Error"] == "Approval.Rejected";
            let who = if is_rejected { &decision["Cause"] } else { &decision["by"] };
            who.as_str().map(str::to_owned)
        });
        assert!(
            counted.is_empty() || winner.as_ref() == counted.first(),
            "{name}: {counted:?} counted, not {winner:?}"
        );
        let who: Vec<&String> =
            entries.iter().filter(|row| row.what == "Decide" && row.to == *name).map(|row| &row.who).collect();
        assert_eq!(who, winner.iter().collect::<Vec<_>>(), "{name}: entries of the audit log");
        let is_asked = ended.as_ref().is_some_and(|ended| asked.iter().any(|(id, ..)| *id == ended.id));
        assert!(!is_asked || (winner.is_none() && !is_over), "{name} has ended and is still asked");
        assert!(!is_over || ended.is_some(), "{name} waits for ever");
    }
}

/// Each is stored once, and its target has had it once at least.
fn check_notifications(reader: &Scans, told: &Told, log: &Path) {
    let waiting = reader.outbox(None, usize::MAX).unwrap();
    assert!(waiting.is_empty(), "notifications that nobody delivers: {waiting:?}");
    let mut delivered: Vec<(u64, String)> =
        reader.delivered(usize::MAX).unwrap().into_iter().map(|(n, row)| (n, row.body)).collect();
    delivered.sort_unstable();
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    for name in told.executions.keys() {
        for event in ["notified", "rule.matched"] {
            let rows = delivered.iter().filter(|(_, body)| names(body, event) && names(body, name)).count();
            assert_eq!(rows, 1, "{name}: {rows} notifications of {event} were stored");
            let had = lines.iter().filter(|line| line["event"] == event && names(&line.to_string(), name)).count();
            assert!(had > 0, "{name}: a notification of {event} counts as delivered and never was");
        }
    }
    let mut first = BTreeSet::new();
    let came = lines.iter().filter_map(|line| line["id"].as_str()).filter(|id| first.insert(id.to_string()));
    let came: Vec<String> = came.map(str::to_owned).collect();
    let stored: Vec<String> = delivered.iter().map(|(_, body)| id_of(body)).collect();
    assert_eq!(came, stored, "a target gets its notifications in the order in which they were stored");
}

fn id_of(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned()
}

/// What schedules started is settled, nothing is started twice, and on a calm day nothing is left out. A rate does not know of a
/// clock that is set.
fn check_schedules(reader: &Scans, told: &Told) {
    let beats = executions(reader, "beat");
    let rows = reader.schedules().unwrap();
    for (schedule, goes_by_wall) in [("beat", false), ("strike", true)] {
        let mark = if goes_by_wall { "-" } else { "-b" };
        let of = |name: &str| name.strip_prefix(schedule)?.strip_prefix(mark)?.parse::<i64>().ok();
        let mut due: Vec<i64> = beats.iter().filter_map(|summary| of(&summary.name)).collect();
        due.sort_unstable();
        assert!(due.is_sorted_by(|one, next| one < next), "a due time started twice: {due:?}");
        if goes_by_wall && told.set > 0 {
            assert!(told.lived_ms < 180_000 || !due.is_empty(), "{schedule} stands still");
            continue;
        }
        check_none_is_left_out(&due, told);
        let row = rows.iter().find(|(name, _)| name == schedule);
        let last = row.unwrap_or_else(|| panic!("{schedule} was never settled")).1.last.0;
        // The newest may have been started this very moment.
        let settled = &due[..due.len().saturating_sub(1)];
        assert!(settled.iter().all(|due| *due <= last), "a start of {schedule} is not settled: {due:?} {last}");
        if told.is_calm {
            let evenly = due.windows(2).all(|two| two[1] - two[0] == 60_000);
            assert!(!due.is_empty() && evenly, "due times are left out: {due:?}");
        }
    }
    for summary in &beats {
        assert_eq!(summary.status, Status::Succeeded, "{}", summary.name);
    }
}

/// A due time may be left out only for a later one that came while the box was off too.
fn check_none_is_left_out(due: &[i64], told: &Told) {
    /// A boot that is over sooner may not have come to its schedules.
    const SLACK_MS: i64 = 10_000;
    let (Some(first), Some(over_at)) = (due.first(), told.over_at) else { return };
    let mut off: Vec<(i64, i64)> = Vec::new();
    for (down, up) in &told.outages {
        match off.last_mut() {
            Some(last) if down.0 - last.1 < SLACK_MS => last.1 = up.0,
            _ => off.push((down.0, up.0)),
        }
    }
    let mut at = *first;
    while at + SLACK_MS < over_at.0 {
        let is_off = |(down, up): &(i64, i64)| at > down - SLACK_MS && at + 60_000 < up + SLACK_MS;
        assert!(due.contains(&at) || off.iter().any(is_off), "{at} was left out of {due:?}; off: {off:?}");
        at += 60_000;
    }
}

/// Files that were uploaded have every byte, and what was dropped started once.
pub fn check_files(rows: &Reader, told: &Told, folder: &Path) {
    let reader = &rows.on_this_thread();
    let entries = entries(reader);
    let mut expected = BTreeSet::new();
    for (name, upload) in &told.uploads {
        let audited = entries_of(&entries, "POST /uploads", name);
        assert!(
            audited > 0 && audited <= upload.begun as usize,
            "{name}: {audited} entries of {} uploads",
            upload.begun
        );
        let row = upload.id.as_ref().and_then(|id| rows.upload(id).unwrap());
        match upload.end.as_ref().unwrap_or_else(|| panic!("{name} has not ended")) {
            UploadEnd::Landed(key) => {
                let found = std::fs::read(folder.join("incoming").join(key)).unwrap_or_default();
                assert!(found == contents(name), "{name} landed with {} bytes of its own", found.len());
                expected.insert(key.clone());
            }
            UploadEnd::Terminated => assert!(row.is_none(), "{name} was terminated and has a row"),
        }
    }
    let is_part = |name: &String| name.starts_with('.');
    let there = names_in(&folder.join("incoming"));
    let landed: BTreeSet<String> = there.iter().filter(|name| !is_part(name)).cloned().collect();
    assert_eq!(landed, expected, "the files that landed");
    let landings = reader.landings("dropped", None, usize::MAX).unwrap();
    let started = executions(reader, "ingested");
    for name in &told.dropped {
        let of = |summary: &&ExecutionSummary| {
            let header = reader.header(summary.id).unwrap().unwrap();
            serde_json::from_str::<Value>(&header.input).unwrap()["key"] == name.as_str()
        };
        let of: Vec<&ExecutionSummary> = started.iter().filter(of).collect();
        assert_eq!(of.len(), 1, "{name} was dropped once and started {} times", of.len());
        assert_eq!(of[0].status, Status::Succeeded, "{name}");
        let landing = landings.iter().find(|(key, _)| key == name);
        assert!(landing.is_some_and(|(_, row)| row.execution == of[0].name), "{name} started and has not landed");
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect()
}

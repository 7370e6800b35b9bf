//! The box at a glance: what runs, what ended today, what the lanes do, when each share last gave a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::Status;
use conveyor_services::{alarms, schedules as schedule_rules};
use conveyor_store::{ExecutionFilter, Scans};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::executions::summary;
use super::{JsonResult, NoStoreJson, Query, source};
use crate::AppState;

/// Running executions that are shown; how many there are is said.
const RUNNING_SHOWN: usize = 60;
/// Failures of today that are shown.
const FAILED_SHOWN: usize = 8;
/// Executions of today that are looked at; a busier box says "at least".
const TODAY_MAX: usize = 20_000;
const PAGE: usize = 500;
/// Executions that are searched for each share's newest file.
const LANDINGS_LOOKED: usize = 300;
const HOUR_MS: i64 = 3_600_000;

/// What ended today, as it was found last: an open page asks again and again, and mostly nothing has changed. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Today(Arc<Mutex<Option<Found>>>);

struct Found {
    since: i64,
    hours: usize,
    counts: BTreeMap<(String, Status), u64>,
    shown: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverviewQuery {
    /// When today began where the viewer is.
    since: Option<i64>,
}

pub async fn overview(State(app): State<AppState>, Query(query): Query<OverviewQuery>) -> JsonResult {
    let lanes = app.handle.lanes().await;
    let mut shown = app.reading(move |app, rows| glance(app, rows, query.since)).await?;
    shown["lanes"] = json!(lanes);
    Ok(NoStoreJson(shown))
}

fn glance(app: &AppState, rows: &Scans, since: Option<i64>) -> Result<Value, crate::ApiError> {
    let now = app.handle.wall();
    let since = since.unwrap_or(now.0 - 24 * HOUR_MS).clamp(now.0 - 48 * HOUR_MS, now.0);
    let (running, more) = running(app, rows)?;
    let today = today(app, rows, since, now)?;
    let alarms: Vec<_> = alarms::read(rows)?
        .into_values()
        .filter(|alarm| alarm.raised)
        .map(|alarm| alarm.shown(app.handle.clock()))
        .collect();
    Ok(json!({
        "now": now.0,
        "running": running,
        "runningMore": more,
        "runningAll": rows.count(Status::Running),
        "today": today,
        "landings": landings(rows)?,
        "alarms": alarms,
        "parts": app.handle.failed_parts(),
        "watches": (app.watches)(),
        "approvals": rows.approvals(None, 1000)?.len(),
        "notificationsWaiting": rows.outbox(None, 1000)?.len(),
    }))
}

/// What runs of its own accord, newest first; nested executions are part of what started them.
fn running(app: &AppState, rows: &Scans) -> Result<(Vec<Value>, bool), crate::ApiError> {
    let filter = ExecutionFilter { machine: None, status: Some(Status::Running) };
    let (mut shown, mut next, mut looked) = (Vec::new(), None, 0);
    loop {
        let page = rows.executions(&filter, next.as_deref(), PAGE)?;
        for found in page.items.iter().filter(|found| found.parent.is_none()) {
            if shown.len() == RUNNING_SHOWN {
                return Ok((shown, true));
            }
            if let Some(header) = rows.header(found.id)? {
                shown.push(summary(app, &header));
            }
        }
        looked += page.items.len();
        next = page.next;
        if next.is_none() || looked >= TODAY_MAX {
            return Ok((shown, next.is_some()));
        }
    }
}

/// What was started since then and has ended, by hour; the newest failures whole.
fn today(app: &AppState, rows: &Scans, since: i64, now: Timestamp) -> Result<Value, crate::ApiError> {
    let hours = ((now.0 - since) / HOUR_MS + 1) as usize;
    let mut counts = rows.counts();
    counts.retain(|(_, status), _| *status != Status::Running);
    if let Some(found) = &*app.today.0.lock()
        && found.since == since
        && found.hours == hours
        && found.counts == counts
    {
        return Ok(found.shown.clone());
    }
    let (mut done, mut failed) = (vec![0u32; hours], vec![0u32; hours]);
    let (mut failures, mut looked, mut cut_off) = (Vec::new(), 0, false);
    for status in [Status::Succeeded, Status::Failed, Status::TimedOut, Status::Aborted] {
        let filter = ExecutionFilter { machine: None, status: Some(status) };
        let mut next = None;
        'pages: loop {
            let page = rows.executions(&filter, next.as_deref(), PAGE)?;
            for found in &page.items {
                if found.started_at.0 < since {
                    break 'pages;
                }
                if found.parent.is_some() {
                    continue;
                }
                let hour = usize::try_from((found.started_at.0 - since) / HOUR_MS).unwrap_or(0).min(hours - 1);
                match status {
                    Status::Succeeded => done[hour] += 1,
                    Status::Aborted => {}
                    _ => {
                        failed[hour] += 1;
                        failures.push(found.id);
                    }
                }
            }
            looked += page.items.len();
            next = page.next;
            if next.is_none() {
                break;
            }
            if looked >= TODAY_MAX {
                cut_off = true;
                break;
            }
        }
    }
    failures.sort_unstable_by_key(|id: &ExecutionId| std::cmp::Reverse(*id));
    let mut newest = Vec::new();
    for id in failures.into_iter().take(FAILED_SHOWN) {
        newest.extend(rows.header(id)?.map(|header| summary(app, &header)));
    }
    let shown = json!({"since": since, "done": done, "failed": failed, "atLeast": cut_off, "failures": newest});
    *app.today.0.lock() = Some(Found { since, hours, counts, shown: shown.clone() });
    Ok(shown)
}

/// When each share last gave a file to work on.
fn landings(rows: &Scans) -> Result<Value, crate::ApiError> {
    let mut landings: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for found in rows.executions(&ExecutionFilter::default(), None, LANDINGS_LOOKED)?.items {
        if found.parent.is_some() {
            continue;
        }
        let uri = rows.header(found.id)?.and_then(|header| source(&header.input));
        if let Some(uri) = uri {
            let name = uri.file_name().to_owned();
            landings.entry(uri.share).or_insert((found.started_at.0, name));
        }
    }
    let shown = landings.into_iter().map(|(share, (at, file))| json!({"share": share, "at": at, "file": file}));
    Ok(shown.collect())
}

/// What runs on which lane. What waits is only counted: a lane's queue is its own.
pub async fn work(State(app): State<AppState>) -> JsonResult {
    let lanes = app.handle.lanes().await;
    let running = app.reading(|app, rows| {
        let mut shown: Vec<Value> = Vec::new();
        for (id, running) in app.handle.all_running_attempts() {
            let mut top = rows.header(id)?;
            while let Some(parent) = top.as_ref().and_then(|header| header.parent.as_ref()) {
                top = rows.header(parent.execution)?;
            }
            let file = top.as_ref().and_then(|header| source(&header.input)).map(|uri| uri.file_name().to_owned());
            shown.push(
                json!({"execution": id.to_string(), "root": top.map(|header| header.id.to_string()), "file": file,
                "state": &*running.state, "resource": running.resource, "lane": running.lane,
                "startedAt": app.handle.clock().shown(running.started_at).0, "progress": running.progress}),
            );
        }
        Ok(shown)
    });
    Ok(NoStoreJson(json!({"working": running.await?, "lanes": lanes})))
}

pub async fn schedules(State(app): State<AppState>) -> JsonResult {
    let mut shown = app.effective["schedules"].clone();
    for (name, row) in app.reading(|_, rows| Ok(rows.schedules()?)).await? {
        for schedule in shown.as_array_mut().into_iter().flatten().filter(|s| s["name"] == name) {
            let rule = schedule["rule"].as_str().unwrap_or_default();
            schedule["lastAt"] = schedule_rules::last_due(rule, row.last.into(), app.handle.clock()).0.into();
        }
    }
    for schedule in shown.as_array_mut().into_iter().flatten() {
        let rule = schedule["rule"].as_str().unwrap_or_default();
        let zone = schedule["timezone"].as_str();
        schedule["nextAt"] = match schedule["enabled"] == true {
            true => schedule_rules::next_due(rule, zone, app.handle.clock()).map(|at| at.0).into(),
            false => Value::Null,
        };
    }
    Ok(NoStoreJson(json!({"schedules": shown})))
}

//! Every route of the REST API in one table: its address, what it needs, and what it does in words.
//!
//! Invariant: nothing is routed that does not stand here, so that no route is without a role and none is missing from
//! the OpenAPI document.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use conveyor_run::OnBehalf;

use super::{
    alarms, approvals, audit_entries, benchmarks, devices, executions, express, lanes, list, machines, notifications,
    openapi, overview, refuse, settings, shares, trace, uploads, visit, watches,
};
use crate::audit::{self, Action};
use crate::gate::{Caller, Role};
use crate::{ApiError, AppState, aws, live, session};

/// One route, as the OpenAPI document describes it.
#[derive(Clone, Copy)]
pub struct RouteSpec {
    pub method: &'static str,
    pub path: &'static str,
    pub role: Role,
    /// The group that it stands in.
    pub tag: &'static str,
    pub summary: &'static str,
    /// Names of query parameters and what they mean.
    pub query: &'static [(&'static str, &'static str)],
    /// The name of the body's schema; empty where it takes none.
    pub body: &'static str,
    /// The name of the answer's schema.
    pub answer: &'static str,
    /// The status of an answer that is no refusal.
    pub success: StatusCode,
}

/// Routes are added in groups; a group is what a reader looks for.
struct Table<'d> {
    app: &'d AppState,
    router: Router<AppState>,
    listed: Vec<RouteSpec>,
    tag: &'static str,
}

pub fn routes(app: &AppState) -> Router<AppState> {
    let mut table = Table { app, router: Router::new(), listed: Vec::new(), tag: "" };
    of_executions(&mut table);
    of_workflows(&mut table);
    of_the_box(&mut table);
    of_files(&mut table);
    of_people(&mut table);
    let document = openapi::document(&table.listed);
    table
        .router
        // Whoever may not come in may read how to.
        .route("/openapi.json", get(move || async move { super::no_store_json(document) }))
        .route("/session", get(session::show).post(session::sign_in).delete(session::sign_out))
        .fallback(|| async { refuse(&ApiError::new("ResourceNotFound", "There is no such resource")) })
}

/// Its entry of the audit log says what the state calls.
const TEST_STATE: &str = "/test-state";

const PAGE: (&str, &str) = ("limit", "rows of a page");
const NEXT: (&str, &str) = ("next", "where the page begins: `next` of the page before");

fn of_executions(t: &mut Table) {
    t.tag = "executions";
    let filters = &[
        ("status", "RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED or PENDING_REDRIVE"),
        ("machine", "the workflow's name"),
        ("q", "a part of the file's name or the execution's, in any case"),
        ("error", "a part of the error's name, in any case"),
        ("from", "started at this time or later"),
        ("until", "started before this time"),
        ("order", "newest (the default) or oldest"),
        ("nested", "true: also executions that others started"),
        PAGE,
        NEXT,
    ];
    t.get("/executions", "Executions, page by page", filters, "ExecutionPage", get(list::list));
    t.post("/executions", "Starts a workflow", "Start", "Started", post(executions::start));
    t.post("/executions/stop", "Stops several", "Ids", "Outcomes", post(list::stop_all));
    t.post("/executions/redrive", "Continues several", "Ids", "Outcomes", post(list::redrive_all));
    t.get(
        "/executions/{id}",
        "One execution with its states and outputs",
        &[("states", "false: without the states")],
        "Execution",
        get(executions::one),
    );
    let parts = &[
        ("from", "the first event's number"),
        PAGE,
        ("reverse", "true: from the newest down"),
        ("data", "false: without inputs and outputs"),
    ];
    t.get("/executions/{id}/history", "Events as AWS spells them", parts, "History", get(executions::history));
    t.get("/executions/{id}/trace", "All events and states in columns, without data", &[], "Trace", get(trace::trace));
    let what = "One visit to a state: data on its way, variables, attempts";
    t.get("/executions/{id}/states/{event}", what, &[], "Visit", get(visit::visit));
    t.get("/executions/{id}/definition", "What it runs", &[], "Definition", get(executions::definition));
    t.post("/executions/{id}/stop", "Stops it", "Stop", "Stopped", post(executions::stop));
    t.post("/executions/{id}/redrive", "Continues from where it failed", "", "Redriven", post(executions::redrive));
    let filters =
        &[("machine", "the workflow's name"), ("status", "FAILED: of those that ended, only what did not succeed")];
    t.get("/express", "Express executions: what runs, what ended lately", filters, "Express", get(express::board));
    t.post("/express/{id}/stop", "Stops an express execution", "Stop", "Stopped", post(express::stop));
    t.get(
        "/overview",
        "What runs, what ended today, lanes, shares",
        &[("since", "when today began")],
        "Overview",
        get(overview::overview),
    );
    t.get("/events", "Server-sent events: what happens, as it happens", &[], "Stream", get(live::events));
}

fn of_workflows(t: &mut Table) {
    t.tag = "workflows";
    t.get("/machines", "All workflows", &[], "Machines", get(machines::all));
    t.change("POST", "/machines", "Makes a workflow", "NewMachine", "Machine", post(machines::create));
    t.get("/machines/{name}", "One workflow with versions and aliases", &[], "Machine", get(machines::one));
    t.change("PUT", "/machines/{name}", "Saves a new revision", "MachineChange", "Machine", put(machines::update));
    t.change("DELETE", "/machines/{name}", "Deletes it", "", "Done", delete(machines::delete));
    let what = "A revision's definition";
    t.get("/machines/{name}/revisions/{revision}", what, &[], "Definition", get(machines::revision));
    let what = "Makes an alias, or leads it elsewhere";
    t.change("PUT", "/machines/{name}/aliases/{alias}", what, "Alias", "Done", put(machines::put_alias));
    t.change(
        "DELETE",
        "/machines/{name}/aliases/{alias}",
        "Deletes an alias",
        "",
        "Done",
        delete(machines::delete_alias),
    );
    t.ask("/validate", "All problems of a definition", "Validate", "Problems", post(machines::validate));
    // It carries a Task out.
    t.post(TEST_STATE, "Tries one state", "TestState", "Tried", post(machines::test_state));
}

fn of_the_box(t: &mut Table) {
    t.tag = "box";
    t.get("/devices", "Processors, memory, GPUs: load and temperature", &[], "Devices", get(devices::devices));
    t.get("/benchmarks", "Runs of conveyor bench, the newest first", &[], "Benchmarks", get(benchmarks::all));
    t.get("/benchmarks/{id}", "One run with every figure", &[], "Benchmark", get(benchmarks::one));
    t.get("/lanes", "Lanes and how busy they are", &[], "Lanes", get(lanes));
    t.get("/work", "What runs on which lane, and what waits", &[], "Work", get(overview::work));
    t.get("/watches", "Watched shares; troubles is deprecated and repeats problems", &[], "Watches", get(watches));
    t.get("/schedules", "What runs by the clock", &[], "Schedules", get(overview::schedules));
    t.get("/alarms", "Alarms and their history", &[], "Alarms", get(alarms::alarms));
    t.get("/notifications", "Notifications: delivered and not yet", &[], "Notifications", get(notifications::all));
    t.get("/settings", "The settings in force, without secrets", &[], "Settings", get(settings));
    t.guarded_get(
        "/audit",
        Role::Admin,
        "Who did what; deeds is deprecated and repeats entries, as an entry's door does its api",
        &[PAGE, NEXT],
        "AuditEntries",
        get(audit_entries),
    );
}

fn of_files(t: &mut Table) {
    t.tag = "files";
    t.get("/shares", "Shares: space, reachable or not", &[], "Shares", get(shares::all));
    let under = &[("under", "a folder of the share")];
    let what = "Files of a share's folder";
    t.guarded_get("/shares/{share}/files", Role::Operator, what, under, "Files", get(shares::files));
    let begins = RouteSpec {
        method: "POST",
        path: "/uploads",
        role: Role::Operator,
        tag: t.tag,
        summary: "Begins an upload (tus 1.0)",
        query: &[],
        body: "",
        answer: "",
        success: StatusCode::CREATED,
    };
    t.add(begins, post(uploads::create), true);
    t.route(
        "HEAD",
        "/uploads/{id}",
        Role::Operator,
        "How far an upload is",
        "",
        "",
        axum::routing::head(uploads::offset),
    );
    t.route("PATCH", "/uploads/{id}", Role::Operator, "Goes on with an upload", "", "", patch(uploads::append));
    let ends = RouteSpec {
        method: "DELETE",
        path: "/uploads/{id}",
        summary: "Gives an upload up",
        success: StatusCode::NO_CONTENT,
        ..begins
    };
    t.add(ends, delete(uploads::terminate), true);
}

fn of_people(t: &mut Table) {
    t.tag = "people";
    t.get("/approvals", "What waits for a person's decision", &[], "Approvals", get(approvals::all));
    t.post("/approvals/{id}/approve", "Approves it", "Approve", "Done", post(approvals::approve));
    t.post("/approvals/{id}/reject", "Rejects it, with a reason", "Reject", "Done", post(approvals::reject));
}

impl Table<'_> {
    fn get(
        &mut self,
        path: &'static str,
        summary: &'static str,
        query: &'static [(&'static str, &'static str)],
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        self.guarded_get(path, Role::Viewer, summary, query, answer, handler);
    }

    fn guarded_get(
        &mut self,
        path: &'static str,
        role: Role,
        summary: &'static str,
        query: &'static [(&'static str, &'static str)],
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        let route = RouteSpec {
            method: "GET",
            path,
            role,
            tag: self.tag,
            summary,
            query,
            body: "",
            answer,
            success: StatusCode::OK,
        };
        self.add(route, handler, false);
    }

    /// A change that operators may make.
    fn post(
        &mut self,
        path: &'static str,
        summary: &'static str,
        body: &'static str,
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        let role = Role::Operator;
        let route = RouteSpec {
            method: "POST",
            path,
            role,
            tag: self.tag,
            summary,
            query: &[],
            body,
            answer,
            success: StatusCode::OK,
        };
        self.add(route, handler, true);
    }

    /// A change that administrators may make.
    fn change(
        &mut self,
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        body: &'static str,
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        let route = RouteSpec {
            method,
            path,
            role: Role::Admin,
            tag: self.tag,
            summary,
            query: &[],
            body,
            answer,
            success: StatusCode::OK,
        };
        self.add(route, handler, true);
    }

    /// A question that is too long for an address.
    fn ask(
        &mut self,
        path: &'static str,
        summary: &'static str,
        body: &'static str,
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        let route = RouteSpec {
            method: "POST",
            path,
            role: Role::Viewer,
            tag: self.tag,
            summary,
            query: &[],
            body,
            answer,
            success: StatusCode::OK,
        };
        self.add(route, handler, false);
    }

    /// A part of something whose beginning is in the audit log.
    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    fn route(
        &mut self,
        method: &'static str,
        path: &'static str,
        role: Role,
        summary: &'static str,
        body: &'static str,
        answer: &'static str,
        handler: MethodRouter<AppState>,
    ) {
        let route =
            RouteSpec { method, path, role, tag: self.tag, summary, query: &[], body, answer, success: StatusCode::OK };
        self.add(route, handler, false);
    }

    fn add(&mut self, route: RouteSpec, handler: MethodRouter<AppState>, is_kept: bool) {
        let check = move |state: State<AppState>, caller: Extension<Caller>, request: Request, next: Next| {
            passed(route, is_kept, state, caller, request, next)
        };
        let handler = handler.route_layer(middleware::from_fn_with_state(self.app.clone(), check));
        self.router = std::mem::take(&mut self.router).route(route.path, handler);
        self.listed.push(route);
    }
}

async fn passed(
    route: RouteSpec,
    is_kept: bool,
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let app = app.of(request.extensions());
    if route.method == "GET" {
        return match caller.require_role(route.role) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
    }
    if !is_kept {
        let change = change(route, None, caller, request, next);
        let change = async move {
            let answer = change.await;
            // Its place is held that long.
            drop(app);
            answer
        };
        return audit::run_detached(change).await.unwrap_or_else(IntoResponse::into_response);
    }
    let mut to = request.uri().path().trim_start_matches("/api/v1").to_owned();
    let request = if route.path == TEST_STATE {
        // The gate has read it, within its limits.
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        to = aws::tried(&body).unwrap_or(to);
        Request::from_parts(parts, body.into())
    } else {
        request
    };
    let what = format!("{} {}", route.method, route.path);
    let entry = audit::entry(&app, &caller, Action { api: "rest", what, to, success: route.success });
    let change = change(route, Some(entry.clone()), caller, request, next);
    audit::run_kept(app, entry, change, IntoResponse::into_response).await
}

/// What a route changes, together with its entry of the audit log.
async fn change(
    route: RouteSpec,
    entry: Option<OnBehalf>,
    caller: Caller,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = caller.require_role(route.role) {
        return refusal.into_response();
    }
    if let Some(entry) = entry {
        request.extensions_mut().insert(entry);
    }
    next.run(request).await
}

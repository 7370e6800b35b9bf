//! `GET /openapi.json`: the REST API as OpenAPI 3.1, made of the table of routes.
//!
//! Paths, roles and parameters come from the table, so the document cannot name a route that is not there. The shapes
//! of bodies and answers stand here.

use serde_json::{Map, Value, json};

use super::table::RouteSpec;

pub fn document(routes: &[RouteSpec]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let path = paths.entry(format!("/api/v1{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    paths.insert("/api/v1/session".into(), session());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Conveyor",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "What the dashboard uses. Times are milliseconds since the epoch.",
            "description": "A refusal is {\"error\", \"code\"} with a status of its own. Changes from pages of another \
                            origin are refused. Each route says which role it needs: a viewer looks, an operator \
                            also runs, an administrator also changes workflows.",
        },
        "servers": [{"url": "/"}],
        "security": [{"password": []}, {"session": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "session": {"type": "apiKey", "in": "cookie", "name": "conveyor_session"},
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &RouteSpec) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(
        route.query.iter().map(
            |(name, what)| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}}),
        ),
    );
    let id: String = format!("{}{}", route.method.to_lowercase(), route.path)
        .chars()
        .filter(|c| !"{}".contains(*c))
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let ok = match route.answer {
        "" => json!({"description": "Done"}),
        "Stream" => {
            json!({"description": "Events execution, progress and resync", "content": {"text/event-stream": {}}})
        }
        answer => json!({"description": "The answer", "content": {"application/json": {"schema": reference(answer)}}}),
    };
    let mut operation = json!({
        "operationId": id,
        "tags": [route.tag],
        "summary": route.summary,
        "description": format!("Needs the role {}.", route.role.name()),
        "parameters": parameters,
        "responses": {
            "200": ok,
            "default": {"description": "A refusal", "content": {"application/json": {"schema": reference("Refusal")}}},
        },
    });
    if !route.body.is_empty() {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": reference(route.body)}}});
    }
    operation
}

fn session() -> Value {
    let answer = json!({"200": {"description": "Who asks",
        "content": {"application/json": {"schema": reference("Session")}}}});
    let body = json!({"required": true, "content": {"application/json": {"schema": reference("SignIn")}}});
    json!({
        "get": {"operationId": "get_session", "tags": ["session"], "summary": "Who asks, and what they may do",
            "responses": answer.clone()},
        "post": {"operationId": "post_session", "tags": ["session"], "summary": "Signs in", "requestBody": body,
            "responses": answer},
        "delete": {"operationId": "delete_session", "tags": ["session"], "summary": "Signs out",
            "responses": {"200": {"description": "Done"}}},
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Fields by name; a `?` behind a name says that it may be absent or null.
fn object(fields: &[(&str, &str)]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, kind) in fields {
        let plain = name.trim_end_matches('?');
        let mut schema = match *kind {
            "s" => json!({"type": "string"}),
            "n" => json!({"type": "number"}),
            "ms" => json!({"type": "integer", "description": "milliseconds since the epoch"}),
            "b" => json!({"type": "boolean"}),
            "any" => json!({}),
            kind => match kind.strip_suffix("[]") {
                Some("s") => json!({"type": "array", "items": {"type": "string"}}),
                Some("n") => json!({"type": "array", "items": {"type": "number"}}),
                Some("any") => json!({"type": "array", "items": {}}),
                Some(name) => json!({"type": "array", "items": reference(name)}),
                None => reference(kind),
            },
        };
        if plain == *name {
            required.push(plain);
        } else if let Some(kind) = schema.get("type").cloned() {
            schema["type"] = json!([kind, "null"]);
        }
        properties.insert(plain.to_owned(), schema);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn schemas() -> Value {
    let mut all = Map::new();
    for (name, fields) in SCHEMAS {
        all.insert((*name).to_owned(), object(fields));
    }
    Value::Object(all)
}

type Fields = &'static [(&'static str, &'static str)];

const SCHEMAS: &[(&str, Fields)] = &[
    ("Refusal", &[("error", "s"), ("code", "s")]),
    ("Done", &[]),
    ("Session", &[("user?", "s"), ("role?", "s"), ("canSignOut", "b")]),
    ("SignIn", &[("user", "s"), ("password", "s")]),
    ("ExecutionPage", &[("executions", "Summary[]"), ("next?", "s"), ("looked", "n")]),
    ("Summary", SUMMARY),
    (
        "Progress",
        &[
            ("execution", "s"),
            ("workflow", "s"),
            ("state", "s"),
            ("fraction", "n"),
            ("fps?", "n"),
            ("speed?", "n"),
            ("doing?", "s"),
            ("leftMs?", "n"),
        ],
    ),
    (
        "Execution",
        &[
            ("id", "s"),
            ("status", "s"),
            ("input", "s"),
            ("output?", "s"),
            ("states", "Visit[]"),
            ("statesLeftOut", "n"),
            ("failure?", "any"),
            ("outputs", "Output[]"),
            ("redriveCount", "n"),
            ("doneBy", "any[]"),
        ],
    ),
    ("Output", &[("uri", "s"), ("url?", "s"), ("kind", "s"), ("name", "s"), ("bytes?", "n")]),
    (
        "Visit",
        &[
            ("event", "n"),
            ("name", "s"),
            ("type", "s"),
            ("status", "s"),
            ("depth", "n"),
            ("iteration?", "n"),
            ("enteredAt", "ms"),
            ("exitedAt?", "ms"),
            ("input", "s"),
            ("output?", "s"),
            ("error?", "s"),
            ("cause?", "s"),
            ("attempts", "any[]"),
            ("children", "s[]"),
            ("variables?", "any"),
            ("flow?", "any"),
        ],
    ),
    (
        "Trace",
        &[
            ("id", "s"),
            ("status", "s"),
            ("startedAt", "ms"),
            ("stoppedAt?", "ms"),
            ("events", "any"),
            ("visits", "any"),
            ("working", "any[]"),
            ("names", "s[]"),
        ],
    ),
    ("History", &[("events", "any[]"), ("next?", "n")]),
    (
        "Definition",
        &[
            ("machine", "s"),
            ("revision", "n"),
            ("definition", "s"),
            ("roleArn", "s"),
            ("createdAt", "ms"),
            ("problems", "Problem[]"),
        ],
    ),
    (
        "Problem",
        &[("code", "s"), ("message", "s"), ("pointer", "s"), ("line", "n"), ("column", "n"), ("severity", "s")],
    ),
    ("Problems", &[("problems", "Problem[]")]),
    ("Start", &[("machine", "s"), ("name?", "s"), ("qualifier?", "s"), ("input?", "any")]),
    ("Started", &[("id", "s"), ("name", "s"), ("arn", "s")]),
    ("Stop", &[("error?", "s"), ("cause?", "s")]),
    ("Stopped", &[("stoppedAt", "ms"), ("was", "s")]),
    ("Express", &[("running", "any[]"), ("runningTotal", "n"), ("ended", "any[]"), ("machines", "any")]),
    ("Redriven", &[("redrivenAt", "ms")]),
    ("Ids", &[("ids", "s[]")]),
    ("Outcomes", &[("outcomes", "any[]"), ("failed", "n")]),
    (
        "Overview",
        &[
            ("now", "ms"),
            ("running", "Summary[]"),
            ("runningMore", "b"),
            ("runningAll", "n"),
            ("today", "any"),
            ("landings", "any[]"),
            ("alarms", "Alarm[]"),
            ("parts", "any[]"),
            ("watches", "any[]"),
            ("approvals", "n"),
            ("notificationsWaiting", "n"),
            ("lanes", "Lane[]"),
        ],
    ),
    ("Lane", &[("name", "s"), ("capacity", "n"), ("busy", "n"), ("waiting", "n")]),
    ("Lanes", &[("lanes", "Lane[]")]),
    ("Work", &[("working", "any[]"), ("lanes", "Lane[]")]),
    ("Machines", &[("machines", "any[]")]),
    (
        "Machine",
        &[
            ("name", "s"),
            ("arn", "s"),
            ("type", "s"),
            ("revision", "n"),
            ("definition", "s"),
            ("problems", "Problem[]"),
            ("publishedVersions", "any[]"),
            ("aliases", "any[]"),
            ("tags", "any[]"),
        ],
    ),
    ("NewMachine", &[("name", "s"), ("definition", "s"), ("express?", "b")]),
    ("MachineChange", &[("definition", "s"), ("based_on?", "n"), ("publish?", "s")]),
    ("Alias", &[("description?", "s"), ("routes", "Route[]")]),
    ("Route", &[("version", "n"), ("weight", "n")]),
    ("Validate", &[("definition", "s"), ("express?", "b")]),
    ("TestState", &[("definition", "s"), ("stateName?", "s"), ("input?", "s"), ("variables?", "s"), ("mock?", "any")]),
    (
        "Tried",
        &[
            ("status", "s"),
            ("output?", "s"),
            ("nextState?", "s"),
            ("error?", "s"),
            ("cause?", "s"),
            ("inspectionData?", "any"),
        ],
    ),
    ("Devices", &[("cpu", "any"), ("memory", "any"), ("driver", "any"), ("gpus", "any[]"), ("now", "any")]),
    ("Benchmarks", &[("runs", "any[]"), ("speeds?", "any")]),
    (
        "Benchmark",
        &[
            ("format", "n"),
            ("id", "s"),
            ("started_at", "ms"),
            ("took_seconds", "n"),
            ("mode", "s"),
            ("version", "s"),
            ("box", "any"),
            ("disturbed", "s[]"),
            ("sections", "any[]"),
            ("capacity?", "any"),
            ("comparisons", "any[]"),
        ],
    ),
    ("Watches", &[("watches", "any[]")]),
    ("Schedules", &[("schedules", "any[]")]),
    ("Alarm", &[("name", "s"), ("raised", "b"), ("reason", "s"), ("since", "ms"), ("history", "any[]")]),
    ("Alarms", &[("alarms", "Alarm[]")]),
    ("Notifications", &[("waiting", "any[]"), ("delivered", "any[]")]),
    ("Settings", &[("version", "s"), ("account", "s"), ("region", "s"), ("settings", "any")]),
    ("AuditEntries", &[("entries", "any[]"), ("deeds", "any[]"), ("next?", "s")]),
    ("Shares", &[("shares", "any[]")]),
    ("Files", &[("share", "s"), ("under", "s"), ("files", "any[]"), ("more", "b")]),
    ("Approvals", &[("approvals", "any[]")]),
    ("Approve", &[("comment?", "s")]),
    ("Reject", &[("reason", "s")]),
];

const SUMMARY: Fields = &[
    ("id", "s"),
    ("arn", "s"),
    ("name", "s"),
    ("machine", "s"),
    ("revision", "n"),
    ("status", "s"),
    ("file?", "s"),
    ("source?", "s"),
    ("sourceUrl?", "s"),
    ("startedAt", "ms"),
    ("stoppedAt?", "ms"),
    ("error?", "s"),
    ("cause?", "s"),
    ("parent?", "s"),
    ("progress?", "Progress"),
    ("thumbnail?", "s"),
    ("mediaMs?", "n"),
    ("events", "n"),
    ("redrivable", "b"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Role;

    #[test]
    fn every_shape_that_is_named_is_there() {
        let route = |body, answer| RouteSpec {
            method: "POST",
            path: "/executions/{id}/stop",
            role: Role::Operator,
            tag: "executions",
            summary: "Stops it",
            query: &[],
            body,
            answer,
            success: axum::http::StatusCode::OK,
        };
        let document = document(&[route("Stop", "Stopped")]);
        let operation = &document["paths"]["/api/v1/executions/{id}/stop"]["post"];
        assert_eq!(operation["operationId"], "post_executions_id_stop");
        assert_eq!(operation["parameters"][0]["name"], "id");
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(SCHEMAS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }
}

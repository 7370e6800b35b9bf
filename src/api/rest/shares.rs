//! Shares over REST: how much room there is, whether they answer, and what lies on them.

use std::path::PathBuf;

use axum::extract::State;
use conveyor_base::Uri;
use conveyor_base::shares::ShareError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{JsonResult, NoStoreJson, Path, Query};
use crate::{ApiError, AppState, media};

/// Entries of a folder that are listed; a larger folder says so.
const ENTRIES_MAX: usize = 2_000;

pub async fn all(State(app): State<AppState>) -> JsonResult {
    let look = app.clone();
    Ok(NoStoreJson(app.blocking(move || json!({"shares": read(&look)})).await?))
}

/// Every share with its file system. A server that is gone costs three seconds, for all of them together.
pub fn read(app: &AppState) -> Vec<Value> {
    let shares = app.io.shares();
    let root = |name: &str| Some((name.to_owned(), shares.root(name).ok()?.to_path_buf()));
    let places: Vec<(String, PathBuf)> = shares.names().filter_map(root).collect();
    let shares = conveyor_hw::Share::read_all(&places);
    let shown = shares.iter().map(|share| {
        let why = share.file_system.why();
        json!({
            "name": share.name,
            "path": share.path.display().to_string(),
            "reachable": why.is_none(),
            "why": why,
            "served": app.served.contains(&share.name),
            "watched": app.workflows.get(&share.name),
            "fileSystem": share.file_system.known(),
        })
    });
    shown.collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesQuery {
    under: String,
}

pub async fn files(
    State(app): State<AppState>,
    Path(share): Path<String>,
    Query(query): Query<FilesQuery>,
) -> JsonResult {
    let (io, name) = (app.io.clone(), share.clone());
    io.run(&[&name], move |_| listed(&app, &share, query.under.trim_matches('/'))).await?
}

fn listed(app: &AppState, share: &str, under: &str) -> JsonResult {
    let not_here = |what: String| ApiError::new("ResourceNotFound", what);
    // A folder that is hidden is not listed by another name either: what is said of its files holds by the key.
    if media::is_hidden(under) {
        return Err(not_here(format!("There is no folder s3://{share}/{under}")));
    }
    let place = app.io.shares().place(&Uri::new(share, under)).map_err(|e| not_here(e.to_string()))?.itself();
    let unread = |e: std::io::Error| not_here(format!("s3://{share}/{under} cannot be read: {e}"));
    let mut listing = place.list().map_err(|e| match e {
        ShareError::Io { source, .. } => unread(source),
        ShareError::Escapes(uri) => not_here(format!("{uri} is behind a symbolic link, and none is followed here")),
        other => not_here(other.to_string()),
    })?;
    let (mut entries, mut more) = (Vec::new(), false);
    while let Some(listed) = listing.next() {
        let listed = listed.map_err(unread)?;
        // A name that is no text cannot stand in a key, and hidden files are the box's own or another program's.
        let Some(name) = listed.name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if entries.len() == ENTRIES_MAX {
            more = true;
            break;
        }
        let Ok(meta) = listing.meta(&listed) else { continue };
        let key = if under.is_empty() { name.to_owned() } else { format!("{under}/{name}") };
        let modified = meta.modified().map(|_| meta.modified_ms());
        let uri = Uri::new(share, &key);
        entries.push(json!({
            "name": name,
            "key": key,
            "folder": meta.is_folder(),
            "bytes": meta.is_file().then_some(meta.size),
            "modifiedAt": modified,
            "url": if meta.is_file() { media::url(app, &uri) } else { None },
        }));
    }
    let order = |e: &Value| (e["folder"] == false, e["name"].as_str().unwrap_or_default().to_lowercase());
    entries.sort_by_key(order);
    Ok(NoStoreJson(json!({"share": share, "under": under, "files": entries, "more": more})))
}

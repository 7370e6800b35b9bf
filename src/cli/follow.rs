//! Follows an execution and its nested ones to the end, and says on the terminal what happens.

use std::collections::HashSet;

use anyhow::Context as _;
use conveyor_base::ExecutionId;
use conveyor_interpreter::{Header, Outcome, Status};
use conveyor_run::{Handle, LiveUpdate};
use conveyor_store::ExecutionFilter;
use tokio::sync::broadcast::error::RecvError;

use super::terminal::Screen;

/// Returns when the execution has ended. One call follows what runs on a box that does nothing else.
pub async fn follow(handle: &Handle, id: ExecutionId) -> anyhow::Result<Header> {
    let mut updates = handle.subscribe();
    let mut screen = Screen::new();
    let mut said = HashSet::new();
    loop {
        let header = handle.reader().header(id).await?.context("the execution is gone from the store")?;
        if header.status != Status::Running {
            print_ended(handle, &screen, &mut said).await?;
            return Ok(header);
        }
        match updates.recv().await {
            Ok(LiveUpdate::Progress { running, .. }) => screen.progress(&running.state, &running.progress),
            Ok(LiveUpdate::Changed { status: Status::Running, .. }) | Err(RecvError::Lagged(_)) => {}
            Ok(LiveUpdate::Changed { .. }) => {
                screen.clear();
                print_ended(handle, &screen, &mut said).await?;
            }
            Err(RecvError::Closed) => anyhow::bail!("the appliance ended before the execution did"),
        }
    }
}

async fn print_ended(handle: &Handle, screen: &Screen, said: &mut HashSet<ExecutionId>) -> anyhow::Result<()> {
    let newest = handle.reader().blocking(|rows| rows.executions(&ExecutionFilter::default(), None, 100));
    let page = newest.await?;
    let mut ended: Vec<_> =
        page.items.into_iter().filter(|row| row.stopped_at.is_some() && !said.contains(&row.id)).collect();
    ended.sort_by_key(|row| row.stopped_at);
    for row in ended {
        said.insert(row.id);
        let seconds = row.stopped_at.map_or(0, |at| at.since_ms(row.started_at)) as f64 / 1000.0;
        let error = row.error.map(|error| format!("  {error}")).unwrap_or_default();
        screen.print_line(&format!(
            "  {:<12} {:<10} {seconds:>7.1} s{error}",
            row.machine.name,
            format!("{:?}", row.status).to_lowercase()
        ));
    }
    Ok(())
}

/// The error of an execution that ended without success, for people.
pub fn failure(header: &Header) -> Option<String> {
    match header.outcome.as_ref()? {
        Outcome::Succeeded { .. } => None,
        Outcome::Failed { error, cause } | Outcome::TimedOut { error, cause } | Outcome::Aborted { error, cause } => {
            let error = error.as_deref().unwrap_or("no error name");
            Some(format!("{error}: {}", cause.as_deref().unwrap_or("no cause given")))
        }
    }
}

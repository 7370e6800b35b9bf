//! The row of a Map run: how far it has come. Its children are executions of their own, counted by the indexes.

use conveyor_interpreter::map_run::{Plan, run_of};
use conveyor_interpreter::{Header, RunTask};
use rkyv::{Archive, Deserialize, Serialize};

use super::{Id, Stamp};

super::catalog!(MapRunRow);

/// A run of a distributed Map. Changes with each batch of children that starts; as large for a million items as for one.
#[derive(Clone, PartialEq, Debug, Archive, Serialize, Deserialize)]
pub struct MapRunRow {
    pub run: Id,
    pub machine: String,
    pub label: String,
    pub express: bool,
    pub status: RunStatus,
    pub started_at: Stamp,
    pub stopped_at: Option<Stamp>,
    /// 0: no bound of its own.
    pub max_concurrency: u32,
    pub tolerated_count: Option<u64>,
    pub tolerated_percentage: Option<f64>,
    /// Most items of one child; 0: no bound.
    pub items_per_child: u32,
    /// Whether all items are known: those of a reader only once it has read all.
    pub is_read: bool,
    pub items: u32,
    /// How many pages of items lie in the store.
    pub pages: u32,
    /// The first item that no child has been given, and where it lies.
    pub next_item: u32,
    pub next_page: u32,
    pub next_line: u32,
    /// How many children have been started.
    pub children: u32,
    pub redrives: u32,
    pub redriven_at: Option<Stamp>,
    /// Why it failed.
    pub error: Option<String>,
    pub cause: Option<String>,
    pub results_written: u64,
    /// The counts at its end; while it runs the indexes have them.
    pub ended: Option<RunCounts>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum RunStatus {
    Running,
    Succeeded,
    Failed,
    Aborted,
}

/// How many children are in which status, and how many items those have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Archive, Serialize, Deserialize)]
pub struct RunCounts {
    pub executions: [u64; 5],
    pub items: [u64; 5],
}

impl MapRunRow {
    /// A run as it begins; `None` where the task stands for none.
    pub fn of(header: &Header, task: &RunTask) -> Option<MapRunRow> {
        let run = run_of(&task.resource)?;
        let plan: Plan = serde_json::from_str(&task.parameters).ok()?;
        let per_child = plan.batch.as_ref().map_or(Some(1), |batch| batch.max_items);
        Some(MapRunRow {
            run: Id(run),
            machine: header.machine.name.clone(),
            label: plan.label,
            express: plan.express,
            status: RunStatus::Running,
            started_at: task.scheduled_at.into(),
            stopped_at: None,
            max_concurrency: plan.max_concurrency,
            tolerated_count: plan.tolerated_count,
            tolerated_percentage: plan.tolerated_percentage,
            items_per_child: per_child.map_or(0, |most| u32::try_from(most).unwrap_or(u32::MAX)),
            is_read: plan.reader.is_none(),
            items: 0,
            pages: 0,
            next_item: 0,
            next_page: 0,
            next_line: 0,
            children: 0,
            redrives: task.retry_count,
            redriven_at: None,
            error: None,
            cause: None,
            results_written: 0,
            ended: None,
        })
    }
}

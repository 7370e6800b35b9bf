//! The items of a run: read once into pages of the store, and made into the inputs of children.

use std::io;
use std::sync::Arc;

use conveyor_base::limits::quotas;
use conveyor_base::{Attempt, ExecutionId, Fault, fault};
use conveyor_interpreter::map_run::{Batch, Feed, Plan, ReadItems, batch_input, bounded};
use conveyor_interpreter::{Effort, Failure, Item, Json, RunTask};
use conveyor_store::{Commit, MapRunRow};
use serde_json::Value;
use tokio::sync::mpsc;

use super::drive::{End, Run};
use crate::core::SharedCore;

/// Looks at one input after the other.
type See<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// Bytes of a page of items, and of the pages that one commit stores: the last item may be longer by far.
const PAGE_BYTES: usize = 64 << 10;
const COMMIT_BYTES: usize = 1 << 20;
/// Where the next item lies.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub item: u32,
    pub page: u32,
    pub line: u32,
}

impl Cursor {
    pub fn of(row: &MapRunRow) -> Cursor {
        Cursor { item: row.next_item, page: row.next_page, line: row.next_line }
    }
}

impl Run<'_> {
    /// Makes all items known: those of a reader become pages in the store, so that a file which changes or goes
    /// meanwhile changes nothing.
    pub async fn read(&mut self) -> Result<Result<(), End>, Fault> {
        let machine = self.machine.clone();
        let given = match &self.plan.reader {
            Some(reader) if !self.row.is_read => return self.read_pages(reader.clone()).await,
            Some(_) => return Ok(Ok(())),
            // What it looks at was read when the run was taken up.
            None => {
                let (parent, branch) = (self.execution.clone(), self.task.branch);
                let given = move || {
                    let effort = Effort::unbounded();
                    let feed = Feed::of(&machine.definition, &parent, branch, &machine.env, &effort);
                    feed.ok().flatten().map_or(Ok(Vec::new()), |feed| feed.items())
                };
                self.core.long_steps.run(given).await?
            }
        };
        Ok(match given {
            Ok(given) => {
                self.row.items = u32::try_from(given.len()).unwrap_or(u32::MAX);
                self.items.given = Arc::new(given);
                Ok(())
            }
            Err(failure) => Err(End::Failed(failure)),
        })
    }

    async fn read_pages(&mut self, reader: ReadItems) -> Result<Result<(), End>, Fault> {
        let attempt = self.attempt();
        let (lines, mut read) = mpsc::channel::<Vec<String>>(4);
        let reading = tokio::spawn(self.core.resources.read_items(reader, lines));
        let (mut commit, mut pages, mut page, mut items) = (Commit::new(), 0, String::new(), 0u32);
        let mut unstored = 0;
        while let Some(lines) = read.recv().await {
            if let Some(end) = self.interrupted() {
                reading.abort();
                return Ok(Err(end));
            }
            for line in lines {
                items = items.saturating_add(1);
                page.push_str(&line);
                page.push('\n');
                if page.len() >= PAGE_BYTES {
                    commit.put_item_page(self.parent, attempt, pages, &page);
                    (pages, unstored) = (pages + 1, unstored + page.len());
                    page = String::new();
                }
                if unstored >= COMMIT_BYTES {
                    self.core.commit(std::mem::take(&mut commit)).await?;
                    unstored = 0;
                }
            }
        }
        match reading.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Ok(Err(End::Failed(failure(e.error, e.cause)))),
            Err(e) => {
                let cause = format!("Reading the items broke off: {e}");
                return Ok(Err(End::Failed(failure("States.ItemReaderFailed", cause))));
            }
        }
        if !page.is_empty() {
            commit.put_item_page(self.parent, attempt, pages, &page);
            pages += 1;
        }
        // What a reading that broke off left behind, of a file that was longer then.
        let (parent, mut left) = (self.parent, pages);
        let last = self.core.reader.blocking(move |rows| {
            while rows.item_page(parent, attempt, left)?.is_some() {
                left += 1;
            }
            Ok::<_, Fault>(left)
        });
        for page in pages..last.await? {
            commit.delete_item_page(parent, attempt, page);
        }
        self.store(commit, |row| (row.is_read, row.items, row.pages) = (true, items, pages)).await?;
        Ok(Ok(()))
    }

    /// The inputs that were given to no child, as the children would have had them: a walk, for a thread that may block.
    pub fn pending_inputs(&self) -> impl FnOnce(See<'_>) -> io::Result<()> + Send + use<> {
        let (mut items, machine, parent) = (self.items.clone(), self.machine.clone(), self.execution.clone());
        let (branch, row) = (self.task.branch, self.row.clone());
        move |see| {
            let effort = Effort::unbounded();
            let feed = Feed::of(&machine.definition, &parent, branch, &machine.env, &effort);
            let Some(mut feed) = feed.ok().flatten() else { return Ok(()) };
            let mut cursor = Cursor::of(&row);
            while cursor.item < row.items {
                let made = items.next_input(&mut feed, &mut cursor, row.items);
                match made.map_err(|e| io::Error::other(fault::chain(&e)))? {
                    Ok((input, _)) => see(&input)?,
                    Err(_) => return Ok(()),
                }
            }
            Ok(())
        }
    }
}

/// Where a run's items are. A clone costs little and reads on its own.
#[derive(Clone)]
pub(super) struct Items {
    core: SharedCore,
    parent: ExecutionId,
    attempt: Attempt,
    state: Arc<str>,
    plan: Plan,
    /// Those that stand in the parent's input.
    given: Arc<Vec<Item>>,
    /// The page that is read now.
    page: Option<(u32, Arc<Vec<Item>>)>,
}

impl Items {
    pub fn of(core: &SharedCore, parent: ExecutionId, task: &RunTask, plan: &Plan) -> Items {
        let (attempt, state) = (task.attempt, task.state.clone());
        Items { core: core.clone(), parent, attempt, state, plan: plan.clone(), given: Arc::default(), page: None }
    }

    /// The next child's input, and how many items it holds, of `end` items in all.
    pub fn next_input(
        &mut self,
        feed: &mut Feed,
        cursor: &mut Cursor,
        end: u32,
    ) -> Result<Result<(Json, u32), Failure>, Fault> {
        feed.next_child();
        let state = self.state.clone();
        let Some(batch) = self.plan.batch.clone() else {
            let index = cursor.item;
            let item = self.next_item(cursor)?;
            let made = feed.select(index, &item).and_then(|value| bounded(&state, value.to_string().into()));
            return Ok(made.map(|input| (input, 1)));
        };
        let mut items: Vec<Arc<Value>> = Vec::new();
        let most = batch.max_items.unwrap_or(u64::MAX);
        let (mut bytes, bytes_max) = (batch_input(&batch, &[]).to_string().len(), bytes_of(&batch));
        while (items.len() as u64) < most && cursor.item < end && (items.is_empty() || !feed.is_spent()) {
            let mut ahead = *cursor;
            let item = self.next_item(&mut ahead)?;
            let value = match feed.select(cursor.item, &item) {
                Ok(value) => value,
                Err(failure) => return Ok(Err(failure)),
            };
            // And the comma before it.
            bytes += value.to_string().len() + usize::from(!items.is_empty());
            if bytes > bytes_max && !items.is_empty() {
                break;
            }
            items.push(value);
            *cursor = ahead;
        }
        let count = items.len() as u32;
        Ok(bounded(&state, batch_input(&batch, &items).to_string().into()).map(|input| (input, count)))
    }

    fn next_item(&mut self, cursor: &mut Cursor) -> Result<Item, Fault> {
        if self.plan.reader.is_none() {
            let item = self.given.get(cursor.item as usize).cloned();
            cursor.item += 1;
            return Ok(item.unwrap_or_else(|| Item::of(Value::Null)));
        }
        loop {
            if self.page.as_ref().is_none_or(|(page, _)| *page != cursor.page) {
                let lines = self.core.reader.item_page(self.parent, self.attempt, cursor.page)?;
                let lines = lines.ok_or_else(|| lost(self.parent))?;
                let source = self.core.resources.source_of(self.plan.reader.as_ref());
                let items: Vec<Item> = lines.lines().map(|line| item_of(line, &source)).collect();
                self.page = Some((cursor.page, Arc::new(items)));
            }
            if let Some((_, items)) = &self.page
                && let Some(item) = items.get(cursor.line as usize)
            {
                cursor.item += 1;
                cursor.line += 1;
                return Ok(item.clone());
            }
            (cursor.page, cursor.line) = (cursor.page + 1, 0);
        }
    }
}

fn failure(error: impl Into<String>, cause: impl Into<String>) -> Failure {
    Failure { error: Some(error.into()), cause: Some(cause.into()) }
}

fn lost(parent: ExecutionId) -> Fault {
    Fault::fatal_plain(format!("a page of items of a Map run of execution {parent} is gone; run `conveyor check`"))
}

fn bytes_of(batch: &Batch) -> usize {
    let payload = quotas().payload_bytes();
    batch.max_bytes.map_or(payload, |most| (most as usize).min(payload))
}

/// A line of a page: `[value]`, `[value, key]` or `[value, key, source]`.
fn item_of(line: &str, source: &Arc<str>) -> Item {
    let parts: Vec<Value> = serde_json::from_str(line).unwrap_or_default();
    let mut parts = parts.into_iter();
    let value = parts.next().unwrap_or_default();
    let mut text = || parts.next().and_then(|part| part.as_str().map(Arc::from));
    let (key, own) = (text(), text());
    Item { key, source: own.or_else(|| Some(source.clone())), ..Item::of(value) }
}

//! "Already processed?": who works on a content, by its hash. Atomic, so that of two executions one goes on.
//!
//! ```text
//! free ──claim──▶ held by E ──record──▶ done by E (for good)
//!   ▲                │ E failed, was stopped or timed out, or released it
//!   └────────────────┘
//! ```

mod task;

use serde_json::{Value, json};

pub use task::{NAMES, adapter};

use crate::base::{Fault, Timestamp, arn};
use crate::interpreter::{Header, Status};
use crate::run::Handle;
use crate::store::{Commit, FileRow, Reader};

/// The claims of this box.
pub struct Claims {
    reader: Reader,
    account: String,
    region: String,
    /// Held while a claim reads and writes.
    alone: tokio::sync::Mutex<()>,
}

/// A content that somebody asks for.
pub struct Content<'a> {
    pub hash: &'a str,
    /// Where it lies.
    pub uri: &'a str,
    pub size_bytes: u64,
}

impl Claims {
    pub fn new(reader: Reader, account: &str, region: &str) -> Claims {
        Claims { reader, account: account.to_owned(), region: region.to_owned(), alone: Default::default() }
    }

    /// The execution that an ARN names.
    pub fn execution(&self, arn: &str) -> Result<Option<Header>, Fault> {
        let parts: Vec<&str> = arn.splitn(8, ':').collect();
        let [.., machine, name] = parts.as_slice() else { return Ok(None) };
        if parts.len() != 8 {
            return Ok(None);
        }
        match self.reader.by_name(machine, name)? {
            Some(id) => self.reader.header(id),
            None => Ok(None),
        }
    }

    /// The content is the holder's from now on, unless somebody else's claim holds: then what that stands for.
    pub async fn claim(&self, handle: &Handle, content: Content<'_>, holder: &Header) -> Result<Option<Value>, Fault> {
        let _alone = self.alone.lock().await;
        match self.reader.file(content.hash)? {
            Some(row) if row.execution == holder.id.into() => return Ok(None),
            Some(row) => {
                if let Some(earlier) = self.earlier(&row)? {
                    return Ok(Some(earlier));
                }
            }
            None => {}
        }
        store(handle, content.hash, &claimed(handle, &content, holder)).await.map(|()| None)
    }

    /// Gives the holder's content free again, unless it is processed. False where it is not the holder's.
    pub async fn release(&self, handle: &Handle, hash: &str, holder: &Header) -> Result<bool, Fault> {
        let _alone = self.alone.lock().await;
        let ours = self.reader.file(hash)?.filter(|row| row.execution == holder.id.into());
        if ours.as_ref().is_some_and(|row| row.result.is_empty()) {
            let mut commit = Commit::new();
            commit.delete_file(hash);
            handle.commit(commit).await?;
        }
        Ok(ours.is_some())
    }

    /// The content is processed, with this result.
    pub async fn record(
        &self,
        handle: &Handle,
        content: Content<'_>,
        holder: &Header,
        result: &Value,
    ) -> Result<(), Fault> {
        let _alone = self.alone.lock().await;
        let ours = self.reader.file(content.hash)?.filter(|row| row.execution == holder.id.into());
        let row = ours.unwrap_or_else(|| claimed(handle, &content, holder));
        store(handle, content.hash, &FileRow { result: result.to_string(), ..row }).await
    }

    /// What the earlier claim stands for; `None` where it no longer holds.
    fn earlier(&self, row: &FileRow) -> Result<Option<Value>, Fault> {
        let id = row.execution.into();
        let header = self.reader.header(id)?;
        let done = !row.result.is_empty();
        let holds = done || header.as_ref().is_some_and(|h| matches!(h.status, Status::Running | Status::Succeeded));
        if !holds {
            return Ok(None);
        }
        let mut earlier = json!({
            "executionId": id.to_string(),
            "input": row.uri,
            "claimedAt": Timestamp::from(row.claimed_at).to_string(),
        });
        earlier["execution"] = match &header {
            Some(h) => json!(arn::execution(&self.region, &self.account, &h.arn_machine(), &h.name)),
            // Retention has dropped it; its id is all that is left.
            None => json!(id.to_string()),
        };
        earlier["status"] = json!(match header {
            Some(h) if !done && h.status == Status::Running => "RUNNING",
            _ => "SUCCEEDED",
        });
        if done {
            earlier["result"] = serde_json::from_str(&row.result).unwrap_or(Value::Null);
        }
        Ok(Some(earlier))
    }
}

fn claimed(handle: &Handle, content: &Content, holder: &Header) -> FileRow {
    FileRow {
        uri: content.uri.to_owned(),
        size_bytes: content.size_bytes,
        execution: holder.id.into(),
        claimed_at: handle.now().into(),
        result: String::new(),
    }
}

async fn store(handle: &Handle, hash: &str, row: &FileRow) -> Result<(), Fault> {
    let mut commit = Commit::new();
    commit.put_file(hash, row);
    handle.commit(commit).await
}

//! RedriveExecution, and which redrives were asked for already: SDKs send a token with each, and the same one again
//! where they heard no answer.
//!
//! Volatile: after a restart a token is as good as new.

use std::collections::VecDeque;
use std::sync::Arc;

use conveyor_base::{ExecutionId, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::ARN_CHARS_MAX;
use crate::{ApiError, AppState};

/// How long a token is remembered (AWS: 15 minutes).
const REMEMBERED_MS: i64 = 15 * 60_000;
const TOKENS_MAX: usize = 4_096;

struct Token {
    execution: ExecutionId,
    text: String,
    /// What was answered.
    at: Timestamp,
    /// By the box's own time.
    since: Timestamp,
}

/// The tokens of the redrives that were carried out lately.
#[derive(Clone, Default)]
pub struct Redriven(Arc<Mutex<VecDeque<Token>>>);

impl Redriven {
    /// When that redrive was carried out.
    fn at(&self, execution: ExecutionId, token: &str, now: Timestamp) -> Option<Timestamp> {
        let mut tokens = self.0.lock();
        while tokens.front().is_some_and(|oldest| now.since_ms(oldest.since) > REMEMBERED_MS) {
            tokens.pop_front();
        }
        tokens.iter().find(|known| known.execution == execution && known.text == token).map(|known| known.at)
    }

    fn remember(&self, execution: ExecutionId, text: String, at: Timestamp, since: Timestamp) {
        let mut tokens = self.0.lock();
        if tokens.len() == TOKENS_MAX {
            tokens.pop_front();
        }
        tokens.push_back(Token { execution, text, at, since });
    }
}

pub async fn redrive(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let token = fields.name("clientToken", 64);
    fields.done()?;
    let header = super::executions::find(app, &arn).await?;
    let known = token.as_deref().and_then(|token| app.redriven.at(header.id, token, app.handle.now()));
    let at = match known {
        Some(at) => at,
        None => {
            let at = app.handle.redrive(header.id).await?;
            if let Some(token) = token {
                app.redriven.remember(header.id, token, at, app.handle.now());
            }
            at
        }
    };
    Ok(json!({"redriveDate": at.as_seconds()}))
}

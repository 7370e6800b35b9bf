//! Typed ids, so that none can stand where another is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Timestamp;

/// The state machine whose executions are MediaConvert's jobs: known to those who run them and to those who show them.
pub const JOB_MACHINE: &str = "conveyor-mediaconvert-job";

/// One run of a workflow. Time-ordered (48 bits of milliseconds, then a counter, then randomness), so
/// that rows of new executions are appended to the tables and never scattered over them.
/// Shown as a version 7 UUID (RFC 9562, section 5.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId(pub u128);

impl ExecutionId {
    /// A new id. Ids of one process are strictly ascending within a millisecond (4,096 of them) and
    /// unique beyond that by 62 random bits.
    pub fn generate(now: Timestamp) -> ExecutionId {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = u128::from(COUNTER.fetch_add(1, Ordering::Relaxed) & 0xfff);
        let random = uuid::Uuid::new_v4().as_u128() & ((1 << 62) - 1);
        let ms = (now.0.max(0) as u128) & ((1 << 48) - 1);
        ExecutionId(ms << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | random)
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).fmt(f)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExecutionId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(ExecutionId(uuid::Uuid::from_str(s)?.as_u128()))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One line of control within an execution: 0 is the root, others are Parallel branches and Map iterations.
    BranchId(u32)
}
number! {
    /// Number of an event in an execution's history, from 1; 0 stands for "none before it".
    EventId(u64)
}
number! {
    /// One try of one Task state, unique within its execution: what fences out stragglers of earlier tries.
    Attempt(u32)
}
number! {
    /// One timer of an execution, unique within it.
    TimerId(u32)
}

impl BranchId {
    pub const ROOT: BranchId = BranchId(0);
}

/// The right to report the outcome of one attempt, and to heartbeat for it, from outside.
///
/// The token names its execution and attempt, so that no table is needed to find them, and carries a
/// secret nonce that the attempt's row repeats, so that it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskToken {
    pub execution: ExecutionId,
    pub attempt: Attempt,
    pub nonce: u128,
}

impl fmt::Display for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0u8; 36];
        bytes[..16].copy_from_slice(&self.execution.to_bytes());
        bytes[16..20].copy_from_slice(&self.attempt.0.to_be_bytes());
        bytes[20..].copy_from_slice(&self.nonce.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// What is no task token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a task token")]
pub struct NotAToken;

impl FromStr for TaskToken {
    type Err = NotAToken;
    fn from_str(s: &str) -> Result<Self, NotAToken> {
        let bytes: [u8; 36] = URL_SAFE_NO_PAD.decode(s).ok().and_then(|b| b.try_into().ok()).ok_or(NotAToken)?;
        let (execution, rest) = bytes.split_at(16);
        let (attempt, nonce) = rest.split_at(4);
        Ok(TaskToken {
            execution: ExecutionId(u128::from_be_bytes(execution.try_into().map_err(|_| NotAToken)?)),
            attempt: Attempt(u32::from_be_bytes(attempt.try_into().map_err(|_| NotAToken)?)),
            nonce: u128::from_be_bytes(nonce.try_into().map_err(|_| NotAToken)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = TaskToken { execution: ExecutionId::generate(Timestamp(5)), attempt: Attempt(7), nonce: 99 };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert_eq!("nonsense".parse::<TaskToken>(), Err(NotAToken));
    }

    #[test]
    fn ids_ascend_with_time() {
        let (a, b) = (ExecutionId::generate(Timestamp(1_000)), ExecutionId::generate(Timestamp(1_001)));
        assert!(a < b);
        assert_eq!(a.to_string().parse::<ExecutionId>().unwrap(), a);
    }
}

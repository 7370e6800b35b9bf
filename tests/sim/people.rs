//! The people who use the services of the box from outside: they send, receive, delete, create, start and decide, hang up
//! now and then, and write down what they were told.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use conveyor_base::{Attempt, ExecutionId};
use conveyor_interpreter::Status;
use conveyor_run::service::Unavailable;
use conveyor_run::{AuditEntry, Handle, NewMachine, OnBehalf, StartRequest};
use conveyor_services::alarms::Conditions;
use conveyor_services::approvals::{Approvals, Decision, Verdict};
use conveyor_services::predictions::{JobSample, Predictions};
use conveyor_services::queues::{NewMessage, Queues, Receipt, Received, Reply, Request};
use conveyor_services::uploads::Uploads;
use conveyor_store::MessageRow;
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::ledger::Told;

/// Groups of the messages that are to come in order.
const GROUPS: u64 = 3;
/// How long a receiver has a message.
const VISIBILITY_MS: i64 = 2_000;

#[derive(Clone)]
pub struct Shared {
    pub rng: Arc<Mutex<ChaCha8Rng>>,
    pub told: Arc<Mutex<Told>>,
    /// How many things each does at most.
    pub things: u64,
    pub hang_ups: bool,
    /// Nobody dawdles: a receipt is as good as it was when it was handed out.
    pub is_punctual: bool,
}

/// Uses the box from outside.
#[derive(Clone)]
pub struct Person {
    pub handle: Handle,
    pub queues: Queues,
    pub approvals: Approvals,
    pub uploads: Uploads,
    pub predictions: Predictions,
    pub weather: Arc<Mutex<Conditions>>,
    pub folder: PathBuf,
    pub life: Shared,
}

/// Nobody knows what came of it.
pub struct HungUp;

impl Shared {
    pub fn random(&self, below: u64) -> u64 {
        self.rng.lock().random_range(0..below)
    }

    /// Waits for an answer, or drops the question after a few polls.
    pub async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, HungUp> {
        let mut patience = match self.hang_ups && self.random(2) == 0 {
            true => self.random(6),
            false => u64::MAX,
        };
        let mut question = Box::pin(question);
        std::future::poll_fn(move |context| {
            if patience == 0 {
                return Poll::Ready(Err(HungUp));
            }
            patience -= 1;
            match question.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Ok(answer)),
                Poll::Pending => {
                    if patience < u64::MAX / 2 {
                        context.waker().wake_by_ref();
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub async fn pause(&self) {
        match self.random(3) {
            0 => sleep(Duration::from_millis(self.random(300))).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

impl Person {
    /// An entry of the audit log, as the API makes it.
    pub fn entry(&self, who: &str, what: &str, to: &str) -> OnBehalf {
        OnBehalf::of(AuditEntry {
            at: self.handle.now(),
            who: who.into(),
            role: "admin".into(),
            api: "aws",
            what: what.into(),
            to: to.into(),
            status: 200,
        })
    }

    async fn ask(&self, queue: &str, request: Request, entry: Option<OnBehalf>) -> Result<Reply, HungUp> {
        match self.life.ask(self.queues.ask(queue, request, entry)).await {
            Ok(Ok(reply)) => Ok(reply),
            // Being started again, or gone with the power: either way nothing was said.
            Ok(Err(Unavailable)) => {
                sleep(Duration::from_millis(20)).await;
                Err(HungUp)
            }
            Err(hung_up) => Err(hung_up),
        }
    }

    /// Sends each message until its sending is acknowledged: however often, it is there once.
    pub async fn sends_in_order(self, sender: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(6) {
            let body = format!("o{sender}-{n}");
            let is_known = self.life.told.lock().ordered.get(&body) == Some(&true);
            let first_at = *self.life.told.lock().first_sent_at.entry(body.clone()).or_insert(self.handle.now());
            // After an outage some do not trust what they were told, and send it again: soon enough, it is the same one.
            let is_young = self.handle.now().since_ms(first_at).abs() < 200_000;
            if is_known && (!is_young || self.life.random(2) == 0) {
                continue;
            }
            self.life.told.lock().ordered.entry(body.clone()).or_insert(false);
            self.life.pause().await;
            loop {
                let group = format!("g{}", (sender + n) % GROUPS);
                let message =
                    NewMessage { body: body.clone(), group, deduplication: body.clone(), ..Default::default() };
                let entry = Some(self.entry("somebody", "SendMessage", &body));
                if let Ok(Reply::Sent(sent)) = self.ask("ordered.fifo", Request::Send(vec![message]), entry).await {
                    let mut told = self.life.told.lock();
                    told.ordered.insert(body, true);
                    told.sent.extend(sent.iter().map(|sent| ("ordered.fifo".to_owned(), sent.sequence)));
                    break;
                }
                // He may come back to it when it has long been received and deleted.
                if self.life.random(2) == 0 {
                    sleep(Duration::from_millis(self.life.random(4_000))).await;
                }
            }
        }
        Ok(())
    }

    pub async fn sends_plainly(self, sender: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(4) {
            let body = format!("p{sender}-{n}");
            loop {
                {
                    let mut told = self.life.told.lock();
                    let (sent, acknowledged) = told.plain.entry(body.clone()).or_default();
                    if *acknowledged > 0 {
                        break;
                    }
                    *sent += 1;
                }
                self.life.pause().await;
                let message = NewMessage { body: body.clone(), ..Default::default() };
                let entry = Some(self.entry("somebody", "SendMessage", &body));
                if let Ok(Reply::Sent(_)) = self.ask("plain", Request::Send(vec![message]), entry).await {
                    self.life.told.lock().plain.entry(body.clone()).or_default().1 += 1;
                }
            }
        }
        Ok(())
    }

    /// Receives, and deletes most of it; hangs up over both now and then.
    pub async fn receives(self, queue: &'static str) -> Result<(), String> {
        loop {
            let gone: BTreeSet<String> = self.life.told.lock().deleted.clone();
            let until = self.handle.now().plus_ms(self.life.random(1_500) as i64);
            let most = 1 + self.life.random(4) as usize;
            let request = Request::Receive { most, visibility_ms: VISIBILITY_MS, until };
            let Ok(Reply::Received(received)) = self.ask(queue, request, None).await else {
                self.life.pause().await;
                continue;
            };
            let together: BTreeSet<u64> = received.iter().map(|message| message.receipt.sequence).collect();
            for message in &received {
                let sequence = message.receipt.sequence;
                assert!(!gone.contains(&message.row.id), "{} was deleted and came again", message.row.body);
                self.is_in_nobody_elses_hands(&message.row);
                if queue == "ordered.fifo" {
                    self.is_in_order(queue, sequence, &message.row, &together);
                }
            }
            self.life.pause().await;
            for message in received {
                // Some are never deleted: they go to the dead-letter queue in the end.
                if self.life.random(5) > 0 && !(queue == "plain" && message.row.body.ends_with("-3")) {
                    if queue == "plain" {
                        self.life.told.lock().plain_delete_asked.insert(message.row.body.clone());
                    }
                    self.deletes(queue, message).await;
                } else if self.life.random(2) == 0 {
                    // A receipt that is not the newest deletes nothing.
                    let old = Receipt { reception: !message.receipt.reception, ..message.receipt };
                    drop(self.ask(queue, Request::Delete(vec![old]), None).await);
                }
            }
        }
    }

    /// However answers overtake each other: for as long as one has a message, no other gets it.
    fn is_in_nobody_elses_hands(&self, row: &MessageRow) {
        let (at, mut told) = (row.visible_at.0 - VISIBILITY_MS, self.life.told.lock());
        let earlier = told.receptions.entry(row.id.clone()).or_default();
        let is_apart = |other: &i64| (at - other).abs() >= VISIBILITY_MS;
        assert!(earlier.iter().all(is_apart), "{} was received at {at} and {earlier:?}", row.body);
        earlier.push(at);
    }

    /// Of a group, what was sent earlier was received earlier or comes with it, and somebody has asked for its deletion.
    fn is_in_order(&self, queue: &str, sequence: u64, row: &MessageRow, together: &BTreeSet<u64>) {
        let mut told = self.life.told.lock();
        told.groups.insert(sequence, row.group.clone());
        let earlier = told.groups.range(..sequence).filter(|(_, group)| **group == row.group);
        for (number, _) in earlier {
            let asked = told.delete_asked.contains(&(queue.to_owned(), *number));
            assert!(
                asked || together.contains(number),
                "{} of {} came while {number} was not done",
                row.body,
                row.group
            );
        }
    }

    async fn deletes(&self, queue: &str, message: Received) {
        let key = (queue.to_owned(), message.receipt.sequence);
        self.life.told.lock().delete_asked.insert(key);
        let deleted = self.ask(queue, Request::Delete(vec![message.receipt]), None).await;
        // An old receipt deletes nothing, and is acknowledged all the same.
        let in_time = self.handle.now() < message.row.visible_at.into();
        if let (Ok(Reply::Deleted), true, true) = (deleted, in_time, self.life.is_punctual) {
            self.life.told.lock().deleted.insert(message.row.id);
        }
    }

    /// Creates state machines, each with an entry of the audit log.
    pub async fn creates(self, creator: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(3) {
            let name = format!("m{creator}-{n}");
            if self.life.told.lock().machines.get(&name) == Some(&true) {
                continue;
            }
            self.life.told.lock().machines.entry(name.clone()).or_insert(false);
            self.life.pause().await;
            let entry = self.entry("somebody", "CreateStateMachine", &name);
            let new = NewMachine {
                name: name.clone(),
                definition: json!({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}}).to_string(),
                role_arn: "arn:aws:iam::000000000000:role/box".into(),
                ..NewMachine::default()
            };
            let handle = self.handle.on_behalf(entry);
            // As the API does it: what is begun goes on without its caller.
            let request = tokio::spawn(async move { handle.create_machine(new).await });
            match self.life.ask(request).await {
                Ok(Ok(Ok(_))) => drop(self.life.told.lock().machines.insert(name, true)),
                Ok(Ok(Err(refused))) => return Err(format!("{refused:?}")),
                Ok(Err(_)) | Err(HungUp) => {}
            }
        }
        Ok(())
    }

    /// Starts executions, and waits for their ends.
    pub async fn starts(self, starter: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(3) {
            let name = format!("e{starter}-{n}");
            // Two executions want the same content at about the same time.
            let content = format!("content-{}-{n}", starter / 2);
            self.life.told.lock().executions.entry(name.clone()).or_insert(false);
            self.life.pause().await;
            self.runs("effects", &name, &json!({"name": name, "content": content})).await?;
            self.life.told.lock().executions.insert(name, true);
        }
        Ok(())
    }

    /// Starts express executions, each of which runs where its start was acknowledged.
    pub async fn starts_express(self, starter: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(3) {
            let name = format!("x{starter}-{n}");
            self.life.pause().await;
            let start = StartRequest {
                machine: super::EXPRESS.to_owned(),
                input: json!({"name": name}).to_string().into(),
                once: true,
                ..StartRequest::default()
            };
            match self.life.ask(self.handle.start(start)).await {
                Ok(Ok(_)) => drop(self.life.told.lock().express.insert(name)),
                Ok(Err(refused)) => return Err(format!("{refused:?}")),
                Err(HungUp) => {}
            }
        }
        Ok(())
    }

    /// Tells of jobs that took twice as long as the model said, each of them twice, as an attempt that is repeated does.
    pub async fn learns(self, who: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(3) {
            let of = (ExecutionId(u128::from(who) + 1), Attempt(n as u32));
            self.life.told.lock().taught.entry(of).or_default();
            for _ in 0..2 {
                self.life.pause().await;
                let sample = JobSample { on_gpu: false, modelled: 10.0, took: 20.0 };
                if matches!(self.life.ask(self.predictions.learn(of, sample)).await, Ok(true)) {
                    self.life.told.lock().taught.insert(of, true);
                }
            }
        }
        Ok(())
    }

    /// Something is wrong for a while, now and then.
    pub async fn makes_weather(self) -> Result<(), String> {
        for _ in 0..self.life.things.min(4) {
            sleep(Duration::from_millis(self.life.random(40_000))).await;
            let mut weather = self.weather.lock();
            if weather.remove("flood").is_none() {
                weather.insert("flood".into(), "it rains; look at the cellar".into());
            }
        }
        Ok(())
    }

    /// Starts an execution until its start is acknowledged, and waits for its end.
    async fn runs(&self, machine: &str, name: &str, input: &Value) -> Result<(), String> {
        let id = loop {
            let start = StartRequest {
                machine: machine.to_owned(),
                name: Some(name.to_owned()),
                input: input.to_string().into(),
                once: true,
                ..StartRequest::default()
            };
            match self.life.ask(self.handle.start(start)).await {
                Ok(Ok(started)) => break started.id,
                Ok(Err(refused)) => return Err(format!("{refused:?}")),
                Err(HungUp) => {}
            }
        };
        loop {
            let header = self.handle.reader().header(id).await.map_err(|e| format!("{e:?}"))?;
            match header.expect("an acknowledged start is lost").status {
                Status::Running => sleep(Duration::from_millis(100)).await,
                _ => return Ok(()),
            }
        }
    }

    /// Starts executions that ask a person; every second one does not wait long.
    pub async fn asks(self, starter: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(2) {
            let name = format!("a{starter}-{n}");
            self.life.told.lock().decided.entry(name.clone()).or_default();
            self.life.pause().await;
            let timeout = if n == 1 { 1 } else { 86_400 };
            self.runs("asks", &name, &json!({"name": name, "timeout": timeout})).await?;
        }
        Ok(())
    }

    /// Decides what is asked, one way or the other, whoever else does.
    pub async fn decides(self, who: &'static str) -> Result<(), String> {
        loop {
            let mut rows = self.handle.reader().on_this_thread().approvals(None, 100).map_err(|e| format!("{e:?}"))?;
            // One that does not wait long is left to the box.
            rows.retain(|(_, _, row)| row.title != "a1-1");
            if rows.is_empty() || self.life.random(4) == 0 {
                sleep(Duration::from_millis(1 + self.life.random(800))).await;
                continue;
            }
            let (id, attempt, row) = &rows[self.life.random(rows.len() as u64) as usize];
            let decision = match self.life.random(2) {
                0 => Decision::Approve(json!({"approved": true, "by": who}).to_string().into()),
                _ => Decision::Reject { error: "Approval.Rejected".into(), cause: who.into() },
            };
            self.life.pause().await;
            let entry = self.entry(who, "Decide", &row.title);
            match self.life.ask(self.approvals.decide((*id, *attempt), decision, Some(entry))).await {
                Ok(Ok(Verdict::Counts)) => {
                    self.life.told.lock().decided.entry(row.title.clone()).or_default().push(who.to_owned());
                }
                Ok(Ok(Verdict::Unknown | Verdict::Refused(_))) | Err(HungUp) => {}
                Ok(Err(Unavailable)) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

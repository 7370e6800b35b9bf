//! `kill -9` of the served binary, again and again, while it runs executions, takes messages and uploads, and works on
//! media. In the end everything that it acknowledged is there once, and nothing else is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conveyor_testing::served::Served;
use conveyor_testing::served::http::{self, Client};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::clips;
use crate::house::{self, Verdict};
use crate::ledger::{self, Ledger};
use crate::lots::Tell;

/// Kills of one seed.
const KILLS: u64 = 10;
/// How long a box may live between two of them, in milliseconds.
const LIFE_MS: Range<u64> = 20..3_000;
/// How long anything may take that was acknowledged.
const LIMIT: Duration = Duration::from_secs(300);
const CONFIGURATION: &str = "[queues.mail]\nvisibility_timeout = \"10s\"\n";

pub fn run(seeds: Range<u64>, tell: &Tell) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in seeds {
        tell.guarded(seed, || runtime.block_on(one(seed)));
    }
}

async fn one(seed: u64) -> (u64, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    house::lay_out(folder, &format!("{}{CONFIGURATION}", ledger::CONFIGURATION));
    let mut served = Served::start(folder);
    ledger::create_machines(&served).await;
    let (ledger, mail) = (Ledger::default(), Mail::default());
    let mut upload = Upload::begin(&served, &format!("{seed}-0"), &mut rng).await;
    let mut films = BTreeMap::new();
    for kill in 0..KILLS {
        ledger.ask_again(&served).await;
        if kill == 0 || rng.random_range(0..3) == 0 {
            let (name, bytes) = (format!("film-{kill}.mp4"), clips::unlike(&format!("{seed}/{kill}")));
            house::drop_file(&folder.join("incoming"), &name, &bytes);
            films.insert(name, bytes);
        }
        if upload.is_whole {
            upload.judge(folder);
            upload = Upload::begin(&served, &format!("{seed}-{kill}"), &mut rng).await;
        }
        let mut own_rng = || ChaCha8Rng::seed_from_u64(rng.next_u64());
        let label = kill.to_string();
        let (first, second) = (own_rng(), own_rng());
        let (sender, receiver, uploader) = (own_rng(), own_rng(), own_rng());
        let address = served.address;
        let life = Duration::from_millis(rng.random_range(LIFE_MS));
        let killed = async {
            tokio::time::sleep(life).await;
            served.kill();
        };
        let other = format!("{label}b");
        tokio::join!(
            killed,
            ledger.starts(address, first, &label, 0),
            ledger.starts(address, second, &other, 0),
            mail.sends(address, sender, &label),
            mail.receives(address, receiver),
            upload.goes_on(address, uploader),
        );
        served = Served::start(folder);
    }
    let address = served.address;
    let rest = ChaCha8Rng::seed_from_u64(rng.next_u64());
    upload.goes_on(address, rest).await;
    upload.judge(folder);
    ledger.judge(&served, LIMIT).await;
    mail.judge(&served).await;
    for (name, bytes) in &films {
        let row = house::ended(&served, name, LIMIT).await;
        let verdict = house::judge(folder, name, bytes, &row).unwrap_or_else(|what| panic!("{what}"));
        if verdict != Verdict::Published {
            panic!("{name} is a whole film and became {verdict:?}: {}", house::history(&served, &row).await);
        }
        assert_eq!(house::jobs_of(&served, name).await.len(), 1, "{name} was begun more than once");
    }
    let none = house::until(LIMIT, "the last execution", async || {
        house::executions(&served, "status=RUNNING&nested=true").await.is_empty().then_some(())
    });
    none.await;
    // Folders are removed after their attempt has ended.
    let tidied = house::until(Duration::from_secs(60), "the last leftover's removal", async || {
        [house::leftovers(folder), house::staged(folder)].concat().is_empty().then_some(())
    });
    tidied.await;
    served.kill();
    house::check(folder);
    (KILLS, "all there".into())
}

/// Messages by people outside.
#[derive(Default)]
struct Mail(Mutex<Bag>);

#[derive(Default)]
struct Bag {
    /// Whether the box acknowledged it.
    sent: BTreeMap<String, bool>,
    received: BTreeSet<String>,
    /// Whose deletion it acknowledged.
    deleted: BTreeSet<String>,
}

impl Mail {
    async fn sends(&self, address: SocketAddr, mut rng: ChaCha8Rng, label: &str) {
        let Ok(mut client) = Client::connect(address).await else { return };
        for n in 0.. {
            let body = format!("mail-{label}-{n}");
            self.0.lock().unwrap().sent.insert(body.clone(), false);
            let request = json!({"QueueUrl": "mail", "MessageBody": body});
            match client.exchange(&http::aws("AmazonSQS.SendMessage", &request)).await {
                Ok(answer) => {
                    assert!(answer.is_success(), "{}", answer.text());
                    self.0.lock().unwrap().sent.insert(body, true);
                }
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..30))).await;
        }
    }

    async fn receives(&self, address: SocketAddr, mut rng: ChaCha8Rng) {
        let Ok(mut client) = Client::connect(address).await else { return };
        loop {
            tokio::time::sleep(Duration::from_millis(rng.random_range(5..100))).await;
            let request = json!({"QueueUrl": "mail", "MaxNumberOfMessages": 5});
            let Ok(answer) = client.exchange(&http::aws("AmazonSQS.ReceiveMessage", &request)).await else { return };
            assert!(answer.is_success(), "{}", answer.text());
            for message in answer.json()["Messages"].as_array().unwrap_or(&Vec::new()) {
                let body = message["Body"].as_str().unwrap().to_owned();
                self.saw(&body);
                let request = json!({"QueueUrl": "mail", "ReceiptHandle": message["ReceiptHandle"]});
                match client.exchange(&http::aws("AmazonSQS.DeleteMessage", &request)).await {
                    Ok(answer) if answer.is_success() => self.0.lock().unwrap().deleted.insert(body),
                    Ok(answer) => panic!("{}", answer.text()),
                    Err(_) => return,
                };
            }
        }
    }

    fn saw(&self, body: &str) {
        let mut bag = self.0.lock().unwrap();
        assert!(bag.sent.contains_key(body), "{body} was never sent");
        assert!(!bag.deleted.contains(body), "DOUBLED: {body} came again after it was deleted");
        bag.received.insert(body.to_owned());
    }

    async fn judge(&self, served: &Served) {
        let mut drained = BTreeSet::new();
        for message in served.drain("mail").await {
            let body = message["Body"].as_str().unwrap();
            self.saw(body);
            assert!(drained.insert(body.to_owned()), "DOUBLED: {body}");
        }
        let bag = self.0.lock().unwrap();
        let lost: Vec<_> = bag.sent.iter().filter(|(body, known)| **known && !bag.received.contains(*body)).collect();
        assert!(lost.is_empty(), "LOST: {lost:?}");
    }
}

/// A file that is uploaded piece by piece.
struct Upload {
    name: String,
    place: String,
    bytes: Vec<u8>,
    /// How far the box said that it came.
    acknowledged: usize,
    is_whole: bool,
}

impl Upload {
    /// While nobody is about to kill the box, since a part of which nobody was told stays for a week.
    async fn begin(served: &Served, name: &str, rng: &mut ChaCha8Rng) -> Upload {
        let mut bytes = vec![0; rng.random_range(50_000..3_000_000)];
        rng.fill_bytes(&mut bytes);
        let name = format!("{name}.bin");
        let metadata = format!("filename {},share {}", STANDARD.encode(&name), STANDARD.encode("incoming"));
        let request = reqwest::Client::new().post(format!("{}/api/v1/uploads", served.url()));
        let begun = request.header("upload-length", bytes.len()).header("upload-metadata", metadata);
        let begun = begun.send().await.unwrap();
        assert_eq!(begun.status(), 201, "an upload is not begun");
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        Upload { name, place, bytes, acknowledged: 0, is_whole: false }
    }

    /// Until it is whole, or the box answers no more.
    async fn goes_on(&mut self, address: SocketAddr, mut rng: ChaCha8Rng) {
        let (client, url) = (reqwest::Client::new(), format!("http://{address}{}", self.place));
        while !self.is_whole {
            let Ok(answer) = client.head(&url).send().await else { return };
            if answer.status() == 404 {
                // Its last piece came, and nobody heard the answer.
                self.is_whole = true;
                return;
            }
            assert_eq!(answer.status(), 200, "an upload that was begun");
            let offset: usize = answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap();
            assert!(offset >= self.acknowledged, "LOST: an upload was at {} and is at {offset}", self.acknowledged);
            let end = (offset + rng.random_range(1_000..200_000)).min(self.bytes.len());
            let request = client.patch(&url).header("upload-offset", offset);
            let request = request.header("content-type", "application/offset+octet-stream");
            let Ok(answer) = request.body(self.bytes[offset..end].to_vec()).send().await else { return };
            match answer.status().as_u16() {
                204 => self.acknowledged = answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap(),
                // Somebody before it still writes.
                409 => {}
                other => panic!("an upload's piece: {other}: {:?}", answer.text().await),
            }
            self.is_whole = self.acknowledged == self.bytes.len();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
        }
    }

    fn judge(&self, folder: &Path) {
        assert!(self.is_whole, "hangs: an upload does not come to its end");
        let found = fs::read(folder.join("incoming").join(&self.name));
        let found = found.unwrap_or_else(|e| panic!("LOST: the upload {}: {e}", self.name));
        assert!(found == self.bytes, "CHANGED: the upload {} is not what was sent", self.name);
    }
}

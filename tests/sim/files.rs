//! People with files: they upload, break off, ask how far it came, go on and terminate; and they drop files into the folder
//! that the box watches. The folders are real ones, which outlive the power.

use std::path::Path;
use std::time::Duration;

use conveyor_services::uploads::NewUpload;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::ledger::{Upload, UploadEnd};
use super::people::{HungUp, Person};

/// What the file of that name holds.
pub fn contents(name: &str) -> Vec<u8> {
    let seed = blake3::hash(name.as_bytes());
    let length = 1 + usize::from(u16::from_le_bytes([seed.as_bytes()[0], seed.as_bytes()[1]])) / 4;
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Person {
    /// Uploads each of a few files until it has landed; one of them is given up on the way.
    pub async fn uploads(self, uploader: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(3) {
            let name = format!("u{uploader}-{n}.mov");
            // Where it is given up: after that many bytes.
            let given_up_at = if n == 1 { contents(&name).len() as u64 / 2 } else { u64::MAX };
            loop {
                self.life.pause().await;
                let upload = self.life.told.lock().uploads.entry(name.clone()).or_default().clone();
                match (&upload.end, &upload.id) {
                    (Some(_), _) => break,
                    (None, None) => self.begins(&name).await?,
                    (None, Some(id)) if upload.acknowledged >= given_up_at => self.terminates(&name, id).await?,
                    (None, Some(id)) => self.goes_on(&name, id, &upload).await?,
                }
            }
        }
        Ok(())
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut Upload)) {
        change(self.life.told.lock().uploads.entry(name.to_owned()).or_default());
    }

    async fn begins(&self, name: &str) -> Result<(), String> {
        self.note(name, |upload| upload.begun += 1);
        let new = NewUpload {
            share: "incoming".into(),
            folder: String::new(),
            name: name.into(),
            bytes: contents(name).len() as u64,
            by: "somebody".into(),
        };
        let entry = self.entry("somebody", "POST /uploads", name);
        match self.life.ask(self.uploads.begin(new, Some(entry))).await {
            Ok(Ok(id)) => self.note(name, |upload| upload.id = Some(id)),
            Ok(Err(refused)) if refused.code == "ServiceUnavailable" => sleep(Duration::from_millis(20)).await,
            Ok(Err(refused)) => return Err(format!("{refused:?}")),
            Err(HungUp) => {}
        }
        Ok(())
    }

    /// Asks how far the upload came, hands some bytes over, and may break off at any of them.
    async fn goes_on(&self, name: &str, id: &str, known: &Upload) -> Result<(), String> {
        let bytes = contents(name);
        let row = self.handle.reader().upload(id).map_err(|e| format!("{e:?}"))?;
        let offset = match &row {
            Some(row) => self.uploads.offset(row).await.ok(),
            None => None,
        };
        let Some(offset) = offset else {
            // It became the file, and the word of it was lost.
            assert!(known.all_sent, "{name}: an upload that was acknowledged is gone");
            let landed = self.folder.join("incoming").join(name);
            assert!(landed.exists(), "{name}: neither an upload nor a file");
            self.note(name, |upload| upload.end = Some(UploadEnd::Landed(name.to_owned())));
            return Ok(());
        };
        assert!(
            offset >= known.acknowledged,
            "{name}: {} bytes were acknowledged, {offset} are there",
            known.acknowledged
        );
        let from = offset as usize;
        let to = (from + 1 + self.life.random(bytes.len() as u64) as usize).min(bytes.len());
        if to == bytes.len() {
            self.note(name, |upload| upload.all_sent = true);
        }
        let (pieces, taken) = mpsc::channel(2);
        let feed = async {
            for piece in bytes[from..to].chunks(1 + self.life.random(4_000) as usize) {
                if pieces.send(piece.to_vec().into()).await.is_err() {
                    break;
                }
                self.life.pause().await;
            }
            drop(pieces);
        };
        let written = async { tokio::join!(self.uploads.write(id, Some(offset), taken), feed).0 };
        match self.life.ask(written).await {
            Ok(Ok(reached)) => self.note(name, |upload| {
                let landed = reached.key.as_ref().map(|key| self.folder.join("incoming").join(key));
                assert!(landed.is_none_or(|file| file.exists()), "{name} is said to have landed and has not");
                upload.acknowledged = reached.offset;
                upload.end = reached.key.map(UploadEnd::Landed);
            }),
            // Another request of his is still at it, or the service is on its way back, or the file landed meanwhile: he
            // asks again how far it came.
            Ok(Err(refused))
                if ["ConflictException", "ServiceUnavailable", "ResourceNotFound"].contains(&refused.code) =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(Err(refused)) => return Err(format!("{refused:?}")),
            Err(HungUp) => {}
        }
        Ok(())
    }

    async fn terminates(&self, name: &str, id: &str) -> Result<(), String> {
        match self.life.ask(self.uploads.terminate(id)).await {
            // The second time there is none any more.
            Ok(Ok(())) => self.note(name, |upload| upload.end = Some(UploadEnd::Terminated)),
            Ok(Err(refused)) if refused.code == "ResourceNotFound" => {
                self.note(name, |upload| upload.end = Some(UploadEnd::Terminated));
            }
            Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
            Err(HungUp) => {}
        }
        Ok(())
    }

    /// Drops files into the watched folder, and waits until each has started.
    pub async fn drops(self, dropper: u64) -> Result<(), String> {
        for n in 0..self.life.things.min(2) {
            let name = format!("d{dropper}-{n}.mov");
            let path = self.folder.join("dropped").join(&name);
            self.life.pause().await;
            if self.life.told.lock().dropped.insert(name.clone()) {
                std::fs::write(&path, contents(&name)).map_err(|e| e.to_string())?;
            }
            loop {
                let landings = self.handle.reader().on_this_thread().landings("dropped", None, usize::MAX);
                if landings.map_err(|e| format!("{e:?}"))?.iter().any(|(key, _)| *key == name) {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }
}

/// The folders that people put files into.
pub fn make_folders(root: &Path) {
    for folder in ["incoming", "dropped"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
}

//! What is wrong with a watched share and with what lies there: each problem is said once when it begins, and shown until it
//! is resolved.

use std::collections::{BTreeMap, HashSet};

use super::scan::Scan;

/// Problems that a status shows; the log has all of them.
const SHOWN_MAX: usize = 20;

#[derive(Debug)]
pub struct Problems {
    share: String,
    /// By topic. That of one file or folder ends with a space and its path.
    by_topic: BTreeMap<String, String>,
}

impl Problems {
    pub fn of(share: &str) -> Problems {
        Problems { share: share.to_owned(), by_topic: BTreeMap::new() }
    }

    pub fn shown(&self) -> Vec<String> {
        self.by_topic.values().take(SHOWN_MAX).cloned().collect()
    }

    /// Logs a problem when it begins.
    pub fn report(&mut self, topic: &str, what: String) {
        if self.by_topic.get(topic) != Some(&what) {
            tracing::warn!(share = self.share, "{what}");
            self.by_topic.insert(topic.to_owned(), what);
        }
    }

    pub fn resolved(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }

    /// What a scan could not look at, and what is no file. A problem with one file or folder is resolved when a scan does not
    /// meet it any more.
    pub fn met(&mut self, scan: &Scan) {
        for (path, why) in &scan.unreadable {
            let path = path.display();
            let what = format!("cannot read {path}: {why}; it is tried again with every scan");
            self.report(&format!("unreadable {path}"), what);
        }
        for path in &scan.odd {
            let path = path.display();
            let what = format!("{path} is a link, a pipe or a device, and is left alone; put a file there");
            self.report(&format!("wrong {path}"), what);
        }
        let unreadable = scan.unreadable.iter().map(|(path, _)| path);
        let all = unreadable.chain(&scan.foreign).chain(&scan.odd);
        let met: HashSet<String> = all.map(|path| path.display().to_string()).collect();
        self.by_topic.retain(|topic, _| topic.split_once(' ').is_none_or(|(_, path)| met.contains(path)));
        match scan.unreadable_more {
            0 => self.resolved("unreadable"),
            more => {
                self.report(
                    "unreadable",
                    format!("{more} more files and folders cannot be read; the log names the first"),
                );
            }
        }
    }
}

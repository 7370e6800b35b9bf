//! Days wait for no other days.

use std::any::Any;
use std::io;
use std::sync::Barrier;

use redb::StorageBackend;

use super::*;
use crate::sim::SimDisk;

/// A disk that is slow to open one file: it waits at the barrier, and then again.
struct Slow(SimDisk, Barrier);

impl Backends for Slow {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.exists(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        if name == file_name(1) {
            self.1.wait();
            self.1.wait();
        }
        self.0.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock()
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

#[test]
fn a_day_waits_for_no_other_days_file_and_few_stay_open() {
    let slow = Arc::new(Slow(SimDisk::new(1), Barrier::new(2)));
    let archives = Archives::new(slow.clone(), Arc::default());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| archives.write(1, &[]));
        slow.1.wait();
        for day in 2..20 {
            archives.write(day, &[]).unwrap();
            assert!(archives.ids(day).unwrap().is_empty());
        }
        archives.remove(19).unwrap();
        assert_eq!(archives.days().unwrap().len(), 18, "days 1 to 18, of which the first is not open yet");
        slow.1.wait();
        waiting.join().unwrap().unwrap();
    });
    let open = archives.places.lock().values().filter(|place| place.open.lock().is_some()).count();
    assert!((1..=OPEN_MAX).contains(&open), "{open}");
    assert_eq!(archives.days().unwrap().len(), 18);
}

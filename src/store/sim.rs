//! A disk in memory that loses power, and on which bytes rot: for tests of the store and for simulations of the whole
//! runtime.
//!
//! Unsynced writes are kept apart. At a crash each of their sectors survives or not, by the seed: so they come back
//! in any subset, in any order, torn. A rename is atomic, and durable when it returns. Deterministic: the same calls
//! and the same seed leave the same bytes.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::disk::Backends;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    names: BTreeMap<String, usize>,
    files: Vec<SimFile>,
    /// Writes, length changes, syncs, renames and removals so far.
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    seed: u64,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    /// What a crash leaves for certain.
    durable: Vec<u8>,
    /// What a reader sees while the power is on.
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Sectors that the disk does not give back until they are written again.
    unreadable: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

impl SimDisk {
    /// An empty disk whose crashes turn out as the seed says.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(World { seed, ..World::default() })))
    }

    /// A disk on which these files lie, by their names.
    pub fn of(files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
        let names = files.keys().enumerate().map(|(number, name)| (name.clone(), number)).collect();
        let on_disk =
            |bytes: &Vec<u8>| SimFile { durable: bytes.clone(), current: bytes.clone(), ..SimFile::default() };
        let files = files.values().map(on_disk).collect();
        SimDisk(Arc::new(Mutex::new(World { names, files, seed: 1, ..World::default() })))
    }

    /// What a reader sees of it now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.0.lock();
        world.names.iter().map(|(name, number)| (name.clone(), world.files[*number].current.clone())).collect()
    }

    /// How many operations there were that a crash could fall on.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// The power goes at that operation, counted from the disk's first.
    pub fn crash_at(&self, operation: u64) {
        self.0.lock().crash_at = Some(operation);
    }

    /// A bit of what lies on the disk flips. A place behind the file's end changes nothing.
    pub fn flip(&self, name: &str, byte: usize, bit: u32) {
        self.at(name, |file| {
            for bytes in [&mut file.durable, &mut file.current] {
                if let Some(byte) = bytes.get_mut(byte) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        });
    }

    /// The disk does not give back the sector of that byte any more, until it is written again.
    pub fn lose_sector(&self, name: &str, byte: usize) {
        self.at(name, |file| {
            file.unreadable.insert(byte / SECTOR_BYTES);
        });
    }

    fn at(&self, name: &str, change: impl FnOnce(&mut SimFile)) {
        let mut world = self.0.lock();
        if let Some(number) = world.names.get(name).copied() {
            change(&mut world.files[number]);
        }
    }

    /// The power goes now.
    pub fn crash(&self) {
        self.0.lock().crashed = true;
    }

    pub fn has_crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// The disk as it is found when the power is back: a new one, so that nothing old can write to it.
    pub fn restart(&self) -> SimDisk {
        let mut world = self.0.lock();
        world.crashed = true;
        let mut dice = Dice(world.seed ^ world.operations.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let files = world.files.iter().map(|file| file.after_crash(&mut dice)).collect();
        let seed = dice.next();
        SimDisk(Arc::new(Mutex::new(World { names: world.names.clone(), files, seed, ..World::default() })))
    }
}

impl World {
    /// Counts an operation; fails it when the power is gone. Says whether the power goes during this very one.
    fn operate(&mut self) -> io::Result<bool> {
        if self.crashed {
            return Err(power_is_gone());
        }
        self.operations += 1;
        self.crashed = self.crash_at == Some(self.operations);
        Ok(self.crashed)
    }

    /// Whether an operation that the crash falls on was carried out before.
    fn lucky(&self) -> bool {
        Dice(self.seed ^ self.operations).next() & 1 == 1
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the simulated power is gone")
}

impl SimFile {
    fn apply(bytes: &mut Vec<u8>, change: &Unsynced) {
        match change {
            Unsynced::Write { at, data } => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Unsynced::Length(length) => bytes.resize(*length, 0),
        }
    }

    fn change(&mut self, change: Unsynced) {
        if let Unsynced::Write { at, data } = &change {
            let written = at.div_ceil(SECTOR_BYTES)..(at + data.len()) / SECTOR_BYTES;
            self.unreadable.retain(|sector| !written.contains(sector));
        }
        SimFile::apply(&mut self.current, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            SimFile::apply(&mut self.durable, &change);
        }
    }

    fn after_crash(&self, dice: &mut Dice) -> SimFile {
        let mut bytes = self.durable.clone();
        // Of 16 sectors, how many reach the disk: often none or all, else a mixture.
        let chance = [0, 16, dice.next() % 17, dice.next() % 17][(dice.next() % 4) as usize];
        for change in &self.unsynced {
            match change {
                Unsynced::Length(_) if dice.next() % 16 < chance => SimFile::apply(&mut bytes, change),
                Unsynced::Length(_) => {}
                Unsynced::Write { at, data } => {
                    let mut from = 0;
                    while from < data.len() {
                        let sector_end = (at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                        let to = data.len().min(sector_end - at);
                        if dice.next() % 16 < chance {
                            let data = data[from..to].to_vec();
                            SimFile::apply(&mut bytes, &Unsynced::Write { at: at + from, data });
                        }
                        from = to;
                    }
                }
            }
        }
        SimFile { durable: bytes.clone(), current: bytes, unsynced: Vec::new(), unreadable: self.unreadable.clone() }
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Backends for SimDisk {
    fn exists(&self, name: &str) -> io::Result<bool> {
        let world = self.0.lock();
        if world.crashed { Err(power_is_gone()) } else { Ok(world.names.contains_key(name)) }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut world = self.0.lock();
        if world.crashed {
            return Err(power_is_gone());
        }
        let number = match world.names.get(name) {
            Some(number) => *number,
            None => {
                world.files.push(SimFile::default());
                let number = world.files.len() - 1;
                world.names.insert(name.to_owned(), number);
                number
            }
        };
        Ok(Box::new(OpenFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        let crash = world.operate()?;
        if !crash || world.lucky() {
            let number = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            world.names.insert(to.to_owned(), number);
        }
        if crash { Err(power_is_gone()) } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        let crash = world.operate()?;
        if !crash || world.lucky() {
            world.names.remove(name);
        }
        if crash { Err(power_is_gone()) } else { Ok(()) }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let world = self.0.lock();
        if world.crashed { Err(power_is_gone()) } else { Ok(world.names.keys().cloned().collect()) }
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn place(&self) -> String {
        "the simulated disk".into()
    }
}

/// A file of the disk, open.
struct OpenFile {
    disk: SimDisk,
    number: usize,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated file {}", self.number)
    }
}

impl OpenFile {
    fn change(&self, change: Unsynced) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        let crash = world.operate()?;
        world.files[self.number].change(change);
        if crash { Err(power_is_gone()) } else { Ok(()) }
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let world = self.disk.0.lock();
        if world.crashed { Err(power_is_gone()) } else { Ok(world.files[self.number].current.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let world = self.disk.0.lock();
        if world.crashed {
            return Err(power_is_gone());
        }
        let start = offset as usize;
        let unreadable = &world.files[self.number].unreadable;
        if !out.is_empty()
            && unreadable.range(start / SECTOR_BYTES..=(start + out.len() - 1) / SECTOR_BYTES).next().is_some()
        {
            return Err(io::Error::other("the simulated disk does not give back a sector"));
        }
        let bytes = world.files[self.number].current.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Unsynced::Length(len as usize))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Unsynced::Write { at: offset as usize, data: data.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        if world.operate()? {
            return Err(power_is_gone());
        }
        world.files[self.number].sync();
        Ok(())
    }
}

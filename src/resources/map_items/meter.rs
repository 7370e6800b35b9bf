//! How much of a stranger's file is read: of one item, of the whole file, and how far unpacking may blow it up.
//!
//! Whoever may write to a share decides what is read here, in the appliance's own process. A [`Meter`] counts the bytes
//! that come out of a file, whatever unpacks it, and ends the reading with a reason where a bound is passed; what a
//! parser holds at a time is then bounded too.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Longest item, as it stands in its file: a CSV record, a line of JSON Lines, an element of a JSON array (AWS: 8 MB,
/// of which an ItemSelector makes less), and the manifest that lists files.
pub const ITEM_BYTES_MAX: u64 = 8 << 20;
/// Longest file, unpacked (AWS: 10 GB).
pub const FILE_BYTES_MAX: u64 = 10 << 30;
/// How many bytes one packed byte may become. Inventories become 5 to 30; the format's own end is 1,032.
const BLOW_UP_MAX: u64 = 200;
/// Unpacked bytes up to which that is not asked: a short file of equal rows packs very well.
const BLOW_UP_FREE_BYTES: u64 = 16 << 20;
/// What parsers may have read ahead of the item that they are at.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// The counts of one file, shared by its readers and the parser.
#[derive(Clone, Default)]
pub struct Meter(Rc<Counts>);

#[derive(Default)]
struct Counts {
    item: Cell<u64>,
    item_max: Cell<u64>,
    file: Cell<u64>,
    packed: Cell<u64>,
}

impl Meter {
    pub fn new() -> Meter {
        let meter = Meter::default();
        meter.begin(ITEM_BYTES_MAX);
        meter
    }

    /// The next item begins here.
    pub fn next(&self) {
        self.0.item.set(0);
    }

    /// The next item begins here, and so long may items be from here on, in bytes.
    pub fn begin(&self, item_max: u64) {
        self.0.item_max.set(item_max);
        self.next();
    }

    /// The bytes that have come out of the file so far.
    pub fn bytes(&self) -> u64 {
        self.0.file.get()
    }

    /// Counts what comes out of a reader.
    pub fn of<R: Read>(&self, content: R) -> impl Read + use<R> {
        Metered { content, meter: self.clone() }
    }

    /// Counts what goes into an unpacker.
    pub fn packed<R: Read>(&self, content: R) -> impl Read + use<R> {
        Packed { content, meter: self.clone() }
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let Counts { item, item_max, file, packed } = &*self.0;
        item.set(item.get() + bytes as u64);
        file.set(file.get() + bytes as u64);
        let too_long = |what: String| Err(io::Error::other(what));
        if item.get() > item_max.get() + READ_AHEAD_BYTES {
            return too_long(format!(
                "one item has more than {} bytes, the most that are read of one; split it, or name the file that holds it instead",
                item_max.get()
            ));
        }
        if file.get() > FILE_BYTES_MAX {
            return too_long(format!(
                "the file has more than {FILE_BYTES_MAX} bytes, the most that are read of one; split it into several"
            ));
        }
        if packed.get() > 0 && file.get() > BLOW_UP_FREE_BYTES && file.get() / BLOW_UP_MAX > packed.get() {
            return too_long(format!(
                "the file becomes more than {BLOW_UP_MAX} times as long when it is unpacked, as no honest one does; look at \
                 who wrote it, or lay it there unpacked"
            ));
        }
        Ok(())
    }
}

struct Metered<R> {
    content: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(into)?;
        self.meter.count(read).map(|()| read)
    }
}

struct Packed<R> {
    content: R,
    meter: Meter,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(into)?;
        self.meter.0.packed.set(self.meter.0.packed.get() + read as u64);
        Ok(read)
    }
}

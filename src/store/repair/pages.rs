//! The trees of a file of redb's, read without redb, which gives nothing more out of a file once something in it could not be
//! read. What can be read is handed over in order, and what cannot is a hole.
//!
//! The form is that of redb 4's files (`docs/design.md` there), which its releases keep. Every page that gets here was
//! verified below; lengths are looked at all the same.

use redb::StorageBackend as _;

use super::super::blocks::{BLOCK_BYTES, Blocks};

const SLOTS_AT: usize = 64;
const SLOT_BYTES: usize = 128;
const HEADER_BYTES: usize = SLOTS_AT + 2 * SLOT_BYTES;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// redb's own limit: a page of 4 GiB.
const ORDER_MAX: u8 = 20;
/// More than any tree of pages has that a disk can hold.
const DEPTH_MAX: u32 = 40;

/// What a walk comes upon.
pub(crate) enum Found<'a> {
    Row(&'a [u8], &'a [u8]),
    /// Rows are missing here, and why.
    Hole(&'a str),
}

/// A tree's root. `None`: the tree is empty.
pub(crate) type Root = Option<u64>;

/// How keys lie in a leaf.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    Variable,
    /// All are so long.
    Fixed(usize),
}

/// An open file.
pub(crate) struct Pages<'f> {
    file: &'f Blocks,
    region_bytes: u64,
    first_page: u64,
    tables: Root,
}

impl<'f> Pages<'f> {
    /// # Errors
    /// Why nothing in the file can be found.
    pub fn open(file: &'f Blocks) -> Result<Pages<'f>, String> {
        let mut header = [0; HEADER_BYTES];
        file.read(0, &mut header).map_err(|e| e.to_string())?;
        let number = |at: usize| u64::from(u32::from_le_bytes(array(&header[at..at + 4])));
        if number(12) != BLOCK_BYTES as u64 {
            return Err("its pages are not of 4 KiB".to_owned());
        }
        let slot = &header[SLOTS_AT + usize::from(header[9] & 1) * SLOT_BYTES..][..SLOT_BYTES];
        Ok(Pages {
            file,
            region_bytes: (number(16) + number(20)) * BLOCK_BYTES as u64,
            first_page: (1 + number(16)) * BLOCK_BYTES as u64,
            tables: (slot[1] != 0).then(|| u64::from_le_bytes(array(&slot[8..16]))),
        })
    }

    /// Hands over the tables by their names, and holes among them.
    pub fn tables(&self, mut look: impl FnMut(Result<(&str, Root), &str>)) {
        self.each(self.tables, Keys::Variable, &mut |found| match found {
            Found::Row(name, definition) => match (std::str::from_utf8(name), definition.get(9..18)) {
                (Ok(name), Some(root)) => {
                    look(Ok((name, (root[0] != 0).then(|| u64::from_le_bytes(array(&root[1..]))))))
                }
                _ => look(Err("a table's definition makes no sense")),
            },
            Found::Hole(why) => look(Err(why)),
        });
    }

    /// Walks a tree from its first row to its last.
    pub fn each(&self, root: Root, keys: Keys, look: &mut impl FnMut(Found<'_>)) {
        if let Some(root) = root {
            self.walk(root, keys, 0, look);
        }
    }

    fn walk(&self, page: u64, keys: Keys, depth: u32, look: &mut impl FnMut(Found<'_>)) {
        let bytes = match self.page(page) {
            Ok(bytes) if depth < DEPTH_MAX => bytes,
            Ok(_) => return look(Found::Hole("a tree of pages has no end")),
            Err(why) => return look(Found::Hole(&why)),
        };
        let done = match bytes[0] {
            LEAF => leaf(&bytes, keys, look),
            BRANCH => children(&bytes).map(|children| {
                for child in children {
                    self.walk(child, keys, depth + 1, look);
                }
            }),
            _ => None,
        };
        if done.is_none() {
            look(Found::Hole("a page makes no sense"));
        }
    }

    fn page(&self, number: u64) -> Result<Vec<u8>, String> {
        let order = (number >> 59) as u8;
        if order > ORDER_MAX {
            return Err("a page has no such size".to_owned());
        }
        let (index, region) = (number & (0xf_ffff >> order), (number >> 20) & 0xf_ffff);
        let bytes = (BLOCK_BYTES as u64) << order;
        let at = self.first_page + region * self.region_bytes + index * bytes;
        // Not more memory than there is file.
        if at + bytes > self.file.len().map_err(|e| e.to_string())? {
            return Err(format!("{} ends before a page that it should have", self.file.name()));
        }
        let mut page = vec![0; bytes as usize];
        self.file.read(at, &mut page).map_err(|e| e.to_string())?;
        Ok(page)
    }
}

fn leaf(page: &[u8], keys: Keys, look: &mut impl FnMut(Found<'_>)) -> Option<()> {
    let count = usize::from(u16::from_le_bytes(array(page.get(2..4)?)));
    let of_keys = if let Keys::Variable = keys { 4 * count } else { 0 };
    let first = 4 + of_keys + 4 * count;
    let key_end = |n: usize| match keys {
        Keys::Variable => end(page, 4 + 4 * n),
        Keys::Fixed(bytes) => Some(first + bytes * (n + 1)),
    };
    let mut key_from = first;
    let mut value_from = key_end(count.checked_sub(1)?)?;
    for n in 0..count {
        let (key_to, value_to) = (key_end(n)?, end(page, 4 + of_keys + 4 * n)?);
        look(Found::Row(page.get(key_from..key_to)?, page.get(value_from..value_to)?));
        (key_from, value_from) = (key_to, value_to);
    }
    Some(())
}

fn children(page: &[u8]) -> Option<Vec<u64>> {
    let count = usize::from(u16::from_le_bytes(array(page.get(2..4)?))) + 1;
    let from = 8 + 16 * count;
    let numbers = page.get(from..from + 8 * count)?;
    Some(numbers.chunks_exact(8).map(|number| u64::from_le_bytes(array(number))).collect())
}

fn end(page: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(array(page.get(at..at + 4)?)) as usize)
}

/// The length is known to fit.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

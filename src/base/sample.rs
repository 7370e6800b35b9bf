//! What a file holds, told from a few places of it: a bounded number of plain reads, however long the file is.
//!
//! Of a copy whose size and times stand still from its first byte on (its size is reserved first, and its times are set when
//! it is closed) only the content tells that it grows. Where bytes are still missing there are holes, or zeros up to the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::unistd::{Whence, lseek};

use crate::beneath::Meta;

/// Bytes that are read at each place.
const PLACE_BYTES: u64 = 4 << 10;
/// Places that are read, evenly from the first bytes to the last.
const PLACES: u64 = 8;
/// How exactly it is told where zeros begin, in bytes.
const ZEROS_EXACT_TO: u64 = 64 << 10;

/// What a look at a file's content showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of the size and of what was read: another means other content.
    pub digest: String,
    /// The first byte for which nothing was ever written, where the file system knows such.
    pub hole: Option<u64>,
    /// A byte from which on nothing but zeros was met up to the end; none where the end is something else, or the file is
    /// shorter than what is read at a place.
    pub zeros_from: Option<u64>,
}

impl Sample {
    /// Reads some 20 places at most, of a file of any length.
    ///
    /// # Errors
    /// Those of `fstat` and `pread`; `UnexpectedEof` where the file gets shorter meanwhile.
    pub fn of(file: &File) -> io::Result<Sample> {
        let size = Meta::of(file)?.size;
        // Where a file system knows no holes, it says that the end is one.
        let hole = lseek(file, 0, Whence::SeekHole).ok().and_then(|at| u64::try_from(at).ok()).filter(|at| *at < size);
        let read = |at: u64, bytes: &mut [u8]| file.read_exact_at(bytes, at);
        let (digest, zeros_from) = read_places(size, read)?;
        Ok(Sample { digest, hole, zeros_from })
    }
}

fn read_places(size: u64, mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<(String, Option<u64>)> {
    let mut hash = blake3::Hasher::new();
    hash.update(&size.to_le_bytes());
    let length = size.min(PLACE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let (last, mut ends_in_zeros) = (size - length, false);
    for place in 0..PLACES {
        let at = u64::try_from(u128::from(last) * u128::from(place) / u128::from(PLACES - 1)).unwrap_or(last);
        read(at, &mut bytes)?;
        hash.update(&bytes);
        ends_in_zeros = length == PLACE_BYTES && bytes.iter().all(|byte| *byte == 0);
    }
    let mut zeros_from = None;
    if ends_in_zeros {
        let (mut data, mut zeros) = (0, last);
        while zeros - data > ZEROS_EXACT_TO {
            let middle = data + (zeros - data) / 2;
            read(middle, &mut bytes)?;
            if bytes.iter().all(|byte| *byte == 0) { zeros = middle } else { data = middle }
        }
        hash.update(&zeros.to_le_bytes());
        zeros_from = Some(zeros);
    }
    Ok((hash.finalize().to_hex()[..16].to_owned(), zeros_from))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    /// The size is there at once and the times stand still, whether or not the file system knows holes.
    #[test]
    fn a_copy_that_arrives_in_reserved_space_is_seen_to_grow() {
        let mut file = tempfile::tempfile().unwrap();
        let size = 40 << 20;
        file.set_len(size).unwrap();
        let mut known = vec![Sample::of(&file).unwrap()];
        assert_eq!((known[0].hole, known[0].zeros_from.is_some_and(|from| from <= ZEROS_EXACT_TO)), (Some(0), true));
        for part in 0..8 {
            file.seek(SeekFrom::Start(part * (size / 8))).unwrap();
            file.write_all(&vec![7; (size / 8) as usize]).unwrap();
            let sample = Sample::of(&file).unwrap();
            assert!(known.iter().all(|before| before.digest != sample.digest), "part {part}");
            assert_eq!(sample.hole, Some((part + 1) * (size / 8)).filter(|at| *at < size));
            assert_eq!(sample.zeros_from.is_some(), part < 7);
            known.push(sample);
        }
        assert_eq!(Sample::of(&file).unwrap(), known[8]);
        for (size, zeros) in [(0, None), (PLACE_BYTES - 1, None), (PLACE_BYTES, Some(0)), (PLACE_BYTES + 1, Some(1))] {
            file.set_len(size).unwrap();
            assert_eq!(Sample::of(&file).unwrap().zeros_from, zeros);
        }
        let mut reads = 0;
        read_places(u64::MAX, |_, bytes| {
            reads += 1;
            bytes.fill(0);
            Ok(())
        })
        .unwrap();
        assert!(reads < 60, "{reads} reads of the longest file that can be");
    }
}

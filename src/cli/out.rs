//! What is printed. These stand for the standard library's macros of the same names in all of the command line: those panic
//! where nobody reads any more, as behind `| head`.
//!
//! A command whose reader has gone says nothing more and does what it was to do. What cannot be written for another reason
//! (a full disk) ends the command with a code that is not 0.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! print {
    ($($text:tt)*) => { $crate::out::print(format_args!($($text)*)) };
}
macro_rules! println {
    () => { $crate::out::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::out::print(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::out::complain(format_args!($($text)*)) };
}

static CLOSED: AtomicBool = AtomicBool::new(false);
static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads any more, so that looking for more to print is in vain.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether all that was printed could be written, or its reader wanted no more of it. To be asked at the end.
pub(crate) fn is_whole() -> bool {
    !FAILED.load(Ordering::Relaxed)
}

pub(crate) fn print(text: Arguments<'_>) {
    if is_closed() || FAILED.load(Ordering::Relaxed) {
        return;
    }
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            FAILED.store(true, Ordering::Relaxed);
            complain(format_args!("conveyor: cannot write to standard output: {error}"));
        }
    }
}

pub(crate) fn complain(text: Arguments<'_>) {
    // Where standard error is gone too, nobody can be told.
    let _ = writeln!(std::io::stderr(), "{text}");
}

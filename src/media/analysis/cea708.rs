//! CEA-708 (DTVCC) captions: from caption channel packets to cues with times, for each service.
//!
//! Every visible window is followed by itself: text that is there when a window appears, or written into it while it is
//! visible, is a cue until the window is cleared, hidden or deleted, or until its line is finished by a carriage return.
//! Position, colour, print direction and the delay command are not looked at. Pure, and it must never fail.

use cea708_types::tables::{Code, DefineWindowArgs, WindowBits};

use super::closed::Cue;

const WINDOWS: usize = 8;
/// As many as a window can have; what is written beyond them is not shown by a receiver either.
const ROWS: usize = 15;
const COLUMNS: usize = 42;

/// One caption service.
#[derive(Default)]
pub struct Service {
    windows: [Window; WINDOWS],
    current: Option<usize>,
    cues: Vec<Cue>,
}

impl Service {
    pub fn feed(&mut self, at: f64, code: &Code) {
        match code {
            Code::DefineWindow(args) => self.define(at, args),
            Code::ClearWindows(which) => self.each(*which, |w, cues| w.close(at, cues)),
            Code::HideWindows(which) => self.each(*which, |w, cues| w.hide(at, cues)),
            Code::DisplayWindows(which) => self.each(*which, |w, _| w.show(at)),
            Code::ToggleWindows(which) => {
                self.each(*which, |w, cues| if w.visible { w.hide(at, cues) } else { w.show(at) })
            }
            Code::DeleteWindows(which) => self.each(*which, |w, cues| {
                w.close(at, cues);
                *w = Window::default();
            }),
            Code::Reset => self.each(WindowBits::NONE.not(), |w, cues| {
                w.close(at, cues);
                *w = Window::default();
            }),
            other => match window_number(other) {
                Some(number) => self.current = Some(number),
                None => {
                    if let Some(window) = self.current.map(|n| &mut self.windows[n]).filter(|w| w.defined) {
                        window.write(at, other, &mut self.cues);
                    }
                }
            },
        }
    }

    /// All cues; what is still visible ends at `at`.
    pub fn finish(mut self, at: f64) -> Vec<Cue> {
        for window in &mut self.windows {
            window.close(at, &mut self.cues);
        }
        self.cues.sort_by(|a, b| a.start.total_cmp(&b.start));
        self.cues
    }

    fn define(&mut self, at: f64, args: &DefineWindowArgs) {
        let number = usize::from(args.window_id) % WINDOWS;
        let window = &mut self.windows[number];
        if !window.defined {
            *window = Window { defined: true, ..Window::default() };
        }
        match (window.visible, args.visible) {
            (false, true) => window.show(at),
            (true, false) => window.hide(at, &mut self.cues),
            _ => {}
        }
        self.current = Some(number);
    }

    fn each(&mut self, which: WindowBits, mut act: impl FnMut(&mut Window, &mut Vec<Cue>)) {
        for (number, window) in self.windows.iter_mut().enumerate() {
            let bit = WindowBits::from_window_id(number as u8);
            if which.and(bit) == bit && window.defined {
                act(window, &mut self.cues);
            }
        }
    }
}

fn window_number(code: &Code) -> Option<usize> {
    Some(match code {
        Code::SetCurrentWindow0 => 0,
        Code::SetCurrentWindow1 => 1,
        Code::SetCurrentWindow2 => 2,
        Code::SetCurrentWindow3 => 3,
        Code::SetCurrentWindow4 => 4,
        Code::SetCurrentWindow5 => 5,
        Code::SetCurrentWindow6 => 6,
        Code::SetCurrentWindow7 => 7,
        _ => return None,
    })
}

#[derive(Default)]
struct Window {
    defined: bool,
    visible: bool,
    rows: [Vec<char>; ROWS],
    row: usize,
    column: usize,
    since: Option<f64>,
}

impl Window {
    fn show(&mut self, at: f64) {
        if !self.visible {
            self.visible = true;
            self.since = Some(at);
        }
    }

    fn hide(&mut self, at: f64, cues: &mut Vec<Cue>) {
        self.emit(at, cues);
        self.visible = false;
    }

    /// What was visible becomes a cue; the window is empty.
    fn close(&mut self, at: f64, cues: &mut Vec<Cue>) {
        self.emit(at, cues);
        self.rows = Default::default();
        (self.row, self.column) = (0, 0);
    }

    fn emit(&mut self, at: f64, cues: &mut Vec<Cue>) {
        let Some(start) = self.since.take().filter(|_| self.visible) else { return };
        let row = |r: &Vec<char>| r.iter().collect::<String>().trim().to_owned();
        let rows: Vec<String> = self.rows.iter().map(row).filter(|r| !r.is_empty()).collect();
        if !rows.is_empty() {
            cues.push(Cue { start, end: at, text: rows.join("\n") });
        }
    }

    fn write(&mut self, at: f64, code: &Code, cues: &mut Vec<Cue>) {
        match code {
            Code::SetPenLocation(to) => {
                (self.row, self.column) = (usize::from(to.row).min(ROWS - 1), usize::from(to.column).min(COLUMNS));
            }
            Code::FF => self.close(at, cues),
            Code::HCR => {
                self.rows[self.row].clear();
                self.column = 0;
            }
            Code::BS => {
                self.column = self.column.saturating_sub(1);
                self.rows[self.row].truncate(self.column);
            }
            // In a visible window lines scroll: each is a cue, and is not said again.
            Code::CR if self.visible => self.close(at, cues),
            Code::CR => (self.row, self.column) = ((self.row + 1).min(ROWS - 1), 0),
            other => {
                if let Some(c) = other.char().filter(|c| !c.is_control()) {
                    self.put(at, c);
                }
            }
        }
    }

    fn put(&mut self, at: f64, c: char) {
        if self.column >= COLUMNS {
            return;
        }
        if self.visible && c != ' ' {
            // A window that was empty begins to say something with its first character.
            let empty = self.rows.iter().all(|r| r.iter().all(|c| *c == ' '));
            self.since = self.since.filter(|_| !empty).or(Some(at));
        }
        let row = &mut self.rows[self.row];
        if row.len() <= self.column {
            row.resize(self.column + 1, ' ');
        }
        row[self.column] = c;
        self.column += 1;
    }
}

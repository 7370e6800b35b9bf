//! CEA-608 (line 21) captions: from pairs of bytes to cues with times, for the four caption channels CC1 to CC4.
//!
//! Pop-on captions become a cue from their appearance to their removal; paint-on ones from their first character on;
//! of roll-up captions every finished line is one cue, since the lines that scroll on say nothing new. Pure: fed with
//! pairs, asked for cues. It must never fail: a pair with wrong parity is counted and passed over. Text services and XDS
//! are told apart and left out.

use cea608_types::tables::Channel;
use cea608_types::{Cea608, Cea608State, Mode};

use super::closed::Cue;

const ROWS: usize = 15;
const COLUMNS: usize = 32;

/// One field of line 21: two caption channels, and what else is multiplexed into it.
#[derive(Default)]
pub struct Field {
    state: Cea608State,
    screens: [Screen; 2],
    /// Which channels are in text mode.
    text_mode: [bool; 2],
    /// Within a packet of extended data services, which share the second field.
    in_xds: bool,
    pub unreadable: u64,
}

impl Field {
    /// Takes the next pair of bytes, parity included.
    pub fn feed(&mut self, at: f64, pair: [u8; 2]) {
        let bare = [pair[0] & 0x7f, pair[1] & 0x7f];
        match bare[0] {
            0x01..=0x0e => self.in_xds = true,
            0x0f => {
                self.in_xds = false;
                return;
            }
            0x10..=0x1f => self.in_xds = false,
            _ => {}
        }
        if self.in_xds {
            return;
        }
        self.switch_text_mode(bare);
        match self.state.decode(pair) {
            Ok(Some(code)) => {
                let index = usize::from(code.channel() != Channel::ONE);
                if !self.text_mode[index] {
                    self.screens[index].apply(at, code);
                }
            }
            Ok(None) => {}
            Err(_) => self.unreadable += 1,
        }
    }

    /// The cues of both channels; what still stands on a screen ends at `at`.
    pub fn finish(mut self, at: f64) -> [Vec<Cue>; 2] {
        for screen in &mut self.screens {
            screen.close(at);
        }
        self.screens.map(|s| s.cues)
    }

    /// Text restart and resume text display lead out of the captions, the four caption modes back in.
    fn switch_text_mode(&mut self, [first, second]: [u8; 2]) {
        if first & 0x76 != 0x14 {
            return;
        }
        let channel = usize::from(first & 0x08 != 0);
        match second {
            0x2a | 0x2b => self.text_mode[channel] = true,
            0x20 | 0x25..=0x27 | 0x29 | 0x2f => self.text_mode[channel] = false,
            _ => {}
        }
    }
}

/// The characters of a screen, or of the memory behind it.
#[derive(Default)]
struct Grid([[Option<char>; COLUMNS]; ROWS]);

impl Grid {
    fn text(&self) -> String {
        let row = |cells: &[Option<char>]| cells.iter().map(|c| c.unwrap_or(' ')).collect::<String>().trim().to_owned();
        let rows: Vec<String> = self.0.iter().map(|r| row(r)).filter(|r| !r.is_empty()).collect();
        rows.join("\n")
    }
}

/// One caption channel, as a receiver shows it.
#[derive(Default)]
struct Screen {
    mode: Option<Mode>,
    shown: Grid,
    hidden: Grid,
    row: usize,
    column: usize,
    /// Since when the text on the screen has been standing there.
    since: Option<f64>,
    cues: Vec<Cue>,
}

impl Screen {
    fn apply(&mut self, at: f64, code: Cea608) {
        match code {
            Cea608::NewMode(_, mode) => self.enter(at, mode),
            Cea608::EraseDisplay(_) => self.close(at),
            Cea608::EraseNonDisplay(_) => self.hidden = Grid::default(),
            Cea608::EndOfCaption(_) => {
                self.close(at);
                std::mem::swap(&mut self.shown, &mut self.hidden);
                self.mode = Some(Mode::PopOn);
                self.since = Some(at);
            }
            Cea608::CarriageReturn(_) => {
                if self.rolls() {
                    self.close(at);
                    self.column = 0;
                }
            }
            Cea608::Preamble(_, preamble) => {
                let row = usize::from(preamble.row()).min(ROWS - 1);
                // Roll-up text moves with its base row.
                if self.rolls() && row != self.row {
                    self.shown.0[row] = std::mem::take(&mut self.shown.0[self.row]);
                }
                (self.row, self.column) = (row, usize::from(preamble.column()));
            }
            Cea608::TabOffset(_, columns) => self.column = (self.column + usize::from(columns)).min(COLUMNS - 1),
            Cea608::Backspace(_) => {
                self.column = self.column.saturating_sub(1);
                let (row, column) = (self.row, self.column);
                self.active().0[row][column] = None;
            }
            Cea608::DeleteToEndOfRow(_) => {
                let (row, column) = (self.row, self.column);
                self.active().0[row][column..].fill(None);
            }
            // A change of colour takes the place of a space.
            Cea608::MidRowChange(..) => self.write(at, ' '),
            Cea608::Text(text) => {
                if text.needs_backspace {
                    self.column = self.column.saturating_sub(1);
                }
                for c in [text.char1, text.char2].into_iter().flatten() {
                    self.write_over(at, c, text.needs_backspace);
                }
            }
        }
    }

    fn rolls(&self) -> bool {
        self.mode.is_some_and(|m| m.is_rollup())
    }

    fn enter(&mut self, at: f64, mode: Mode) {
        if mode.is_rollup() && !self.rolls() {
            self.close(at);
            self.hidden = Grid::default();
            (self.row, self.column) = (ROWS - 1, 0);
        }
        self.mode = Some(mode);
    }

    fn active(&mut self) -> &mut Grid {
        if self.mode == Some(Mode::PopOn) { &mut self.hidden } else { &mut self.shown }
    }

    fn write(&mut self, at: f64, c: char) {
        self.write_over(at, c, false);
    }

    /// `replaces` where an accented character follows its plain stand-in.
    fn write_over(&mut self, at: f64, c: char, replaces: bool) {
        let Some(mode) = self.mode else { return };
        let (row, column) = (self.row, self.column);
        if mode != Mode::PopOn {
            // Painting over other words begins another caption.
            let other = self.shown.0[row][column].is_some_and(|old| old != ' ' && old != c);
            if other && !replaces && column < COLUMNS - 1 {
                self.close(at);
            }
            if c != ' ' {
                self.since.get_or_insert(at);
            }
        }
        self.active().0[row][column] = Some(c);
        self.column = (column + 1).min(COLUMNS - 1);
    }

    /// What stands on the screen becomes a cue, and the screen empty.
    fn close(&mut self, at: f64) {
        let text = std::mem::take(&mut self.shown).text();
        if let Some(start) = self.since.take()
            && !text.is_empty()
        {
            self.cues.push(Cue { start, end: at, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Odd parity, as on the wire.
    fn odd(byte: u8) -> u8 {
        if byte.count_ones().is_multiple_of(2) { byte | 0x80 } else { byte }
    }

    /// Feeds pairs at 30 a second from `at` on.
    fn feed(field: &mut Field, at: f64, pairs: &[[u8; 2]]) {
        for (i, pair) in pairs.iter().enumerate() {
            field.feed(at + i as f64 / 30.0, pair.map(odd));
        }
    }

    fn cues(cues: &[Cue]) -> Vec<(f64, f64, &str)> {
        cues.iter()
            .map(|c| ((c.start * 100.0).round() / 100.0, (c.end * 100.0).round() / 100.0, c.text.as_str()))
            .collect()
    }

    #[test]
    fn roll_up_gives_each_line_once_and_paint_on_each_caption() {
        let mut field = Field::default();
        // Roll-up of two rows; control codes doubled, as encoders send them.
        feed(
            &mut field,
            1.0,
            &[[0x14, 0x25], [0x14, 0x25], [0x14, 0x2d], [0x14, 0x2d], [0x14, 0x70], *b"ON", *b"E ", *b"A\0"],
        );
        feed(&mut field, 2.0, &[[0x14, 0x2d], [0x14, 0x2d], *b"TW", *b"O\0"]);
        feed(&mut field, 3.0, &[[0x14, 0x2c], [0x14, 0x2c], [0x14, 0x29], [0x14, 0x29], [0x14, 0x50], *b"Pa", *b"in"]);
        // An accented letter replaces the plain one before it.
        feed(&mut field, 3.5, &[*b" e", [0x12, 0x21], [0x12, 0x21]]);
        feed(&mut field, 4.0, &[[0x14, 0x2c]]);
        let [one, two] = field.finish(5.0);
        assert_eq!(cues(&one), [(1.17, 2.0, "ONE A"), (2.07, 3.0, "TWO"), (3.17, 4.0, "Pain É")]);
        assert!(two.is_empty());
    }

    #[test]
    fn what_is_no_caption_is_left_out() {
        let mut field = Field::default();
        // A text service, then extended data in the middle of a pop-on caption of the second channel.
        feed(&mut field, 0.0, &[[0x14, 0x2a], *b"no", *b"pe"]);
        feed(
            &mut field,
            1.0,
            &[[0x1c, 0x20], [0x1c, 0x2e], [0x1c, 0x70], *b"He", [0x01, 0x03], *b"St", *b"ar", [0x0f, 0x1d]],
        );
        feed(&mut field, 1.5, &[[0x1c, 0x70], *b"He", *b"y\0", [0x1c, 0x2f]]);
        field.feed(2.0, [0x41, 0x41]);
        field.feed(2.0, [0x61, 0x61]);
        assert_eq!(field.unreadable, 1, "a pair of wrong parity");
        let [one, two] = field.finish(3.0);
        assert!(one.is_empty());
        assert_eq!(cues(&two), [(1.6, 3.0, "Hey")]);
    }
}

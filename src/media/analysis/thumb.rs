//! A picture's luma as a small grid of block means: enough to see black, stillness and likeness, for next to no cost.

use super::decode::Frame;
use gstreamer_video::prelude::*;

pub const COLUMNS: usize = 32;
pub const ROWS: usize = 18;
const CELLS: usize = COLUMNS * ROWS;

/// A cell below this luma counts as black (limited range: black is 16).
const BLACK_BELOW: f32 = 28.0;
/// Share of cells that must be black.
const BLACK_SHARE: f32 = 0.98;
/// Two pictures are the same when no cell differs by more …
const STILL_CELL_MAX: f32 = 1.5;
/// … and the cells on average by no more than this.
const STILL_MEAN_MAX: f32 = 0.25;

/// A rectangle of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    pub x: usize,
    pub y: usize,
    pub w: usize,
    pub h: usize,
}

impl Rect {
    pub fn of(frame: &Frame) -> Rect {
        Rect { x: 0, y: 0, w: frame.picture.width() as usize, h: frame.picture.height() as usize }
    }
}

/// Block means of luma.
#[derive(Clone)]
pub struct Thumb(pub [f32; CELLS]);

impl Thumb {
    /// Every second line is looked at where the picture is large.
    pub fn of(frame: &Frame, rect: Rect) -> Thumb {
        let (stride, plane) = plane(frame, 0);
        let mut cells = [0f32; CELLS];
        let step = if rect.h >= 2 * ROWS * 4 { 2 } else { 1 };
        for row in 0..ROWS {
            let (top, bottom) = (rect.h * row / ROWS, (rect.h * (row + 1) / ROWS).max(rect.h * row / ROWS + 1));
            let mut sums = [0u32; COLUMNS];
            let mut lines = 0;
            for y in (top..bottom.min(rect.h)).step_by(step) {
                let at = (rect.y + y) * stride + rect.x;
                let Some(line) = plane.get(at..at + rect.w) else { continue };
                for (column, sum) in sums.iter_mut().enumerate() {
                    let (l, r) = (rect.w * column / COLUMNS, rect.w * (column + 1) / COLUMNS);
                    *sum += line[l..r].iter().map(|&v| u32::from(v)).sum::<u32>();
                }
                lines += 1;
            }
            for (column, sum) in sums.iter().enumerate() {
                let width = (rect.w * (column + 1) / COLUMNS - rect.w * column / COLUMNS).max(1);
                cells[row * COLUMNS + column] = *sum as f32 / (width * lines.max(1)) as f32;
            }
        }
        Thumb(cells)
    }

    pub fn mean(&self) -> f32 {
        self.0.iter().sum::<f32>() / CELLS as f32
    }

    pub fn is_black(&self) -> bool {
        self.0.iter().filter(|&&c| c < BLACK_BELOW).count() as f32 >= BLACK_SHARE * CELLS as f32
    }

    /// Mean difference of the cells, in levels of 255.
    pub fn distance(&self, other: &Thumb) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b).abs()).sum::<f32>() / CELLS as f32
    }

    /// Whether two pictures show the same, but for what an encoder adds.
    pub fn same_as(&self, other: &Thumb) -> bool {
        self.distance(other) <= STILL_MEAN_MAX
            && self.0.iter().zip(&other.0).all(|(a, b)| (a - b).abs() <= STILL_CELL_MAX)
    }
}

/// Stride and bytes of one plane.
pub fn plane(frame: &Frame, index: u32) -> (usize, &[u8]) {
    let stride = frame.picture.plane_stride().get(index as usize).copied().unwrap_or(0).max(0) as usize;
    (stride, frame.picture.plane_data(index).unwrap_or(&[]))
}

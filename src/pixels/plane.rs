//! Planes of samples: lines of bytes, each `stride` bytes after the one before.

/// A plane that belongs to somebody else.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
}

/// A plane to be written.
pub struct ViewMut<'a> {
    pub bytes: &'a mut [u8],
    pub stride: usize,
}

impl<'a> View<'a> {
    /// The same plane from this column and line on; nothing where it does not reach so far.
    pub fn from(self, x: usize, y: usize) -> View<'a> {
        View { bytes: self.bytes.get(y * self.stride + x..).unwrap_or_default(), stride: self.stride }
    }
}

impl<'a> ViewMut<'a> {
    /// As [`View::from`].
    pub fn from(self, x: usize, y: usize) -> ViewMut<'a> {
        ViewMut { bytes: self.bytes.get_mut(y * self.stride + x..).unwrap_or_default(), stride: self.stride }
    }
}

/// A plane of eight-bit samples, line after line without padding.
#[derive(Clone)]
pub struct Plane {
    pub w: usize,
    pub h: usize,
    pub data: Vec<u8>,
}

impl Plane {
    /// Cuts a rectangle out of a plane; what the plane lacks is black.
    pub fn cut(plane: View<'_>, (x, y): (usize, usize), (w, h): (usize, usize)) -> Plane {
        let mut data = Vec::with_capacity(w * h);
        for row in y..y + h {
            match plane.bytes.get(row * plane.stride + x..row * plane.stride + x + w) {
                Some(line) => data.extend_from_slice(line),
                None => data.resize(data.len() + w, 0),
            }
        }
        Plane { w, h, data }
    }

    pub fn view(&self) -> View<'_> {
        View { bytes: &self.data, stride: self.w }
    }
}

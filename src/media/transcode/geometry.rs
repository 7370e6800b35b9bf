//! Which part of the source lands where in the frame. Pure arithmetic.

use conveyor_settings::Scaling;

/// The source after rotation.
#[derive(Clone, Copy, Debug)]
pub struct SourceShape {
    pub width: u32,
    pub height: u32,
    /// Width of a pixel over its height.
    pub pixel_aspect: f64,
}

/// A picture in a frame: `crop` of the source is scaled to `content`, which lies at `at` in `frame`.
/// Everything is even, as 4:2:0 pictures need it, but for the source's own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub source: (u32, u32),
    /// Left, top, width, height within the source.
    pub crop: (u32, u32, u32, u32),
    pub content: (u32, u32),
    pub at: (u32, u32),
    pub frame: (u32, u32),
    /// The frame is smaller than asked for, since the source is.
    pub reduced: bool,
}

impl Geometry {
    /// The frame is the source, pixel for pixel.
    pub fn is_identity(&self) -> bool {
        self.crop == (0, 0, self.source.0, self.source.1) && self.content == self.source && self.frame == self.source
    }
}

/// Fits a source into the size that an output asks for.
pub fn fit(source: &SourceShape, width: Option<u32>, height: Option<u32>, scaling: Scaling) -> Geometry {
    let size = (source.width, source.height);
    let whole = (0, 0, size.0, size.1);
    // Display size with square pixels: the longer reach wins, so that no detail is lost.
    let (dw, dh) = if source.pixel_aspect >= 1.0 {
        (f64::from(size.0) * source.pixel_aspect, f64::from(size.1))
    } else {
        (f64::from(size.0), f64::from(size.1) / source.pixel_aspect)
    };
    let (w, h) = match (width, height) {
        (Some(w), Some(h)) => (f64::from(w), f64::from(h)),
        (Some(w), None) => (f64::from(w), f64::from(w) * dh / dw),
        (None, Some(h)) => (f64::from(h) * dw / dh, f64::from(h)),
        (None, None) => (dw, dh),
    };
    let frame = |w: f64, h: f64| (even(w), even(h));
    if scaling == Scaling::Stretch {
        let frame = frame(w, h);
        return Geometry { source: size, crop: whole, content: frame, at: (0, 0), frame, reduced: false };
    }
    if scaling == Scaling::Fill {
        return fill(size, (dw, dh), frame(w, h));
    }
    let scale = (w / dw).min(h / dh);
    // One part in a thousand is rounding to even sizes, not enlargement.
    let enlarge = scale > 1.001;
    match scaling {
        Scaling::Fit | Scaling::FitNoUpscale => {
            let held = enlarge && scaling == Scaling::FitNoUpscale;
            let scale = if held { 1.0 } else { scale };
            let content = frame(dw * scale, dh * scale);
            Geometry { source: size, crop: whole, content, at: (0, 0), frame: content, reduced: held }
        }
        _ => {
            // Bars as the asked shape needs them, around a picture that is never enlarged.
            let shrink = if enlarge { scale } else { 1.0 };
            let outer = frame(w / shrink, h / shrink);
            let scale = (f64::from(outer.0) / dw).min(f64::from(outer.1) / dh);
            let mut content = frame(dw * scale, dh * scale);
            // Bars of a line or two are rounding and nobody wants to see them.
            if outer.0.abs_diff(content.0) <= 2 {
                content.0 = outer.0;
            }
            if outer.1.abs_diff(content.1) <= 2 {
                content.1 = outer.1;
            }
            let content = (content.0.min(outer.0), content.1.min(outer.1));
            let at = ((outer.0 - content.0) / 4 * 2, (outer.1 - content.1) / 4 * 2);
            Geometry { source: size, crop: whole, content, at, frame: outer, reduced: enlarge }
        }
    }
}

fn fill(size: (u32, u32), display: (f64, f64), frame: (u32, u32)) -> Geometry {
    let scale = (f64::from(frame.0) / display.0).max(f64::from(frame.1) / display.1);
    let part = |frame: u32, display: f64, size: u32| {
        let kept = f64::from(frame) / scale / display * f64::from(size);
        let kept = if kept > f64::from(size) - 2.0 { size } else { even(kept).min(size) };
        ((size - kept) / 4 * 2, kept)
    };
    let ((left, width), (top, height)) = (part(frame.0, display.0, size.0), part(frame.1, display.1, size.1));
    Geometry { source: size, crop: (left, top, width, height), content: frame, at: (0, 0), frame, reduced: false }
}

fn even(x: f64) -> u32 {
    // A source that is odd by one pixel is rounded up, whatever the floating point made of it.
    ((x / 2.0 + 1e-6).round() as u32 * 2).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(width: u32, height: u32, pixel_aspect: f64) -> SourceShape {
        SourceShape { width, height, pixel_aspect }
    }

    #[test]
    fn pictures_keep_their_aspect_and_are_not_enlarged() {
        let hd = fit(&shape(1920, 1080, 1.0), Some(1280), Some(720), Scaling::Default);
        assert_eq!((hd.content, hd.at, hd.frame), ((1280, 720), (0, 0), (1280, 720)));
        let portrait = fit(&shape(1080, 1920, 1.0), Some(1920), Some(1080), Scaling::Default);
        assert_eq!((portrait.content, portrait.frame), ((608, 1080), (1920, 1080)));
        assert_eq!(portrait.at, (656, 0));
        let small = fit(&shape(640, 360, 1.0), Some(1920), Some(1080), Scaling::Default);
        assert!(small.is_identity() && small.reduced);
        let boxed = fit(&shape(640, 480, 1.0), Some(1920), Some(1080), Scaling::Default);
        assert_eq!((boxed.content, boxed.frame), ((640, 480), (854, 480)));
        let pal = fit(&shape(720, 576, 64.0 / 45.0), Some(1920), Some(1080), Scaling::Default);
        assert_eq!((pal.content, pal.frame), ((1024, 576), (1024, 576)));
        let odd = fit(&shape(853, 479, 1.0), None, None, Scaling::Default);
        assert_eq!(odd.frame.0 % 2 + odd.frame.1 % 2, 0);
    }

    #[test]
    fn the_other_behaviours() {
        let up = fit(&shape(640, 360, 1.0), Some(1280), Some(720), Scaling::Stretch);
        assert_eq!(up.frame, (1280, 720));
        let fitted = fit(&shape(200, 200, 1.0), Some(300), Some(400), Scaling::Fit);
        assert_eq!(fitted.frame, (300, 300));
        let kept = fit(&shape(200, 200, 1.0), Some(300), Some(400), Scaling::FitNoUpscale);
        assert_eq!(kept.frame, (200, 200));
        let filled = fit(&shape(200, 200, 1.0), Some(300), Some(400), Scaling::Fill);
        assert_eq!((filled.frame, filled.crop), ((300, 400), (24, 0, 150, 200)));
    }
}

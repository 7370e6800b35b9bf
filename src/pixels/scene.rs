//! Moving pictures that are hard to compress in the way in which camera pictures are, made by arithmetic.
//!
//! Each shot is a *dead leaves* picture (Matheron's model; Lee, Mumford and Huang, "Occlusion models for natural
//! images", 2001): discs of power-law sizes that hide one another, which gives the edges, the flat parts and the
//! scale-free statistics of natural images. Every disc carries a shade, a colour and an own amount of 1/f texture. The
//! camera pans and zooms over the picture by parts of samples, other leaves move across it on ways of their own, the
//! light changes slowly, and grain as of a sensor lies over everything. Shots follow each other by cuts.
//!
//! Invariants: pure and without clocks; the same size, seed and number give the same picture on every machine; frames
//! are 4:2:0 with even sides, planes without gaps, in limited range.

/// Samples by which the canvas is larger than the picture on each side, as a part of its size: room for the camera.
const MARGIN: f32 = 0.18;
/// Discs per shot: with the radii below they cover the canvas about four times.
const LEAVES: usize = 5_000;
/// Things that cross the picture in front of the others.
const WALKERS: usize = 7;
/// Standard deviation of the grain, in levels.
const GRAIN: f32 = 1.6;
/// Frames of a shot.
const SHOT_FRAMES: usize = 75;
const NOISE: usize = 1 << 16;

/// A film without end.
pub struct Scene {
    width: usize,
    height: usize,
    seed: u64,
    grain: Vec<i8>,
    shot: Option<(usize, Shot)>,
}

/// One shot's canvas: luma in full, chroma in half resolution.
struct Shot {
    w: usize,
    h: usize,
    luma: Vec<u8>,
    chroma: [Vec<u8>; 2],
    /// Where the camera begins and how far it goes, as parts of the margin, and its zoom per shot.
    from: (f32, f32),
    way: (f32, f32),
    zoom: f32,
    walkers: Vec<Walker>,
}

/// A leaf that moves in front: what it shows is cut from elsewhere of the canvas.
struct Walker {
    at: (f32, f32),
    speed: (f32, f32),
    radius: (f32, f32),
    look: (usize, usize),
}

/// SplitMix64: small, quick, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    fn part(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.part()
    }

    /// Close to a normal distribution of mean 0 and deviation 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.part()).sum::<f32>() - 6.0
    }
}

impl Scene {
    /// Sides are cut to even numbers of at least 16.
    pub fn new(width: usize, height: usize, seed: u64) -> Scene {
        let mut dice = Dice(seed);
        let grain = (0..NOISE).map(|_| (dice.normal() * GRAIN).round().clamp(-100.0, 100.0) as i8).collect();
        Scene { width: (width & !1).max(16), height: (height & !1).max(16), seed, grain, shot: None }
    }

    /// Bytes of one frame.
    pub fn frame_bytes(&self) -> usize {
        self.width * self.height * 3 / 2
    }

    /// Paints one frame as I420. Frames are cheapest in their order: a shot's canvas is made at its first.
    pub fn paint(&mut self, number: usize, out: &mut [u8]) {
        let (w, h) = (self.width, self.height);
        if out.len() < self.frame_bytes() {
            return;
        }
        let which = number / SHOT_FRAMES;
        if self.shot.as_ref().is_none_or(|(made, _)| *made != which) {
            self.shot =
                Some((which, Shot::make(w, h, self.seed ^ (which as u64 + 1).wrapping_mul(0x51_7cc1_b727_220b))));
        }
        let Some((_, shot)) = &self.shot else { return };
        let t = (number % SHOT_FRAMES) as f32 / SHOT_FRAMES as f32;
        let camera = shot.camera(t, w, h);
        let light = 256.0 * (1.0 + 0.06 * (t * 5.0).sin());
        let (luma, chroma) = out.split_at_mut(w * h);
        shot.view(&shot.luma, shot.w, &camera, (w, h), luma, Some(light as i32));
        let (u, v) = chroma.split_at_mut(w * h / 4);
        let half = Camera { x: camera.x / 2, y: camera.y / 2, step: camera.step };
        shot.view(&shot.chroma[0], shot.w / 2, &half, (w / 2, h / 2), u, None);
        shot.view(&shot.chroma[1], shot.w / 2, &half, (w / 2, h / 2), v, None);
        for walker in &shot.walkers {
            walker.paint(shot, t, (w, h), luma, u, v);
        }
        self.grain(number, luma);
    }

    fn grain(&self, number: usize, luma: &mut [u8]) {
        let mut dice = Dice(self.seed ^ (number as u64) << 20);
        for row in luma.chunks_exact_mut(self.width) {
            let mut at = dice.next() as usize;
            for block in row.chunks_mut(256) {
                let from = at % (NOISE - 256);
                for (sample, noise) in block.iter_mut().zip(&self.grain[from..from + 256]) {
                    *sample = (i16::from(*sample) + i16::from(*noise)).clamp(16, 235) as u8;
                }
                at = at.wrapping_mul(25_214_903_917).wrapping_add(11) >> 3;
            }
        }
    }
}

/// Where the picture lies on the canvas, in 1/65536 samples.
struct Camera {
    x: i64,
    y: i64,
    step: i64,
}

impl Shot {
    fn make(width: usize, height: usize, seed: u64) -> Shot {
        let mut dice = Dice(seed);
        let even = |n: usize| (n as f32 * (1.0 + 2.0 * MARGIN)) as usize & !1;
        let (w, h) = (even(width), even(height));
        let mut shot = Shot {
            w,
            h,
            luma: vec![90; w * h],
            chroma: [vec![128; w * h / 4], vec![128; w * h / 4]],
            from: (dice.part(), dice.part()),
            way: (dice.between(-0.9, 0.9), dice.between(-0.5, 0.5)),
            zoom: dice.between(-0.08, 0.12),
            walkers: Vec::new(),
        };
        let texture = Texture::make(&mut dice);
        let (smallest, largest) = (height as f32 / 110.0, height as f32 / 2.6);
        for _ in 0..LEAVES {
            // Radii by r⁻³, from the inverse of its cumulative distribution.
            let (a, b) = (smallest.powi(-2), largest.powi(-2));
            let radius = (a + dice.part() * (b - a)).powf(-0.5);
            shot.leaf(&mut dice, &texture, radius);
        }
        for _ in 0..WALKERS {
            let size = height as f32 * dice.between(0.05, 0.2);
            shot.walkers.push(Walker {
                at: (dice.part() * width as f32, dice.part() * height as f32),
                speed: (dice.between(-0.8, 0.8) * width as f32, dice.between(-0.4, 0.4) * height as f32),
                radius: (size * dice.between(0.6, 1.4), size),
                look: ((dice.part() * w as f32 * 0.5) as usize, (dice.part() * h as f32 * 0.5) as usize),
            });
        }
        shot
    }

    /// Paints one disc over what is there.
    fn leaf(&mut self, dice: &mut Dice, texture: &Texture, radius: f32) {
        let (cx, cy) = (dice.part() * self.w as f32, dice.part() * self.h as f32);
        let (shade, rough) = (dice.between(30.0, 215.0), dice.between(0.0, 26.0) * dice.part());
        let (slope_x, slope_y) = (dice.normal() * 12.0 / radius, dice.normal() * 12.0 / radius);
        let colour = [128.0 + dice.normal() * 13.0, 128.0 + dice.normal() * 13.0].map(|c| c.clamp(40.0, 216.0) as u8);
        let (tx, ty) = (dice.next() as usize, dice.next() as usize);
        let rows = (cy - radius).max(0.0) as usize..((cy + radius) as usize + 1).min(self.h);
        for y in rows {
            let dy = y as f32 - cy;
            let reach = (radius * radius - dy * dy).max(0.0).sqrt();
            let (from, to) = ((cx - reach).max(0.0) as usize, ((cx + reach) as usize).min(self.w));
            if from >= to {
                continue;
            }
            let row = texture.row(ty.wrapping_add(y));
            let line = &mut self.luma[y * self.w..][from..to];
            for (x, sample) in (from..).zip(line) {
                let grain = f32::from(row[tx.wrapping_add(x) % Texture::SIDE]) * (1.0 / 64.0);
                let level = shade + rough * grain + slope_x * (x as f32 - cx) + slope_y * dy;
                *sample = level.clamp(16.0, 235.0) as u8;
            }
            if y % 2 == 0 {
                let (at, end) = (y / 2 * (self.w / 2) + from / 2, y / 2 * (self.w / 2) + to / 2);
                for (plane, value) in self.chroma.iter_mut().zip(colour) {
                    plane[at..end].fill(value);
                }
            }
        }
    }

    fn camera(&self, t: f32, width: usize, height: usize) -> Camera {
        let room = (width as f32 * MARGIN, height as f32 * MARGIN);
        let zoom = 1.0 + self.zoom * t;
        let along = |from: f32, way: f32, room: f32| (room * (0.5 + from * 0.5 + way * t)).clamp(0.0, 1.7 * room);
        let (x, y) = (along(self.from.0, self.way.0, room.0), along(self.from.1, self.way.1, room.1));
        Camera { x: (x * 65_536.0) as i64, y: (y * 65_536.0) as i64, step: (65_536.0 * zoom) as i64 }
    }

    /// Samples the canvas bilinearly.
    fn view(
        &self,
        canvas: &[u8],
        stride: usize,
        camera: &Camera,
        (w, h): (usize, usize),
        out: &mut [u8],
        light: Option<i32>,
    ) {
        let lines = canvas.len() / stride.max(1);
        for (y, line) in out.chunks_exact_mut(w).take(h).enumerate() {
            let at_y = camera.y + camera.step * y as i64;
            let top = ((at_y >> 16).max(0) as usize).min(lines.saturating_sub(2));
            let fy = (at_y >> 8 & 0xff) as i32;
            let (above, below) = (&canvas[top * stride..][..stride], &canvas[(top + 1) * stride..][..stride]);
            for (x, sample) in line.iter_mut().enumerate() {
                let at_x = camera.x + camera.step * x as i64;
                let left = ((at_x >> 16).max(0) as usize).min(stride - 2);
                let fx = (at_x >> 8 & 0xff) as i32;
                let mix = |row: &[u8]| i32::from(row[left]) * (256 - fx) + i32::from(row[left + 1]) * fx;
                let level = (mix(above) * (256 - fy) + mix(below) * fy) >> 16;
                *sample = match light {
                    Some(light) => ((level - 16) * light / 256 + 16).clamp(16, 235) as u8,
                    None => level as u8,
                };
            }
        }
    }
}

impl Walker {
    fn paint(&self, shot: &Shot, t: f32, (w, h): (usize, usize), luma: &mut [u8], u: &mut [u8], v: &mut [u8]) {
        let wrap = |at: f32, side: usize| at.rem_euclid(side as f32);
        let (cx, cy) = (wrap(self.at.0 + self.speed.0 * t, w), wrap(self.at.1 + self.speed.1 * t, h));
        let (left, top) = (cx - self.radius.0, cy - self.radius.1);
        let rows = top.max(0.0) as usize..((cy + self.radius.1) as usize).min(h);
        for y in rows {
            let dy = (y as f32 - cy) / self.radius.1;
            let reach = self.radius.0 * (1.0 - dy * dy).max(0.0).sqrt();
            let (from, to) = ((cx - reach).max(0.0) as usize, ((cx + reach) as usize).min(w));
            let look_y = self.look.1 + (y as f32 - top) as usize;
            let look_x = self.look.0 + (from as f32 - left).max(0.0) as usize;
            if from >= to || look_y >= shot.h || look_x + (to - from) > shot.w {
                continue;
            }
            luma[y * w + from..y * w + to].copy_from_slice(&shot.luma[look_y * shot.w + look_x..][..to - from]);
            if y % 2 == 0 {
                let (length, stride) = ((to - from) / 2, shot.w / 2);
                let (at, cut) = (y / 2 * (w / 2) + from / 2, look_y / 2 * stride + look_x / 2);
                if cut + length <= shot.chroma[0].len() && at + length <= u.len() {
                    u[at..at + length].copy_from_slice(&shot.chroma[0][cut..cut + length]);
                    v[at..at + length].copy_from_slice(&shot.chroma[1][cut..cut + length]);
                }
            }
        }
    }
}

/// Noise whose octaves halve in strength as they double in fineness: 1/f, as natural textures have it.
struct Texture(Vec<i8>);

impl Texture {
    const SIDE: usize = 512;

    fn make(dice: &mut Dice) -> Texture {
        let side = Texture::SIDE;
        let mut sum = vec![0.0f32; side * side];
        for octave in 0..7 {
            let (cells, strength) = (8usize << octave, 0.62f32.powi(octave));
            let grid: Vec<f32> = (0..cells * cells).map(|_| dice.normal() * strength).collect();
            let scale = cells as f32 / side as f32;
            for y in 0..side {
                let (gy, fy) = ((y as f32 * scale) as usize, (y as f32 * scale).fract());
                let (above, below) = (gy % cells * cells, (gy + 1) % cells * cells);
                for x in 0..side {
                    let (gx, fx) = ((x as f32 * scale) as usize, (x as f32 * scale).fract());
                    let (a, b) = (gx % cells, (gx + 1) % cells);
                    let top = grid[above + a] * (1.0 - fx) + grid[above + b] * fx;
                    let bottom = grid[below + a] * (1.0 - fx) + grid[below + b] * fx;
                    sum[y * side + x] += top * (1.0 - fy) + bottom * fy;
                }
            }
        }
        Texture(sum.into_iter().map(|level| (level * 42.0).clamp(-127.0, 127.0) as i8).collect())
    }

    fn row(&self, y: usize) -> &[i8] {
        &self.0[y % Texture::SIDE * Texture::SIDE..][..Texture::SIDE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::Plane;
    use crate::{View, likeness};

    #[test]
    fn a_film_repeats_itself_exactly_moves_and_cuts() {
        let (w, h) = (320, 180);
        let mut scene = Scene::new(w, h, 7);
        let mut frame = |n| {
            let mut out = vec![0; scene.frame_bytes()];
            scene.paint(n, &mut out);
            out
        };
        let (first, next, cut) = (frame(0), frame(1), frame(SHOT_FRAMES));
        assert_eq!(first, {
            let mut again = Scene::new(w, h, 7);
            let mut out = vec![0; again.frame_bytes()];
            again.paint(0, &mut out);
            out
        });
        let luma = |frame: &[u8]| Plane::cut(View { bytes: frame, stride: w }, (0, 0), (w, h));
        let psnr = |a: &[u8], b: &[u8]| likeness::psnr(likeness::squared_error(&luma(a), &luma(b)), w * h);
        assert!((18.0..40.0).contains(&psnr(&first, &next)), "moves a little: {}", psnr(&first, &next));
        assert!(psnr(&first, &cut) < 16.0, "another shot: {}", psnr(&first, &cut));
        assert!(first[..w * h].iter().all(|level| (16..=235).contains(level)));
        // A frame for which there is no room is not painted, and nothing breaks.
        scene.paint(0, &mut [0; 10]);
    }
}

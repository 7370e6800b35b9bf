//! A [`Grade`] over whole pictures: the arithmetic of `curve`, with tables in place of its powers.
//!
//! Pictures go through in pieces of a row, in steps that each run over the whole piece: so compilers vectorise the
//! arithmetic between the look-ups. Light is looked up by the upper bits of its floating point form, which divides each
//! doubling alike: 256 parts, that is within 0.1 % in light and a tenth of a code in the result.

use super::Grade;
use super::curve::REFERENCE_WHITE;
use crate::plane::{View, ViewMut};

/// Pixels that go through at a time; even.
const PIECE: usize = 64;
/// Parts of the signal, 0 to 1, that are told apart, and bits behind the point before they are.
const SIGNALS: usize = 4096;
const POINT: u32 = 4;
/// Light is told apart from 2^-24 to 2^8 of the output's white.
const DARKEST: u32 = (127 - 24) << 8;
const LIGHTS: usize = 32 << 8;

/// One grade, ready for pictures.
pub struct Table {
    /// What a ten-bit code adds to the signals: luma to all; Cr to red and green, Cb to green and blue.
    luma: Vec<i32>,
    cr: Vec<[i32; 2]>,
    cb: Vec<[i32; 2]>,
    /// Signal to light, where 1 is the output's white; with HLG, light of the scene.
    light: Box<[f32; SIGNALS]>,
    /// What the light of a scene with this luminance is multiplied by; nothing for PQ.
    scene: Option<ByLight>,
    /// What light is multiplied by where this is the largest component.
    tone: ByLight,
    /// Light to signal of the output.
    signal: ByLight,
    primaries: [[f32; 3]; 3],
}

/// A function of light.
type ByLight = Box<[f32; LIGHTS]>;

/// R, G and B of a piece.
type Colours = [[f32; PIECE]; 3];

impl Table {
    pub fn new(grade: &Grade) -> Table {
        let codes = || (0..1024).map(f64::from);
        // A signal in parts, rounded once the three contributions are added.
        let parts = |v: f64| (v * (SIGNALS - 1) as f64 * f64::from(1 << POINT)).round() as i32;
        let base = grade.rgb([0.0, 512.0, 512.0]);
        let of = |colour: [f64; 3]| -> [i32; 3] {
            let rgb = grade.rgb(colour);
            [0, 1, 2].map(|i| parts(rgb[i] - base[i]))
        };
        let by_light = |f: &dyn Fn(f64) -> f64| -> ByLight {
            // The value in the middle of each part.
            table_of(|i| f(f64::from(f32::from_bits((DARKEST + i as u32) << 15 | 1 << 14))) as f32)
        };
        Table {
            luma: codes().map(|y| parts(grade.rgb([y, 512.0, 512.0])[0]) + (1 << (POINT - 1))).collect(),
            cr: codes().map(|cr| of([0.0, 512.0, cr])).map(|rgb| [rgb[0], rgb[1]]).collect(),
            cb: codes().map(|cb| of([0.0, cb, 512.0])).map(|rgb| [rgb[1], rgb[2]]).collect(),
            light: table_of(|i| grade.linear(i as f64 / (SIGNALS - 1) as f64) as f32),
            scene: grade.has_scene_light().then(|| by_light(&|luminance| grade.scene_factor(luminance))),
            tone: by_light(&|most| grade.tone_factor(most * REFERENCE_WHITE)),
            signal: by_light(&|light| light.min(1.0).powf(1.0 / 2.4)),
            primaries: grade.to_bt709().map(|row| row.map(|v| v as f32)),
        }
    }

    /// A picture in 4:2:0 of this size; planes that are too short are filled as far as they go.
    pub fn apply(&self, size: (usize, usize), source: [View<'_>; 3], target: [ViewMut<'_>; 3]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the two features, as was just asked.
            return unsafe { self.apply_avx2(size, source, target) };
        }
        self.rows(size, source, target);
    }

    /// The same, compiled for wider registers.
    ///
    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn apply_avx2(&self, size: (usize, usize), source: [View<'_>; 3], target: [ViewMut<'_>; 3]) {
        self.rows(size, source, target);
    }

    #[inline(always)]
    fn rows(&self, (width, height): (usize, usize), source: [View<'_>; 3], target: [ViewMut<'_>; 3]) {
        let [luma, blue, red] = target;
        let columns = width.div_ceil(2);
        let luma_rows = luma.bytes.chunks_mut(luma.stride.max(1) * 2);
        let chroma_rows = blue.bytes.chunks_mut(blue.stride.max(1)).zip(red.bytes.chunks_mut(red.stride.max(1)));
        let mut lines: [Vec<u16>; 4] = Default::default();
        for (row, (out, (out_cb, out_cr))) in luma_rows.zip(chroma_rows).take(height.div_ceil(2)).enumerate() {
            let wanted = [
                (source[0], row * 2, width),
                (source[0], (row * 2 + 1).min(height - 1), width),
                (source[1], row, columns),
                (source[2], row, columns),
            ];
            for (line, (source, row, samples)) in lines.iter_mut().zip(wanted) {
                read_line(line, source, row, samples);
            }
            let [above, below, cb, cr] = &lines;
            let (upper, lower) = out.split_at_mut(luma.stride.min(out.len()));
            for from in (0..width).step_by(PIECE) {
                let mut sums = [[0f32; PIECE / 2]; 2];
                for (line, out) in [(above, &mut *upper), (below, &mut *lower)] {
                    let mut colours = [[0f32; PIECE]; 3];
                    self.lights(
                        &line[from..from + PIECE],
                        &cb[from / 2..][..PIECE / 2],
                        &cr[from / 2..][..PIECE / 2],
                        &mut colours,
                    );
                    self.grade_piece(&mut colours);
                    let end = (from + PIECE).min(width).min(out.len());
                    coded(&colours, out.get_mut(from..end).unwrap_or_default(), &mut sums);
                }
                for (sums, out) in sums.iter().zip([&mut *out_cb, &mut *out_cr]) {
                    let end = (from / 2 + PIECE / 2).min(columns).min(out.len());
                    for (sample, sum) in out.get_mut(from / 2..end).unwrap_or_default().iter_mut().zip(sums) {
                        *sample = (128.5 + sum) as i32 as u8;
                    }
                }
            }
        }
    }

    /// Ten-bit codes to light.
    #[inline(always)]
    fn lights(&self, luma: &[u16], cb: &[u16], cr: &[u16], colours: &mut Colours) {
        let mut signals = [[0i32; PIECE]; 3];
        for i in 0..PIECE / 2 {
            let (cb, cr) = (self.cb[usize::from(cb[i] & 1023)], self.cr[usize::from(cr[i] & 1023)]);
            for x in [i * 2, i * 2 + 1] {
                let y = self.luma[usize::from(luma[x] & 1023)];
                signals[0][x] = y + cr[0];
                signals[1][x] = y + cr[1] + cb[0];
                signals[2][x] = y + cb[1];
            }
        }
        for (signals, lights) in signals.iter().zip(colours) {
            for (signal, light) in signals.iter().zip(lights) {
                *light = self.light[(signal >> POINT).clamp(0, SIGNALS as i32 - 1) as usize % SIGNALS];
            }
        }
    }

    /// Light of the programme to signals of the output.
    #[inline(always)]
    fn grade_piece(&self, colours: &mut Colours) {
        let mut factor = [1f32; PIECE];
        if let Some(scene) = &self.scene {
            for i in 0..PIECE {
                factor[i] = 0.2627 * colours[0][i] + 0.6780 * colours[1][i] + 0.0593 * colours[2][i];
            }
            look_up(scene, &mut factor);
        }
        let mut tone = [0f32; PIECE];
        for i in 0..PIECE {
            tone[i] = colours[0][i].max(colours[1][i]).max(colours[2][i]) * factor[i];
        }
        look_up(&self.tone, &mut tone);
        for i in 0..PIECE {
            factor[i] *= tone[i];
        }
        self.fit_gamut(colours, &factor);
        for component in colours {
            look_up(&self.signal, component);
        }
    }

    /// Scales light, and brings it into the gamut of BT.709 as `curve` does.
    #[inline(always)]
    fn fit_gamut(&self, [red, green, blue]: &mut Colours, factor: &[f32; PIECE]) {
        let m = &self.primaries;
        for i in 0..PIECE {
            let (r, g, b) = (red[i] * factor[i], green[i] * factor[i], blue[i] * factor[i]);
            let (r, g, b) = (
                m[0][0] * r + m[0][1] * g + m[0][2] * b,
                m[1][0] * r + m[1][1] * g + m[1][2] * b,
                m[2][0] * r + m[2][1] * g + m[2][2] * b,
            );
            let grey = (0.2126 * r + 0.7152 * g + 0.0722 * b).clamp(0.0, 1.0);
            let (least, most) = (r.min(g).min(b), r.max(g).max(b));
            // The divisors are kept from zero where nothing sticks out and the quotient is not used.
            let down = grey / (grey - least).max(1e-9);
            let up = (1.0 - grey) / (most - grey).max(1e-9);
            let reach = (if least < 0.0 { down } else { 1.0 }).min(if most > 1.0 { up } else { 1.0 });
            red[i] = (grey + reach * (r - grey)).clamp(0.0, 1.0);
            green[i] = (grey + reach * (g - grey)).clamp(0.0, 1.0);
            blue[i] = (grey + reach * (b - grey)).clamp(0.0, 1.0);
        }
    }
}

fn table_of<const N: usize>(f: impl Fn(usize) -> f32) -> Box<[f32; N]> {
    let mut table = Box::new([0f32; N]);
    table.iter_mut().enumerate().for_each(|(i, v)| *v = f(i));
    table
}

/// Ten-bit samples of a row, and a whole piece more of the last.
#[inline(always)]
fn read_line(line: &mut Vec<u16>, source: View<'_>, row: usize, samples: usize) {
    let bytes = source.bytes.get(row * source.stride..).unwrap_or_default();
    line.clear();
    line.extend(bytes.chunks_exact(2).take(samples).map(|b| u16::from_le_bytes([b[0], b[1]])));
    line.resize(samples + PIECE, line.last().copied().unwrap_or(0));
}

/// Replaces light by what a table says of it.
#[inline(always)]
fn look_up(table: &[f32; LIGHTS], values: &mut [f32; PIECE]) {
    for value in values {
        let part = (value.to_bits() >> 15) as i32 - DARKEST as i32;
        *value = table[part.clamp(0, LIGHTS as i32 - 1) as usize % LIGHTS];
    }
}

/// Signals to luma, and what they add to the colour differences of their blocks.
#[inline(always)]
fn coded([red, green, blue]: &Colours, out: &mut [u8], sums: &mut [[f32; PIECE / 2]; 2]) {
    let mut luma = [0f32; PIECE];
    for i in 0..PIECE {
        luma[i] = 0.2126 * red[i] + 0.7152 * green[i] + 0.0722 * blue[i];
    }
    for (sample, y) in out.iter_mut().zip(luma) {
        *sample = (16.5 + 219.0 * y) as i32 as u8;
    }
    // A quarter of each pixel's difference.
    const CB: f32 = 224.0 / 1.8556 / 4.0;
    const CR: f32 = 224.0 / 1.5748 / 4.0;
    let [blues, reds] = sums;
    for (i, (to_blue, to_red)) in blues.iter_mut().zip(reds).enumerate() {
        let (a, b) = (i * 2, i * 2 + 1);
        *to_blue += CB * (blue[a] - luma[a] + blue[b] - luma[b]);
        *to_red += CR * (red[a] - luma[a] + red[b] - luma[b]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Primaries, Transfer};
    use super::*;

    /// One colour through the table.
    fn through(table: &Table, colour: [u16; 3]) -> [u8; 3] {
        let planes = [vec![colour[0]; 4], vec![colour[1]], vec![colour[2]]]
            .map(|p| p.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        let source = [0, 1, 2].map(|i| View { bytes: &planes[i], stride: if i == 0 { 4 } else { 2 } });
        let (mut y, mut cb, mut cr) = ([0u8; 4], [0u8; 1], [0u8; 1]);
        let target = [
            ViewMut { bytes: &mut y, stride: 2 },
            ViewMut { bytes: &mut cb, stride: 1 },
            ViewMut { bytes: &mut cr, stride: 1 },
        ];
        table.apply((2, 2), source, target);
        assert!(y.iter().all(|v| *v == y[0]));
        [y[0], cb[0], cr[0]]
    }

    #[test]
    fn tables_are_as_good_as_the_exact_way() {
        for transfer in [Transfer::Pq, Transfer::Hlg] {
            let grade =
                Grade { transfer, primaries: Primaries::Bt2020, bt2020_matrix: true, full_range: false, peak: 1_000.0 };
            let table = Table::new(&grade);
            let (mut far, mut sum, mut count) = (0.0, 0.0, 0.0);
            // Colours that cameras see: R'G'B' within the signal, in steps that meet no node.
            for n in 0..12_167u32 {
                let rgb = [n % 23, n / 23 % 23, n / 529].map(|v| f64::from(v) / 22.0);
                let y = 0.2627 * rgb[0] + 0.6780 * rgb[1] + 0.0593 * rgb[2];
                let codes =
                    [64.0 + 876.0 * y, 512.0 + 896.0 * (rgb[2] - y) / 1.8814, 512.0 + 896.0 * (rgb[0] - y) / 1.4746]
                        .map(|v| v.round());
                let (exact, got) = (grade.graded(codes), through(&table, codes.map(|v| v as u16)));
                let off = exact.iter().zip(got).map(|(e, g)| (e - f64::from(g)).abs()).fold(0.0, f64::max);
                (far, sum, count) = (far + f64::from(off > 2.0), sum + off, count + 1.0);
                // Greys are exact to the rounding.
                if rgb[0] == rgb[1] && rgb[1] == rgb[2] {
                    assert!(off <= 0.75, "{codes:?}: {exact:?} {got:?}");
                    assert_eq!([got[1], got[2]], [128, 128]);
                }
            }
            // Rounding alone is a quarter of a code in the mean of one component. Where the gamut bends, tables miss by more.
            assert!(sum / count < 0.6 && far / count < 0.01, "{transfer:?}: mean {} far {}", sum / count, far / count);
        }
    }
}

//! What a colour of high dynamic range becomes in BT.709: exact, one colour at a time. Pure.
//!
//! The steps, and where they come from:
//!
//! 1. Y'CbCr to R'G'B': ITU-R BT.2020-2, table 4 (non-constant luminance), or BT.709-6.
//! 2. R'G'B' to display light: the PQ EOTF of BT.2100-2, table 4; or for HLG its inverse OETF and its OOTF with a system
//!    gamma of 1.2 at a nominal peak of 1,000 cd/m² (table 5).
//! 3. Tone curve: the EETF of BT.2390-10, 5.4.1, from the peak of the programme to that of the output, on the largest of
//!    R, G and B; all three are scaled alike, so that hues stay. The output's white stands for 203 cd/m², the reference
//!    white of BT.2408-5: what lies well below it keeps its light, and what is brighter is rolled off.
//! 4. Gamut: BT.2087-0, annex 2, for BT.2020 into BT.709 primaries; colours outside are moved towards the grey of their
//!    own luminance as far as it takes (a straight line, as in BT.2407-0, annex 2, without its knee).
//! 5. Coding: the inverse of the EOTF of BT.1886 (power 2.4, black at zero), then Y'CbCr of BT.709-6 in limited range.
//!
//! Not done: scene by scene metadata (HDR10+, Dolby Vision), and a lift of the blacks of displays that have none.

/// HDR reference white, in cd/m² (BT.2408-5, 2.1): white of the output.
pub const REFERENCE_WHITE: f64 = 203.0;
/// Peak of a PQ programme that says nothing of its own, and of HLG, in cd/m².
pub const USUAL_PEAK: f64 = 1_000.0;
/// As far as PQ goes.
pub const PQ_PEAK: f64 = 10_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Pq,
    Hlg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primaries {
    Bt2020,
    P3D65,
    Bt709,
}

/// All that decides what a colour becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grade {
    pub transfer: Transfer,
    pub primaries: Primaries,
    /// Coded by the luma weights of BT.2020, else by those of BT.709.
    pub bt2020_matrix: bool,
    pub full_range: bool,
    /// Brightest light of the programme, in cd/m².
    pub peak: f64,
}

impl Grade {
    /// Ten-bit Y'CbCr codes to R'G'B', not limited to 0..1.
    pub fn rgb(&self, [y, cb, cr]: [f64; 3]) -> [f64; 3] {
        let (y, cb, cr) = if self.full_range {
            (y / 1023.0, (cb - 512.0) / 1023.0, (cr - 512.0) / 1023.0)
        } else {
            ((y - 64.0) / 876.0, (cb - 512.0) / 896.0, (cr - 512.0) / 896.0)
        };
        let (kr, kb) = if self.bt2020_matrix { (0.2627, 0.0593) } else { (0.2126, 0.0722) };
        let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        [r, (y - kr * r - kb * b) / (1.0 - kr - kb), b]
    }

    /// One component of R'G'B' to light, as multiples of reference white: of the display, with HLG of the scene.
    pub fn linear(&self, signal: f64) -> f64 {
        match self.transfer {
            Transfer::Pq => pq_eotf(signal) / REFERENCE_WHITE,
            Transfer::Hlg => hlg_inverse_oetf(signal) * USUAL_PEAK / REFERENCE_WHITE,
        }
    }

    /// Whether `linear` gives light of the scene, which still has to pass the OOTF.
    pub fn has_scene_light(&self) -> bool {
        self.transfer == Transfer::Hlg
    }

    /// The OOTF of HLG: what each component is multiplied by where the scene has this luminance. System gamma 1.2, so
    /// luminance to the power of 0.2, with the scene's largest as one.
    pub fn scene_factor(&self, luminance: f64) -> f64 {
        (luminance * REFERENCE_WHITE / USUAL_PEAK).max(0.0).powf(0.2)
    }

    /// What light is multiplied by where its largest component is `most`, in cd/m².
    pub fn tone_factor(&self, most: f64) -> f64 {
        if most <= 0.0 { 1.0 } else { eetf(most, self.peak, REFERENCE_WHITE) / most }
    }

    /// Light in this programme's primaries to light in those of BT.709, as a matrix.
    pub fn to_bt709(&self) -> [[f64; 3]; 3] {
        match self.primaries {
            Primaries::Bt2020 => [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
            // From the chromaticities of SMPTE EG 432-1 and of BT.709, both with D65.
            Primaries::P3D65 => [[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]],
            Primaries::Bt709 => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        }
    }

    fn in_gamut(&self, rgb: [f64; 3]) -> [f64; 3] {
        let out = self.to_bt709().map(|row| row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]);
        let grey = (0.2126 * out[0] + 0.7152 * out[1] + 0.0722 * out[2]).clamp(0.0, 1.0);
        // How far from grey each component may lie before it leaves 0..1.
        let reach = out.iter().fold(1.0f64, |reach, &v| match v - grey {
            off if off > 1e-9 => reach.min((1.0 - grey) / off),
            off if off < -1e-9 => reach.min(grey / -off),
            _ => reach,
        });
        out.map(|v| (grey + reach * (v - grey)).clamp(0.0, 1.0))
    }

    /// A ten-bit Y'CbCr colour as an eight-bit one of BT.709, limited range, not rounded.
    pub fn graded(&self, colour: [f64; 3]) -> [f64; 3] {
        let mut light = self.rgb(colour).map(|v| self.linear(v.clamp(0.0, 1.0)));
        if self.has_scene_light() {
            let factor = self.scene_factor(0.2627 * light[0] + 0.6780 * light[1] + 0.0593 * light[2]);
            light = light.map(|v| v * factor);
        }
        let factor = self.tone_factor(light.into_iter().fold(0.0, f64::max) * REFERENCE_WHITE);
        let [r, g, b] = self.in_gamut(light.map(|v| v * factor)).map(|v| v.powf(1.0 / 2.4));
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        [16.0 + 219.0 * y, 128.0 + 224.0 * (b - y) / 1.8556, 128.0 + 224.0 * (r - y) / 1.5748]
    }
}

const M1: f64 = 2610.0 / 16384.0;
const M2: f64 = 2523.0 / 4096.0 * 128.0;
const C1: f64 = 3424.0 / 4096.0;
const C2: f64 = 2413.0 / 4096.0 * 32.0;
const C3: f64 = 2392.0 / 4096.0 * 32.0;

/// Signal to cd/m².
fn pq_eotf(signal: f64) -> f64 {
    let p = signal.max(0.0).powf(1.0 / M2);
    PQ_PEAK * ((p - C1).max(0.0) / (C2 - C3 * p)).powf(1.0 / M1)
}

/// cd/m² to signal.
fn pq_inverse_eotf(light: f64) -> f64 {
    let y = (light / PQ_PEAK).max(0.0).powf(M1);
    ((C1 + C2 * y) / (1.0 + C3 * y)).powf(M2)
}

/// Signal to scene light, 0 to 1.
fn hlg_inverse_oetf(signal: f64) -> f64 {
    const A: f64 = 0.17883277;
    const B: f64 = 0.28466892;
    const C: f64 = 0.55991073;
    if signal <= 0.5 { signal * signal / 3.0 } else { (((signal - C) / A).exp() + B) / 12.0 }
}

/// BT.2390-10, 5.4.1, with both blacks at zero: light of a programme that reaches `peak`, for a display that reaches
/// `target`, all in cd/m².
fn eetf(light: f64, peak: f64, target: f64) -> f64 {
    if peak <= target {
        return light.min(target);
    }
    let whole = pq_inverse_eotf(peak);
    let (e1, most) = ((pq_inverse_eotf(light) / whole).min(1.0), pq_inverse_eotf(target) / whole);
    let knee = 1.5 * most - 0.5;
    if e1 < knee {
        return light;
    }
    let t = (e1 - knee) / (1.0 - knee);
    let (t2, t3) = (t * t, t * t * t);
    let e2 = (2.0 * t3 - 3.0 * t2 + 1.0) * knee + (t3 - 2.0 * t2 + t) * (1.0 - knee) + (-2.0 * t3 + 3.0 * t2) * most;
    pq_eotf(e2 * whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curves_agree_with_published_values() {
        // BT.2408-5, table 1: 203 cd/m² is 58 % PQ and 75 % HLG; SMPTE ST 2084: 100 and 1,000 cd/m² are 50.8 % and 75.2 %.
        for (light, signal) in [(203.0, 0.5807), (100.0, 0.5081), (1_000.0, 0.7518), (10_000.0, 1.0)] {
            assert!((pq_inverse_eotf(light) - signal).abs() < 1e-4, "{light}");
            assert!((pq_eotf(pq_inverse_eotf(light)) / light - 1.0).abs() < 1e-9);
        }
        let hlg = Grade {
            transfer: Transfer::Hlg,
            primaries: Primaries::Bt2020,
            bt2020_matrix: true,
            full_range: false,
            peak: 1_000.0,
        };
        for (signal, light) in [(0.75, 203.0), (1.0, 1_000.0)] {
            let scene = hlg.linear(signal);
            assert!((scene * hlg.scene_factor(scene) * REFERENCE_WHITE - light).abs() < 1.0, "{signal}");
        }
    }

    #[test]
    fn light_below_the_knee_stays_and_the_peak_becomes_white() {
        let mut last = 0.0;
        for step in 0..=1_000 {
            let out = eetf(f64::from(step), 1_000.0, 203.0);
            assert!(out >= last && out <= 203.0001, "{step}");
            last = out;
        }
        assert!((eetf(80.0, 1_000.0, 203.0) - 80.0).abs() < 1e-6);
        assert!((eetf(1_000.0, 1_000.0, 203.0) - 203.0).abs() < 1e-6);
        assert_eq!(eetf(300.0, 150.0, 203.0), 203.0);
    }

    #[test]
    fn colours_outside_the_gamut_keep_their_luminance() {
        let grade = Grade {
            transfer: Transfer::Pq,
            primaries: Primaries::Bt2020,
            bt2020_matrix: true,
            full_range: false,
            peak: 1_000.0,
        };
        for rgb in [[0.9, 0.0, 0.0], [0.0, 0.9, 0.0], [0.1, 0.3, 0.9]] {
            let out = grade.in_gamut(rgb);
            let luminance = 0.2126 * out[0] + 0.7152 * out[1] + 0.0722 * out[2];
            let before = 0.2627 * rgb[0] + 0.6780 * rgb[1] + 0.0593 * rgb[2];
            assert!((luminance - before).abs() < 2e-3, "{rgb:?}: {luminance} {before}");
            assert!(out.iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }
}

//! PSNR and SSIM between two pictures of the same size. Pure arithmetic on planes, in loops that compilers vectorise.
//!
//! SSIM follows Wang et al. (2004) on 8x8 windows laid side by side, unweighted, on luma; PSNR is over luma alone and,
//! as "overall", over all samples of the three planes. A picture that is identical has a PSNR of [`PSNR_MAX`].

use crate::plane::Plane;

/// What identical pictures get, so that means stay finite.
const PSNR_MAX: f64 = 100.0;

/// Sum of squared differences.
pub fn squared_error(a: &Plane, b: &Plane) -> u64 {
    // A row of squares fits 32 bits up to a width of 66,000.
    a.data
        .chunks_exact(a.w.max(1))
        .zip(b.data.chunks_exact(b.w.max(1)))
        .map(|(a, b)| {
            let row: u32 = a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum();
            u64::from(row)
        })
        .sum()
}

pub fn psnr(squared_error: u64, samples: usize) -> f64 {
    if squared_error == 0 || samples == 0 {
        return PSNR_MAX;
    }
    (10.0 * (255.0f64.powi(2) * samples as f64 / squared_error as f64).log10()).min(PSNR_MAX)
}

/// Mean SSIM over the 8x8 windows of two planes.
pub fn ssim(a: &Plane, b: &Plane) -> f64 {
    let (columns, rows) = (a.w.min(b.w) / 8, a.h.min(b.h) / 8);
    if columns == 0 || rows == 0 {
        return 1.0;
    }
    let mut total = 0.0;
    for row in 0..rows {
        for column in 0..columns {
            total += window(a, b, column * 8, row * 8);
        }
    }
    total / (columns * rows) as f64
}

fn window(a: &Plane, b: &Plane, x: usize, y: usize) -> f64 {
    const C1: f64 = 6.5025; // (0.01 * 255)^2
    const C2: f64 = 58.5225; // (0.03 * 255)^2
    let (mut s1, mut s2, mut squares, mut product) = (0u32, 0u32, 0u32, 0u32);
    for row in y..y + 8 {
        let (la, lb) = (&a.data[row * a.w + x..][..8], &b.data[row * b.w + x..][..8]);
        for i in 0..8 {
            let (p, q) = (u32::from(la[i]), u32::from(lb[i]));
            s1 += p;
            s2 += q;
            squares += p * p + q * q;
            product += p * q;
        }
    }
    let (m1, m2) = (f64::from(s1) / 64.0, f64::from(s2) / 64.0);
    let variances = f64::from(squares) / 64.0 - m1 * m1 - m2 * m2;
    let covariance = f64::from(product) / 64.0 - m1 * m2;
    ((2.0 * m1 * m2 + C1) * (2.0 * covariance + C2)) / ((m1 * m1 + m2 * m2 + C1) * (variances + C2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u32) -> Plane {
        let mut state = seed;
        let data = (0..64 * 64)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        Plane { w: 64, h: 64, data }
    }

    #[test]
    fn the_measures_agree_with_their_definitions() {
        let a = noise(1);
        assert_eq!((psnr(squared_error(&a, &a), 4096), ssim(&a, &a)), (PSNR_MAX, 1.0));
        let brighter = Plane { data: a.data.iter().map(|v| v.saturating_add(0) ^ 1).collect(), ..a.clone() };
        // Each sample is off by one: MSE 1, PSNR 48.13 dB.
        assert!((psnr(squared_error(&a, &brighter), 4096) - 48.1308).abs() < 1e-3);
        assert!(ssim(&a, &brighter) > 0.99);
        assert!(ssim(&a, &noise(2)) < 0.1);
    }
}

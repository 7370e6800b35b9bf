//! The two passes on 256-bit registers: the same results as without, to the bit.

use std::arch::x86_64::*;

use super::taps::Taps;
use super::{ACROSS_SHIFT, LANES, SAMPLE_BITS};
use crate::plane::View;

/// Samples down at a time: four registers of 16.
const STEP: usize = 64;
/// Samples across at a time.
const GROUP: usize = 8;

/// As the `down` of every processor.
#[target_feature(enable = "avx2")]
pub fn down(source: View<'_>, weights: &[i16], line: &mut [i16]) {
    let Some(last) = line.len().checked_sub(STEP) else { return super::down(source, weights, line) };
    if source.bytes.len() < source.stride * weights.len().saturating_sub(1) + line.len() {
        return super::down(source, weights, line);
    }
    // The last step ends with the line, and may do again what the one before it did.
    for at in (0..line.len()).step_by(STEP) {
        let at = at.min(last);
        if let Some(sums) = line[at..].first_chunk_mut::<STEP>() {
            down_step(source.from(at, 0), weights, sums);
        }
    }
}

#[target_feature(enable = "avx2")]
fn down_step(source: View<'_>, weights: &[i16], line: &mut [i16; STEP]) {
    let mut sums = [_mm256_setzero_si256(); STEP / 16];
    let mut rest = source.bytes;
    for &weight in weights {
        let Some(samples) = rest.first_chunk::<STEP>() else { break };
        let weight = _mm256_set1_epi16(weight);
        for (sum, samples) in sums.iter_mut().zip(samples.as_chunks::<16>().0) {
            // SAFETY: the array is the 16 bytes that are loaded, from wherever they lie.
            let samples = unsafe { _mm_loadu_si128(samples.as_ptr().cast()) };
            let samples = _mm256_slli_epi16::<{ SAMPLE_BITS as i32 }>(_mm256_cvtepu8_epi16(samples));
            *sum = _mm256_add_epi16(*sum, _mm256_mulhrs_epi16(samples, weight));
        }
        rest = rest.get(source.stride..).unwrap_or_default();
    }
    for (line, sum) in line.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
        // SAFETY: the array is the 32 bytes that are stored, to wherever they lie.
        unsafe { _mm256_storeu_si256(line.as_mut_ptr().cast(), sum) };
    }
}

/// As the `across` of every processor.
#[target_feature(enable = "avx2")]
pub fn across(line: &[i16], taps: &Taps, out: &mut [u8]) {
    let Some(last) = out.len().checked_sub(GROUP).filter(|_| taps.width <= 4 * LANES) else {
        return super::across(line, taps, out);
    };
    for at in (0..out.len()).step_by(GROUP) {
        let at = at.min(last);
        let sets = (taps.starts[at..].first_chunk::<GROUP>(), out[at..].first_chunk_mut::<GROUP>());
        if let (Some(starts), Some(out)) = sets {
            let weights = &taps.weights[at * taps.width..];
            match taps.width / LANES {
                1 => across_group::<1>(line, starts, weights, out),
                2 => across_group::<2>(line, starts, weights, out),
                3 => across_group::<3>(line, starts, weights, out),
                _ => across_group::<4>(line, starts, weights, out),
            }
        }
    }
}

/// Eight sums of `N` times eight products, two of them in each register.
#[target_feature(enable = "avx2")]
fn across_group<const N: usize>(line: &[i16], starts: &[u32; GROUP], weights: &[i16], out: &mut [u8; GROUP]) {
    let (sets, _) = weights.as_chunks::<LANES>();
    let sets = &sets[..GROUP * N];
    // Asked once for all: asking at each load would cost half as much again as the whole sum.
    assert!(starts.iter().all(|start| *start as usize + N * LANES <= line.len()), "weights reach beyond the line");
    let mut sums = [_mm256_setzero_si256(); GROUP / 2];
    for (i, sum) in sums.iter_mut().enumerate() {
        for k in 0..N {
            let set = |start: u32| line.as_ptr().wrapping_add(start as usize + k * LANES);
            // SAFETY: `N` sets from each start lie within the line, as asserted.
            let samples = unsafe { pair(set(starts[i]), set(starts[i + 4])) };
            // SAFETY: each of the two is an array of that size.
            let weights = unsafe { pair(sets[i * N + k].as_ptr(), sets[(i + 4) * N + k].as_ptr()) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(samples, weights));
        }
    }
    // Sums of neighbours, twice: the first four results are in the lower half, the others in the upper.
    let [a, b, c, d] = sums;
    let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let rounded = _mm256_add_epi32(sums, _mm256_set1_epi32(1 << (ACROSS_SHIFT - 1)));
    let whole = _mm256_srai_epi32::<{ ACROSS_SHIFT as i32 }>(rounded);
    let bytes = _mm256_packus_epi16(_mm256_packs_epi32(whole, whole), whole);
    let (near, far) = out.split_at_mut(4);
    near.copy_from_slice(&_mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)).to_le_bytes());
    far.copy_from_slice(&_mm_cvtsi128_si32(_mm256_extracti128_si256::<1>(bytes)).to_le_bytes());
}

/// Two sets of eight in one register.
///
/// # Safety
/// At each of the two places there are eight values, aligned or not.
#[target_feature(enable = "avx2")]
unsafe fn pair(lower: *const i16, upper: *const i16) -> __m256i {
    // SAFETY: 16 bytes are loaded from each place, which the caller vouches for.
    unsafe { _mm256_loadu2_m128i(upper.cast(), lower.cast()) }
}

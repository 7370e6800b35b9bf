//! Was everything that the source claims decoded, and was everything that was decoded encoded?
//!
//! A decoder that meets damage goes on and says nothing; here the counts are held against each other, so that a
//! result with holes is an error with figures and never a success.

use conveyor_base::TaskError;

use super::plan::Plan;
use super::tally::{DecodeTally, EncodeTally};
use crate::input::Input;
use crate::probe::Media;
use crate::time::pictures::Tally;

/// Share of the frames that may be lost or broken before a file counts as damaged; fewer are a warning.
const LOST_FRACTION_MAX: f64 = 0.005;
/// Frames at the ends that edit lists and open GOPs may cost.
const LOST_FRAMES_FREE: u64 = 4;
/// Share of the duration, and seconds, that may be missing at the end.
const MISSING_FRACTION_MAX: f64 = 0.02;
const MISSING_SECONDS_FREE: f64 = 1.0;

/// Stops a file whose timestamps run away: filling the hole with repeated frames could take for ever.
pub fn running(plan: &Plan, input: &Input, media: &Media, decoded: &DecodeTally) -> Result<(), TaskError> {
    let Some(claimed) = media.duration_ns.filter(|_| !plan.encodes.is_empty()) else { return Ok(()) };
    let first = decoded.first_ns.unwrap_or(0);
    if decoded.end_ns.saturating_sub(first) > claimed * 2 + 60_000_000_000 {
        return Err(input.error(
            "Media.Corrupt",
            format!(
                "claims {:.1} s, and its pictures carry timestamps up to {:.1} s; remux or copy it again",
                claimed as f64 / 1e9,
                decoded.end_ns as f64 / 1e9
            ),
        ));
    }
    Ok(())
}

/// Compares what was decoded with what the container claims. What is tolerable comes back as warnings.
pub fn source(plan: &Plan, input: &Input, media: &Media, decoded: &DecodeTally) -> Result<Vec<String>, TaskError> {
    let Some(video) = plan.video.as_ref().filter(|_| plan.wants_video()) else { return Ok(Vec::new()) };
    let mut warnings = Vec::new();
    let again = "copy it again from where it was made";
    if decoded.frames == 0 {
        return Err(input.error("Media.Corrupt", format!("gave no picture at all; {again}")));
    }
    if let Some(claimed) = video.frames.filter(|n| *n > 0) {
        let lost = claimed.saturating_sub(decoded.frames);
        if lost > LOST_FRAMES_FREE.max((claimed as f64 * LOST_FRACTION_MAX) as u64) {
            return Err(input.error(
                "Media.Corrupt",
                format!("lists {claimed} frames, of which {lost} cannot be decoded; it is damaged: {again}"),
            ));
        }
        if lost > LOST_FRAMES_FREE {
            warnings.push(format!("{lost} of {claimed} frames could not be decoded"));
        }
    }
    if decoded.corrupted > LOST_FRAMES_FREE.max((decoded.frames as f64 * LOST_FRACTION_MAX) as u64) {
        return Err(input.error(
            "Media.Corrupt",
            format!("has {} broken frames of {}; it is damaged: {again}", decoded.corrupted, decoded.frames),
        ));
    }
    if decoded.corrupted > 0 {
        warnings.push(format!("{} of {} frames are broken", decoded.corrupted, decoded.frames));
    }
    duration(input, media, decoded, &mut warnings)?;
    Ok(warnings)
}

fn duration(input: &Input, media: &Media, decoded: &DecodeTally, warnings: &mut Vec<String>) -> Result<(), TaskError> {
    let Some(claimed) = media.duration_ns.map(|ns| ns as f64 / 1e9) else { return Ok(()) };
    let end = decoded.end_ns as f64 / 1e9;
    let missing = claimed - end;
    if missing > (claimed * MISSING_FRACTION_MAX).max(MISSING_SECONDS_FREE) {
        let told = format!("claims {claimed:.2} s, and its pictures end at {end:.2} s");
        // Sound that goes on behind the last picture makes a file longer without anything being lost.
        let listed = media.video.first().and_then(|v| v.frames).unwrap_or(0);
        if listed > 0 || !media.audio.is_empty() && missing < claimed / 2.0 {
            warnings.push(told);
        } else {
            return Err(input.error("Media.Truncated", format!("{told}; copy it again from where it was made")));
        }
    }
    let gap = decoded.gap_ns_max as f64 / 1e9;
    if gap > 1.0 {
        warnings.push(format!(
            "there is no picture for {gap:.2} s from {:.2} s on; the last one stands",
            decoded.gap_at_ns as f64 / 1e9
        ));
    }
    Ok(())
}

/// Compares what was encoded with what was shown to the encoder, and checks that keyframes stand where segments are cut.
pub fn encodes(plan: &Plan, input: &Input, shown: &[Tally], encoded: &[EncodeTally]) -> Result<(), TaskError> {
    for ((encode, tally), shown) in plan.encodes.iter().zip(encoded).zip(shown) {
        let size = format!("{}x{}", encode.geometry.frame.0, encode.geometry.frame.1);
        let (got, due) = (tally.frames, shown.taken - shown.skipped + shown.held);
        if got != due || tally.disordered > 0 {
            return Err(input.error(
                "Media.EncodeMismatch",
                format!(
                    "gave {got} encoded frames at {size} where {due} were due, {} of them out of order; run it again, and report it if it stays",
                    tally.disordered
                ),
            ));
        }
        let gop = u64::from(encode.gop_frames);
        if let Some(stray) = tally.keyframes.iter().find(|k| **k % gop != 0) {
            return Err(input.error(
                "Media.EncodeMismatch",
                format!("got a keyframe at frame {stray} of {size}, which is no multiple of {gop}; run it again, and report it if it stays"),
            ));
        }
    }
    Ok(())
}

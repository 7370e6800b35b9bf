//! The functions that AWS adds to the language (developer guide, "JSONata functions provided by Step Functions").
//!
//! Chance is drawn from the setting; a seed that the expression gives decides alone.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{Entry, Given};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result, quoted};
use crate::value::Val;

pub(super) const TABLE: &[Entry] = &[
    ("partition", "<a-n:a<a>>", 2, partition),
    ("range", "<nnn:a<n>>", 3, range),
    ("hash", "<s-s:s>", 2, hash),
    ("random", "<n?:n>", 0, random),
    ("uuid", "<:s>", 0, uuid),
    ("parse", "<s-:x>", 1, parse),
];

/// Most items that AWS's range makes (States.ArrayRange: 1000).
const RANGE_ITEMS_MAX: f64 = 1_000.0;

fn partition<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let size = given.num(1).unwrap_or(0.0).floor();
    if size < 1.0 {
        return Err(Fault::new("", 0, "The chunk size of the partition function must be a positive number"));
    }
    eval.work(given.items(0).len())?;
    let chunks = given.items(0).chunks((size as usize).max(1));
    Ok(Val::sequence(chunks.map(|chunk| Val::array(chunk.to_vec())).collect()))
}

fn range<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let (Some(from), Some(to), Some(by)) = (given.num(0), given.num(1), given.num(2)) else {
        return Ok(Val::Undefined);
    };
    if by == 0.0 {
        return Err(Fault::new("", 0, "The step of the range function cannot be 0"));
    }
    let count = ((to - from) / by).floor() + 1.0;
    if count > RANGE_ITEMS_MAX {
        return Err(Fault::new("", 0, "The range function cannot make more than 1000 items"));
    }
    let count = count.max(0.0) as usize;
    eval.work(count)?;
    Ok(Val::sequence((0..count).map(|at| Val::Num(from + at as f64 * by)).collect()))
}

fn hash<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(content) = given.str(0) else { return Ok(Val::Undefined) };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest = match given.str(1).unwrap_or_default() {
        "MD5" => hex(&Md5::digest(content)),
        "SHA-1" => hex(&Sha1::digest(content)),
        "SHA-256" => hex(&Sha256::digest(content)),
        "SHA-384" => hex(&Sha384::digest(content)),
        "SHA-512" => hex(&Sha512::digest(content)),
        other => {
            let message = format!("The hash function does not know the algorithm {}", quoted(other));
            return Err(Fault::new("", 0, message));
        }
    };
    Ok(Val::str(&digest))
}

fn random<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    // The upper 53 bits make a number from 0 up to, but not, 1.
    let unit = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
    Ok(Val::Num(match Given(arguments).num(0) {
        Some(seed) => unit(java_like(seed as i64)),
        None => unit((eval.setting.draw)()),
    }))
}

/// The first draw of a generator with this seed (the linear congruential one of Java's library).
fn java_like(seed: i64) -> u64 {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let first = ((seed as u64 ^ MULTIPLIER) & MASK).wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
    let second = first.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
    ((first >> 22) << 27 | second >> 21) << 11
}

fn uuid<'a>(eval: &mut Eval<'a>, _: Vec<Val<'a>>) -> Result<Val<'a>> {
    let draw = eval.setting.draw;
    let bits = u128::from(draw()) << 64 | u128::from(draw());
    Ok(Val::str(&uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()))
}

fn parse<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = given.str(0) else { return Ok(Val::Undefined) };
    eval.work(text.len() / 4)?;
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => Ok(Val::from_json(&json)),
        Err(error) => Err(Fault::new("", 0, format!("The argument of the parse function is not JSON: {error}"))),
    }
}

//! Functions of texts.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::{Entry, Given, text_of};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result, quoted};
use crate::value::Val;

pub(super) const TABLE: &[Entry] = &[
    ("string", "<x-b?:s>", 1, string),
    ("substring", "<s-nn?:s>", 3, substring),
    ("substringBefore", "<s-s:s>", 2, substring_before),
    ("substringAfter", "<s-s:s>", 2, substring_after),
    ("lowercase", "<s-:s>", 1, lowercase),
    ("uppercase", "<s-:s>", 1, uppercase),
    ("length", "<s-:n>", 1, length),
    ("trim", "<s-:s>", 1, trim),
    ("pad", "<s-ns?:s>", 3, pad),
    ("join", "<a<s>s?:s>", 2, join),
    ("base64encode", "<s-:s>", 1, base64_encode),
    ("base64decode", "<s-:s>", 1, base64_decode),
    ("encodeUrlComponent", "<s-:s>", 1, encode_url_component),
    ("encodeUrl", "<s-:s>", 1, encode_url),
    ("decodeUrlComponent", "<s-:s>", 1, decode_url_component),
    ("decodeUrl", "<s-:s>", 1, decode_url),
];

fn string<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    match given.get(0) {
        Val::Undefined => Ok(Val::Undefined),
        text @ Val::Str(_) => Ok(text),
        value => {
            let text = text_of(eval, &value, given.get(1).truth())?;
            Ok(Val::Str(text.into()))
        }
    }
}

/// Applies to a text, if there is one.
fn of_text<'a>(arguments: Vec<Val<'a>>, make: impl FnOnce(&Given<'a>, &str) -> Result<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    match given.str(0) {
        Some(text) => make(&given, text),
        None => Ok(Val::Undefined),
    }
}

fn substring<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |given, text| {
        let length = text.chars().count() as f64;
        eval.work(text.len() / 16)?;
        let mut start = given.num(1).unwrap_or(0.0);
        if length + start < 0.0 {
            start = 0.0;
        }
        let end = match given.num(2) {
            None => length,
            Some(count) if count <= 0.0 => return Ok(Val::str("")),
            Some(count) if start >= 0.0 => start + count,
            Some(count) => length + start + count,
        };
        // As Array.slice: fractions are cut off, what is negative counts from the end.
        let place = |place: f64| {
            let place = place.trunc();
            if place < 0.0 { (length + place).max(0.0) } else { place.min(length) }
        };
        let (from, to) = (place(start) as usize, place(end) as usize);
        Ok(Val::Str(text.chars().skip(from).take(to.saturating_sub(from)).collect::<String>().into()))
    })
}

fn substring_before<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |given, text| {
        let end = given.str(1).and_then(|chars| text.find(chars)).unwrap_or(text.len());
        Ok(Val::str(&text[..end]))
    })
}

fn substring_after<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |given, text| {
        let chars = given.str(1).unwrap_or_default();
        Ok(Val::str(text.find(chars).map_or(text, |at| &text[at + chars.len()..])))
    })
}

fn lowercase<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| Ok(Val::Str(text.to_lowercase().into())))
}

fn uppercase<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| Ok(Val::Str(text.to_uppercase().into())))
}

fn length<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| Ok(Val::Num(text.chars().count() as f64)))
}

fn trim<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| {
        let words: Vec<&str> = text.split([' ', '\t', '\n', '\r']).filter(|word| !word.is_empty()).collect();
        Ok(Val::Str(words.join(" ").into()))
    })
}

fn pad<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |given, text| {
        let width = given.num(1).unwrap_or(0.0);
        let filler = given.str(2).filter(|filler| !filler.is_empty()).unwrap_or(" ");
        let missing = width.abs() - text.chars().count() as f64;
        if missing < 1.0 {
            return Ok(Val::str(text));
        }
        eval.work((missing as usize).saturating_mul(filler.len().min(4)) / 16)?;
        let padding: String = filler.chars().cycle().take(missing as usize).collect();
        eval.text(if width > 0.0 { format!("{text}{padding}") } else { format!("{padding}{text}") })
    })
}

fn join<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let (texts, between) = (given.items(0), given.str(1).unwrap_or_default());
    let size: usize = texts.iter().filter_map(Val::as_str).map(|text| text.len() + between.len()).sum();
    eval.work(size / 16)?;
    let texts: Vec<&str> = texts.iter().filter_map(Val::as_str).collect();
    Ok(Val::Str(texts.join(between).into()))
}

fn base64_encode<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| eval.text(STANDARD.encode(text)))
}

fn base64_decode<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_text(arguments, |_, text| match STANDARD_NO_PAD.decode(text.trim_end_matches('=')) {
        Ok(bytes) => eval.text(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => Err(Fault::new("", 0, "The argument of the base64decode function is not Base64")),
    })
}

/// What `encodeURIComponent` leaves as it is.
const UNRESERVED: &str = "-_.!~*'()";
/// What `encodeURI` leaves besides.
const RESERVED: &str = ";/?:@&=+$,#";

fn encoded<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>, plain: &str) -> Result<Val<'a>> {
    of_text(arguments, |_, text| {
        let mut made = String::with_capacity(text.len());
        for byte in text.bytes() {
            let c = char::from(byte);
            match c.is_ascii_alphanumeric() || (c.is_ascii() && (UNRESERVED.contains(c) || plain.contains(c))) {
                true => made.push(c),
                false => made.push_str(&format!("%{byte:02X}")),
            }
        }
        eval.text(made)
    })
}

fn decoded<'a>(arguments: Vec<Val<'a>>, function: &str, keep: &str) -> Result<Val<'a>> {
    of_text(arguments, |_, text| {
        let malformed = || Fault::new("D3140", 0, format!("Malformed URL passed to ${function}(): {}", quoted(text)));
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).ok_or_else(malformed)?;
            let byte = u8::from_str_radix(hex, 16).map_err(|_| malformed())?;
            match keep.contains(char::from(byte)) && byte.is_ascii() {
                true => bytes.extend_from_slice(&[b'%', rest[0], rest[1]]),
                false => bytes.push(byte),
            }
            rest = &rest[2..];
        }
        String::from_utf8(bytes).map(|text| Val::Str(text.into())).map_err(|_| malformed())
    })
}

fn encode_url_component<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    encoded(eval, arguments, "")
}

fn encode_url<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    encoded(eval, arguments, RESERVED)
}

fn decode_url_component<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    decoded(arguments, "decodeUrlComponent", "")
}

fn decode_url<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    decoded(arguments, "decodeUrl", RESERVED)
}

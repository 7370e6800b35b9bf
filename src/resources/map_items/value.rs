//! One JSON value out of a stranger's file: held within a bound of memory, or passed over.
//!
//! `[[],[],…` takes forty times the memory of its text: a value that is short enough in its file may still be too large
//! to hold. Depth is bounded by the parser itself (128).

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::meter::Meter;

/// What one item may take in memory, in bytes.
const HELD_BYTES_MAX: usize = 64 << 20;
/// What the collections' own first places take, in bytes: four values, with their keys and an index in an object.
const ARRAY_BYTES: usize = 4 * size_of::<Value>();
const OBJECT_BYTES: usize = 4 * (size_of::<Value>() + size_of::<String>() + 24);

/// A value from its text.
///
/// # Errors
/// It is no JSON, nested too deep, or would take too much memory.
pub fn from_text(text: &str) -> Result<Value, serde_json::Error> {
    let mut left = HELD_BYTES_MAX;
    let mut texts = serde_json::Deserializer::from_str(text);
    let value = Held { left: &mut left }.deserialize(&mut texts)?;
    texts.end().map(|()| value)
}

/// What there is left for a value that is read as a whole.
pub fn room() -> usize {
    HELD_BYTES_MAX
}

/// Reads a value as a whole.
pub struct Held<'l> {
    pub left: &'l mut usize,
}

impl Held<'_> {
    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        *self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            E::custom(format!(
                "one item takes more than {HELD_BYTES_MAX} bytes of memory, the most that one may; split it into several"
            ))
        })?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Held<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Held<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut held = Vec::new();
        while let Some(item) = items.next_element_seed(Held { left: self.left })? {
            self.take(if held.is_empty() { ARRAY_BYTES } else { size_of::<Value>() })?;
            held.push(item);
        }
        Ok(Value::Array(held))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut held = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.take(name.len() + if held.is_empty() { OBJECT_BYTES } else { OBJECT_BYTES / 4 })?;
            let value = fields.next_value_seed(Held { left: self.left })?;
            held.insert(name, value);
        }
        Ok(Value::Object(held))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<Value, E> {
        self.take(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// Reads past a value, part by part: nothing is kept, and only a part must be as short as an item.
pub struct Passed<'m>(pub &'m Meter);

impl<'de> DeserializeSeed<'de> for Passed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Passed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.next();
        while items.next_element_seed(Passed(self.0))?.is_some() {
            self.0.next();
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.0.next();
        while fields.next_key_seed(Passed(self.0))?.is_some() {
            fields.next_value_seed(Passed(self.0))?;
            self.0.next();
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

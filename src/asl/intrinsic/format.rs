//! `States.Format`: a template with `{}` for each value; `\{`, `\}`, `\'` and `\\` stand for themselves.

use std::borrow::Cow;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    source: Box<str>,
    /// The texts around the placeholders; one more than there are placeholders.
    parts: Vec<String>,
}

impl Format {
    pub(super) fn new(source: &str) -> Format {
        let mut parts = Vec::new();
        let mut part = String::new();
        let mut rest = source.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\\' => part.push(rest.next_if(|next| "'\\{}".contains(*next)).unwrap_or('\\')),
                '{' if rest.next_if_eq(&'}').is_some() => parts.push(std::mem::take(&mut part)),
                other => part.push(other),
            }
        }
        parts.push(part);
        Format { source: source.into(), parts }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn placeholders(&self) -> usize {
        self.parts.len() - 1
    }

    pub(super) fn fill(&self, values: &[Cow<Value>]) -> Result<String, String> {
        if values.len() != self.placeholders() {
            return Err(format!(
                "the template '{}' has {} placeholders and there are {} values",
                self.source,
                self.placeholders(),
                values.len()
            ));
        }
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            text.push_str(part);
            if let Some(value) = values.get(at) {
                write(value, &mut text);
            }
        }
        Ok(text)
    }
}

/// As Java prints: texts bare, `[1, two]`, `{key=value}`.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => text.push_str(string),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (at, (name, field)) in fields.iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                text.push_str(name);
                text.push('=');
                write(field, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

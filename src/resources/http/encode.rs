//! JSON as form fields and as values of queries and headers. Pure.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// The texts of a value: of a list, each member's.
pub fn values(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        Value::Null => Vec::new(),
        value => vec![text(value)],
    }
}

/// The names of an object with the texts of their values; none of what is no object.
pub fn pairs(value: &Value) -> impl Iterator<Item = (&String, String)> {
    let fields = value.as_object().into_iter().flatten();
    fields.flat_map(|(name, value)| values(value).into_iter().map(move |text| (name, text)))
}

/// `application/x-www-form-urlencoded`. How lists are written is said by `format`, as Step Functions' ArrayFormat.
pub fn form(body: &Value, format: &str) -> Result<String, String> {
    if !["INDICES", "REPEAT", "COMMAS", "BRACKETS"].contains(&format) {
        return Err(format!("The field 'ArrayFormat' has an unsupported value: {format}"));
    }
    let map = body.as_object().ok_or("RequestBodyEncoding URL_ENCODED needs a RequestBody that is an object")?;
    let mut pairs = Vec::new();
    for (name, value) in map {
        field(escaped(name), value, format, &mut pairs);
    }
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={}", escaped(&value))).collect();
    Ok(pairs.join("&"))
}

fn field(name: String, value: &Value, format: &str, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                field(format!("{name}[{}]", escaped(key)), value, format, pairs);
            }
        }
        Value::Array(list) if format == "COMMAS" => {
            pairs.push((name, list.iter().map(text).collect::<Vec<_>>().join(",")));
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                let name = match format {
                    "INDICES" => format!("{name}[{n}]"),
                    "BRACKETS" => format!("{name}[]"),
                    _ => name.clone(),
                };
                field(name, value, format, pairs);
            }
        }
        Value::Null => {}
        value => pairs.push((name, text(value))),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b' ');
    utf8_percent_encode(text, KEPT).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_written_in_four_ways() {
        let body = json!({"a b": ["x", "y&z"], "o": {"k": 1}, "t": true, "n": null});
        for (format, expected) in [
            ("INDICES", "a+b[0]=x&a+b[1]=y%26z&o[k]=1&t=true"),
            ("REPEAT", "a+b=x&a+b=y%26z&o[k]=1&t=true"),
            ("COMMAS", "a+b=x%2Cy%26z&o[k]=1&t=true"),
            ("BRACKETS", "a+b[]=x&a+b[]=y%26z&o[k]=1&t=true"),
        ] {
            assert_eq!(form(&body, format).unwrap(), expected);
        }
        assert!(form(&json!([1]), "REPEAT").is_err() && form(&body, "OTHER").is_err());
    }
}

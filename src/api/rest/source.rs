//! Which file an execution is about, out of its input: what lists show and search by.

use conveyor_base::Uri;
use serde_json::Value;

/// The shapes that inputs come in: the recipe's (`bucket`, `key`), S3's notifications and EventBridge's, or any `s3://`
/// name in one of the first fields.
pub fn source(input: &str) -> Option<Uri> {
    let input: Value = serde_json::from_str(input).ok()?;
    let s3 = |v: &Value| pair(&v["bucket"]["name"], &v["object"]["key"]);
    pair(&input["bucket"], &input["key"])
        .or_else(|| s3(&input["Records"][0]["s3"]))
        .or_else(|| s3(&input["detail"]))
        .or_else(|| named(&input, 3))
}

fn pair(bucket: &Value, key: &Value) -> Option<Uri> {
    Some(Uri::new(bucket.as_str()?, key.as_str()?))
}

fn named(value: &Value, depth: u32) -> Option<Uri> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Object(fields) if depth > 0 => {
            pair(&value["bucket"], &value["key"]).or_else(|| fields.values().find_map(|v| named(v, depth - 1)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn inputs_of_every_shape_name_their_file() {
        for input in [
            r#"{"jobId":"1","bucket":"incoming","key":"a/b.mp4"}"#,
            r#"{"Records":[{"s3":{"bucket":{"name":"incoming"},"object":{"key":"a/b.mp4"}}}]}"#,
            r#"{"detail":{"bucket":{"name":"incoming"},"object":{"key":"a/b.mp4"}}}"#,
            r#"{"source":"s3://incoming/a/b.mp4"}"#,
            r#"{"file":{"bucket":"incoming","key":"a/b.mp4"}}"#,
        ] {
            assert_eq!(source(input).unwrap().to_string(), "s3://incoming/a/b.mp4", "{input}");
        }
        assert_eq!(source("{}"), None);
        assert_eq!(source("not json"), None);
    }
}

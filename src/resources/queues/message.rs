//! The digests of messages that SDKs check.

use conveyor_base::escape::hex;
use md5::{Digest, Md5};
use serde_json::Value;

pub fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// SQS's digest of message attributes: names in order, each with its type and value, each with its length before it
/// (developer guide, "Calculating the MD5 message digest for message attributes").
pub fn attributes_md5(attributes: &Value) -> Option<String> {
    use base64::Engine as _;
    let attributes = attributes.as_object().filter(|attributes| !attributes.is_empty())?;
    let mut names: Vec<&String> = attributes.keys().collect();
    names.sort();
    let mut whole = Vec::new();
    let put = |whole: &mut Vec<u8>, part: &[u8]| {
        whole.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        whole.extend_from_slice(part);
    };
    for name in names {
        let attribute = &attributes[name];
        put(&mut whole, name.as_bytes());
        put(&mut whole, attribute["DataType"].as_str().unwrap_or_default().as_bytes());
        match (attribute["StringValue"].as_str(), attribute["BinaryValue"].as_str()) {
            (Some(text), _) => {
                whole.push(1);
                put(&mut whole, text.as_bytes());
            }
            (None, Some(encoded)) => {
                whole.push(2);
                put(&mut whole, &base64::engine::general_purpose::STANDARD.decode(encoded).ok()?);
            }
            (None, None) => return None,
        }
    }
    Some(md5_hex(&whole))
}

//! Bodies of other servers' answers, which are read only as far as there is room for them.

/// The whole body, or `None` where it has more bytes than that: the rest is not read.
///
/// # Errors
/// The connection broke.
pub(crate) async fn body(mut response: reqwest::Response, bytes_max: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

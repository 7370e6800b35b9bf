//! AWS Signature Version 4, checked: who signed the request holds the secret, and nothing in it was changed.
//!
//! The secret is never sent. Knows HTTP requests only; which credentials there are comes in.

use axum::http::{HeaderMap, Method, Uri};
use conveyor_base::Timestamp;
use conveyor_base::escape::hex;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ApiError;

/// How far the signer's clock may be from ours (AWS: fifteen minutes).
const SKEW_MS_MAX: i64 = 15 * 60 * 1000;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request, as much of it as is signed.
pub struct Signed<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Why a signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// It was not looked at: something is missing, or too old.
    Unreadable(ApiError),
    /// Nobody here has such a key, or the key is another: it may be a guess.
    Wrong(ApiError),
}

impl From<ApiError> for Unverified {
    fn from(refusal: ApiError) -> Unverified {
        Unverified::Unreadable(refusal)
    }
}

/// Checks a request's signature. `secret` gives the secret of an access key id.
pub fn verify<'s>(
    request: &Signed,
    now: Timestamp,
    secret: impl Fn(&str) -> Option<&'s str>,
) -> Result<(), Unverified> {
    let authorization = authorization(request.headers)?;
    let key = secret(authorization.key_id).ok_or_else(|| Unverified::Wrong(unknown()))?;
    let date = authorization.check_head(request.headers, now)?;
    let canonical = canonical(request, &authorization)?;
    let scope = format!("{}/{}/{}/aws4_request", authorization.day, authorization.region, authorization.service);
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let mut signing = mac(format!("AWS4{key}").as_bytes(), authorization.day);
    for part in [authorization.region, authorization.service, "aws4_request"] {
        signing = mac(&signing, part);
    }
    let expected = hex(&mac(&signing, &to_sign));
    match bool::from(expected.as_bytes().ct_eq(authorization.signature.as_bytes())) {
        true => Ok(()),
        false => Err(Unverified::Wrong(invalid("the calculated signature is another; check the secret access key"))),
    }
}

/// Whether a request's signature can hold: it says by whose key, which is one of ours, when, and over what. All that can be
/// told before its body is read.
pub fn can_hold(headers: &HeaderMap, now: Timestamp, is_ours: impl Fn(&str) -> bool) -> Result<(), Unverified> {
    let authorization = authorization(headers)?;
    if !is_ours(authorization.key_id) {
        return Err(Unverified::Wrong(unknown()));
    }
    authorization.check_head(headers, now)?;
    Ok(())
}

fn authorization(headers: &HeaderMap) -> Result<Authorization<'_>, ApiError> {
    let missing = || ApiError::new("MissingAuthenticationToken", "Missing Authentication Token");
    let header = text(headers, "authorization").ok_or_else(missing)?;
    Authorization::parse(header).ok_or_else(|| invalid("the Authorization header is incomplete"))
}

pub fn unknown() -> ApiError {
    ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
}

/// The access key id of a request's Authorization header; says who signed it only after [`verify`] did not complain.
pub fn signer(headers: &HeaderMap) -> Option<String> {
    Some(Authorization::parse(text(headers, "authorization")?)?.key_id.to_owned())
}

/// Whether a request claims to be signed.
pub fn is_signed(headers: &HeaderMap) -> bool {
    text(headers, "authorization").is_some_and(|h| h.starts_with(ALGORITHM))
}

struct Authorization<'a> {
    key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    /// Names of headers, with semicolons between them.
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Authorization<'a>> {
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in header.strip_prefix(ALGORITHM)?.split(',') {
            match part.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => signed = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => {}
            }
        }
        // Key ids may hold slashes; the scope has exactly four parts.
        let mut parts = credential?.rsplitn(5, '/');
        let _terminator = parts.next().filter(|t| *t == "aws4_request")?;
        let (service, region, day) = (parts.next()?, parts.next()?, parts.next()?);
        let key_id = parts.next()?;
        Some(Authorization { key_id, day, region, service, signed: signed?, signature: signature? })
    }

    /// When it was signed, where that is lately, and what must be signed is.
    fn check_head<'h>(&self, headers: &'h HeaderMap, now: Timestamp) -> Result<&'h str, ApiError> {
        let date = text(headers, "x-amz-date").ok_or_else(|| invalid("there is no X-Amz-Date"))?;
        check_date(date, now)?;
        if !date.starts_with(self.day) || self.day.len() != 8 {
            return Err(invalid("the credential's date is not the request's"));
        }
        // As AWS wants them, and each once: a header is copied for each time that it is named, before anything is known of
        // who names it.
        let (names, nexts) = (self.signed_names(), self.signed_names().skip(1));
        if !names.clone().zip(nexts).all(|(name, next)| name < next)
            || names.flat_map(str::bytes).any(|byte| byte.is_ascii_uppercase())
        {
            return Err(invalid("SignedHeaders must be in lower case, in alphabetical order, and each once"));
        }
        // What is not signed could be changed on the way: these three must be.
        if !["host", "x-amz-date"].iter().all(|must| self.signs(must))
            || (headers.contains_key("x-amz-target") && !self.signs("x-amz-target"))
        {
            return Err(invalid("host, x-amz-date and x-amz-target must be signed"));
        }
        Ok(date)
    }

    fn signed_names(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.signed.split(';')
    }

    fn signs(&self, header: &str) -> bool {
        self.signed_names().any(|name| name == header)
    }
}

fn canonical(request: &Signed, authorization: &Authorization) -> Result<String, ApiError> {
    let mut query: Vec<&str> = request.uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()).collect();
    query.sort_unstable();
    let mut headers = String::new();
    for name in authorization.signed_names() {
        let values: Vec<String> = request
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        if values.is_empty() {
            return Err(invalid(&format!("the signed header {name} is missing")));
        }
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    Ok(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        request.uri.path(),
        query.join("&"),
        authorization.signed,
        hex(&Sha256::digest(request.body)),
    ))
}

fn check_date(date: &str, now: Timestamp) -> Result<(), ApiError> {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|_| invalid("X-Amz-Date is not of the form 20260131T093000Z"))?;
    let at = Timestamp(parsed.timestamp().as_millisecond());
    if now.since_ms(at).abs() > SKEW_MS_MAX {
        let words = format!("Signature expired: the request says {at}, this box's clock {now}; set the clocks");
        return Err(ApiError::new("InvalidSignatureException", words));
    }
    Ok(())
}

fn invalid(why: &str) -> ApiError {
    let words = format!("The request signature we calculated does not match the signature you provided: {why}");
    ApiError::new("InvalidSignatureException", words)
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104, section 3)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request `get-vanilla` of AWS's published test suite for Signature Version 4.
    #[test]
    fn a_published_signature_is_accepted_and_a_changed_request_is_not() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                             SignedHeaders=host;x-amz-date, \
                             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        headers.insert("authorization", authorization.parse().unwrap());
        let now = Timestamp(1_440_938_160_000);
        let secret = |id: &str| (id == "AKIDEXAMPLE").then_some("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let uri = Uri::from_static("/");
        let request = |body| Signed { method: &Method::GET, uri: &uri, headers: &headers, body };
        assert_eq!(verify(&request(b""), now, secret), Ok(()));
        let refused =
            |body, now, secret: &dyn Fn(&str) -> Option<&'static str>| match verify(&request(body), now, secret) {
                Err(Unverified::Wrong(refusal)) => (true, refusal.code),
                Err(Unverified::Unreadable(refusal)) => (false, refusal.code),
                Ok(()) => (false, ""),
            };
        assert_eq!(refused(b"x", now, &secret), (true, "InvalidSignatureException"));
        let late = now.plus_ms(SKEW_MS_MAX + 1);
        assert_eq!(refused(b"", late, &secret), (false, "InvalidSignatureException"), "old, and no guess");
        assert_eq!(refused(b"", now, &|_| None), (true, "UnrecognizedClientException"));
        assert_eq!(refused(b"", now, &|_| Some("another secret")), (true, "InvalidSignatureException"));
    }

    /// Each would be copied for as often as it is named, by anybody who knows a key id.
    #[test]
    fn headers_that_are_named_again_and_again_are_not_looked_at() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        headers.insert("x-long", "x".repeat(16_000).parse().unwrap());
        let mut said = |signed: &str| {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={signed}, Signature=5fa0"
            );
            headers.insert("authorization", authorization.parse().unwrap());
            let request = Signed { method: &Method::GET, uri: &Uri::from_static("/"), headers: &headers, body: b"" };
            let now = Timestamp(1_440_938_160_000);
            let before = can_hold(&headers, now, |_| true).is_ok();
            match verify(&request, now, |_| Some("a secret")) {
                Err(Unverified::Unreadable(refusal)) => (before, refusal.message),
                Err(Unverified::Wrong(_)) => (before, String::new()),
                Ok(()) => panic!("{signed}: nobody signed this"),
            }
        };
        assert_eq!(said("host;x-amz-date;x-long"), (true, String::new()), "judged, and of another secret");
        let often = format!("host;x-amz-date{}", ";x-long".repeat(2_000));
        for signed in [&*often, "x-amz-date;host", "host;host;x-amz-date", "X-LONG;X-LONg;host;x-amz-date;x-long"] {
            let (before, why) = said(signed);
            assert!(!before && why.contains("each once"), "{}: {why}", &signed[..30.min(signed.len())]);
        }
    }
}

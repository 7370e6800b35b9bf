//! The endpoint of `[aws]`: a region of AWS, or whatever speaks its protocols. Signs what it sends (Signature Version 4).

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use conveyor_aws::{Protocol, Service};
use conveyor_base::fault;
use serde::Deserialize;

use super::write::Request;
use crate::bounded;

/// How long a call may take where the Task has no limit of its own.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes: more than a state's result can hold.
const ANSWER_BYTES_MAX: usize = 8 * 1_048_576;

/// `[aws]`: where calls of services go that this box does not serve itself.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// Base URL. `{service}` and `{region}` are filled in: `https://{service}.{region}.amazonaws.com`.
    pub endpoint: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsSettings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl AwsSettings {
    /// What is not set is taken from the variables that AWS's tools read.
    pub fn or_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> AwsSettings {
        let or = |set: Option<String>, name| set.or_else(|| variable(name).filter(|value| !value.is_empty()));
        self.endpoint = or(self.endpoint, "AWS_ENDPOINT_URL");
        if self.access_key_id.is_none() {
            self.access_key_id = or(None, "AWS_ACCESS_KEY_ID");
            self.secret_access_key = or(self.secret_access_key, "AWS_SECRET_ACCESS_KEY");
            self.session_token = or(self.session_token, "AWS_SESSION_TOKEN");
        }
        self
    }

    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(endpoint) = &self.endpoint {
            let filled = endpoint.replace("{service}", "sqs").replace("{region}", "us-east-1");
            if !reqwest::Url::parse(&filled).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            {
                faults.push(format!("endpoint: '{endpoint}' is no http:// or https:// address"));
            }
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            faults.push("access_key_id: and secret_access_key come together".to_owned());
        }
        faults
    }
}

/// A place to send calls to.
pub struct Endpoint {
    url: String,
    region: String,
    credentials: Credentials,
    client: reqwest::Client,
}

/// What came back.
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Endpoint {
    /// None where no endpoint is set. Without keys, calls are signed as the box's account, which emulators take.
    pub fn new(settings: &AwsSettings, account: &str, region: &str) -> Option<Endpoint> {
        let url = settings.endpoint.as_ref()?.trim_end_matches('/').replace("{region}", region);
        let (id, secret) = match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(secret)) => (id.clone(), secret.clone()),
            _ => (account.to_owned(), "unset".to_owned()),
        };
        let credentials = Credentials::new(id, secret, settings.session_token.clone(), None, "configuration");
        Some(Endpoint { url, region: region.to_owned(), credentials, client: reqwest::Client::new() })
    }

    pub async fn send(&self, service: Service, request: Request) -> Result<Response, String> {
        let url = format!("{}{}", self.url.replace("{service}", service.endpoint_prefix()), request.path);
        let at = |what: String| format!("{} cannot be asked at {}: {what}", service.id(), self.url);
        let signed = self.signed(service.signing_name(), service.protocol(), &url, request).map_err(&at)?;
        self.exchange(signed).await.map_err(&at)
    }

    /// Calls an API of API Gateway by its host name. Where the endpoint is one address for all services, that finds the
    /// API by the Host header, as emulators do. `sign` adds the signature that IAM authorisation asks for.
    pub async fn send_to_api(&self, host: &str, request: Request, sign: bool) -> Result<Response, String> {
        let at = |what: String| format!("{host} cannot be asked: {what}");
        let public = format!("https://{host}{}", request.path);
        let reached = match self.url.contains("{service}") {
            true => public.clone(),
            false => format!("{}{}", self.url, request.path),
        };
        let mut message = match sign {
            true => self.signed("execute-api", Protocol::RestJson, &public, request),
            false => message(&public, request),
        }
        .map_err(&at)?;
        *message.uri_mut() = reached.parse().map_err(|e: http::uri::InvalidUri| at(e.to_string()))?;
        let name = http::HeaderValue::from_str(host).map_err(|e| at(e.to_string()))?;
        message.headers_mut().insert(http::header::HOST, name);
        self.exchange(message).await.map_err(&at)
    }

    async fn exchange(&self, request: http::Request<Vec<u8>>) -> Result<Response, String> {
        let request = reqwest::Request::try_from(request).map_err(|e| fault::chain(&e))?;
        let exchange = async {
            let response = self.client.execute(request).await?;
            let status = response.status().as_u16();
            let headers = response.headers().iter();
            let headers =
                headers.map(|(k, v)| (k.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
            let headers = headers.collect();
            let body = bounded::body(response, ANSWER_BYTES_MAX).await?;
            Ok::<_, reqwest::Error>(body.map(|body| Response { status, headers, body }))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes")),
            Ok(Err(e)) => Err(fault::chain(&e)),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    fn signed(
        &self,
        name: &str,
        protocol: Protocol,
        url: &str,
        request: Request,
    ) -> Result<http::Request<Vec<u8>>, String> {
        let words = |e: &dyn std::error::Error| e.to_string();
        let mut settings = SigningSettings::default();
        if protocol == Protocol::RestXml {
            // S3 signs the path as it is sent.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = aws_sigv4::http_request::PayloadChecksumKind::XAmzSha256;
        }
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(name)
            .time(std::time::SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|e| words(&e))?
            .into();
        let headers = request.headers.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let signable = SignableRequest::new(request.method, url, headers, SignableBody::Bytes(&request.body))
            .map_err(|e| words(&e))?;
        let (instructions, _) = sign(signable, &parameters).map_err(|e| words(&e))?.into_parts();
        let mut signed = message(url, request)?;
        instructions.apply_to_request_http1x(&mut signed);
        Ok(signed)
    }
}

fn message(url: &str, request: Request) -> Result<http::Request<Vec<u8>>, String> {
    let mut builder = http::Request::builder().method(request.method).uri(url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder.body(request.body).map_err(|e| e.to_string())
}

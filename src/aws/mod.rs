//! AWS's services as data: what each operation takes and answers, and how both are written on the wire.
//!
//! `models.json.zst` is made by `scripts/service-models` from botocore's models (Apache-2.0). It knows the services that
//! workflows of a media box are likely to name.
//!
//! ```text
//! {"kms": {"a": {"p": "json", "v": "1.1", "t": "TrentService", "e": "kms", "a": "2014-11-01", "d": "KMS"},
//!          "o": {"Encrypt": {"i": "EncryptRequest", "o": "EncryptResponse"}},
//!          "s": {"EncryptResponse": {"m": {"CiphertextBlob": "CiphertextType"}, "r": []}, "CiphertextType": "blob"},
//!          "c": {"a code on the wire": "the error's shape"}, "e": ["DisabledException"]}}
//! ```
//!
//! A structure has its fields in `m`, the required ones in `r`, in `f` how fields are written (`l` location, `n` name,
//! `t` form of a timestamp, `a` attribute, `x` namespace) and in `p` the field that is the whole body; a list its member in `l`, a map
//! its value in `v` (`n`: names, `f`: flattened); a text with given values has them in `e`; all else is its type's name.
//!
//! Must never: send anything, or say what the box itself can do. Holds: every shape that an operation names is there.

use std::sync::LazyLock;

use serde_json::Value;

static MODELS: LazyLock<Value> = LazyLock::new(|| {
    let text = zstd::stream::decode_all(&include_bytes!("models.json.zst")[..]).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
});

/// A service, by its name in a Resource: `dynamodb`, `cloudwatchlogs`.
#[derive(Clone, Copy)]
pub struct Service(&'static Value);

/// How a service's requests and answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Json,
    Query,
    RestJson,
    RestXml,
}

/// One of a service's operations.
#[derive(Clone, Copy)]
pub struct Operation {
    pub service: Service,
    /// As the service writes it: `PutItem`.
    pub name: &'static str,
    model: &'static Value,
}

impl Service {
    pub fn find(name: &str) -> Option<Service> {
        // The optimised integrations of these have names of their own.
        let name = match name {
            "states" => "sfn",
            "events" => "eventbridge",
            "emr-containers" => "emrcontainers",
            "emr-serverless" => "emrserverless",
            name => name,
        };
        MODELS.get(name).map(Service)
    }

    /// `operation` in either case: `putItem`, `PutItem`.
    pub fn operation(self, operation: &str) -> Option<Operation> {
        let (name, model) = self.0["o"].as_object()?.get_key_value(&pascal(operation))?;
        Some(Operation { service: self, name, model })
    }

    /// The model of a shape, with all that it says.
    pub fn shape(self, name: &str) -> &'static Value {
        &self.0["s"][name]
    }

    pub fn protocol(self) -> Protocol {
        match self.about("p") {
            "query" => Protocol::Query,
            "rest-json" => Protocol::RestJson,
            "rest-xml" => Protocol::RestXml,
            _ => Protocol::Json,
        }
    }

    /// `1.0` or `1.1`, of the JSON protocol.
    pub fn json_version(self) -> &'static str {
        self.about("v")
    }

    /// What stands before the operation in `X-Amz-Target`.
    pub fn target_prefix(self) -> &'static str {
        self.about("t")
    }

    /// The first part of the service's host name.
    pub fn endpoint_prefix(self) -> &'static str {
        self.about("e")
    }

    /// The service's name in a signature.
    pub fn signing_name(self) -> &'static str {
        match self.about("g") {
            "" => self.endpoint_prefix(),
            name => name,
        }
    }

    pub fn api_version(self) -> &'static str {
        self.about("a")
    }

    /// `DynamoDB`, `Secrets Manager`.
    pub fn id(self) -> &'static str {
        self.about("d")
    }

    /// The error's shape that a code on the wire stands for; none where the service's model does not have it.
    pub fn error(self, code: &str) -> Option<&'static str> {
        let name = self.0["c"][code].as_str().unwrap_or(code);
        self.0["e"].as_array()?.iter().filter_map(Value::as_str).find(|known| *known == name)
    }

    fn about(self, letter: &str) -> &'static str {
        self.0["a"][letter].as_str().unwrap_or_default()
    }
}

impl Operation {
    pub fn input(self) -> Option<&'static str> {
        self.model["i"].as_str()
    }

    pub fn output(self) -> Option<&'static str> {
        self.model["o"].as_str()
    }

    /// Method and path, with `{Placeholders}`.
    pub fn http(self) -> (&'static str, &'static str) {
        let part = |at: usize| self.model["h"][at].as_str();
        (part(0).unwrap_or("POST"), part(1).unwrap_or("/"))
    }

    /// The element that a query service puts around its answer.
    pub fn result_wrapper(self) -> Option<&'static str> {
        self.model["w"].as_str()
    }

    /// The element around an XML body, and its namespace.
    pub fn body_element(self) -> (Option<&'static str>, Option<&'static str>) {
        (self.model["n"].as_str(), self.model["x"].as_str())
    }
}

/// Field names of service integrations begin with a capital, whatever the service's own do.
pub fn pascal(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

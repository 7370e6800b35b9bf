//! What a state machine is made with beside its definition: logging, tracing, encryption. Checked, kept as JSON and
//! shown again.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::ApiError;

const LEVELS: &[&str] = &["ALL", "ERROR", "FATAL", "OFF"];
const ENCRYPTIONS: &[&str] = &["CUSTOMER_MANAGED_KMS_KEY", "AWS_OWNED_KEY"];
const ARN_CHARS_MAX: usize = 256;
const KMS_KEY_CHARS_MAX: usize = 2048;

/// The settings of one request; what it leaves out is `None`.
#[derive(Default)]
pub struct Settings {
    logging: Option<Logging>,
    tracing: Option<bool>,
    encryption: Option<Value>,
}

struct Logging {
    level: Option<String>,
    include_execution_data: bool,
    /// The ARNs of the log groups.
    destinations: Option<Vec<String>>,
}

impl Settings {
    /// Takes the settings out of a request; what is wrong with them is added to its problems.
    pub fn of(fields: &mut Fields) -> Settings {
        let mut settings = Settings::default();
        if let Some(mut inner) = fields.inside("loggingConfiguration") {
            settings.logging = Some(logging(&mut inner));
            fields.absorb(inner);
        }
        if let Some(mut inner) = fields.inside("tracingConfiguration") {
            settings.tracing = Some(inner.flag("enabled").unwrap_or(false));
            fields.absorb(inner);
        }
        settings.encryption = encryption(fields);
        settings
    }

    pub fn is_empty(&self) -> bool {
        self.logging.is_none() && self.tracing.is_none() && self.encryption.is_none()
    }

    /// Refuses what AWS takes as a request and not as settings.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Some(logging) = &self.logging {
            let is_on = logging.level.as_deref().is_some_and(|level| level != "OFF");
            let destinations = logging.destinations.as_deref().unwrap_or_default();
            if destinations.len() > 1 || (is_on && destinations.is_empty()) {
                return Err(invalid_logging("Must specify exactly one Log Destination."));
            }
            if let Some(wrong) = destinations.iter().find(|arn| !is_log_group(arn)) {
                return Err(invalid_logging(&format!("'{wrong}' is not the ARN of a log group.")));
            }
        }
        let managed = self.encryption.as_ref().is_some_and(|e| e["type"] == "CUSTOMER_MANAGED_KMS_KEY");
        if managed && self.encryption.as_ref().is_some_and(|e| e["kmsKeyId"].is_null()) {
            let what = "Invalid Encryption Configuration: a customer managed key needs a kmsKeyId.";
            return Err(ApiError::new("InvalidEncryptionConfiguration", what));
        }
        Ok(())
    }

    /// These settings over those that stood before, as a revision keeps them.
    pub fn over(&self, before: &str) -> String {
        let mut all: Map<String, Value> = serde_json::from_str(before).unwrap_or_default();
        // What is as it would be without a word is not kept, so that saying it changes nothing.
        let mut put = |key: &str, value: Value, default: Value| match value == default {
            true => drop(all.shift_remove(key)),
            false => drop(all.insert(key.to_owned(), value)),
        };
        if let Some(logging) = &self.logging {
            put("loggingConfiguration", logging.shown(), no_logging());
        }
        if let Some(enabled) = self.tracing {
            put("tracingConfiguration", json!({"enabled": enabled}), no_tracing());
        }
        if let Some(encryption) = &self.encryption {
            all.insert("encryptionConfiguration".into(), encryption.clone());
        }
        if all.is_empty() { String::new() } else { Value::Object(all).to_string() }
    }
}

impl Logging {
    fn shown(&self) -> Value {
        let mut shown = json!({
            "level": self.level.as_deref().unwrap_or("OFF"),
            "includeExecutionData": self.include_execution_data,
        });
        if let Some(destinations) = &self.destinations {
            let one = |arn: &String| json!({"cloudWatchLogsLogGroup": {"logGroupArn": arn}});
            shown["destinations"] = destinations.iter().map(one).collect();
        }
        shown
    }
}

/// Adds a revision's settings to the answer that describes it.
pub fn show(settings: &str, answer: &mut Value) {
    let mut kept: Map<String, Value> = serde_json::from_str(settings).unwrap_or_default();
    let mut put = |key: &str, default: Value| answer[key] = kept.remove(key).unwrap_or(default);
    put("loggingConfiguration", no_logging());
    put("tracingConfiguration", no_tracing());
    if let Some(encryption) = kept.remove("encryptionConfiguration") {
        answer["encryptionConfiguration"] = encryption;
    }
}

fn no_logging() -> Value {
    json!({"level": "OFF", "includeExecutionData": false})
}

fn no_tracing() -> Value {
    json!({"enabled": false})
}

/// The encryption settings of a request. A box keeps them and encrypts nothing by them: its disk is its owner's.
pub fn encryption(fields: &mut Fields) -> Option<Value> {
    let mut inner = fields.inside("encryptionConfiguration")?;
    inner.require("type");
    let kind = inner.one_of("type", ENCRYPTIONS);
    let key = inner.name("kmsKeyId", KMS_KEY_CHARS_MAX);
    let period = inner.integer("kmsDataKeyReusePeriodSeconds", 60, 900);
    fields.absorb(inner);
    let mut kept = json!({"type": kind?});
    if let Some(key) = key {
        kept["kmsKeyId"] = key.into();
        kept["kmsDataKeyReusePeriodSeconds"] = period.unwrap_or(300).into();
    }
    Some(kept)
}

fn logging(inner: &mut Fields) -> Logging {
    let level = inner.one_of("level", LEVELS);
    let include_execution_data = inner.flag("includeExecutionData").unwrap_or(false);
    let destinations = inner.each_inside("destinations").map(|all| {
        let mut arns = Vec::with_capacity(all.len());
        for mut destination in all {
            if let Some(mut group) = destination.inside("cloudWatchLogsLogGroup") {
                arns.push(group.name("logGroupArn", ARN_CHARS_MAX).unwrap_or_default());
                destination.absorb(group);
            }
            inner.absorb(destination);
        }
        arns
    });
    Logging { level, include_execution_data, destinations }
}

fn invalid_logging(why: &str) -> ApiError {
    ApiError::new("InvalidLoggingConfiguration", format!("Invalid Logging Configuration: {why}"))
}

/// `arn:aws:logs:REGION:ACCOUNT:log-group:NAME:*`
fn is_log_group(arn: &str) -> bool {
    let parts: Vec<&str> = arn.split(':').collect();
    matches!(parts.as_slice(), ["arn", partition, "logs", _, _, "log-group", name, "*"]
        if partition.starts_with("aws") && !name.is_empty())
}

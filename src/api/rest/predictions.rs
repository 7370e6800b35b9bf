//! What is expected of an execution's transcodes, and how that came out.
//!
//! `predictions` of an execution: what waits or runs in it, or in what it started, as
//! `{"execution", "state", "queuedAt", "startedAt", "runMs", "by", "startsInMs", "leftMs"}`. `predicted` is what the outputs
//! of its states say of jobs that ended: `{"Seconds", "TookSeconds", "ErrorPercent", "By"}`.

use conveyor_base::ExecutionId;
use conveyor_store::Scans;
use serde_json::{Value, json};

use crate::AppState;

/// How deep nesting is followed, and how many executions are looked at.
const DEPTH_MAX: usize = 4;
const LOOKED_AT_MAX: usize = 64;

/// Of the execution itself, and of what it started.
pub fn expected(app: &AppState, rows: &Scans, id: ExecutionId) -> Value {
    let (mut shown, mut level, mut looked) = (Vec::new(), vec![id], 0);
    for _ in 0..DEPTH_MAX {
        let mut below = Vec::new();
        for id in level {
            looked += 1;
            if looked > LOOKED_AT_MAX {
                return json!(shown);
            }
            shown.extend(app.handle.predictions(id));
            // Who cannot be read has nothing to show.
            below.extend(rows.children_of(id).into_iter().flatten().map(|child| child.id));
        }
        level = below;
    }
    json!(shown)
}

/// How predictions came out that stand in these outputs.
pub fn checked<'a>(outputs: impl Iterator<Item = &'a str>) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for text in outputs.filter(|text| text.contains("\"Prediction\"")) {
        let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
        let job = ["/Prediction", "/Job/Prediction", "/job/Job/Prediction"];
        let here = job.iter().find_map(|pointer| value.pointer(pointer)).filter(|value| value.is_object());
        if let Some(new) = here.filter(|value| !found.contains(value)) {
            found.push(new.clone());
        }
    }
    json!(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prediction_that_several_states_pass_on_is_shown_once() {
        let job = r#"{"Job":{"Prediction":{"Seconds":1.5,"TookSeconds":1.4}}}"#;
        let stage = r#"{"Prediction":{"Seconds":9.0,"TookSeconds":8.0}}"#;
        let texts = [job, "{}", job, stage, "\"Prediction\" in no JSON"];
        assert_eq!(checked(texts.into_iter()).as_array().map(Vec::len), Some(2));
    }
}

//! The long recipe's own state machine, read from where it stands, with only its `${…}` names filled in.
//!
//! It has faults of its own; each must show in the history as an exact error. Then, repaired, it runs to success.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;

use conveyor_base::TaskError;
use conveyor_interpreter::{Header, HistoryEvent, HistoryKind, Outcome, Status};
use conveyor_job::Job;
use conveyor_resources::functions::FunctionSettings;
use conveyor_testing::appliance::Appliance;

use serde_json::{Value, json};

/// The recipe's definition, or a word about why there is none.
fn recipe() -> Option<String> {
    let seeds = conveyor_testing::shared("seeds");
    let text = fs::read_dir(&seeds)
        .ok()?
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .find(|text| text.contains("video-workflow-definition.json << EOF"))?;
    let start = text.find("video-workflow-definition.json << EOF")?;
    let body = &text[start..].split_once('\n')?.1;
    let end = body.lines().take_while(|line| line.trim() != "EOF").map(|line| line.len() + 1).sum();
    let mut definition = body[..end].to_owned();
    let function = |name: &str| format!("arn:aws:lambda:us-east-1:000000000000:function:{name}");
    for (name, value) in [
        ("OUTPUT_BUCKET", "outputs".to_owned()),
        ("ARCHIVE_BUCKET", "archive".to_owned()),
        ("JOBS_TABLE", "video-jobs".to_owned()),
        ("METADATA_LAMBDA_ARN", function("metadata")),
        ("QC_LAMBDA_ARN", function("quality")),
        ("PUBLISHER_LAMBDA_ARN", function("publisher")),
        ("MEDIACONVERT_ROLE_ARN", "arn:aws:iam::000000000000:role/media".to_owned()),
    ] {
        definition = definition.replace(&format!("${{{name}}}"), &value);
    }
    Some(definition)
}

/// Stands for the media child: checks what it was asked for and says what a transcode says. The real one has tests
/// of its own; here the recipe is tested.
fn transcode(job: &Job) -> Result<Value, TaskError> {
    assert_eq!(job.stage, "transcode");
    match job.parameters["Settings"]["Inputs"][0]["FileInput"].as_str() {
        Some("s3://source/clip.mp4") => Ok(json!({ "OutputGroupDetails": [{ "Type": "FILE_GROUP" }] })),
        other => Err(TaskError::new("Media.Vanished", format!("there is no {other:?}"))),
    }
}

/// The recipe's three functions, as it has them, in a few lines of shell.
fn functions() -> BTreeMap<String, FunctionSettings> {
    let id = r#"event=$(cat); id=$(printf %s "$event" | sed 's/.*"jobId":"\([^"]*\)".*/\1/'); "#;
    let say = |name: &str, answer: &str| {
        let script = format!("{id}printf '{answer}' \"$id\"");
        let command = Some(vec!["sh".to_owned(), "-c".to_owned(), script]);
        (name.to_owned(), FunctionSettings { command, ..FunctionSettings::default() })
    };
    BTreeMap::from([
        say("metadata", r#"{"statusCode":200,"metadata":{"duration":120.5,"codec":"h264"},"jobId":"%s"}"#),
        say("quality", r#"{"statusCode":200,"qualityResults":[],"qualityScore":0.95,"passed":true,"jobId":"%s"}"#),
        say("publisher", r#"{"statusCode":200,"status":"PUBLISHED","jobId":"%s"}"#),
    ])
}

fn task_failures(history: &[HistoryEvent]) -> Vec<(String, String)> {
    let failure = |event: &HistoryEvent| match &event.kind {
        HistoryKind::TaskFailed { failure, .. } | HistoryKind::LambdaFunctionFailed(failure) => {
            Some((failure.error.clone().unwrap_or_default(), failure.cause.clone().unwrap_or_default()))
        }
        _ => None,
    };
    history.iter().filter_map(failure).collect()
}

/// The job's row is written beside what the states hand on, not in place of it.
fn with_start_repaired(definition: &str) -> Value {
    let mut d: Value = serde_json::from_str(definition).unwrap();
    d["States"]["RecordJobStart"]["ResultPath"] = Value::Null;
    d
}

/// QualityControl keeps what it got and adds its verdict; the bucket and the key ride through the Parallel state.
fn with_quality_repaired(mut d: Value) -> Value {
    let states = &mut d["States"];
    states["ParallelProcessing"]["ResultPath"] = json!("$.processed");
    let complete = &mut states["ProcessingComplete"]["Parameters"];
    let text = complete.to_string().replace("$[", "$.processed[");
    *complete = serde_json::from_str(&text).unwrap();
    complete["bucket.$"] = json!("$.bucket");
    complete["key.$"] = json!("$.key");
    states["QualityControl"]["ResultPath"] = json!("$.quality");
    states["QualityDecision"]["Choices"][0]["Variable"] = json!("$.quality.passed");
    for state in ["PublishContent", "QualityControlFailed"] {
        states[state]["Parameters"]["qualityResults.$"] = json!("$.quality.qualityResults");
        states[state]["ResultPath"] = json!("$.publication");
    }
    d
}

/// A path that leads nowhere ends the execution, and its cause says which path in which state.
#[track_caller]
fn assert_lost_path(header: &Header, state: &str, path: &str) {
    let Some(Outcome::Failed { error, cause }) = &header.outcome else { panic!("{:?}", header.outcome) };
    let cause = cause.as_deref().unwrap_or_default();
    assert_eq!(error.as_deref(), Some("States.Runtime"), "{cause}");
    let start = format!("An error occurred while executing the state '{state}' (entered at the event id #");
    assert!(cause.starts_with(&start) && cause.contains(&format!("The JSONPath '{path}'")), "{cause}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipe_shows_its_own_faults_and_runs_when_they_are_repaired() {
    let Some(definition) = recipe() else {
        eprintln!("skipped: the recipe does not stand beside this repository (../shared/seeds)");
        return;
    };
    let conveyor = Appliance::start(transcode, functions()).await;
    fs::write(conveyor.dir.path().join("source/clip.mp4"), "pictures").unwrap();

    // As it stands: the answer of RecordJobStart replaces bucket and key, and the first branch misses them.
    conveyor.create("as-it-stands", &definition).await;
    let (header, history) = conveyor.run("as-it-stands", "as-it-stands", "clip.mp4").await;
    assert_lost_path(&header, "ExtractMetadata", "$.bucket");
    assert_eq!(task_failures(&history), []);
    assert_eq!(conveyor.row("video-jobs", "as-it-stands")["JobStatus"], json!({ "S": "STARTED" }));

    // With that repaired: QualityControl's result replaces its input, and 'outputs' is gone.
    let started = with_start_repaired(&definition);
    conveyor.create("quality-fault", &started.to_string()).await;
    let (header, history) = conveyor.run("quality-fault", "quality-fault", "clip.mp4").await;
    assert_lost_path(&header, "PublishContent", "$.outputs");
    assert_eq!(task_failures(&history), []);

    // With that repaired, ArchiveSource copies from a bucket named like the job. It is caught, and shown.
    let archive_fault = with_quality_repaired(started);
    conveyor.create("archive-fault", &archive_fault.to_string()).await;
    let (header, history) = conveyor.run("archive-fault", "archive-fault", "clip.mp4").await;
    assert_eq!(header.status, Status::Succeeded, "{:?}", header.outcome);
    let failures = task_failures(&history);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].0, "S3.NoSuchBucketException");
    assert!(failures[0].1.contains("'archive-fault'"), "{}", failures[0].1);

    // With both repaired it does what it promises.
    let mut whole = archive_fault;
    whole["States"]["ArchiveSource"]["Parameters"]["CopySource.$"] = json!("States.Format('{}/{}', $.bucket, $.key)");
    conveyor.create("repaired", &whole.to_string()).await;
    let (header, history) = conveyor.run("repaired", "repaired", "clip.mp4").await;
    assert_eq!(header.status, Status::Succeeded, "{:?}", header.outcome);
    assert_eq!(task_failures(&history), []);
    assert_eq!(fs::read(conveyor.dir.path().join("archive/archived/repaired/clip.mp4")).unwrap(), b"pictures");
    let Some(Outcome::Succeeded { output }) = &header.outcome else { panic!() };
    assert!(output.contains("\"SUCCESS\""), "{output}");
}

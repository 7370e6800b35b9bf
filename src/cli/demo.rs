//! `conveyor demo` and `conveyor run`: the appliance without its server, for one file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use conveyor_appliance::Appliance;
use conveyor_appliance::{Config, ShareSettings};
use conveyor_base::{ExecutionId, SystemClock};
use conveyor_interpreter::{Header, Outcome};
use conveyor_media::clip::{self, Clip};
use conveyor_run::{Handle, StartRequest};
use conveyor_store::ExecutionFilter;

use super::follow::{failure, follow};

/// How long a dropped file may take to be found and to settle.
const LANDING: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Demo {
    /// Where shares, results and the store go; kept afterwards.
    #[arg(long, value_name = "DIR", default_value = "var/demo")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Run {
    /// A media file; it stays where it is.
    file: PathBuf,
    /// The workflow to run it through.
    #[arg(long, default_value = "main")]
    workflow: String,
    /// Where results go.
    #[arg(long, value_name = "DIR", default_value = "conveyor-results")]
    output: PathBuf,
}

/// Makes a clip, drops it on the watched share, and follows it to the end.
pub async fn demo(arguments: Demo) -> anyhow::Result<ExitCode> {
    let dir = fresh(&arguments.dir)?;
    let mut config = one_box(&dir)?;
    config.watch = toml::from_str::<Config>(
        "[[watch]]\nshare = \"incoming\"\nsettle = \"1s\"\nscan = \"1s\"\nquarantine = \"quarantine\"",
    )?
    .watch;
    let clip = dir.join("demo clip.mp4");
    eprintln!("making a clip with sound, motion and three shots ...");
    clip::make(&clip, Clip::default())?;
    let appliance = Appliance::start(&config, Arc::new(SystemClock)).await?;
    let incoming = dir.join("shares/incoming/demo clip.mp4");
    eprintln!("dropping it on the share: {}", incoming.display());
    std::fs::rename(&clip, &incoming)?;
    let id = landed(&appliance.handle).await?;
    let header = follow(&appliance.handle, id).await?;
    appliance.stop().await?;
    finish(&header, &dir.join("shares/outputs"))
}

/// Runs one file through a workflow.
pub async fn run(arguments: Run) -> anyhow::Result<ExitCode> {
    let file = &arguments.file;
    let name = file
        .file_name()
        .and_then(|n| n.to_str())
        .with_context(|| format!("{} has no name that is text", file.display()))?;
    let scratch = std::env::temp_dir().join(format!("conveyor-run-{}", std::process::id()));
    let dir = fresh(&scratch)?;
    let mut config = one_box(&dir)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make {}", arguments.output.display()))?;
    let output = arguments.output.canonicalize()?;
    config.shares.insert("outputs".into(), ShareSettings { path: output.clone(), serve: false, mounted: None });
    // The workflow archives its source: it gets a copy.
    let copy = dir.join("shares/incoming").join(name);
    std::fs::copy(file, &copy).with_context(|| format!("cannot read {}", file.display()))?;
    let appliance = Appliance::start(&config, Arc::new(SystemClock)).await?;
    let input = serde_json::json!({ "jobId": uuid::Uuid::new_v4().to_string(), "bucket": "incoming", "key": name });
    let start =
        StartRequest { machine: arguments.workflow, input: input.to_string().into(), ..StartRequest::default() };
    let started = appliance.handle.start(start).await?;
    let header = follow(&appliance.handle, started.id).await?;
    appliance.stop().await?;
    let end = finish(&header, &output);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    end
}

/// A folder of its own for this run; what an earlier one left there goes.
fn fresh(dir: &Path) -> anyhow::Result<PathBuf> {
    let marker = dir.join(".conveyor");
    if dir.exists() {
        anyhow::ensure!(
            marker.exists() || std::fs::read_dir(dir)?.next().is_none(),
            "{} exists and was not made by conveyor; choose another folder",
            dir.display()
        );
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    std::fs::write(&marker, "made by conveyor; removed by its next run\n")?;
    Ok(dir.canonicalize()?)
}

/// A box with its four shares in one folder.
fn one_box(dir: &Path) -> anyhow::Result<Config> {
    let mut config = Config { data_dir: dir.join("data"), ..Config::default() };
    for share in ["incoming", "outputs", "archive", "quarantine"] {
        let path = dir.join("shares").join(share);
        std::fs::create_dir_all(&path)?;
        config.shares.insert(share.to_owned(), ShareSettings { path, serve: false, mounted: None });
    }
    config.notify.log = Some(dir.join("notifications.jsonl"));
    Ok(config)
}

/// The execution that the dropped file started.
async fn landed(handle: &Handle) -> anyhow::Result<ExecutionId> {
    let filter = ExecutionFilter { machine: Some("main".into()), status: None };
    let found = async {
        loop {
            let filter = filter.clone();
            let newest = handle.reader().blocking(move |rows| rows.executions(&filter, None, 1));
            if let Some(first) = newest.await?.items.first() {
                return Ok(first.id);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LANDING, found).await.context("the dropped file was not noticed")?
}

fn finish(header: &Header, outputs: &Path) -> anyhow::Result<ExitCode> {
    if let Some(failure) = failure(header) {
        eprintln!("the workflow did not succeed: {failure}");
        return Ok(ExitCode::FAILURE);
    }
    if let Some(Outcome::Succeeded { output }) = &header.outcome {
        let output: serde_json::Value = serde_json::from_str(output)?;
        eprintln!("{}", serde_json::to_string_pretty(&output)?);
    }
    println!("results are in {}", outputs.display());
    let mut files = Vec::new();
    list(outputs, &mut files)?;
    files.sort();
    for file in files {
        println!("  {}", file.strip_prefix(outputs).unwrap_or(&file).display());
    }
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

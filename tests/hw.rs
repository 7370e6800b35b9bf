//! `conveyor hw` as people and programs run it, on a scripted box.
//!
//! The binary is a process of its own, so its driver is found as an administrator would have it found: through
//! LD_LIBRARY_PATH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};

use conveyor_testing::driver::FakeDriver;
use serde_json::Value;

const BOX: &str = "\
gpus 3
gpu0.name NVIDIA L4
gpu0.codecs h264 hevc av1
gpu0.sessions_open 3
gpu0.sessions_max 4
gpu0.throttle 0x4
gpu1.name NVIDIA H200
gpu1.codecs none
gpu2.lost 1
";

fn hw(driver: &FakeDriver, arguments: &[&str]) -> String {
    let output = Command::new(conveyor_testing::binary())
        .arg("hw")
        .args(arguments)
        .env("LD_LIBRARY_PATH", driver.path())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn people_see_each_gpu_and_why_a_part_of_it_is_not_there() {
    let page = hw(&FakeDriver::new(BOX), &[]);
    let says = |text: &str| assert!(page.contains(text), "'{text}' is not in\n{page}");
    says("Driver    NVIDIA 550.54.14, CUDA 12.4, NVENC 12.2");
    says("GPU 0     NVIDIA L4");
    says("PCI     0000:a0:00.0");
    says("NVENC   2 engines; 3 sessions open, more are counted with --count-sessions");
    says("held back by: power limit");
    says("H.264  8192x8192  no      4         P1 P4 P7  High");
    says("HEVC   8192x8192  4:2:0 of 8/10/12, 4:4:4 of 8/10/12");
    says("NVENC   none: this GPU has no NVENC");
    says("fault   device fell off the bus");
    assert!(!page.contains("not asked"), "{page}");
}

#[test]
fn programs_get_the_same_as_json_with_the_shares_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let config = folder.path().join("conveyor.toml");
    std::fs::write(&config, "[shares.incoming]\npath = \"in\"\n[shares.outputs]\npath = \"nowhere\"\n").unwrap();
    let text = hw(&FakeDriver::new(BOX), &["--json", "--count-sessions", "--config", config.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&text).unwrap();

    let [l4, h200, lost] = &json["gpus"].as_array().unwrap()[..] else { panic!("{text}") };
    assert_eq!(l4["nvenc"]["sessions"]["open"], 3);
    assert_eq!(l4["nvenc"]["sessions"]["more"], 4);
    assert_eq!(l4["nvdec"]["streams"][0]["codec"], "H.264");
    assert!(h200["nvenc"]["absent"].is_string() && h200["nvdec"]["engines"] == 2, "{h200}");
    assert!(lost["fault"].is_string() && lost["nvenc"]["unknown"].is_string(), "{lost}");
    let [incoming, outputs] = &json["shares"].as_array().unwrap()[..] else { panic!("{text}") };
    assert!(incoming["file_system"]["free"].as_u64().unwrap() > 0 && incoming["file_system"]["network"].is_boolean());
    assert!(outputs["file_system"]["unknown"].as_str().unwrap().contains("No such file"), "{outputs}");
}

/// As behind `| head`, which goes once it has seen enough.
#[test]
fn no_command_minds_that_nobody_reads_on() {
    let driver = FakeDriver::new(BOX);
    // The first line is in vain, and what it would ask an appliance for is not asked.
    for arguments in [&["hw"][..], &["executions", "list"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(conveyor_testing::binary());
        let command = command.args(arguments).env("LD_LIBRARY_PATH", driver.path()).stdout(writer);
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {} {said}", output.status);
    }
}

//! The inventory on boxes that this machine is not: scripted drivers of several GPUs, old ones, broken ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use conveyor_hw::{Ask, Codec, Drivers, Inventory, Preset};
use conveyor_testing::driver::FakeDriver;

fn inventory(driver: &FakeDriver) -> Inventory {
    inventory_with(driver, &Ask::default())
}

fn inventory_with(driver: &FakeDriver, ask: &Ask) -> Inventory {
    let folder = driver.path().to_owned();
    Inventory::read(move || Arc::new(Drivers::open_in(Some(&folder))), ask)
}

const TWO: &str = "\
gpus 2
gpu0.name NVIDIA L4
gpu0.codecs h264 hevc av1
gpu0.sessions_open 3
gpu1.name NVIDIA H100
gpu1.codecs none
";

#[test]
fn two_gpus_differ_and_the_one_without_an_encoder_says_so() {
    let box_of_two = inventory(&FakeDriver::new(TWO));
    assert_eq!(box_of_two.driver.version.as_deref(), Some("550.54.14"));
    assert_eq!((box_of_two.driver.cuda.as_deref(), box_of_two.driver.nvenc.as_deref()), (Some("12.4"), Some("12.2")));

    let [l4, h100] = &box_of_two.gpus[..] else { panic!("{:?}", box_of_two.gpus) };
    assert_eq!(l4.uuid.as_deref(), Some("GPU-00000000-0000-0000-0000-000000000000"));
    assert_eq!(l4.pci.unwrap().to_string(), "0000:a0:00.0");
    assert_eq!(l4.compute_capability.as_deref(), Some("8.9"));
    let encoding = l4.nvenc.known().unwrap();
    assert_eq!((encoding.engines, encoding.sessions.open), (Some(2), Some(3)));
    let codecs: Vec<Codec> = encoding.codecs.iter().map(|caps| caps.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::Hevc, Codec::Av1]);
    let h264 = &encoding.codecs[0];
    assert_eq!((h264.width_max, h264.b_frames_max, h264.ten_bit), (8192, 4, false));
    assert_eq!((&h264.profiles[..], &h264.presets[..]), (&["High"][..], &[Preset::P1, Preset::P4, Preset::P7][..]));
    assert_eq!((encoding.codecs[1].ten_bit, &encoding.codecs[1].profiles[..]), (true, &["Main 10"][..]));
    let health = l4.health.known().unwrap();
    assert_eq!((health.temperature_celsius, health.power_watts), (Some(40), Some(31.5)));
    assert_eq!((health.encoder_load_percent, health.decoder_load_percent), (Some(55), None));
    assert_eq!((health.idle, &health.throttled_by[..]), (Some(true), &[][..]));

    let why = h100.nvenc.why().unwrap();
    assert!(why.contains("no NVENC") && why.contains("NV_ENC_ERR_UNSUPPORTED_DEVICE"), "{why}");
    let decoding = h100.nvdec.known().unwrap();
    let hevc10 = decoding.streams.iter().find(|s| s.codec == "HEVC" && s.chroma == "4:2:0" && s.bit_depth == 10);
    assert_eq!((decoding.engines, hevc10.unwrap().width_max), (Some(2), 8192));
    assert!(!decoding.streams.iter().any(|s| s.codec == "H.264" && s.bit_depth == 10));
}

#[test]
fn a_gpu_that_fell_off_the_bus_is_a_line_and_the_other_one_goes_on() {
    let driver = FakeDriver::new(TWO);
    driver.says(&format!("{TWO}gpu0.lost 1\n"));
    let after = inventory(&driver);
    let [lost, other] = &after.gpus[..] else { panic!("{:?}", after.gpus) };
    assert!(lost.fault.is_some(), "{lost:?}");
    assert!(lost.nvenc.known().is_none() && lost.health.known().is_none());
    assert_eq!(lost.pci.unwrap().to_string(), "0000:a0:00.0", "what names the card stays");
    assert!(other.fault.is_none() && other.nvdec.known().is_some() && other.health.known().is_some());
}

#[test]
fn an_old_driver_keeps_its_cuda_and_says_what_its_nvenc_lacks() {
    let old = inventory(&FakeDriver::new("gpus 1\ndriver 470.82\ncuda 11040\nnvenc_major 11\nnvenc_minor 1\n"));
    let why = old.gpus[0].nvenc.why().unwrap();
    assert!(why.contains("too old") && why.contains("11.1") && why.contains("12.1"), "{why}");
    assert!(old.gpus[0].nvdec.known().is_some());
    assert_eq!(old.driver.nvenc.as_deref(), Some("11.1"));
}

#[test]
fn each_library_may_be_missing_alone() {
    for library in ["libnvidia-ml.so.1", "libcuda.so.1", "libnvidia-encode.so.1", "libnvcuvid.so.1"] {
        let part = inventory(&FakeDriver::new(TWO).without(library));
        let missing: Vec<_> = part.driver.libraries.iter().filter(|l| l.usable.known().is_none()).collect();
        assert_eq!(missing.iter().map(|l| l.name).collect::<Vec<_>>(), [library]);
        assert_eq!(part.gpus.len(), 2, "without {library}");
        let gpu = &part.gpus[0];
        assert_eq!(gpu.health.known().is_some(), library != "libnvidia-ml.so.1");
        let video = library != "libcuda.so.1";
        assert_eq!(gpu.nvenc.known().is_some(), video && library != "libnvidia-encode.so.1");
        assert_eq!(gpu.nvdec.known().is_some(), video && library != "libnvcuvid.so.1");
        assert_eq!(gpu.uuid.as_deref(), Some("GPU-00000000-0000-0000-0000-000000000000"), "without {library}");
    }
}

#[test]
fn a_box_without_a_driver_has_an_inventory() {
    let empty = tempfile::tempdir().unwrap();
    let bare = Arc::new(Drivers::open_in(Some(empty.path())));
    let bare = Inventory::read(move || bare, &Ask::default());
    assert!(bare.gpus.is_empty() && bare.cpu.cores >= 1 && bare.memory.total.is_some());
    assert!(bare.driver.libraries.iter().all(|library| library.usable.why().unwrap().contains("not on this machine")));
    // A library of the right name that is none.
    std::fs::write(empty.path().join("libcuda.so.1"), "no library").unwrap();
    let broken = Drivers::open_in(Some(empty.path()));
    assert!(broken.cuda.err().unwrap().to_string().contains("cannot be used"));
}

#[test]
fn a_driver_without_any_gpu_says_that_there_is_none() {
    let none = inventory(&FakeDriver::new("gpus 0\n"));
    assert!(none.gpus.is_empty());
    let cuda = none.driver.libraries.iter().find(|library| library.name == "libcuda.so.1").unwrap();
    assert!(cuda.usable.why().unwrap().contains("CUDA_ERROR_NO_DEVICE"), "{cuda:?}");
}

#[test]
fn sessions_are_counted_only_where_asked_for_and_given_back() {
    let driver = FakeDriver::new("gpus 1\ngpu0.sessions_max 5\ngpu0.sessions_open 2\n");
    let room = |ask: &Ask| inventory_with(&driver, ask).gpus[0].nvenc.known().unwrap().sessions.clone();
    assert!(room(&Ask::default()).more.known().is_none());
    let ask = Ask { count_sessions: true, ..Ask::default() };
    for _ in 0..2 {
        let counted = room(&ask);
        assert_eq!((counted.more.known(), counted.unlimited), (Some(&5), false));
    }
    driver.says("gpus 1\n");
    assert!(room(&ask).unlimited);
    driver.says("gpus 1\ngpu0.sessions_max 0\n");
    let full = inventory_with(&driver, &ask);
    assert!(full.gpus[0].nvenc.why().unwrap().contains("no session was left"), "{:?}", full.gpus[0].nvenc);
}

#[test]
fn a_driver_that_hangs_is_given_up() {
    let driver = FakeDriver::new("gpus 1\nhangs 600\n");
    let ask = Ask { driver_answers_within: Duration::from_millis(50), ..Ask::default() };
    let silent = inventory_with(&driver, &ask);
    assert!(silent.gpus.is_empty() && silent.cpu.cores >= 1);
    assert!(silent.driver.libraries.iter().all(|library| library.usable.why().unwrap().contains("did not answer")));
}

#[test]
fn one_gpu_s_health_is_asked_again_and_again() {
    let driver = FakeDriver::new("gpus 2\n");
    let drivers = Drivers::open_in(Some(driver.path()));
    let uuid = "GPU-01010101-0000-0000-0000-000000000000";
    let temperature = || drivers.health(uuid).known().and_then(|health| health.temperature_celsius);
    assert_eq!(temperature(), Some(40));
    driver.says("gpus 2\ngpu1.temperature 71\n");
    assert_eq!(temperature(), Some(71));
    driver.says("gpus 2\ngpu1.lost 1\n");
    assert!(drivers.health(uuid).why().unwrap().contains("fell off the bus"));
    assert!(!driver.log().contains(&"retain context".to_owned()), "nothing is opened on the device");
}

#[test]
fn what_holds_a_card_back_stands_in_words() {
    let hot = inventory(&FakeDriver::new("gpus 1\ngpu0.temperature 93\ngpu0.throttle 0x44\n"));
    assert_eq!(hot.gpus[0].health.known().unwrap().throttled_by, ["power limit", "temperature (hardware)"]);
    let json = serde_json::to_value(&hot).unwrap();
    assert_eq!(json["gpus"][0]["nvenc"]["codecs"][1]["codec"], "HEVC");
    assert_eq!(json["gpus"][0]["pci"], "0000:a0:00.0");
}

//! `conveyor hw`: what is in this box, as a table for people or as JSON.
//!
//! It only looks, and always succeeds: what cannot be read is a line that says why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use conveyor_appliance::Config;
use conveyor_hw::{Ask, Decoding, Drivers, Encoding, FileSystem, Gpu, Health, Inventory, Preset, Probed, SessionRoom};
use conveyor_sandbox::{ChildProcesses, Sandbox, Standing};

#[derive(Debug, Args)]
pub struct Hw {
    /// The configuration whose shares are looked at; without one the box alone is.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object; what could not be read is {"unknown": why} there, what is not in the box {"absent": why}.
    #[arg(long)]
    json: bool,
    /// Count how many more encode sessions each GPU grants, by opening them: for a moment nobody else gets any, so not
    /// while work runs.
    #[arg(long)]
    count_sessions: bool,
}

pub fn run(arguments: &Hw) -> anyhow::Result<ExitCode> {
    let config = arguments.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let shares = config.shares.into_iter().map(|(name, share)| (name, share.path)).collect();
    let ask = Ask { shares, count_sessions: arguments.count_sessions, ..Ask::default() };
    let inventory = Inventory::read(|| Arc::new(Drivers::open()), &ask);
    let jail = jail(config.sandbox)?;
    if arguments.json {
        let mut shown = serde_json::to_value(&inventory)?;
        shown["jail"] = serde_json::to_value(&jail)?;
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        print!("{}", Page::of(&inventory, &jail));
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries the stages' jail, as whoever runs this command.
fn jail(sandbox: Sandbox) -> anyhow::Result<Standing> {
    let children = ChildProcesses::new(super::OWN_BINARY.into(), None, sandbox);
    let work_dir = std::env::temp_dir().join(format!("conveyor-hw-{}", std::process::id()));
    std::fs::create_dir(&work_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What is wrong with it is in the standing.
    let end = runtime.block_on(children.check(work_dir.clone()));
    let _ = std::fs::remove_dir_all(&work_dir);
    let mut standing = children.standing();
    standing.refused = end.err().map(|error| error.cause);
    Ok(standing)
}

/// Lines of a label and a text; a label that repeats is not repeated.
struct Page(String);

impl Page {
    fn of(inventory: &Inventory, jail: &Standing) -> String {
        let mut page = Page(String::new());
        page.host(inventory);
        page.driver(inventory);
        for gpu in &inventory.gpus {
            page.gpu(gpu);
        }
        page.shares(inventory);
        page.jail(jail);
        page.0
    }

    fn jail(&mut self, standing: &Standing) {
        match &standing.refused {
            Some(why) => self.line("jail", &format!("no stage is run: {why}")),
            None => self.line("jail", &format!("closed: {}", standing.jail.closed.join(", "))),
        }
        for why in &standing.jail.open {
            self.line("", &format!("open: {why}"));
        }
    }

    fn line(&mut self, label: &str, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{}", format!("{label:<9} {text}").trim_end());
    }

    fn host(&mut self, inventory: &Inventory) {
        let cpu = &inventory.cpu;
        let sockets = cpu.sockets.map(|n| format!(", {}", counted(n, "socket"))).unwrap_or_default();
        let model = cpu.model.as_deref().unwrap_or("a processor that does not name itself");
        self.line("CPU", &format!("{model}, {} of {} usable{sockets}", cpu.cores, counted(cpu.online, "core")));
        for node in &cpu.numa {
            let memory = node.memory.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
            self.line("", &format!("NUMA node {}: cores {}{memory}", node.node, node.cpus));
        }
        let (total, available) = (inventory.memory.total.map(size), inventory.memory.available.map(size));
        let text = match (total, available) {
            (Some(total), Some(available)) => format!("{total}, {available} available"),
            (total, _) => total.unwrap_or_else(|| "the kernel does not say".to_owned()),
        };
        self.line("Memory", &text);
    }

    fn driver(&mut self, inventory: &Inventory) {
        let driver = &inventory.driver;
        let said = |what: &str, version: &Option<String>| version.as_ref().map(|version| format!("{what} {version}"));
        let versions = [said("NVIDIA", &driver.version), said("CUDA", &driver.cuda), said("NVENC", &driver.nvenc)];
        let versions: Vec<String> = versions.into_iter().flatten().collect();
        let text = if versions.is_empty() {
            "no NVIDIA driver answers on this machine".to_owned()
        } else {
            versions.join(", ")
        };
        self.line("Driver", &text);
        // Where nothing is there, one line says it; where a part is missing, each part says what it needs.
        let all_absent = driver.libraries.iter().all(|library| matches!(library.usable, Probed::Absent { .. }));
        if !all_absent {
            let mut reasons: Vec<&str> = driver.libraries.iter().filter_map(|library| library.usable.why()).collect();
            reasons.dedup();
            reasons.into_iter().for_each(|why| self.line("", why));
        }
        if inventory.gpus.is_empty() {
            self.line("GPUs", "none that a driver shows; everything runs on the CPU");
        }
    }

    fn gpu(&mut self, gpu: &Gpu) {
        self.0.push('\n');
        let label = format!("GPU {}", gpu.index);
        self.line(&label, gpu.name.as_deref().unwrap_or("does not give its name"));
        if let Some(fault) = &gpu.fault {
            self.line("  fault", fault);
        }
        if let Some(uuid) = &gpu.uuid {
            self.line("  UUID", uuid);
        }
        if let Some(pci) = gpu.pci {
            let node = gpu.numa_node.map(|node| format!(", NUMA node {node}")).unwrap_or_default();
            let cpus = gpu.cpus.as_ref().map(|cpus| format!(", beside cores {cpus}")).unwrap_or_default();
            self.line("  PCI", &format!("{pci}{node}{cpus}"));
        }
        if let Some(memory) = gpu.memory {
            let used = gpu.health.known().and_then(|health| health.memory_used);
            let used = used.map(|used| format!(", {} used", size(used))).unwrap_or_default();
            self.line("  memory", &format!("{}{used}", size(memory)));
        }
        if let Some(capability) = &gpu.compute_capability {
            self.line("  CUDA", &format!("compute capability {capability}"));
        }
        // A lost device says the same of everything.
        let told = gpu.fault.as_deref();
        self.answer("  now", &gpu.health, told, Page::health);
        self.answer("  NVENC", &gpu.nvenc, told, Page::encoding);
        self.answer("  NVDEC", &gpu.nvdec, told, Page::decoding);
    }

    fn answer<T>(&mut self, label: &str, answer: &Probed<T>, told: Option<&str>, write: fn(&mut Page, &str, &T)) {
        match answer {
            Probed::Known(value) => write(self, label, value),
            Probed::Absent { absent } => self.line(label, &format!("none: {absent}")),
            Probed::Unknown { unknown } if told == Some(unknown) => {}
            Probed::Unknown { unknown } => self.line(label, &format!("not known: {unknown}")),
        }
    }

    fn health(&mut self, label: &str, health: &Health) {
        let mut parts = Vec::new();
        let mut part = |text: Option<String>| parts.extend(text);
        part(health.temperature_celsius.map(|degrees| format!("{degrees} °C")));
        part(health.power_watts.map(|watts| match health.power_limit_watts {
            Some(limit) => format!("{watts:.0} of {limit:.0} W"),
            None => format!("{watts:.0} W"),
        }));
        part(health.clocks_mhz.graphics.map(|mhz| format!("graphics {mhz} MHz")));
        part(health.clocks_mhz.memory.map(|mhz| format!("memory {mhz} MHz")));
        part(health.clocks_mhz.video.map(|mhz| format!("video {mhz} MHz")));
        let text = if parts.is_empty() { "NVML tells nothing of it".to_owned() } else { parts.join(", ") };
        self.line(label, &text);
        let loads = [
            ("GPU", health.gpu_load_percent),
            ("memory", health.memory_load_percent),
            ("encoder", health.encoder_load_percent),
            ("decoder", health.decoder_load_percent),
        ];
        let loads: Vec<String> =
            loads.iter().filter_map(|(what, load)| load.map(|load| format!("{what} {load} %"))).collect();
        if !loads.is_empty() {
            self.line("  load", &loads.join(", "));
        }
        if !health.throttled_by.is_empty() {
            self.line("", &format!("held back by: {}", health.throttled_by.join(", ")));
        }
    }

    fn encoding(&mut self, label: &str, encoding: &Encoding) {
        let engines = encoding.engines.map_or_else(|| "engines not told".to_owned(), |n| counted(n, "engine"));
        self.line(label, &format!("{engines}; {}", sessions(&encoding.sessions)));
        let mut rows = vec![["", "largest", "10-bit", "B-frames", "presets", "profiles"].map(str::to_owned)];
        for caps in &encoding.codecs {
            let presets = match caps.presets.len() {
                n if n == Preset::ALL.len() => "P1-P7".to_owned(),
                _ => caps.presets.iter().map(|preset| format!("{preset:?}")).collect::<Vec<_>>().join(" "),
            };
            rows.push([
                caps.codec.name().to_owned(),
                format!("{}x{}", caps.width_max, caps.height_max),
                if caps.ten_bit { "yes" } else { "no" }.to_owned(),
                caps.b_frames_max.to_string(),
                presets,
                caps.profiles.join(", "),
            ]);
        }
        self.table(&rows);
    }

    fn decoding(&mut self, label: &str, decoding: &Decoding) {
        let engines = decoding.engines.map_or_else(|| "engines not told".to_owned(), |n| counted(n, "engine"));
        self.line(label, &engines);
        let mut rows = vec![["", "largest", "chroma and bits"].map(str::to_owned)];
        let mut codecs: Vec<&str> = decoding.streams.iter().map(|stream| stream.codec).collect();
        codecs.dedup();
        for codec in codecs {
            let streams = decoding.streams.iter().filter(|stream| stream.codec == codec);
            let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            let mut largest = (0, 0);
            for stream in streams {
                kinds.entry(stream.chroma).or_default().push(stream.bit_depth.to_string());
                largest = largest.max((stream.width_max, stream.height_max));
            }
            let kinds: Vec<String> =
                kinds.iter().map(|(chroma, bits)| format!("{chroma} of {}", bits.join("/"))).collect();
            rows.push([codec.to_owned(), format!("{}x{}", largest.0, largest.1), kinds.join(", ")]);
        }
        self.table(&rows);
    }

    fn shares(&mut self, inventory: &Inventory) {
        if inventory.shares.is_empty() {
            return;
        }
        self.0.push('\n');
        self.line("Shares", "");
        let width = inventory.shares.iter().map(|share| share.name.len()).max().unwrap_or_default();
        for share in &inventory.shares {
            let what = match &share.file_system {
                Probed::Known(system) => file_system(system),
                other => other.why().unwrap_or_default().to_owned(),
            };
            self.line("", &format!("{:<width$}  {}: {what}", share.name, share.path.display()));
        }
    }

    /// The last column is as wide as it likes.
    fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for row in rows {
            let cells: Vec<String> = row.iter().enumerate().map(|(n, cell)| format!("{cell:<0$}", width(n))).collect();
            self.line("", cells.join("  ").trim_end());
        }
    }
}

fn sessions(room: &SessionRoom) -> String {
    let open = match (room.open, room.held_by.len()) {
        (Some(open), 0) => format!("{} open", counted(open, "session")),
        (Some(open), _) => {
            let holders: Vec<String> = room
                .held_by
                .iter()
                .map(|held| format!("process {}: {} {}x{}", held.pid, held.codec, held.width, held.height))
                .collect();
            format!("{} open ({})", counted(open, "session"), holders.join(", "))
        }
        (None, _) => "NVML does not count the sessions".to_owned(),
    };
    let more = match &room.more {
        Probed::Known(more) if room.unlimited => format!("at least {more} more granted"),
        Probed::Known(more) => format!("{more} more granted"),
        _ => "more are counted with --count-sessions".to_owned(),
    };
    format!("{open}, {more}")
}

fn file_system(system: &FileSystem) -> String {
    let network = if system.network { "network mount" } else { "local" };
    let writes = if system.read_only { ", read-only" } else { "" };
    format!(
        "{} ({network}{writes}) of {}, {} of {} free",
        system.kind,
        system.source,
        size(system.free),
        size(system.total)
    )
}

fn counted(n: impl std::fmt::Display, what: &str) -> String {
    let n = n.to_string();
    let plural = if n == "1" { "" } else { "s" };
    format!("{n} {what}{plural}")
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

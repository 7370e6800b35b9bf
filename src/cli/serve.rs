//! `conveyor serve`: the appliance with its HTTP server, until a signal or a fatal fault ends it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use conveyor_api::{self as api, Auth, Credentials};
use conveyor_appliance::Appliance;
use conveyor_appliance::Config;
use conveyor_base::{Clock, SystemClock};
use conveyor_run::OnFailure;
use metrics_exporter_prometheus::PrometheusBuilder;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// How long the port may be another's until it counts as taken.
const PORT_WITHIN: Duration = Duration::from_secs(1);
/// Connections that wait to be taken, as far as the system allows.
const BACKLOG: u32 = 1_024;
/// How many files the process may have open, where the system lets it.
const OPEN_FILES: u64 = 65_536;
/// How often the metrics' histograms are tidied.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration; without one the API and the dashboard run with no shares.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store and the work folders lie, instead of the configuration's `data_dir` [default:
    /// /var/lib/conveyor].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen, instead of the configuration's `listen` [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl Serve {
    /// Checks everything before anything opens.
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        if let Some(data_dir) = &self.data_dir {
            config.data_dir = data_dir.clone();
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        let faults = config.faults();
        anyhow::ensure!(faults.is_empty(), "the settings cannot be used:\n  - {}", faults.join("\n  - "));
        Ok(config)
    }
}

pub async fn run(arguments: Serve) -> anyhow::Result<ExitCode> {
    serve(arguments.config()?, Arc::new(SystemClock)).await
}

/// The system takes so many connections on that have yet to be taken here.
fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the one before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A child of an appliance that was killed may have its port for a moment still, until it runs its own program.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let until = Instant::now() + PORT_WITHIN;
    loop {
        match bound(address) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// Each connection is an open file, and the limit that a login gets is meant for programs with few. Stages set their own.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, the server takes fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES).max(soft), hard);
    }
}

/// Serves until a signal, which is a success, or a fatal fault, which is none.
pub async fn serve(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<ExitCode> {
    raise_open_files();
    // Its environment may hold keys, and its memory everything: no other process of its user reads them, nor does a core file.
    let _ = nix::sys::prctl::set_dumpable(false);
    let metrics = PrometheusBuilder::new().install_recorder().context("the metrics cannot be recorded")?;
    let transport = config.transport().context("[tls] cannot be used")?;
    let scheme = if transport.tls.is_some() { "https" } else { "http" };
    let listener = listen(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another appliance running?", config.listen))?;
    let address = listener.local_addr()?;
    let appliance = Appliance::start(&config, clock).await?;
    appliance.parts.queues.served_at(&format!("{scheme}://{address}"));
    let upkeep = metrics.clone();
    let tidy = move || {
        let metrics = upkeep.clone();
        async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                metrics.run_upkeep();
            }
        }
    };
    appliance.handle.run_supervised("the metrics", OnFailure::Restart, tidy).await?;
    let credentials = config.credentials.iter();
    let credentials = credentials.map(|c| (c.access_key_id.clone(), c.secret_access_key.clone(), c.role));
    let auth = Auth::for_address(address, Credentials::with_roles(credentials)).context("credentials are needed")?;
    let router = appliance.router(&config, auth, Arc::new(move || metrics.render()));
    let mut server = tokio::spawn(api::serve(listener, router, transport, std::future::pending()));
    println!("conveyor is ready on {scheme}://{address}");

    let fatal = wait_for_the_end(&appliance, &mut server).await?;
    server.abort();
    match fatal {
        // A fatal fault means that nothing may be written any more: the restart recovers.
        Some(what) => {
            let full = what.contains(&std::io::Error::from(nix::errno::Errno::ENOSPC).to_string());
            let hint =
                if full { format!("; free space on the disk of {}", config.data_dir.display()) } else { String::new() };
            eprintln!("conveyor: {what}{hint}");
            Ok(ExitCode::FAILURE)
        }
        None => {
            appliance.stop().await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The fatal fault, or `None` for a signal. A second signal ends the process at once.
async fn wait_for_the_end(
    appliance: &Appliance,
    server: &mut JoinHandle<std::io::Result<()>>,
) -> anyhow::Result<Option<String>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut fatal = appliance.handle.fatal();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        what = fatal.wait_for(Option::is_some) => {
            return Ok(what.ok().and_then(|what| what.clone()));
        }
        ended = server => return Ok(Some(format!("the HTTP server ended: {ended:?}"))),
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(None)
}

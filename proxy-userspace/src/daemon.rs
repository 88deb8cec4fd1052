//! The daemon's life: what `weir run` and `weir uninstall` do.
//!
//! Owns the order of starting and stopping. Must never leave the kernel half
//! attached without tables, nor take it away when only the daemon ends.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, geteuid};
use proxy_common::{Acceleration, Counter};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::accelerate::{self, Accelerator, SelfTest};
use crate::admin::socket::{SocketOptions, Sockets};
use crate::admin::{Admin, serve as serve_admin};
use crate::config::Store;
use crate::control::Control;
use crate::egress::names::Names;
use crate::heart::{self, Heart, Pulse};
use crate::kernel::{Cgroup, Kernel, Limits, LoadOptions, Pins, Streams};
use crate::node::{Node, SharedKernel, lock};
use crate::proxy::{Shared, WorkerHandle};
use crate::report::{self, Known};
use crate::snapshot::Snapshot;
use crate::telemetry::{self, Telemetry};

/// The oldest kernel that weir is made for.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// The settings of `weir run`, all settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Name of this node.
    pub node: String,
    /// Path of the admin socket; the observers' socket lies beside it.
    pub admin_socket: PathBuf,
    /// Group that may open the observers' socket; `None`: root alone.
    pub observers: Option<Gid>,
    /// The pods' cgroup parent; `None`: the root of the cgroup v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Directory for pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Directory for the configuration and its history.
    pub state_dir: PathBuf,
    /// Address of `/metrics`; `None`: not served.
    pub metrics: Option<SocketAddr>,
    /// Threads that carry traffic; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// DNS servers for host names; empty: those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// Socket-to-socket acceleration of workloads that do not choose themselves.
    pub accelerate: Acceleration,
    /// How much the kernel's maps hold.
    pub map_limits: Limits,
    /// Whether the hooks write debug lines.
    pub debug_hooks: bool,
    /// Port of the listener for redirected connections.
    #[cfg(feature = "redirect")]
    pub redirect_listener: Option<u16>,
}

/// The settings of `weir uninstall`, all settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UninstallOptions {
    /// The pods' cgroup parent; `None`: the root of the cgroup v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Directory of the pins.
    pub bpffs: PathBuf,
    /// Directory of the configuration.
    pub state_dir: PathBuf,
    /// Whether the configuration and its history go too.
    pub purge: bool,
}

/// Runs the daemon until it is told to stop.
pub fn run(options: &RunOptions) -> Result<()> {
    log_to_stderr(options.debug_hooks);
    check_machine()?;
    raise_descriptor_limit();
    #[cfg(feature = "redirect")]
    if let Some(port) = options.redirect_listener {
        crate::proxy::redirect::PORT.get_or_init(|| port);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let signals = Signals::listen(&runtime)?;
    let sockets = SocketOptions {
        admin: options.admin_socket.clone(),
        observers: options.observers,
    };
    // First of all: a second daemon is told so before it touches anything.
    let sockets = runtime.block_on(Sockets::bind(&sockets))?;
    let (store, objects) = Store::open(&options.state_dir)?;
    let (kernel, streams) = load_kernel(options)?;
    let telemetry = Telemetry::start(&telemetry::Options::default())
        .context("the access log cannot be opened")?;
    count_kernel(&telemetry, &kernel);
    let snapshot = Arc::new(ArcSwap::default());
    let (workers, pulses) = start_workers(options, &kernel, &snapshot, &telemetry)?;
    let heartbeat = lock(&kernel).heartbeat()?;
    let _heart = Heart::start(pulses.clone(), heartbeat).context("no thread for the heartbeat")?;
    let accelerator = Accelerator::new(options.accelerate);
    let tested = Arc::clone(&kernel);
    let node = Node::new(
        kernel,
        workers,
        Arc::clone(&snapshot),
        Arc::clone(&telemetry),
        open_resolvers(options)?,
        Arc::clone(&accelerator),
    )?;
    let (control, writer) = Control::start(store, objects, node)?;
    // The hooks enforce by now; the self-test runs beside everything else.
    let judge = accelerator.begin(&tested, self_test(options)?)?;
    let admin = Arc::new(Admin {
        control,
        observations: Arc::clone(&telemetry) as _,
        node: options.node.clone(),
        started_at: jiff::Timestamp::now(),
    });
    tracing::info!(
        node = options.node,
        generation = snapshot.load().generation,
        "weir runs"
    );
    let ended = runtime.block_on(async {
        serve_metrics(options, &telemetry, pulses).await?;
        serve(sockets, admin, streams, &telemetry, &snapshot, signals).await
    });
    drop(judge);
    // With the last handle gone the writer ends, and the node with it.
    if writer.join().is_err() {
        bail!("the writer of configuration ended by a panic");
    }
    tracing::info!("weir has stopped; the kernel half goes on enforcing egress policy");
    ended
}

/// Removes links, pins and maps: the node as it was.
pub fn uninstall(options: UninstallOptions) -> Result<()> {
    ensure!(geteuid().is_root(), "uninstall needs root");
    let removed = Pins::new(&options.bpffs)?.remove()?;
    let root = options.cgroup.map_or_else(Cgroup::find_root, Ok)?;
    accelerate::remove_cgroup(&root)?;
    let cgroup = Cgroup::open(&root)?;
    let canaries = cgroup.remove_canaries();
    canaries.with_context(|| format!("what a canary left below {}", root.display()))?;
    let own = cgroup.remove_own();
    own.with_context(|| format!("weir's own cgroup below {} is still in use", root.display()))?;
    println!(
        "removed {removed} pins of programs and maps from {}",
        options.bpffs.display()
    );
    if options.purge {
        match std::fs::remove_dir_all(&options.state_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("removing {}", options.state_dir.display()));
            }
            _ => println!("removed {}", options.state_dir.display()),
        }
    }
    Ok(())
}

/// The signals that end the daemon in good order: from its first step on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen(runtime: &Runtime) -> Result<Self> {
        let _context = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Serves `/metrics` and `/healthz` from now on, if they are wanted.
async fn serve_metrics(
    options: &RunOptions,
    telemetry: &Arc<Telemetry>,
    pulses: Vec<Arc<Pulse>>,
) -> Result<()> {
    let Some(addr) = options.metrics else {
        return Ok(());
    };
    let listener = TcpListener::bind(addr).await;
    let listener = listener
        .with_context(|| format!("metrics: listening on {addr}; choose another with --metrics"))?;
    let health = move || heart::health(&pulses);
    let telemetry = Arc::clone(telemetry);
    tokio::spawn(telemetry::server::serve(
        listener,
        telemetry,
        Arc::new(health),
    ));
    Ok(())
}

/// Everything that runs beside the data plane, until a signal.
async fn serve(
    sockets: Sockets,
    admin: Arc<Admin>,
    streams: Streams,
    telemetry: &Arc<Telemetry>,
    snapshot: &ArcSwap<Snapshot>,
    mut signals: Signals,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    if let Some(log) = streams.log {
        tokio::spawn(log.run());
    }
    let reporter = telemetry.worker();
    let woken = || snapshot.load_full();
    let events = streams.events.run(report::PAUSE, woken, |then, event| {
        let now = &snapshot.load();
        report::denial(&reporter, Known { now, then }, event);
    });
    let endings = streams.endings.run(report::PAUSE, woken, |then, ending| {
        let now = &snapshot.load();
        report::ending(&reporter, Known { now, then }, ending);
    });
    let mut serving = Box::pin(serve_admin(sockets, admin, stopped));
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
        error = events => bail!("denials cannot be read any more: {error:?}"),
        error = endings => bail!("ends of connections cannot be read any more: {error:?}"),
        () = &mut serving => {}
    }
    // Nobody listens any more if the sockets are closed already.
    let _closed = stop.send(true);
    drop(tokio::time::timeout(Duration::from_secs(3), serving).await);
    Ok(())
}

/// The kernel half, with this process in the one cgroup that is exempt.
fn load_kernel(options: &RunOptions) -> Result<(SharedKernel, Streams)> {
    let root = options.cgroup.clone().map_or_else(Cgroup::find_root, Ok)?;
    let cgroup = Cgroup::open(&root)?;
    let pins = Pins::new(&options.bpffs)?;
    let own = cgroup.enter_own()?;
    let load = LoadOptions {
        limits: options.map_limits.clone(),
        debug: options.debug_hooks,
        accelerate: options.accelerate != Acceleration::Off,
    };
    let (kernel, streams) = Kernel::load(&pins, &cgroup, &own, &load)?;
    Ok((Arc::new(Mutex::new(kernel)), streams))
}

/// Where the self-test of acceleration runs.
fn self_test(options: &RunOptions) -> Result<SelfTest> {
    Ok(SelfTest {
        cgroup: options.cgroup.clone().map_or_else(Cgroup::find_root, Ok)?,
        bpffs: options.bpffs.clone(),
        state_dir: options.state_dir.clone(),
    })
}

fn count_kernel(telemetry: &Telemetry, kernel: &SharedKernel) {
    let kernel = Arc::clone(kernel);
    telemetry.set_kernel_source(move || {
        let mut totals = [0; Counter::ALL.len()];
        for (counter, total) in lock(&kernel).counters() {
            totals[counter as usize] = total;
        }
        totals
    });
}

fn start_workers(
    options: &RunOptions,
    kernel: &SharedKernel,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    telemetry: &Telemetry,
) -> Result<(Vec<WorkerHandle>, Vec<Arc<Pulse>>)> {
    let count = match options.workers {
        Some(workers) => workers.get(),
        None => std::thread::available_parallelism()?.get(),
    };
    let names = if options.resolvers.is_empty() {
        Names::system().context(
            "the system's resolver configuration cannot be used; name servers with --resolver",
        )?
    } else {
        Names::with_servers(&options.resolvers)?
    };
    let shared = Shared {
        snapshot: Arc::clone(snapshot),
        names: Arc::new(names),
    };
    let start = |index| {
        let flows = lock(kernel).flows()?;
        let pulse = Pulse::start();
        let own = Arc::clone(&pulse);
        WorkerHandle::start(index, &shared, flows, own, telemetry.worker())
            .context("a worker does not start")
            .map(|worker| (worker, pulse))
    };
    let started: Result<Vec<_>> = (0..count).map(start).collect();
    Ok(started?.into_iter().unzip())
}

/// Whom every workload may ask for names: the servers that weir itself asks. One
/// on the node's loopback is none that a pod could reach.
fn open_resolvers(options: &RunOptions) -> Result<Vec<SocketAddr>> {
    let mut resolvers = if options.resolvers.is_empty() {
        Names::system_servers()?
    } else {
        options.resolvers.clone()
    };
    resolvers.retain(|resolver| {
        let ip = resolver.ip();
        !ip.is_loopback() && !ip.is_unspecified()
    });
    Ok(resolvers)
}

/// What no later error could say as clearly.
fn check_machine() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "weir run needs root: it loads kernel programs and enters pods"
    );
    let release = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(
        version >= KERNEL_MIN,
        "this kernel is {release}; weir needs Linux {}.{} or newer",
        KERNEL_MIN.0,
        KERNEL_MIN.1
    );
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    ensure!(
        btf.exists(),
        "this kernel has no BTF ({} is missing): weir needs one built with CONFIG_DEBUG_INFO_BTF",
        btf.display()
    );
    Ok(())
}

/// A proxied connection takes two descriptors.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit on open files could not be raised");
    }
}

/// The daemon's own log; `WEIR_LOG` filters it (`info` unless set).
fn log_to_stderr(debug_hooks: bool) {
    let default = if debug_hooks {
        "info,weir_ebpf=trace"
    } else {
        "info"
    };
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

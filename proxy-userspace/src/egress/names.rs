//! What host names resolve to, as weir itself sees it.
//!
//! Owns the answers and how long they count. Must never ask about one name twice
//! at a time, nor let a slow name server hold a request longer than
//! [`LOOKUP_TIME_MAX`]. An error means that nothing is known: the caller denies.
//!
//! Large sites answer with a few of many addresses, different ones each time, and
//! the workload did not get weir's answer but its own. So an address counts for
//! [`GRACE`] longer than its TTL, answers are joined, and an address that is not among
//! them makes weir ask again, at most once in [`ASK_PAUSE`].

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;

use super::host::HostName;

/// How long a look-up may take, waiting for its turn included.
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(2);

/// How long an address counts beyond its TTL: a workload may have resolved the
/// name, or opened a connection, just before the answer changed.
pub const GRACE: Duration = Duration::from_mins(1);

/// How long a name is not asked about again after an answer that did not help.
pub const ASK_PAUSE: Duration = Duration::from_secs(1);

/// The longest TTL that is believed.
const TTL_MAX: Duration = Duration::from_hours(1);

/// How long one server may take for one try.
const TRY_TIME_MAX: Duration = Duration::from_millis(900);

/// How many names, and per name addresses, are remembered for each family.
const NAMES_MAX: usize = 4096;
const ADDRESSES_MAX: usize = 256;

/// How many look-ups run at a time.
const LOOKUPS_MAX: usize = 64;

/// Why it is not known whether a name has an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name servers say that there is no such name.
    #[error("the name servers know no such name; check its spelling")]
    NoSuchName,
    /// No answer in time.
    #[error("no name server answered within 2 s; check the name servers of this node")]
    TimedOut,
    /// Too many names are being looked up.
    #[error("too many host names are being looked up at once; try again")]
    Busy,
    /// The look-up failed otherwise; holds what the resolver said.
    #[error("the look-up failed: {0}; check the name servers of this node")]
    Failed(String),
}

impl NameError {
    /// The stable name of this error for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoSuchName => "name-unknown",
            Self::TimedOut => "name-timed-out",
            Self::Busy => "name-busy",
            Self::Failed(_) => "name-failed",
        }
    }
}

/// The resolver. Works from any tokio runtime; one per runtime is best, because
/// look-ups run on the runtime of whoever asks.
pub struct Names {
    resolver: TokioResolver,
    v4: Table,
    v6: Table,
    permits: Semaphore,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Asks the servers of `/etc/resolv.conf`, and reads `/etc/hosts` first. An
    /// error says that these files cannot be read.
    pub fn system() -> Result<Self, NameError> {
        let builder = TokioResolver::builder_tokio().map_err(|error| failed(&error))?;
        Self::build(builder)
    }

    /// The servers of `/etc/resolv.conf`. An error says that it cannot be read.
    pub fn system_servers() -> Result<Vec<SocketAddr>, NameError> {
        let (config, _) = read_system_conf().map_err(|error| failed(&error))?;
        let mut servers = BTreeSet::new();
        for server in config.name_servers() {
            let ports = server.connections.iter().map(|connection| connection.port);
            servers.extend(ports.map(|port| SocketAddr::new(server.ip, port)));
        }
        Ok(servers.into_iter().collect())
    }

    /// Asks these servers alone, by UDP and, for long answers, TCP.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, NameError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Self::build(builder)
    }

    fn build(
        mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
    ) -> Result<Self, NameError> {
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = TRY_TIME_MAX;
        options.attempts = 1;
        // The answers are kept here: the resolver could not be asked again for more.
        options.cache_size = 0;
        Ok(Self {
            resolver: builder.build().map_err(|error| failed(&error))?,
            v4: Table::default(),
            v6: Table::default(),
            permits: Semaphore::new(LOOKUPS_MAX),
        })
    }

    /// Whether `address` is one of the addresses of `host`.
    pub async fn contains(&self, host: &HostName, address: IpAddr) -> Result<bool, NameError> {
        let address = address.to_canonical();
        let (table, kind) = match address {
            IpAddr::V4(_) => (&self.v4, RecordType::A),
            IpAddr::V6(_) => (&self.v6, RecordType::AAAA),
        };
        let slot = table.slot(host).ok_or(NameError::Busy)?;
        if let Some(answer) = slot.answer(address) {
            return answer;
        }
        let asked = tokio::time::timeout(LOOKUP_TIME_MAX, self.ask(host, kind, &slot, address));
        asked.await.unwrap_or_else(|_| {
            slot.learn(&Err(NameError::TimedOut));
            Err(NameError::TimedOut)
        })
    }

    /// Asks, unless somebody else has done so meanwhile.
    async fn ask(
        &self,
        host: &HostName,
        kind: RecordType,
        slot: &Slot,
        address: IpAddr,
    ) -> Result<bool, NameError> {
        let _turn = slot.turn.lock().await;
        if let Some(answer) = slot.answer(address) {
            return answer;
        }
        let _permit = self.permits.acquire().await.map_err(|_| NameError::Busy)?;
        // The dot at the end keeps the search list out of it.
        let answer = match self.resolver.lookup(format!("{host}."), kind).await {
            Ok(lookup) => Ok(lookup
                .answers()
                .iter()
                .filter_map(|record| {
                    let ttl = Duration::from_secs(u64::from(record.ttl));
                    Some((record.data.ip_addr()?, ttl))
                })
                .collect()),
            Err(error) if error.is_nx_domain() => Err(NameError::NoSuchName),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(NetError::Timeout) => Err(NameError::TimedOut),
            Err(error) => Err(failed(&error)),
        };
        slot.learn(&answer);
        answer.map(|_| lock(&slot.known).contains(address, Instant::now()))
    }
}

fn failed(error: &NetError) -> NameError {
    NameError::Failed(error.to_string())
}

/// The names of one address family.
#[derive(Default)]
struct Table(Mutex<HashMap<HostName, Arc<Slot>>>);

impl Table {
    /// The slot of a name; `None` if all slots are in use at this moment.
    fn slot(&self, host: &HostName) -> Option<Arc<Slot>> {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.get(host) {
            return Some(slot.clone());
        }
        if slots.len() >= NAMES_MAX {
            let now = Instant::now();
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.is_useful(now));
        }
        if slots.len() >= NAMES_MAX {
            let idle = slots.iter().find(|(_, slot)| Arc::strong_count(slot) == 1);
            let idle = idle.map(|(host, _)| host.clone())?;
            slots.remove(&idle);
        }
        let slot = Arc::<Slot>::default();
        slots.insert(host.clone(), slot.clone());
        Some(slot)
    }
}

/// One name.
#[derive(Default)]
struct Slot {
    known: Mutex<Known>,
    /// Held by whoever asks; the others wait for the answer.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// Addresses, and until when they count.
    addresses: Vec<(IpAddr, Instant)>,
    asked: Option<Instant>,
    error: Option<NameError>,
}

impl Slot {
    /// What can be said without asking.
    fn answer(&self, address: IpAddr) -> Option<Result<bool, NameError>> {
        let known = lock(&self.known);
        let now = Instant::now();
        if known.contains(address, now) {
            return Some(Ok(true));
        }
        let asked = known.asked?;
        (now.duration_since(asked) < ASK_PAUSE).then(|| known.error.clone().map_or(Ok(false), Err))
    }

    /// Adds an answer to what is known.
    fn learn(&self, answer: &Result<Vec<(IpAddr, Duration)>, NameError>) {
        let now = Instant::now();
        let mut known = lock(&self.known);
        known.asked = Some(now);
        known.error = answer.as_ref().err().cloned();
        known.addresses.retain(|(_, until)| *until > now);
        for (address, ttl) in answer.iter().flatten() {
            known.add(*address, now + (*ttl).min(TTL_MAX) + GRACE);
        }
    }

    fn is_useful(&self, now: Instant) -> bool {
        let known = lock(&self.known);
        known.addresses.iter().any(|(_, until)| *until > now)
    }
}

impl Known {
    fn contains(&self, address: IpAddr, now: Instant) -> bool {
        self.addresses
            .iter()
            .any(|(known, until)| *known == address && *until > now)
    }

    /// Adds an address, in place of the one that expires first if there are too many.
    fn add(&mut self, address: IpAddr, until: Instant) {
        if let Some(known) = self
            .addresses
            .iter_mut()
            .find(|(known, _)| *known == address)
        {
            known.1 = known.1.max(until);
            return;
        }
        if self.addresses.len() >= ADDRESSES_MAX
            && let Some(first) = self.addresses.iter_mut().min_by_key(|(_, until)| *until)
        {
            *first = (address, until);
            return;
        }
        self.addresses.push((address, until));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The postgres plane: PostgreSQL's wire protocol for every client and driver, unchanged.
//!
//! A client signs in with its Curfew name and a short-lived password of one session; Curfew speaks
//! to the database with an account of its own. Every statement is an action: it is classed, asked
//! for and recorded. When a limit runs out, the running statement is cancelled, the client is told
//! why, and both sides are closed.
//!
//! What a session may not do, the database refuses: a connection uses an account that can do no more
//! than policy permits. What a statement is classed as gives policy, log and people their words.

mod accounts;
mod cancel;
pub mod config;
mod conn;
mod crowd;
mod direct;
mod frame;
mod health;
mod protocol;
mod relay;
pub mod rights;
mod scram;
pub mod setup;
mod sql;
mod startup;
mod upstream;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use curfew_entry::ResourceName;
use curfew_gate::clients;
use curfew_gate::clients::{Listen, Listener};
use curfew_gate::registrar::Registrar;
use curfew_gate::secret::{self, MasterKey, SecretError};
use curfew_gate::site::Site;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::cancel::Cancels;
use self::crowd::Crowd;
use self::frame::Complaint;
use self::scram::Verifiers;
use self::sql::Classifier;
use self::startup::CancelKey;
use crate::config::PostgresResource;

pub use self::health::{DatabaseStatus, State as DatabaseState};
pub use self::upstream::{Database, DatabaseError};

/// Clients that have not proved who they are yet. Each has 10 s and at most 12 KB: together 6 MB,
/// and at least 51 sign-ins a second get through however slow the others are.
const ENTERING_MAX: usize = 512;

/// What the plane stands on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The one path.
    pub registrar: Registrar,
    /// The gateway's own key: passwords are derived from it.
    pub master: Arc<MasterKey>,
    /// Where Curfew is reached.
    pub site: Arc<Site>,
    /// Which proxies are believed.
    pub listen: Listen,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once of one person to one database.
    pub connections_per_person: usize,
}

/// What all connections share.
#[derive(Debug)]
struct Plane {
    setup: Setup,
    databases: Databases,
    classifier: Classifier,
    verifiers: Verifiers,
    cancels: Arc<Cancels>,
    crowd: Crowd,
}

/// The databases that are served.
pub type Databases = BTreeMap<ResourceName, Database>;

/// Reads what each database needs: its password, and whom to trust.
///
/// # Errors
/// The first file that cannot be used.
pub fn databases(resources: &[PostgresResource]) -> Result<Databases, DatabaseError> {
    let load = |config: &PostgresResource| {
        Database::load(config).map(|database| (config.name.clone(), database))
    };
    resources.iter().map(load).collect()
}

impl Plane {
    fn new(databases: Databases, setup: Setup) -> Self {
        Self {
            databases,
            classifier: Classifier::new(),
            verifiers: Verifiers::new(Arc::clone(&setup.master)),
            cancels: Arc::default(),
            crowd: Crowd::default(),
            setup,
        }
    }

    /// A name to show where a client asked for none that can be one.
    fn any_resource(&self) -> ResourceName {
        let first = self.databases.keys().next().cloned();
        first
            .or_else(|| "database".parse().ok())
            .unwrap_or_else(|| unreachable!("it is a name"))
    }

    /// Cancels for a client, if it may.
    async fn cancel(&self, key: &CancelKey, within: Duration) {
        if let Some(upstream) = self.cancels.find(key) {
            match tokio::time::timeout(within, upstream.cancel()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a cancel request failed"),
                Err(_) => tracing::warn!("a cancel request took too long"),
            }
        }
    }
}

/// Some text that nobody can guess. Where there is none, nobody is let in: the complaint says so.
fn unguessable() -> Result<String, Complaint> {
    use base64::Engine as _;
    let bytes = secret::random::<18>().map_err(|error| no_random(&error))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn no_random(error: &SecretError) -> Complaint {
    tracing::error!(%error, "a database client is refused");
    Complaint::fatal("58000", "Curfew cannot make a secret at the moment")
        .hint("Whoever runs Curfew finds the reason in its own log.")
}

type Entered = (
    tokio::net::TcpStream,
    std::net::SocketAddr,
    Option<tokio::sync::OwnedSemaphorePermit>,
    Option<tokio::sync::OwnedSemaphorePermit>,
);

/// The next client, once there is room for one more that nobody knows.
async fn enter(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    entrance: &Arc<Semaphore>,
) -> Entered {
    let entering = Arc::clone(entrance).acquire_owned().await.ok();
    let (stream, address, slot) = clients::accept(listener, slots).await;
    (stream, address, slot, entering)
}

/// Serves databases until told to stop; returns once the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    databases: Databases,
    setup: Setup,
    stopping: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(setup.connections_max));
    let entrance = Arc::new(Semaphore::new(ENTERING_MAX));
    let mut watchers = JoinSet::new();
    for database in databases.values().cloned() {
        watchers.spawn(health::watch(database, stopping.clone()));
    }
    let plane = Arc::new(Plane::new(databases, setup));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            // Reaped here, so that the set holds only what lives.
            Some(_) = connections.join_next() => continue,
            accepted = enter(&listener, &slots, &entrance) => accepted,
        };
        let (mut stream, address, slot, entering) = accepted;
        let (plane, tls, stopping) = (Arc::clone(&plane), tls.clone(), stopping.clone());
        connections.spawn(async move {
            let _slot = slot;
            let listen = &plane.setup.listen;
            let client = clients::introduce(&mut stream, address, listen, Listener::Postgres);
            let address = match client.await {
                Ok(address) => address,
                Err(error) => {
                    tracing::debug!(%address, %error, "postgres connection");
                    return;
                }
            };
            conn::serve(plane, stream, address, tls, entering, stopping).await;
        });
    }
    drop(listener);
    // Each is cut by the registrar, says so to its client and closes.
    while connections.join_next().await.is_some() {}
}

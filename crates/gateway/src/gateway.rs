//! Start and stop: from a configuration to everything that listens.

mod followers;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{Command, Policy, PolicyError};
use curfew_custody::standing::Standing;
use curfew_custody::{archive, forward, stamps, witness};
use curfew_entry::{Span, Timestamp};
use curfew_gate::clock::{self, Clock};
use curfew_gate::conditions::Conditions;
use curfew_gate::handover::Handover;
use curfew_gate::problem::Problem;
use curfew_gate::recorder::Durability;
use curfew_gate::registrar::{self, Concealer, Ledger, NotCarriedOut, Refusal, Registrar, Reopen};
use curfew_gate::replay::{ReplayError, replay};
use curfew_gate::secret::MasterKey;
use curfew_gate::site::Site;
use curfew_gate::tls::TlsError;
use curfew_identity::Accounts;
use curfew_portal::{self as portal, Search};
use curfew_postgres as postgres;
use curfew_postgres::Databases;
use curfew_values::Store;
use curfew_web::{Upstreams, WebPlane};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::followers::Followers;
use crate::certificate::Shown;
use crate::config::{Config, PostgresResource, WebResource};
use crate::data::{DataDir, DataError};
use crate::{control, listen};

/// How long connections may take to finish once everything live has been cut.
const DRAIN: Duration = Duration::from_secs(2);

/// A gateway at work: what each of its parts was given.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) web: WebPlane,
    pub(crate) portal: Arc<portal::Setup>,
    pub(crate) databases: Databases,
    pub(crate) data: DataDir,
}

impl Gateway {
    pub(crate) fn registrar(&self) -> &Registrar {
        &self.portal.registrar
    }

    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.portal.standing
    }
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// An upstream that cannot be set up.
    #[error("{0}")]
    Upstream(String),
    /// The ledger leads to no state.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The system gives no thread for the search index.
    #[error("the search index cannot be started: {0}")]
    Search(std::io::Error),
    /// The log's witnesses.
    #[error("witnesses: {0}")]
    Witness(#[from] witness::WitnessSetupError),
    /// The timestamping authority.
    #[error("timestamps: {0}")]
    Stamps(#[from] stamps::StampSetupError),
    /// A receiver of entries.
    #[error(transparent)]
    Forward(#[from] forward::ForwardSetupError),
    /// The log's archive.
    #[error(transparent)]
    Archive(#[from] archive::PlaceError),
    /// The kernel gives no timer.
    #[error("the kernel gives no timer: {0}")]
    Timer(std::io::Error),
    /// Policy or resources cannot be put in force.
    #[error("{0}")]
    Refused(String),
    /// The first entries could not be recorded.
    #[error("the ledger takes no entries: {0:?}")]
    Unrecorded(Refusal),
}

/// The registrar with what it rests on, and nothing that listens.
#[derive(Debug)]
pub struct Core {
    /// The one path.
    pub registrar: Registrar,
    /// Local accounts.
    pub accounts: Arc<Accounts>,
    pub(crate) master: Arc<MasterKey>,
    pub(crate) data: DataDir,
    pub(crate) durability: Arc<Durability>,
    pub(crate) values: Option<Arc<Store>>,
    pub(crate) conditions: Arc<Conditions>,
    /// The statements on all changes of the key that signs the log, in its order.
    pub(crate) rotations: Vec<String>,
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Where pages and APIs are served.
    pub web: SocketAddr,
    /// Where databases are served.
    pub postgres: Option<SocketAddr>,
    pub(crate) gateway: Arc<Gateway>,
    /// The certificate that listeners show.
    pub(crate) shown: Arc<Shown>,
    stopping: CancellationToken,
    /// The ledger is closed: its last checkpoint is there.
    closed: CancellationToken,
    tasks: JoinSet<()>,
}

/// Opens ledger and values again after a failure.
fn reopen(data: DataDir, values: Option<Arc<Store>>) -> Reopen {
    Arc::new(move |durability| {
        let opened = data.open_ledger(durability);
        let (writer, recovered) = opened.map_err(|error| error.to_string())?;
        if let Some(values) = &values {
            let reopened = values.reopen(recovered.size);
            reopened.map_err(|error| error.to_string())?;
        }
        Ok((writer, recovered.size))
    })
}

impl Core {
    /// Opens ledger and accounts, replays, and brings policy and resources up to date. Sessions
    /// that ran out meanwhile have ended, durably, when this returns.
    ///
    /// # Errors
    /// Whatever does not let the gateway start; nothing listens then.
    pub async fn open(
        config: &Config,
        policy_name: &str,
        policy: &str,
    ) -> Result<Self, StartError> {
        config.check_policy(&Policy::parse(policy_name, policy)?)?;
        let data = DataDir::of(config);
        let master = Arc::new(data.master()?);
        let accounts = Arc::new(data.accounts(&master)?);
        let (failures, failed) = mpsc::unbounded_channel();
        let durability = Durability::new(0, failures);
        let durability = Arc::new(durability.with_witnesses(config.log.witness.is_some()));
        let (writer, recovered) = data.open_ledger(Arc::clone(&durability))?;
        durability.resume(recovered.size);
        durability.opened_at(&writer.checkpoint().unwrap_or_default());
        let held = Arc::clone(&durability);
        let values = data.open_values(!config.log.conceal.is_empty(), recovered.size)?;
        if let Some(values) = &values {
            durability.keep_values(Arc::clone(values));
        }
        let replayed = replay(&recovered)?;
        let clock = Clock::start(replayed.last.as_ref());
        for approved in &replayed.approved {
            if let Some(values) = &values {
                // Not to be read from the first moment on; the registrar does the rest.
                values.condemn(&approved.subject, approved.before);
            }
        }
        let reopen = reopen(data.clone(), values.clone());
        let conditions = Arc::<Conditions>::default();
        let registrar = registrar::start(registrar::Start {
            authority: replayed.authority,
            approved: replayed.approved,
            ledger: Ledger {
                writer,
                reopen,
                durability,
                concealer: values.clone().map(|store| Concealer {
                    store,
                    fields: config.log.conceal.clone(),
                }),
                failures: failed,
            },
            clock: clock.clone(),
            outage_grace: config.tuning.outage_grace.0,
            record_wait: config.tuning.record_wait.0,
            conditions: Arc::clone(&conditions),
        })
        .map_err(StartError::Timer)?;
        let core = Self {
            registrar,
            accounts,
            master,
            data,
            durability: held,
            values,
            conditions,
            rotations: replayed.rotations,
        };
        core.take_up_work(config, policy, &clock, recovered.size == 0)
            .await?;
        Ok(core)
    }

    async fn take_up_work(
        &self,
        config: &Config,
        policy: &str,
        clock: &Clock,
        first: bool,
    ) -> Result<(), StartError> {
        if first {
            self.carry_out(Command::OpenLog {
                origin: config.origin.clone(),
            })
            .await?;
        }
        let now = clock.now();
        self.carry_out(Command::StartGateway {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: clock.source(),
            boot_id: clock.boot_id().to_owned(),
            boot_us: clock.boot_us(now),
            wall: clock::wall(),
        })
        .await?;
        self.carry_out(Command::LoadResources {
            resources: config.resources(),
        })
        .await?;
        self.carry_out(Command::LoadPolicy {
            text: policy.to_owned(),
        })
        .await
    }

    async fn carry_out(&self, command: Command) -> Result<(), StartError> {
        match self.registrar.carry_out(command).await {
            Ok(()) => Ok(()),
            Err(NotCarriedOut::Refused(refusal)) => Err(StartError::Unrecorded(refusal)),
            Err(NotCarriedOut::Impossible(fault)) => Err(StartError::Refused(fault.to_string())),
        }
    }
}

/// Starts everything: the first connection is accepted only after the state is whole.
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: Config, policy_name: &str, policy: &str) -> Result<Running, StartError> {
    let shown = Shown::read(&config.tls)?;
    let tls = listen::tls(&shown)?;
    let upstreams =
        Upstreams::new(&config.web).map_err(|error| StartError::Upstream(error.to_string()))?;
    let databases = postgres::databases(&config.postgres)
        .map_err(|error| StartError::Upstream(error.to_string()))?;
    let mut followers = Followers::of(&config)?;
    let core = Core::open(&config, policy_name, policy).await?;
    followers.follow(&core.rotations)?;
    let (web_listener, web) = bind(config.listen.web).await?;
    let database = match config.listen.postgres {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let postgres = database.as_ref().map(|(_, address)| *address);
    let control = bind_control(&core.data)?;
    let durability = Arc::clone(&core.durability);
    let site = Arc::new(config.site(seen_as(config.listen.public_port, web)));
    let port = postgres.map(|at| seen_as(config.listen.public_postgres_port, at));
    let standing = Arc::new(followers.standing(&core));
    let gateway = compose(
        config,
        core,
        upstreams,
        databases.clone(),
        standing,
        site,
        port,
    )?;
    let gateway = Arc::new(gateway);
    let (stopping, closed) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve_web(
        web_listener,
        tls.web,
        Arc::clone(&gateway),
        stopping.clone(),
    ));
    if let Some((listener, _)) = database {
        tasks.spawn(postgres::serve(
            listener,
            tls.postgres,
            databases,
            database_plane(&gateway),
            stopping.clone(),
        ));
    }
    followers.start(&mut tasks, &gateway, durability, (&stopping, &closed));
    tasks.spawn(serve_control(
        control,
        Arc::clone(&gateway),
        stopping.clone(),
    ));
    Ok(Running {
        web,
        postgres,
        gateway,
        shown,
        stopping,
        closed,
        tasks,
    })
}

/// The port that clients use: the public one where something stands between.
fn seen_as(public: Option<NonZeroU16>, bound: SocketAddr) -> u16 {
    public.map_or(bound.port(), NonZeroU16::get)
}

fn bind_control(data: &DataDir) -> Result<UnixListener, StartError> {
    control::bind(&data.control_socket()).map_err(|source| {
        let address = data.control_socket().display().to_string();
        StartError::Listen { address, source }
    })
}

async fn serve_control(listener: UnixListener, gateway: Arc<Gateway>, stopping: CancellationToken) {
    let desk = control::Desk::new(
        gateway.registrar(),
        &gateway.portal.accounts,
        &gateway.config,
    );
    let desk = desk.with(Arc::clone(gateway.standing()), gateway.databases.clone());
    control::serve(listener, desk, stopping).await;
}

/// Gives each part what it needs. `site` says how the web listener is reached, and the port is that
/// of the database listener, both as clients see them.
pub(crate) fn compose(
    config: Config,
    core: Core,
    upstreams: Upstreams,
    databases: Databases,
    standing: Arc<Standing>,
    site: Arc<Site>,
    postgres_port: Option<u16>,
) -> Result<Gateway, StartError> {
    let handover = Arc::new(Handover::new());
    let index = config.search.index.then(|| {
        let dir = config.search.dir.clone();
        dir.unwrap_or_else(|| core.data.search())
    });
    let ledger = core.data.ledger();
    let search = Search::start(&ledger, index, &core.durability, &core.conditions);
    let web = WebPlane {
        registrar: core.registrar.clone(),
        master: Arc::clone(&core.master),
        site: Arc::clone(&site),
        handover: Arc::clone(&handover),
        upstreams,
    };
    let portal = portal::Setup {
        registrar: core.registrar,
        accounts: core.accounts,
        jwks: web.upstreams.jwks(&core.master).map(ToOwned::to_owned),
        master: core.master,
        site,
        handover,
        apps: config.web.iter().map(app).collect(),
        databases: config.postgres.iter().map(database).collect(),
        postgres_port,
        origin: config.origin.clone(),
        ledger,
        values: core.values,
        search: search.map_err(StartError::Search)?,
        standing,
        password_life: Span::from_duration(config.tuning.database_password.0),
        token_life: Span::from_duration(config.tuning.bearer_token.0),
    };
    Ok(Gateway {
        config,
        web,
        portal: Arc::new(portal),
        databases,
        data: core.data,
    })
}

fn app(web: &WebResource) -> portal::App {
    portal::App {
        name: web.name.clone(),
        environment: web.environment.clone(),
        tags: web.tags.clone(),
        host: web.host.clone(),
    }
}

fn database(database: &PostgresResource) -> portal::Database {
    portal::Database {
        name: database.name.clone(),
        environment: database.environment.clone(),
        tags: database.tags.clone(),
    }
}

/// What the postgres plane gets of all this.
fn database_plane(gateway: &Gateway) -> postgres::Setup {
    let tuning = &gateway.config.tuning;
    postgres::Setup {
        registrar: gateway.registrar().clone(),
        master: Arc::clone(&gateway.web.master),
        site: Arc::clone(&gateway.web.site),
        listen: gateway.config.listen.clone(),
        connections_max: tuning.connections_max,
        connections_per_person: tuning.database_connections_per_person,
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen {
        address: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Running {
    /// The one path, for whoever runs the gateway within its own process.
    pub fn registrar(&self) -> &Registrar {
        self.gateway.registrar()
    }

    /// Ledger time now.
    pub fn now(&self) -> Timestamp {
        self.gateway.registrar().now()
    }

    /// Takes in what a look at the set-up found, for whoever asks how the gateway stands.
    pub fn checked(&self, problems: Vec<Problem>) {
        self.gateway.standing().checked(self.now(), problems);
    }

    /// Waits until the one path is gone, which happens before [`Self::stop`] only by a fault in
    /// this program. Nothing is admitted then, and only a new start helps.
    pub async fn failed(&self) {
        self.gateway.registrar().gone().await;
    }

    /// Stops: accepts nothing more, cuts what is live, records the end of work, closes the ledger.
    ///
    /// # Errors
    /// When the end of work could not be recorded.
    pub async fn stop(mut self) -> Result<(), Refusal> {
        self.stopping.cancel();
        self.gateway.portal.search.stop();
        let recorded = self.gateway.registrar().stop().await;
        self.closed.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            self.tasks.shutdown().await;
        }
        let _ = std::fs::remove_file(self.gateway.data.control_socket());
        recorded
    }
}

//! Curfew's own pages and API: sign-in, sessions, the log, the device grant of its command line.

mod console;
mod oauth;
mod search;

use std::path::PathBuf;
use std::sync::Arc;

use curfew_custody::standing::Standing;
use curfew_entry::{EnvironmentName, ResourceName, Span};
use curfew_gate::handover::Handover;
use curfew_gate::registrar::Registrar;
use curfew_gate::secret::MasterKey;
use curfew_gate::site::Site;
use curfew_identity::Accounts;
use curfew_values::Store;

pub use console::router;
pub use search::Search;

/// A web resource, as people see it.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name.
    pub name: ResourceName,
    /// Where it belongs.
    pub environment: EnvironmentName,
    /// What its operator says of it.
    pub tags: Vec<String>,
    /// Its public host name.
    pub host: String,
}

/// A database, as people see it.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: ResourceName,
    /// Where it belongs.
    pub environment: EnvironmentName,
    /// What its operator says of it.
    pub tags: Vec<String>,
}

/// What the portal stands on.
#[derive(Debug)]
pub struct Setup {
    /// The one path.
    pub registrar: Registrar,
    /// Who someone is.
    pub accounts: Arc<Accounts>,
    /// The gateway's own key.
    pub master: Arc<MasterKey>,
    /// Where Curfew is reached.
    pub site: Arc<Site>,
    /// Sign-ins for other hosts.
    pub handover: Arc<Handover>,
    /// The apps that people may be shown.
    pub apps: Vec<App>,
    /// The databases that people may be shown.
    pub databases: Vec<Database>,
    /// The port of the database listener, as clients see it.
    pub postgres_port: Option<u16>,
    /// The origin of the log.
    pub origin: String,
    /// The folder of the ledger.
    pub ledger: PathBuf,
    /// What entries only commit to, where there is any.
    pub values: Option<Arc<Store>>,
    /// Searches over the log.
    pub search: Search,
    /// How the log and its followers stand.
    pub standing: Arc<Standing>,
    /// How long a database password opens a database.
    pub password_life: Span,
    /// How long a bearer token lives.
    pub token_life: Span,
    /// The public keys by which apps check what the web plane tells them, as a JSON Web Key Set.
    pub jwks: Option<String>,
}

//! A real `curfew serve` that can be killed, in front of an app that answers everything and of a
//! PostgreSQL.

#[path = "../common/postgres.rs"]
mod postgres;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use curfew_authority::{Command, NewCredential, Verdict};
use curfew_entry::{
    Aal, Context, Credential, CredentialClass, Entry, Event, Factor, Proof, SessionId,
};
use curfew_gate::secret;
use curfew_gateway::Core;
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use curfew_ledger::LogReader;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;

use self::postgres::{ACCOUNT, PASSWORD};
use crate::private::write_private;

const POLICY: &str = r#"
@id("long") @idle("1h") @reauth("2h") @lifetime("8h")
permit (principal in Role::"worker", action == Action::"session.start", resource == Resource::"gateway");
@id("erasers")
permit (principal in Role::"worker", action == Action::"log.erase", resource == Resource::"gateway");
@id("short") @idle("300ms") @reauth("2h") @lifetime("8h")
permit (principal in Role::"guest", action == Action::"session.start", resource == Resource::"gateway");
@id("work")
permit (principal, action, resource in Environment::"test");
"#;

/// Whom its certificate names: the app, and Curfew's own pages.
const NAMES: [&str; 2] = ["localhost", "curfew.localhost"];

/// How long a start may take.
const START: Duration = Duration::from_secs(20);

/// How long it may take until everything is signed.
const PUBLISHED: Duration = Duration::from_secs(60);

/// A gateway's files, and how to run it.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) web: u16,
    postgres: u16,
    ca: reqwest::Certificate,
    reached: Arc<Mutex<BTreeSet<String>>>,
}

/// A session, and what opens its doors.
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) session: SessionId,
    pub(crate) bearer: String,
    /// For the database.
    pub(crate) password: String,
}

/// The one PostgreSQL of all tests here, and its port. It stops when we are gone.
static POSTGRES: OnceLock<(Child, u16)> = OnceLock::new();

fn upstream_database() -> u16 {
    let (_, port) = POSTGRES.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("curfew-test-").tempdir();
        postgres::start(&folder.unwrap().keep())
    });
    *port
}

/// A gateway that runs as a process of its own.
pub(crate) struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Place {
    /// Writes configuration, certificate and policy into `dir`, and makes the data folder.
    pub(crate) async fn new(dir: &Path) -> Self {
        let reached = Arc::default();
        let upstream = upstream(Arc::clone(&reached)).await;
        let database = tokio::task::spawn_blocking(upstream_database)
            .await
            .unwrap();
        let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
        let ca = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        let (web, postgres) = (free_port(), free_port());
        let config = format!(
            "data = \"data\"\npolicy = \"policy.cedar\"\norigin = \"curfew.test/log\"\n\
             portal = \"curfew.localhost\"\n\
             [listen]\nweb = \"127.0.0.1:{web}\"\npostgres = \"127.0.0.1:{postgres}\"\n\
             [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [[web]]\nname = \"app\"\nenvironment = \"test\"\nhost = \"localhost\"\nkind = \"api\"\n\
             upstream = \"http://127.0.0.1:{}\"\n\
             [[postgres]]\nname = \"orders\"\nenvironment = \"test\"\nhost = \"127.0.0.1\"\n\
             port = {database}\ndatabase = \"postgres\"\nuser = \"{ACCOUNT}\"\n\
             password_file = \"pg.pw\"\ntrust = \"classifier\"\ntls = \"disable\"\n\
             [tuning]\nsegment_mib = 4\noutage_grace = \"1m\"\n",
            upstream.port()
        );
        write_private(&dir.join("pg.pw"), PASSWORD);
        std::fs::write(dir.join("curfew.toml"), config).unwrap();
        std::fs::write(dir.join("policy.cedar"), POLICY).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        write_private(&dir.join("key.pem"), &made.signing_key.serialize_pem());
        let place = Self {
            dir: dir.to_owned(),
            web,
            postgres,
            ca,
            reached,
        };
        DataDir::of(&place.config())
            .create("curfew.test/log")
            .unwrap();
        place
    }

    /// A copy of everything but the guard, which both share; with ports of its own.
    pub(crate) fn twin(&self, dir: &Path) -> Self {
        let copied = Process::new("cp")
            .args(["-r", "--"])
            .arg(self.dir.join("."))
            .arg(dir)
            .status();
        assert!(copied.unwrap().success());
        let guard = dir.join("data/guard");
        std::fs::remove_dir_all(&guard).unwrap();
        std::os::unix::fs::symlink(self.dir.join("data/guard"), &guard).unwrap();
        let (web, postgres) = (free_port(), free_port());
        let text = std::fs::read_to_string(dir.join("curfew.toml")).unwrap();
        let text = text
            .replace(&format!(":{}\"", self.web), &format!(":{web}\""))
            .replace(&format!(":{}\"", self.postgres), &format!(":{postgres}\""));
        std::fs::write(dir.join("curfew.toml"), text).unwrap();
        Self {
            dir: dir.to_owned(),
            web,
            postgres,
            ca: self.ca.clone(),
            reached: Arc::clone(&self.reached),
        }
    }

    fn config(&self) -> Config {
        let text = std::fs::read_to_string(self.dir.join("curfew.toml")).unwrap();
        Config::parse("curfew.toml", &text, &self.dir).unwrap()
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let path = self.dir.join("curfew.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{more}")).unwrap();
    }

    /// What a receiver's side of TLS has.
    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let path = |name: &str| self.dir.join(name);
        let chain = CertificateDer::pem_file_iter(path("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(path("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }

    /// Where the ledger lies.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.join("data/ledger")
    }

    /// Starts a session while nothing runs: it is in the ledger when the gateway comes up.
    pub(crate) async fn session(&self, name: &str, role: &str) -> Person {
        let core = Core::open(&self.config(), "policy.cedar", POLICY)
            .await
            .unwrap();
        let session = secret::session_id().unwrap();
        let bearer = format!("cft_{name}_{session}");
        let command = Command::StartSession {
            session: session.clone(),
            subject: name.parse().unwrap(),
            roles: BTreeSet::from([role.parse().unwrap()]),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: core.registrar.now(),
            },
            context: Context {
                address: "127.0.0.1".parse().unwrap(),
                network: "unknown".into(),
            },
            credential: Credential {
                id: secret::credential_id().unwrap(),
                class: CredentialClass::Bearer,
                hash: secret::hash(&bearer),
                audience: None,
                expires: None,
            },
        };
        let verdict = core.registrar.command(command).await.unwrap();
        assert!(
            matches!(verdict, Verdict::Done | Verdict::Allow(_)),
            "{verdict:?}"
        );
        let password = self.database_password(&core, &session).await;
        core.registrar.stop().await.unwrap();
        Person {
            name: name.to_owned(),
            session,
            bearer,
            password,
        }
    }

    async fn database_password(&self, core: &Core, session: &SessionId) -> String {
        let id = secret::credential_id().unwrap();
        let master = DataDir::of(&self.config()).master().unwrap();
        let password = master.database_password(&id).expose_secret().to_owned();
        let credential = Credential {
            id,
            class: CredentialClass::Database,
            hash: secret::hash(&password),
            audience: Some("orders".parse().unwrap()),
            expires: None,
        };
        let session = session.clone();
        let issue = Command::IssueCredential(NewCredential {
            session,
            credential,
        });
        assert_eq!(core.registrar.command(issue).await, Ok(Verdict::Done));
        password
    }

    fn command(&self) -> Process {
        let mut serve = Process::new(env!("CARGO_BIN_EXE_curfew"));
        serve
            .arg("serve")
            .arg("--config")
            .arg(self.dir.join("curfew.toml"));
        serve
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        serve
    }

    /// Starts it and waits until it listens.
    pub(crate) fn serve(&self) -> Served {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("serve.log"))
            .unwrap();
        let mut served = Served(self.command().stderr(log).spawn().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.web));
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || std::fs::read_to_string(self.dir.join("serve.log")).unwrap();
            assert!(served.runs(), "the gateway did not start:\n{}", log());
            assert!(
                start.elapsed() < START,
                "the gateway does not listen:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    /// Starts it once more, so that it mends what a kill has left, and kills it when it has.
    pub(crate) fn mend(&self) {
        let served = self.serve();
        self.published();
        served.kill();
    }

    /// Waits until all entries are under a checkpoint and that is in its place. A kill before can fall
    /// between `checkpoints` and `checkpoint`, which a verifier rightly tells.
    pub(crate) fn published(&self) {
        let start = Instant::now();
        loop {
            let size = LogReader::open(&self.ledger()).unwrap().size();
            let signed = curfew_export::range::checkpoint(&self.ledger());
            if signed.is_some_and(|checkpoint| checkpoint.size == size) {
                return;
            }
            assert!(start.elapsed() < PUBLISHED, "{size} entries are not signed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it where it cannot run, and gives what it says.
    pub(crate) fn refused(&self) -> String {
        let output = self.command().output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A client that trusts this gateway and brings this token.
    pub(crate) fn client(&self, bearer: &str) -> reqwest::Client {
        let mut headers = reqwest::header::HeaderMap::new();
        let token = format!("Bearer {bearer}").parse().unwrap();
        headers.insert(reqwest::header::AUTHORIZATION, token);
        reqwest::Client::builder()
            .tls_certs_only([self.ca.clone()])
            .default_headers(headers)
            .resolve(NAMES[1], SocketAddr::from((Ipv4Addr::LOCALHOST, self.web)))
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    }

    /// A connection through the gateway, trusting it.
    pub(crate) async fn connect(
        &self,
        person: &Person,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let pem = std::fs::read(self.dir.join("cert.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .hostaddr(Ipv4Addr::LOCALHOST.into())
            .port(self.postgres)
            .user(&person.name)
            .password(&person.password)
            .dbname("orders")
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls);
        let (client, connection) = config.connect(tls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection to the database around the gateway.
    pub(crate) async fn direct(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(upstream_database())
            .user(ACCOUNT)
            .password(PASSWORD)
            .dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The paths that have reached the app.
    pub(crate) fn reached(&self) -> BTreeSet<String> {
        self.reached.lock().unwrap().clone()
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.web)
    }

    /// Everything in the ledger, read as anybody would.
    pub(crate) fn events(&self) -> Vec<Event> {
        let reader = LogReader::open(&self.ledger()).unwrap();
        let entries = reader.range(0..reader.size());
        entries
            .map(|item| Entry::from_bytes(&item.unwrap().1).unwrap().event)
            .collect()
    }

    /// `curfew log verify` of the ledger as it lies there.
    pub(crate) fn verify(&self) -> (bool, String) {
        let output = Process::new(env!("CARGO_BIN_EXE_curfew"))
            .args(["log", "verify"])
            .arg(self.ledger())
            .arg("--key-file")
            .arg(self.dir.join("data/keys/ledger.pub"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

async fn upstream(reached: Arc<Mutex<BTreeSet<String>>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        reached.lock().unwrap().insert(uri.path().to_owned());
        "done\n"
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

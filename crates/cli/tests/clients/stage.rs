//! A real `curfew serve` before a real PostgreSQL and a small app, one for all tests of a program,
//! and people who have signed in through the real pages.

#[path = "../common/postgres.rs"]
pub(crate) mod postgres;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, Response};
use axum::routing::get;
use curfew_gateway::config::Config;
use curfew_gateway::control::{self, Operation, Outcome};
use curfew_gateway::data::DataDir;
use futures_util::stream;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::cookie::{CookieStore, Jar};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use self::postgres::{ACCOUNT, PASSWORD, curfew};
use crate::private::write_private;

/// The host of Curfew's own pages.
pub(crate) const PORTAL: &str = "curfew.localhost";
/// The host of the app as pages.
pub(crate) const APP: &str = "app.localhost";
/// The host of the app as an API.
pub(crate) const API: &str = "api.localhost";

/// Workers and auditors have all day; guests are gone after a second and a half of doing nothing.
const POLICY: &str = r#"
@id("long") @idle("1h") @reauth("2h") @lifetime("8h")
permit (principal in Role::"worker", action == Action::"session.start", resource == Resource::"gateway");
@id("short") @idle("1500ms") @reauth("2h") @lifetime("8h")
permit (principal in Role::"guest", action == Action::"session.start", resource == Resource::"gateway");
@id("audit") @idle("1h") @reauth("2h") @lifetime("8h")
permit (principal in Role::"auditor", action in [Action::"session.start", Action::"log.read"], resource == Resource::"gateway");
@id("work")
permit (principal, action, resource in Environment::"test");
"#;

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) web: u16,
    pub(crate) postgres: u16,
    /// PostgreSQL itself.
    pub(crate) upstream: u16,
    /// The authority that vouches for the gateway, as a file.
    pub(crate) ca: PathBuf,
    folder: PathBuf,
    gateway: u32,
    /// Each stops when its standard input ends, as it does when we are gone.
    _processes: [Child; 2],
}

/// Somebody who may sign in.
pub(crate) struct Account {
    pub(crate) name: String,
    secret: String,
}

/// Somebody who has signed in, with everything that opens a door.
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) session: String,
    /// For the database.
    pub(crate) password: String,
    /// For the API.
    pub(crate) bearer: String,
    /// For the app, as it is sent.
    pub(crate) cookie: String,
}

static STAGE: OnceLock<Stage> = OnceLock::new();

/// Makes an authority and a certificate by it for all names here.
fn certificates(folder: &Path) -> PathBuf {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = &mut authority.distinguished_name;
    name.push(DnType::CommonName, "Curfew test authority");
    let key = KeyPair::generate().unwrap();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let names = [PORTAL, APP, API, "localhost"].map(str::to_owned);
    let leaf = CertificateParams::new(names).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    write_private(&folder.join("key.pem"), &key.serialize_pem());
    ca
}

/// The app: a page, something that takes a body, a stream of events, an echo.
fn start_app() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let events = || async {
        Sse::new(stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((
                Ok::<_, std::convert::Infallible>(Event::default().data("tick")),
                (),
            ))
        }))
    };
    let page = |headers: axum::http::HeaderMap| async move {
        let subject = headers.get("curfew-subject").cloned();
        let subject = subject.map(|value| value.to_str().unwrap().to_owned());
        Html(format!("<h1>Hello {}</h1>", subject.unwrap_or_default()))
    };
    let router = axum::Router::new()
        .route("/", get(page).post(|body: String| async move { body }))
        .route("/events", get(events))
        .route("/ws", get(echo));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await
        })
    });
    port
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_) | Message::Binary(_))
                && socket.send(message).await.is_err()
            {
                return;
            }
        }
    })
}

fn configuration(app: u16, upstream: u16) -> String {
    format!(
        r#"data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "{PORTAL}"
[listen]
web = "127.0.0.1:0"
postgres = "127.0.0.1:0"
[tls]
certificate = "cert.pem"
key = "key.pem"
[[web]]
name = "app"
environment = "test"
host = "{APP}"
upstream = "http://127.0.0.1:{app}"
[[web]]
name = "api"
environment = "test"
host = "{API}"
kind = "api"
upstream = "http://127.0.0.1:{app}"
[[postgres]]
name = "orders"
environment = "test"
host = "127.0.0.1"
port = {upstream}
database = "postgres"
user = "{ACCOUNT}"
password_file = "pg.pw"
trust = "classifier"
tls = "disable"
[tuning]
segment_mib = 4
"#
    )
}

impl Stage {
    /// The one stage, started by whoever comes first.
    pub(crate) async fn get() -> &'static Self {
        let stage = tokio::task::spawn_blocking(|| STAGE.get_or_init(Self::start));
        stage.await.unwrap()
    }

    fn start() -> Self {
        // PostgreSQL's guard removes it in the end.
        let folder = tempfile::Builder::new()
            .prefix("curfew-test-")
            .tempdir()
            .unwrap()
            .keep();
        let ca = certificates(&folder);
        let (guard, upstream) = postgres::start(&folder);
        let text = configuration(start_app(), upstream);
        std::fs::write(folder.join("curfew.toml"), &text).unwrap();
        std::fs::write(folder.join("policy.cedar"), POLICY).unwrap();
        write_private(&folder.join("pg.pw"), PASSWORD);
        let config = Config::parse("curfew.toml", &text, &folder).unwrap();
        DataDir::of(&config).create("curfew.test/log").unwrap();
        let mut gateway = curfew(&folder, "serve.log")
            .args(["serve", "--json", "--until-stdin-ends", "--config"])
            .arg(folder.join("curfew.toml"))
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut said = BufReader::new(gateway.stdout.take().unwrap());
        said.read_line(&mut ready).unwrap();
        let log = || std::fs::read_to_string(folder.join("serve.log")).unwrap();
        assert!(!ready.is_empty(), "the gateway did not start:\n{}", log());
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let port = |key: &str| {
            let address: SocketAddr = ready[key].as_str().unwrap().parse().unwrap();
            address.port()
        };
        Self {
            web: port("web"),
            postgres: port("postgres"),
            upstream,
            ca,
            gateway: gateway.id(),
            folder,
            _processes: [guard, gateway],
        }
    }

    /// The address of a path under a host.
    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.web)
    }

    /// The file with the key by which the log is verified.
    pub(crate) fn public_key(&self) -> PathBuf {
        self.folder.join("data/keys/ledger.pub")
    }

    /// Everything the gateway has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("serve.log")).unwrap()
    }

    /// Resident memory of the gateway in KiB; none once it is gone.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// The connection to PostgreSQL itself, around the gateway, as environment for its programs.
    pub(crate) fn direct(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.upstream.to_string()),
            ("PGUSER", ACCOUNT.to_owned()),
            ("PGPASSWORD", PASSWORD.to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ]
    }

    /// The connection of a person through the gateway, as environment for libpq.
    pub(crate) fn through(&self, person: &Person) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.postgres.to_string()),
            ("PGUSER", person.name.clone()),
            ("PGPASSWORD", person.password.clone()),
            ("PGDATABASE", "orders".to_owned()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", self.ca.display().to_string()),
        ]
    }

    /// TLS that trusts the authority here and nobody else.
    pub(crate) fn tls(&self, protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// An HTTP client that finds the hosts here and trusts their authority.
    pub(crate) fn http(&self) -> reqwest::ClientBuilder {
        let ca = std::fs::read(&self.ca).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .timeout(Duration::from_secs(20));
        [PORTAL, APP, API]
            .iter()
            .fold(builder, |builder, host| builder.resolve(host, here))
    }

    /// Asks the operator's desk.
    async fn operate(&self, operation: Operation) -> Outcome {
        let text = std::fs::read_to_string(self.folder.join("curfew.toml")).unwrap();
        let config = Config::parse("curfew.toml", &text, &self.folder).unwrap();
        let socket = DataDir::of(&config).control_socket();
        control::request(&socket, &operation).await.unwrap()
    }

    /// Adds an account.
    pub(crate) async fn account(&self, name: &str, role: &str) -> Account {
        let operation = Operation::UserAdd {
            name: name.parse().unwrap(),
            roles: [role.parse().unwrap()].into(),
            password: PASSWORD.to_owned().into(),
        };
        match self.operate(operation).await {
            Outcome::Enrolled { secret, .. } => Account {
                name: name.to_owned(),
                secret,
            },
            other => panic!("no account: {other:?}"),
        }
    }

    /// Somebody new with this role, signed in through the pages.
    pub(crate) async fn person(&self, name: &str, role: &str) -> Person {
        let account = self.account(name, role).await;
        let jar = Arc::new(Jar::default());
        let browser = self.http().cookie_provider(Arc::clone(&jar)).build();
        let browser = Browser(browser.unwrap());
        let page = browser.open(&self.url(APP, "/")).await;
        let mut form = hidden(&page, "/sign-in");
        form.extend(account.fields());
        let page = browser.send(&self.url(PORTAL, "/sign-in"), &form).await;
        assert!(page.contains("<h1>Hello "), "not signed in: {page}");
        let bearer = self.bearer(&browser).await;
        let ask = |request: reqwest::RequestBuilder| async {
            let answer = request.bearer_auth(&bearer).send().await.unwrap();
            let text = answer.text().await.unwrap();
            serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text}"))
        };
        let session = ask(browser.0.get(self.url(PORTAL, "/api/v1/session"))).await;
        let made = self.url(PORTAL, "/api/v1/databases/orders/password");
        let made = ask(browser.0.post(made)).await;
        let app = self.url(APP, "/").parse().unwrap();
        Person {
            name: account.name,
            session: session["session"].as_str().unwrap().to_owned(),
            password: made["password"].as_str().unwrap().to_owned(),
            bearer: bearer.clone(),
            cookie: jar.cookies(&app).unwrap().to_str().unwrap().to_owned(),
        }
    }

    /// A token for programs, approved in this browser (RFC 8628).
    async fn bearer(&self, browser: &Browser) -> String {
        let client = ("client_id".to_owned(), "curfew-cli".to_owned());
        let oauth = |path: &str| self.url(PORTAL, &format!("/oauth/{path}"));
        let device = browser
            .send(
                &oauth("device_authorization"),
                std::slice::from_ref(&client),
            )
            .await;
        let device: Value = serde_json::from_str(&device).unwrap();
        let field = |name: &str| device[name].as_str().unwrap().to_owned();
        let page = browser.open(&field("verification_uri_complete")).await;
        let mut form = hidden(&page, "/device/decide");
        form.push(("choice".to_owned(), "approve".to_owned()));
        browser
            .send(&self.url(PORTAL, "/device/decide"), &form)
            .await;
        let grant = "urn:ietf:params:oauth:grant-type:device_code".to_owned();
        let form = [
            client,
            ("grant_type".to_owned(), grant),
            ("device_code".to_owned(), field("device_code")),
        ];
        let token = browser.send(&oauth("token"), &form).await;
        let token: Value = serde_json::from_str(&token).unwrap();
        let token = token["access_token"].as_str();
        token.expect("a token was approved").to_owned()
    }

    /// Ends somebody's session, as an operator does.
    pub(crate) async fn end(&self, session: &str) {
        let session = session.parse().unwrap();
        let outcome = self.operate(Operation::SessionEnd { session }).await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    }

    /// The one live session of somebody.
    pub(crate) async fn session_of(&self, name: &str) -> String {
        let Outcome::Sessions(sessions) = self.operate(Operation::SessionList).await else {
            panic!("no list of sessions");
        };
        let mut all = sessions.as_array().unwrap().iter();
        let found = all.find(|one| one["subject"] == name).expect("a session");
        found["session"].as_str().unwrap().to_owned()
    }
}

impl Account {
    /// What they type in.
    pub(crate) fn fields(&self) -> [(String, String); 3] {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let bytes = totp_rs::Secret::try_from_base32(&self.secret).unwrap();
        let totp = totp_rs::Builder::new()
            .with_algorithm(totp_rs::Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(30)
            .with_secret(bytes)
            .build_noncompliant();
        let code = totp.generate(now.unwrap().as_secs()).to_string();
        [
            ("name", self.name.clone()),
            ("password", PASSWORD.to_owned()),
            ("code", code),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

/// A browser as far as signing in needs one.
struct Browser(reqwest::Client);

impl Browser {
    /// Goes to a page, and on to where it leads.
    async fn open(&self, url: &str) -> String {
        let request = self.0.get(url).header("accept", "text/html");
        let request = request.header("sec-fetch-mode", "navigate");
        let request = request.header("sec-fetch-dest", "document");
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Sends a form.
    async fn send(&self, url: &str, form: &[(String, String)]) -> String {
        let request = self.0.post(url).header("accept", "text/html").form(form);
        request.send().await.unwrap().text().await.unwrap()
    }
}

/// The hidden fields of the form that goes to `action`.
fn hidden(html: &str, action: &str) -> Vec<(String, String)> {
    let found = html.split_once(&format!("action=\"{action}"));
    let (_, form) = found.unwrap_or_else(|| panic!("no form for {action} in: {html}"));
    let form = form.split("</form>").next().unwrap();
    let inputs = form.split("<input").skip(1);
    let hidden = inputs.filter(|input| input.contains("type=\"hidden\""));
    let value = |input: &str, name: &str| {
        let (_, rest) = input.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    hidden
        .map(|input| (value(input, "name"), value(input, "value")))
        .collect()
}

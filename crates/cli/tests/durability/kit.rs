//! A real `curfew serve` that can be killed, in front of an app that answers everything.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use curfew_authority::{
    Aal, Command, Context, Credential, CredentialClass, Entry, Event, Factor, Proof, SessionId,
    Verdict,
};
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use curfew_gateway::{Core, secret};
use curfew_ledger::LogReader;

const POLICY: &str = r#"
@id("long") @idle("1h") @reauth("2h") @lifetime("8h")
permit (principal in Role::"worker", action == Action::"session.start", resource == Resource::"gateway");
@id("short") @idle("300ms") @reauth("2h") @lifetime("8h")
permit (principal in Role::"guest", action == Action::"session.start", resource == Resource::"gateway");
@id("work")
permit (principal, action, resource in Environment::"test");
"#;

/// How long a start may take.
const START: Duration = Duration::from_secs(20);

/// A gateway's files, and how to run it.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) web: u16,
    ca: reqwest::Certificate,
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
        let upstream = upstream().await;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        let web = free_port();
        let config = format!(
            "data = \"data\"\npolicy = \"policy.cedar\"\norigin = \"curfew.test/log\"\n\
             portal = \"curfew.localhost\"\n[listen]\nweb = \"127.0.0.1:{web}\"\n\
             [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [[web]]\nname = \"app\"\nenvironment = \"test\"\nhost = \"localhost\"\nkind = \"api\"\n\
             upstream = \"http://127.0.0.1:{}\"\n[tuning]\nsegment_mib = 4\noutage_grace = \"1s\"\n",
            upstream.port()
        );
        std::fs::write(dir.join("curfew.toml"), config).unwrap();
        std::fs::write(dir.join("policy.cedar"), POLICY).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let place = Self {
            dir: dir.to_owned(),
            web,
            ca,
        };
        DataDir::of(&place.config())
            .create("curfew.test/log")
            .unwrap();
        place
    }

    fn config(&self) -> Config {
        let text = std::fs::read_to_string(self.dir.join("curfew.toml")).unwrap();
        Config::parse("curfew.toml", &text, &self.dir).unwrap()
    }

    /// Where the ledger lies.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.join("data/ledger")
    }

    /// Starts a session while nothing runs: it is in the ledger when the gateway comes up.
    pub(crate) async fn session(&self, name: &str, role: &str) -> (SessionId, String) {
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
        core.registrar.stop().await.unwrap();
        (session, bearer)
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
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
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

async fn upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(|| async { "done\n" });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

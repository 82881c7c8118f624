//! One real PostgreSQL for all tests, a gateway of its own for each, and three kinds of clients:
//! tokio-postgres, psql, and one that speaks the protocol byte by byte.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use curfew_authority::{
    Aal, Actor, Command, Context, Credential, CredentialClass, EndCause, EndReason, Factor,
    NewCredential, Proof, SessionId, Verdict,
};
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use curfew_gateway::secret::MasterKey;
use curfew_gateway::{Running, secret};
use postgres_protocol::authentication::sasl;
use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SERVER_PASSWORD: &str = "the server's own";

/// The server behind.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: PathBuf,
}

static SERVER: OnceLock<Server> = OnceLock::new();

fn bin(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.pop().unwrap().join("bin").join(name)
}

/// The account the server runs as: PostgreSQL refuses root.
fn postgres_ids() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn as_postgres(program: &Path) -> Process {
    use std::os::unix::process::CommandExt;
    let mut process = Process::new(program);
    if let (true, Some((uid, gid))) = (is_root(), postgres_ids()) {
        process.uid(uid).gid(gid);
    }
    process
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .current_dir("/");
    process
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

impl Server {
    pub(crate) fn get() -> &'static Self {
        SERVER.get_or_init(Self::start)
    }

    #[expect(clippy::zombie_processes, reason = "it ends after this process")]
    fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("curfew-pg")
            .tempdir()
            .unwrap()
            .keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = [
            ("pw", SERVER_PASSWORD.to_owned(), 0o644),
            ("server.crt", made.cert.pem(), 0o644),
            ("server.key", made.signing_key.serialize_pem(), 0o600),
        ];
        let owner = is_root().then(postgres_ids).flatten();
        for (name, text, mode) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            if let Some((uid, gid)) = owner {
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        if let Some((uid, gid)) = owner {
            chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let data = dir.join("data");
        let made = as_postgres(&bin("initdb"))
            .args([
                "-U",
                "curfew",
                "-A",
                "scram-sha-256",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .arg(format!("--pwfile={}", dir.join("pw").display()))
            .arg("-D")
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let here = dir.display();
        // Ends with the tests: the server goes when its standard input's pipe is of no use, so a
        // watchdog of its own kills it once this process is gone.
        let mut postgres = as_postgres(Path::new("/bin/sh"));
        postgres.arg("-c").arg(format!(
            "{server} -D {data} -p {port} -h localhost -k {here} -c ssl=on \
             -c ssl_cert_file={here}/server.crt -c ssl_key_file={here}/server.key \
             -c fsync=off -c max_connections=300 & \
             pid=$!; while kill -0 {test} 2>/dev/null || [ -d /proc/{test} ]; do sleep 1; done; \
             kill -INT $pid; wait $pid; rm -rf {here}",
            server = bin("postgres").display(),
            data = data.display(),
            test = std::process::id(),
        ));
        postgres.spawn().unwrap();
        for _ in 0..300 {
            if data.join("postmaster.pid").exists()
                && std::net::TcpStream::connect(("localhost", port)).is_ok()
            {
                std::thread::sleep(Duration::from_millis(200));
                return Self { port, dir };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start");
    }

    /// A connection around the gateway.
    pub(crate) async fn direct(&self) -> tokio_postgres::Client {
        let (client, connection) = self.connect().await;
        tokio::spawn(connection);
        client
    }

    /// The same, with the connection for the caller to drive.
    pub(crate) async fn connect(&self) -> (tokio_postgres::Client, Direct) {
        for _ in 0..50 {
            let connected = tokio_postgres::Config::new()
                .host_path(&self.dir)
                .port(self.port)
                .user("curfew")
                .password(SERVER_PASSWORD)
                .dbname("postgres")
                .connect(tokio_postgres::NoTls)
                .await;
            if let Ok(connected) = connected {
                return connected;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("PostgreSQL takes no connections");
    }
}

type Direct = tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>;

pub(crate) const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("12h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("dba") @idle("15m") @reauth("12h") @lifetime("12h")
permit (principal in Role::"dba",
        action in [Action::"sql.connect", Action::"sql.read", Action::"sql.write", Action::"sql.ddl"],
        resource in Environment::"test");
@id("analyst") @idle("15m") @reauth("12h") @lifetime("12h")
permit (principal in Role::"analyst", action in [Action::"sql.connect", Action::"sql.read"],
        resource in Environment::"test");
"#;

/// A running gateway in front of a database of its own.
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) database: String,
    pub(crate) root: PathBuf,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    master: MasterKey,
    _dir: tempfile::TempDir,
}

/// A session and a database password of it.
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) session: SessionId,
    pub(crate) password: String,
    #[allow(dead_code, reason = "only the benchmark goes through the web plane")]
    pub(crate) bearer: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_policy(POLICY).await
    }

    pub(crate) async fn with_policy(policy: &str) -> Self {
        Self::with(policy, "").await
    }

    /// With this policy, and with more tables at the end of the configuration.
    pub(crate) async fn with(policy: &str, more: &str) -> Self {
        let server = tokio::task::spawn_blocking(Server::get).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let root = dir.path().join("cert.pem");
        std::fs::write(&root, made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("pg.pw"), SERVER_PASSWORD).unwrap();
        let database = format!("t{}", hex(&secret::random::<8>().unwrap()));
        server
            .direct()
            .await
            .batch_execute(&format!("create database {database}"))
            .await
            .unwrap();
        let text = format!(
            r#"
data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"
[listen]
web = "127.0.0.1:0"
postgres = "127.0.0.1:0"
[tls]
certificate = "cert.pem"
key = "key.pem"
[[postgres]]
name = "orders"
environment = "test"
host = "localhost"
port = {}
database = "{database}"
user = "curfew"
password_file = "pg.pw"
ca = "{}"
{more}"#,
            server.port,
            server.dir.join("server.crt").display(),
        );
        let config = Config::parse("curfew.toml", &text, dir.path()).unwrap();
        let data = DataDir::of(&config);
        data.create("curfew.test/log").unwrap();
        let master = data.master().unwrap();
        let running = curfew_gateway::start(config, "policy.cedar", policy)
            .await
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            running,
            database,
            root,
            tls: Arc::new(tls),
            master,
            _dir: dir,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.running.postgres.unwrap().port()
    }

    /// Signs in `name` with this role and makes a database password.
    pub(crate) async fn person(&self, name: &str, role: &str) -> Person {
        let session = secret::session_id().unwrap();
        let bearer = secret::token("cft_").unwrap().expose_secret().to_owned();
        let credential = Credential {
            id: secret::credential_id().unwrap(),
            class: CredentialClass::Bearer,
            hash: secret::hash(&bearer),
            audience: None,
            expires: None,
        };
        let at = self.running.now();
        let start = Command::StartSession {
            session: session.clone(),
            subject: name.parse().unwrap(),
            roles: BTreeSet::from([role.parse().unwrap()]),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at,
            },
            context: Context {
                address: "127.0.0.1".parse().unwrap(),
                network: "unknown".into(),
            },
            credential,
        };
        let verdict = self.running.registrar().command(start).await.unwrap();
        assert!(
            matches!(verdict, Verdict::Allow(_) | Verdict::Done),
            "{verdict:?}"
        );
        let password = self.password(&session).await;
        Person {
            name: name.to_owned(),
            session,
            password,
            bearer,
        }
    }

    /// One more database password of a session.
    pub(crate) async fn password(&self, session: &SessionId) -> String {
        let id = secret::credential_id().unwrap();
        let password = self.master.database_password(&id);
        let credential = Credential {
            id,
            class: CredentialClass::Database,
            hash: secret::hash(password.expose_secret()),
            audience: Some("orders".parse().unwrap()),
            expires: None,
        };
        let issue = Command::IssueCredential(NewCredential {
            session: session.clone(),
            credential,
        });
        let verdict = self.running.registrar().command(issue).await.unwrap();
        assert!(
            matches!(verdict, Verdict::Allow(_) | Verdict::Done),
            "{verdict:?}"
        );
        password.expose_secret().to_owned()
    }

    pub(crate) async fn end(&self, session: &SessionId) {
        let cause = EndCause {
            reason: EndReason::EndedByAdmin,
            by: Some(Actor::Host("test".to_owned())),
        };
        let end = Command::End {
            session: session.clone(),
            cause,
        };
        self.running.registrar().command(end).await.unwrap();
    }

    pub(crate) fn config(&self, person: &Person) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .hostaddr("127.0.0.1".parse().unwrap())
            .port(self.port())
            .user(&person.name)
            .password(&person.password)
            .dbname("orders")
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        config
    }

    pub(crate) fn connector(&self) -> tokio_postgres_rustls::MakeRustlsConnect {
        tokio_postgres_rustls::MakeRustlsConnect::new((*self.tls).clone())
    }

    pub(crate) async fn try_connect(
        &self,
        person: &Person,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = self.config(person).connect(self.connector()).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) async fn connect(&self, person: &Person) -> tokio_postgres::Client {
        self.try_connect(person).await.unwrap()
    }

    /// psql with this script on its standard input. Gives its output and what it complained of.
    pub(crate) async fn psql(&self, person: &Person, script: &str) -> (String, String) {
        let mut child = self.psql_command(person).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        let done = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        let done = done.await.expect("psql ends").unwrap();
        (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    }

    pub(crate) fn psql_command(&self, person: &Person) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(bin("psql"));
        command
            .args(["-X", "-A", "-t", "-q", "--set=VERBOSITY=verbose"])
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", &person.name)
            .env("PGPASSWORD", &person.password)
            .env("PGDATABASE", "orders")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// How many connections the server has to this world's database.
    pub(crate) async fn backends(&self) -> i64 {
        let direct = Server::get().direct().await;
        let text = "select count(*) from pg_stat_activity where datname = $1";
        direct
            .query_one(text, &[&self.database])
            .await
            .unwrap()
            .get(0)
    }

    /// Waits until the server has no connection left, and says how long that took.
    pub(crate) async fn until_gone(&self) -> Duration {
        let start = std::time::Instant::now();
        while self.backends().await > 0 {
            assert!(
                start.elapsed() < Duration::from_secs(1),
                "a backend is left over"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }

    /// All bytes of the ledger, as text.
    pub(crate) fn ledger(&self) -> String {
        let mut text = String::new();
        let mut dirs = vec![self.root.with_file_name("data").join("ledger")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    text += &String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap());
                }
            }
        }
        text
    }

    /// TLS without asking for it first, with this ALPN.
    pub(crate) async fn direct_tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = [alpn]
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| name.to_vec())
            .collect();
        let stream = TcpStream::connect(("127.0.0.1", self.port()))
            .await
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// A raw client that stands after ReadyForQuery.
    pub(crate) async fn raw(&self, person: &Person, version: i32) -> Raw {
        let stream = self.direct_tls(b"postgresql").await;
        let mut raw = Raw {
            stream,
            read: BytesMut::new(),
            key: Vec::new(),
            negotiated: None,
        };
        raw.start(person, version).await;
        raw
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client that speaks the protocol byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) read: BytesMut,
    pub(crate) key: Vec<u8>,
    pub(crate) negotiated: Option<Vec<u8>>,
}

/// The startup packet of a person.
pub(crate) fn startup(person: &Person, version: i32) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i32(version);
    for text in ["user", &person.name, "database", "orders"] {
        body.extend_from_slice(text.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut packet = BytesMut::new();
    packet.put_i32(i32::try_from(body.len()).unwrap() + 4);
    packet.extend_from_slice(&body);
    packet
}

impl Raw {
    async fn start(&mut self, person: &Person, version: i32) {
        self.send(&startup(person, version)).await;
        let mut scram = sasl::ScramSha256::new(
            person.password.as_bytes(),
            sasl::ChannelBinding::unsupported(),
        );
        loop {
            let (tag, body) = self.next().await.expect("a message");
            let mut out = BytesMut::new();
            match (tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let mechanism = sasl::SCRAM_SHA_256;
                    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).unwrap();
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&body[4..]).unwrap();
                    frontend::sasl_response(scram.message(), &mut out).unwrap();
                }
                (b'R', Some([0, 0, 0, 12])) => scram.finish(&body[4..]).unwrap(),
                (b'v', _) => self.negotiated = Some(body.to_vec()),
                (b'K', _) => self.key = body.to_vec(),
                (b'Z', _) => return,
                (b'E', _) => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
            self.send(&out).await;
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends what these calls write.
    pub(crate) async fn say(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.send(&out).await;
    }

    /// The next message; none at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, BytesMut)> {
        loop {
            if let Some(head) = self.read.get(..5) {
                let length = i32::from_be_bytes(head[1..].try_into().unwrap());
                let total = usize::try_from(length).unwrap() + 1;
                if self.read.len() >= total {
                    let mut message = self.read.split_to(total);
                    return Some((message[0], message.split_off(5)));
                }
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The types of all messages up to the next ReadyForQuery, its status last. Errors are told
    /// with their SQLSTATE.
    pub(crate) async fn until_ready(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let Some((tag, body)) = self.next().await else {
                return seen + " end";
            };
            match tag {
                b'Z' => return format!("{seen}Z{}", char::from(body[0])),
                b'E' => seen += &format!("E({})", field(&body, b'C')),
                b'N' => {}
                tag => seen.push(char::from(tag)),
            }
        }
    }
}

/// One field of an ErrorResponse's body.
pub(crate) fn field(body: &[u8], field: u8) -> String {
    body.split(|byte| *byte == 0)
        .find(|part| part.first() == Some(&field))
        .map(|part| String::from_utf8_lossy(&part[1..]).into_owned())
        .unwrap_or_default()
}

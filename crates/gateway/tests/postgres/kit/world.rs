//! A gateway in front of a database of its own, the people who use it, and their clients.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{Auditor, Command, EndCause, NewCredential, Verdict};
use curfew_entry::{
    Aal, Actor, Context, Credential, CredentialClass, EndReason, Entry, Event, Factor, Proof,
    SessionId,
};
use curfew_gate::secret::{self, MasterKey};
use curfew_gateway::data::DataDir;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::gateway::Gateway;
use super::raw::Raw;
use super::server::{PASSWORD, Server, bin};

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
    pub(crate) gateway: Gateway,
    pub(crate) database: String,
    master: MasterKey,
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
        let database = fresh_name();
        let create = format!("create database {database}");
        server.direct().await.batch_execute(&create).await.unwrap();
        let accounts = "user = \"curfew\"\npassword_file = \"pg.pw\"\ntrust = \"classifier\"\n";
        Self::before(server, policy, &database, &format!("{accounts}{more}")).await
    }

    /// Before this database of the server, with the rest of its table and what comes after it.
    pub(crate) async fn before(server: &Server, policy: &str, database: &str, rest: &str) -> Self {
        let config = format!(
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
{}{rest}"#,
            table(server, database),
        );
        let prepare = |folder: &Path, data: &DataDir| {
            std::fs::write(folder.join("pg.pw"), PASSWORD).unwrap();
            data.master().unwrap()
        };
        let (gateway, master) = Gateway::start(&["localhost"], &config, policy, prepare).await;
        Self {
            gateway,
            database: database.to_owned(),
            master,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.gateway.running.postgres.unwrap().port()
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
        let at = self.gateway.running.now();
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
        let verdict = self
            .gateway
            .running
            .registrar()
            .command(start)
            .await
            .unwrap();
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
        let verdict = self
            .gateway
            .running
            .registrar()
            .command(issue)
            .await
            .unwrap();
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
        self.gateway
            .running
            .registrar()
            .carry_out(end)
            .await
            .unwrap();
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
        tokio_postgres_rustls::MakeRustlsConnect::new((*self.gateway.tls).clone())
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
            .env("PGSSLROOTCERT", self.gateway.certificate())
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

    /// The entries that are in the ledger, as anybody reads them.
    fn lines(&self) -> Vec<Vec<u8>> {
        let reader = curfew_ledger::LogReader::open(&self.gateway.ledger()).unwrap();
        let entries = reader.range(0..reader.size());
        entries.map(|entry| entry.unwrap().1).collect()
    }

    /// The same as JSON.
    pub(crate) fn entries(&self) -> Vec<serde_json::Value> {
        let lines = self.lines();
        lines
            .iter()
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// What they say, once the auditor has found nothing wrong with them.
    pub(crate) fn audit(&self) -> Vec<Event> {
        let mut auditor = Auditor::new();
        let judged = self.lines().into_iter().enumerate().map(|(index, line)| {
            let entry = Entry::from_bytes(&line).unwrap();
            let found = auditor.check(index as u64, &entry);
            assert!(found.is_empty(), "entry {index}: {found:?}");
            entry.event
        });
        judged.collect()
    }

    /// All bytes of the ledger, as text.
    pub(crate) fn ledger(&self) -> String {
        let mut text = String::new();
        let mut dirs = vec![self.gateway.ledger()];
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
        let mut tls = (*self.gateway.tls).clone();
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
        Raw::connect(stream, person, version).await
    }
}

/// The database's table in the configuration, up to its accounts.
pub(crate) fn table(server: &Server, database: &str) -> String {
    format!(
        "[[postgres]]\nname = \"orders\"\nenvironment = \"test\"\nhost = \"localhost\"\n\
         port = {}\ndatabase = \"{database}\"\nca = \"{}\"\n",
        server.port,
        server.dir.join("server.crt").display(),
    )
}

/// A name that no other database or role has.
pub(crate) fn fresh_name() -> String {
    format!("t{}", hex(&secret::random::<8>().unwrap()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

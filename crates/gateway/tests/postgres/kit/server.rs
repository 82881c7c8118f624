//! The one real PostgreSQL of all tests.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

/// The password of its account `curfew`.
pub(crate) const PASSWORD: &str = "the server's own";

/// The server behind.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// A program of the newest PostgreSQL here, or of the one whose programs are in
/// `CURFEW_TEST_POSTGRES`.
pub(super) fn bin(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("CURFEW_TEST_POSTGRES").map(PathBuf::from)
        && folder.join(name).exists()
    {
        return folder.join(name);
    }
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
            ("pw", PASSWORD.to_owned(), 0o644),
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

    /// TLS for who trusts its certificate.
    pub(crate) fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let file = self.dir.join("server.crt");
        roots
            .add(CertificateDer::from_pem_file(file).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// Its major version.
    pub(crate) async fn major(&self) -> u32 {
        let sql = "select current_setting('server_version_num')::int / 10000";
        let major: i32 = self
            .direct()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0);
        u32::try_from(major).unwrap()
    }

    /// A connection around the gateway.
    pub(crate) async fn direct(&self) -> tokio_postgres::Client {
        let (client, connection) = self.connect().await;
        tokio::spawn(connection);
        client
    }

    /// The same, to this database.
    pub(crate) async fn direct_to(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = self.connect_to(database).await;
        tokio::spawn(connection);
        client
    }

    /// A connection around the gateway for the caller to drive.
    pub(crate) async fn connect(&self) -> (tokio_postgres::Client, Direct) {
        self.connect_to("postgres").await
    }

    pub(crate) async fn connect_to(&self, database: &str) -> (tokio_postgres::Client, Direct) {
        for _ in 0..50 {
            let connected = tokio_postgres::Config::new()
                .host_path(&self.dir)
                .port(self.port)
                .user("curfew")
                .password(PASSWORD)
                .dbname(database)
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

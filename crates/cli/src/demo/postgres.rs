//! A real PostgreSQL for the demo: its programs are found, a fresh cluster is made and started.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use curfew_gateway::config::PostgresResource;
use curfew_postgres::rights;
use curfew_postgres::setup::{Options, Setup};
use tokio::process::Command;
use tokio_postgres::{Config, NoTls};

use super::files::write_private;
use super::stage::{Child, free_port};
use crate::failure::{Doing, Exit, Failure, Outcome};

/// How long the server may take to accept its first connection.
const START: Duration = Duration::from_secs(30);

/// The pause between two attempts to reach it.
const START_PAUSE: Duration = Duration::from_millis(50);

/// What is in the database.
const SAMPLE: &str = "
CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, city text NOT NULL);
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customers,
                     item text NOT NULL, quantity int NOT NULL CHECK (quantity > 0), placed timestamptz NOT NULL DEFAULT now());
INSERT INTO customers (name, city) VALUES ('Lamplight Ltd', 'Leeds'), ('Nachtwacht BV', 'Utrecht'), ('Veilleuse SA', 'Lyon');
INSERT INTO orders (customer, item, quantity)
  SELECT 1 + n % 3, (ARRAY['lantern', 'candle', 'wick', 'shade'])[1 + n % 4], 1 + n % 9 FROM generate_series(1, 60) n;
";

/// A running server.
#[derive(Debug)]
pub(super) struct Postgres {
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
    /// The password of its superuser `postgres`.
    pub(super) password: String,
    guard: Child,
}

/// Where `initdb` and `postgres` are.
fn programs() -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut packaged: Vec<PathBuf> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    packaged.sort();
    folders.extend(packaged.into_iter().rev());
    folders.push("/usr/libexec/postgresql".into());
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .ok_or_else(|| {
            Failure::hint(
                Exit::Failed,
                "the demo needs PostgreSQL, and `initdb` and `postgres` are not here",
                "`cargo xtask demo` installs it; or: apt-get install postgresql, dnf install \
                 postgresql-server, apk add postgresql",
            )
        })
}

/// PostgreSQL refuses to run as root. Then it runs as `postgres`, or `nobody` where there is none.
fn other_user() -> Outcome<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").doing("/etc/passwd")?;
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, fields.next()?.parse().ok()?))
        })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .map(Some)
        .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "PostgreSQL does not run as root, and there is no user `postgres`",
            )
        })
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
}

impl Postgres {
    /// Makes a cluster in `folder`, starts it and fills it. `folder` is removed when it has
    /// stopped.
    pub(super) async fn start(folder: &Path, password: String) -> Outcome<Self> {
        let programs = programs()?;
        let user = other_user()?;
        let cluster = folder.join("postgres");
        fs::create_dir(&cluster).doing(cluster.display())?;
        let secret = cluster.join("superuser");
        write_private(&secret, &password)?;
        if let Some((uid, gid)) = user {
            // The server's user has to get to its own folder, and to nothing else in there.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
                .doing(folder.display())?;
            for path in [&cluster, &secret] {
                chown(path, Some(uid), Some(gid)).doing(path.display())?;
            }
        }
        fs::set_permissions(&cluster, fs::Permissions::from_mode(0o700))
            .doing(cluster.display())?;
        let data = cluster.join("data");
        make_cluster(&programs, &data, &secret, user).await?;
        let port = free_port()?;
        let guard = run(&programs, &data, folder, port, user)?;
        let mut postgres = Self {
            port,
            password,
            guard,
        };
        postgres.fill().await?;
        Ok(postgres)
    }

    /// How to reach it around Curfew, as superuser.
    pub(super) fn direct(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("postgres")
            .password(&self.password)
            .dbname(database)
            .application_name("curfew demo");
        config
    }

    async fn fill(&mut self) -> Outcome {
        let end = tokio::time::Instant::now() + START;
        loop {
            match run_sql(&self.direct("postgres"), &[]).await {
                Ok(()) => break,
                Err(error) if tokio::time::Instant::now() > end => {
                    return Err(error).doing("PostgreSQL does not answer");
                }
                Err(_) => {
                    if let Some(status) = self.guard.gone() {
                        return Err(Failure::failed(format_args!(
                            "PostgreSQL did not start ({status})"
                        )));
                    }
                    tokio::time::sleep(START_PAUSE).await;
                }
            }
        }
        let create = ["CREATE ROLE shop", "CREATE DATABASE orders OWNER shop"];
        run_sql(&self.direct("postgres"), &create)
            .await
            .doing("cannot make the sample database")?;
        run_sql(&self.direct("orders"), &["SET ROLE shop", SAMPLE])
            .await
            .doing("cannot fill the sample database")
    }

    /// Makes the accounts by which Curfew uses the database, as `curfew database setup` does.
    pub(super) async fn set_up(&self, database: &PostgresResource) -> Outcome {
        let failed = "cannot set up the accounts";
        let setup = Setup::new(database).doing(failed)?;
        let password = self.password.clone().into();
        let mut administrator = setup
            .connect("postgres", Some(password))
            .await
            .doing(failed)?;
        let sql = setup.sql(&Options::default());
        administrator.run(&sql).await.doing(failed)?;
        match rights::check(database).await.first() {
            None => Ok(()),
            Some(problem) => Err(Failure::failed(format_args!("{failed}: {problem}"))),
        }
    }

    /// Stops it, and waits until it has.
    pub(super) async fn stop(&mut self) {
        self.guard.stop().await;
    }
}

async fn run_sql(config: &Config, statements: &[&str]) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let task = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await?;
    }
    drop(client);
    let _ = task.await;
    Ok(())
}

async fn make_cluster(
    programs: &Path,
    data: &Path,
    secret: &Path,
    user: Option<(u32, u32)>,
) -> Outcome {
    let mut command = Command::new(programs.join("initdb"));
    command
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(secret)
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
        ])
        .args(["--no-sync", "--no-instructions"])
        .current_dir("/")
        .stdin(Stdio::null());
    as_user(&mut command, user);
    let output = command.output().await.doing("cannot run initdb")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::failed(format_args!("initdb: {text}")))
}

fn run(
    programs: &Path,
    data: &Path,
    folder: &Path,
    port: u16,
    user: Option<(u32, u32)>,
) -> Outcome<Child> {
    let own = std::env::current_exe().doing("cannot find our own program")?;
    let mut command = Command::new(own);
    command.arg("guard");
    if let Some((uid, gid)) = user {
        command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    command
        .arg("--remove")
        .arg(folder)
        .arg("--")
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(data);
    let settings = [
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        "unix_socket_directories=",
        // Nothing here has to survive a power cut.
        "fsync=off",
        "max_connections=50",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    Child::start(command, &folder.join("postgres.log"), false)
}

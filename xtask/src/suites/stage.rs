//! Two PostgreSQL servers of the same make: one that is reached directly, over TLS, and one with
//! Curfew before it.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::system::postgres_programs;
use crate::{Failure, say};

/// Who the suites are, on both sides: a superuser of the server, and a person at Curfew.
pub(crate) const USER: &str = "suite";
const PASSWORD: &str = "a long enough one 42";

/// The databases. A suite has those of its own; it cannot make others, since each is a resource.
pub(crate) const DATABASES: [&str; 8] = [
    "regression",
    "isolation_regression",
    "psycopg2_test",
    "postgres",
    "asyncpg_intro_test",
    "sqlalchemy",
    "django",
    "django_other",
];

/// Which of them the cluster does not have from its beginning, or the suite makes itself.
const MADE_BY_OTHERS: [&str; 2] = ["postgres", "asyncpg_intro_test"];

/// How pg_regress makes its database.
const SETTINGS: [&str; 6] = [
    "lc_messages TO 'C'",
    "lc_monetary TO 'C'",
    "lc_numeric TO 'C'",
    "lc_time TO 'C'",
    "bytea_output TO 'hex'",
    "timezone_abbreviations TO 'Default'",
];

/// What SQLAlchemy's README.unittests asks for.
const SQLALCHEMY: &str = "\\c sqlalchemy\n\
    CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION hstore; \
    CREATE EXTENSION citext;\n";

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

const POLICY: &str = r#"@id("sessions") @idle("8h") @reauth("8h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("everything")
permit (principal in Role::"dba", action, resource in Environment::"test");
"#;

/// A way to the databases.
#[derive(Debug)]
pub(crate) struct Side {
    /// `direct` or `curfew`: as long as each other, so that paths do not move what is printed.
    pub(crate) name: &'static str,
    /// The port on localhost.
    pub(crate) port: u16,
    /// A folder of its own, which the server can read and write, too.
    pub(crate) folder: PathBuf,
    certificate: PathBuf,
    /// In libpq's form: a password for each database.
    passwords: PathBuf,
}

/// Everything that runs. It ends with this, and with this process.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) direct: Side,
    pub(crate) through: Side,
    folder: PathBuf,
    program: PathBuf,
    processes: Vec<Child>,
}

/// A failure with a path.
pub(crate) fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Step(format!("{}: {error}", path.display()))
}

/// Runs a command to its end and gives what it printed.
pub(crate) fn output(command: &mut Command, input: &str) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cannot = |error: std::io::Error| Failure::Missing(format!("cannot run {program}: {error}"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(cannot)?;
    }
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Failure::Step(format!(
        "{program}: {}: {}",
        output.status,
        last.join("; ")
    )))
}

impl Side {
    /// What libpq, and what goes by its rules, needs to get to a database here.
    pub(crate) fn environment(&self, command: &mut Command, database: &str) {
        for variable in ["PGPASSWORD", "PGOPTIONS", "PGHOSTADDR", "PGSERVICE"] {
            command.env_remove(variable);
        }
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGPASSFILE", &self.passwords)
            .env("PGDATABASE", database)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &self.certificate)
            .env("LC_ALL", "C.UTF-8")
            .env("PGCONNECT_TIMEOUT", "20");
    }

    /// A folder inside its folder in which the server may write, too.
    pub(crate) fn shared(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        mode(&path, 0o777)?;
        Ok(path)
    }

    fn write_passwords(&self, passwords: &[String]) -> Result<(), Failure> {
        let lines: Vec<String> = DATABASES
            .iter()
            .zip(passwords)
            .map(|(database, password)| {
                format!("localhost:{}:{database}:{USER}:{password}\n", self.port)
            })
            .collect();
        write(&self.passwords, &lines.concat(), 0o600)
    }
}

fn mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| failed(path, &error))
}

fn write(path: &Path, text: &str, bits: u32) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| failed(path, &error))?;
    mode(path, bits)
}

fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::Step(format!("no free port: {error}")))
}

/// The account that the servers run as where we are root, since PostgreSQL refuses root.
fn other_user() -> Result<Option<(u32, u32)>, Failure> {
    if !crate::system::is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, fields.next()?.parse().ok()?))
        })
    };
    let user = find("postgres").or_else(|| find("nobody"));
    user.map(Some).ok_or_else(|| {
        Failure::Missing("there is no user `postgres`, and PostgreSQL does not run as root".into())
    })
}

impl Stage {
    /// Starts all of it.
    pub(crate) fn start(curfew: &Path) -> Result<Self, Failure> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("curfew-suites-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(|error| failed(&folder, &error))?;
        mode(&folder, 0o711)?;
        certificate(&folder)?;
        let side = |name: &'static str, port: u16| -> Result<Side, Failure> {
            let own = folder.join(name);
            fs::create_dir(&own).map_err(|error| failed(&own, &error))?;
            mode(&own, 0o755)?;
            Ok(Side {
                name,
                port,
                certificate: folder.join("certificate.pem"),
                passwords: folder.join(format!("{name}.passwords")),
                folder: own,
            })
        };
        let mut stage = Self {
            direct: side("direct", free_port()?)?,
            through: side("curfew", free_port()?)?,
            folder,
            program: curfew.to_path_buf(),
            processes: Vec::new(),
        };
        let behind = free_port()?;
        stage.start_server(curfew, "direct", stage.direct.port)?;
        stage.start_server(curfew, "curfew", behind)?;
        let same = DATABASES.map(|_| PASSWORD.to_owned());
        stage.direct.write_passwords(&same)?;
        fill(stage.direct.port)?;
        fill(behind)?;
        stage.start_curfew(curfew, behind)?;
        Ok(stage)
    }

    /// Makes a cluster and runs it until we are gone.
    fn start_server(&mut self, curfew: &Path, name: &str, port: u16) -> Result<(), Failure> {
        let programs = postgres_programs()
            .ok_or_else(|| Failure::Missing("PostgreSQL's server programs".into()))?;
        let user = other_user()?;
        let own = self.folder.join(format!("{name}.server"));
        fs::create_dir(&own).map_err(|error| failed(&own, &error))?;
        write(&own.join("password"), PASSWORD, 0o600)?;
        for file in ["certificate.pem", "key.pem"] {
            let to = own.join(file);
            fs::copy(self.folder.join(file), &to).map_err(|error| failed(&to, &error))?;
            mode(&to, 0o600)?;
        }
        if let Some((uid, gid)) = user {
            let mut paths = vec![own.clone()];
            paths.extend(["password", "certificate.pem", "key.pem"].map(|file| own.join(file)));
            for path in paths {
                chown(&path, Some(uid), Some(gid)).map_err(|error| failed(&path, &error))?;
            }
        }
        let data = own.join("data");
        let mut initdb = Command::new(programs.join("initdb"));
        initdb
            .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync", "--no-instructions", "--pwfile"])
            .arg(own.join("password"))
            .arg("-D")
            .arg(&data)
            .current_dir("/");
        let mut guard = Command::new(curfew);
        guard.arg("guard");
        if let Some((uid, gid)) = user {
            use std::os::unix::process::CommandExt;
            initdb.uid(uid).gid(gid);
            guard.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        }
        output(&mut initdb, "")?;
        guard.arg("--remove").arg(&own).arg("--");
        guard.arg(programs.join("postgres")).arg("-D").arg(&data);
        let inside = |file: &str| own.join(file).display().to_string();
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "unix_socket_directories=".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", inside("certificate.pem")),
            format!("ssl_key_file={}", inside("key.pem")),
            // Nothing here has to survive a power cut.
            "fsync=off".to_owned(),
            "max_connections=100".to_owned(),
            "max_prepared_transactions=20".to_owned(),
        ] {
            guard.args(["-c", &setting]);
        }
        self.spawn(guard.stdout(Stdio::null()), name)?;
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if begun.elapsed() > START {
                return Err(Failure::Step("PostgreSQL does not start".into()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts a program that ends when its standard input does.
    fn spawn(&mut self, command: &mut Command, log: &str) -> Result<&mut Child, Failure> {
        let path = self.folder.join(format!("{log}.log"));
        let log = fs::File::create(&path).map_err(|error| failed(&path, &error))?;
        let child = command
            .stdin(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| failed(Path::new(command.get_program()), &error))?;
        self.processes.push(child);
        self.processes
            .last_mut()
            .ok_or_else(|| Failure::Step("nothing was started".into()))
    }

    fn start_curfew(&mut self, program: &Path, behind: u16) -> Result<(), Failure> {
        let web = free_port()?;
        let configuration = configuration(web, self.through.port, behind);
        write(&self.folder.join("curfew.toml"), &configuration, 0o600)?;
        write(&self.folder.join("policy.cedar"), POLICY, 0o600)?;
        write(&self.folder.join("server.password"), PASSWORD, 0o600)?;
        let file = self.folder.join("curfew.toml");
        let curfew = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env("CURFEW_CONFIG", &file)
                .env_remove("CURFEW_LOG");
            command
        };
        output(&mut curfew(&["init"]), "")?;
        let add = [
            "user",
            "add",
            USER,
            "--role",
            "dba",
            "--password-stdin",
            "--json",
        ];
        let enrolled = output(&mut curfew(&add), &format!("{PASSWORD}\n"))?;
        let mut serve = curfew(&["serve", "--json", "--until-stdin-ends"]);
        let serve = self.spawn(serve.stdout(Stdio::piped()), "gateway")?;
        let mut ready = String::new();
        if let Some(said) = serve.stdout.take() {
            let read = BufReader::new(said).read_line(&mut ready);
            read.map_err(|error| failed(program, &error))?;
        }
        if !ready.contains("\"ready\":true") {
            let log = fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default();
            return Err(Failure::Step(format!("Curfew does not start:\n{log}")));
        }
        let mut sign_in = Command::new("python3");
        sign_in
            .args(["-c", include_str!("../../suites/sign_in.py")])
            .arg(self.folder.join("certificate.pem"))
            .args([&web.to_string(), USER, PASSWORD])
            .args(DATABASES);
        let passwords = output(&mut sign_in, &enrolled)?;
        let passwords: Vec<String> = passwords.lines().map(str::to_owned).collect();
        self.through.write_passwords(&passwords)
    }

    /// Has Curfew's log of all that went through proved whole and legitimate, and gives its size in
    /// Curfew's words.
    pub(crate) fn verify(&self) -> Result<String, Failure> {
        let mut verify = Command::new(&self.program);
        verify
            .args(["log", "verify", "--config"])
            .arg(self.folder.join("curfew.toml"));
        let said = output(&mut verify, "")?;
        let entries = said.lines().find(|line| line.starts_with("entries"));
        let words: Vec<&str> = entries.unwrap_or_default().split_whitespace().collect();
        Ok(words.join(" "))
    }

    /// Copies what Curfew said to a folder that stays.
    pub(crate) fn keep_log(&self, folder: &Path) {
        let name = self.folder.file_name().unwrap_or_default();
        let number = name.to_string_lossy().chars().last().unwrap_or('0');
        let kept = folder.join(format!("gateway-{number}.log"));
        if let Err(error) = fs::copy(self.folder.join("gateway.log"), &kept) {
            say::note(&failed(&kept, &error).to_string());
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Curfew first: it would report the loss of its databases.
        for mut child in self.processes.drain(..).rev() {
            drop(child.stdin.take());
            if let Err(error) = child.wait() {
                say::note(&format!("a server did not end: {error}"));
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            say::note(&failed(&self.folder, &error).to_string());
        }
    }
}

/// Makes a certificate for localhost that vouches for itself.
fn certificate(folder: &Path) -> Result<(), Failure> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args([
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(folder);
    output(&mut openssl, "")?;
    mode(&folder.join("certificate.pem"), 0o644)?;
    mode(&folder.join("key.pem"), 0o600)
}

/// Makes the databases.
fn fill(port: u16) -> Result<(), Failure> {
    let mut sql = String::new();
    for database in DATABASES {
        if !MADE_BY_OTHERS.contains(&database) {
            sql.push_str(&format!("CREATE DATABASE {database} TEMPLATE template0;\n"));
        }
    }
    for database in ["regression", "isolation_regression"] {
        for setting in SETTINGS {
            sql.push_str(&format!("ALTER DATABASE {database} SET {setting};\n"));
        }
    }
    sql.push_str(SQLALCHEMY);
    let folder = postgres_programs().unwrap_or_default();
    let mut psql = Command::new(folder.join("psql"));
    psql.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-U",
        USER,
    ])
    .args(["-p", &port.to_string(), "-d", "postgres"])
    .env("PGPASSWORD", PASSWORD)
    .env("PGCONNECT_TIMEOUT", "20");
    // It takes connections before it is ready to serve them.
    let begun = Instant::now();
    loop {
        match output(&mut psql, &sql) {
            Err(Failure::Step(text)) if text.contains("starting up") && begun.elapsed() < START => {
                thread::sleep(Duration::from_millis(100));
            }
            outcome => return outcome.map(drop),
        }
    }
}

fn configuration(web: u16, postgres: u16, behind: u16) -> String {
    let mut text = format!(
        r#"data = "data"
policy = "policy.cedar"
origin = "suites.test/log"
portal = "localhost"

[listen]
web = "127.0.0.1:{web}"
postgres = "127.0.0.1:{postgres}"

[tls]
certificate = "certificate.pem"
key = "key.pem"

[tuning]
database_password = "8h"
"#
    );
    for database in DATABASES {
        text.push_str(&format!(
            r#"
[[postgres]]
name = "{database}"
environment = "test"
host = "127.0.0.1"
port = {behind}
database = "{database}"
user = "{USER}"
password_file = "server.password"
trust = "classifier"
tls = "disable"
"#
        ));
    }
    text
}

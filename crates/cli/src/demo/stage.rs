//! Everything the demo runs, and its orderly end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use curfew_gateway::control::{self, Operation, Outcome as Answer};
use curfew_gateway::data::DataDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};

use super::files::{self, API, ORIGIN, PORTAL, Ports, SHOP};
use super::postgres::Postgres;
use super::{app, code};
use crate::configuration;
use crate::failure::{Doing, Failure, Outcome};

/// The ports one sees first in the documents; others are taken where these are in use.
const WEB_PORT: u16 = 8443;
const POSTGRES_PORT: u16 = 6432;

/// How long Curfew may take until it listens.
const CURFEW_START: Duration = Duration::from_secs(20);

/// How long a program may take to stop: more than the guard and the gateway allow themselves.
const STOP: Duration = Duration::from_secs(8);

/// Random bytes in the demo's passwords: 80 bits, as 16 letters and digits.
const PASSWORD_BYTES: usize = 10;

/// The limits of the demo's analyst.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pace {
    /// So that a person can watch them.
    People,
    /// A few seconds.
    Walk,
}

/// Somebody who can sign in.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// ana or dan.
    pub(super) name: &'static str,
    /// What they may do.
    pub(super) role: &'static str,
    /// The password.
    pub(super) password: String,
    /// The TOTP secret in base32.
    pub(super) secret: String,
    /// The TOTP secret for a QR code.
    pub(super) uri: String,
}

/// A program that does not outlive us.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    /// It stops when this is closed, as it is when we are gone.
    stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts it in a process group of its own, so that Ctrl-C reaches it through us only.
    pub(super) fn start(mut command: Command, log: &Path, answers: bool) -> Outcome<Self> {
        let log_file = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .doing(log.display())?;
        let copy = log_file.try_clone().doing(log.display())?;
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(if answers { Stdio::piped() } else { copy.into() })
            .stderr(log_file)
            .process_group(0)
            .spawn()
            .doing("cannot start a part of the demo")?;
        let stdin = process.stdin.take();
        Ok(Self { process, stdin })
    }

    /// How it ended, if it has.
    pub(super) fn gone(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits until it has ended by itself.
    pub(super) async fn exited(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// The number of the process.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Stops it, and waits until it has.
    pub(super) async fn stop(&mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(STOP, self.process.wait())
            .await
            .is_err()
        {
            let _ = self.process.kill().await;
        }
    }
}

/// A port of this machine that nobody has. Somebody may take it before we do; then the start fails
/// and says so.
pub(super) fn free_port() -> Outcome<u16> {
    port_or_free(0)
}

fn port_or_free(wanted: u16) -> Outcome<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = bind(wanted).or_else(|_| bind(0)).doing("no port is free")?;
    Ok(listener.local_addr().doing("no port is free")?.port())
}

/// Letters and digits that nobody guesses.
fn password() -> Outcome<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = curfew_gate::secret::random::<{ PASSWORD_BYTES * 8 / 5 }>().doing("no password")?;
    let letters = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    Ok(letters.collect())
}

/// Everything the demo runs.
#[derive(Debug)]
pub(super) struct Stage {
    /// The throw-away folder.
    pub(super) folder: PathBuf,
    /// Where everything listens.
    pub(super) ports: Ports,
    /// The configuration.
    pub(super) config: PathBuf,
    /// The authority that vouches for Curfew here.
    pub(super) ca: PathBuf,
    /// The log's verifier key.
    pub(super) key: String,
    /// Who can sign in.
    pub(super) users: Vec<User>,
    /// The gateway.
    pub(super) curfew: Child,
    /// The database behind it.
    pub(super) postgres: Postgres,
}

impl Stage {
    /// Builds everything, telling what is under way.
    pub(super) async fn build(pace: Pace, tell: &mut dyn FnMut(&str)) -> Outcome<Self> {
        let folder = tempfile::Builder::new()
            .prefix("curfew-demo-")
            .tempdir()
            .doing("cannot make a folder for the demo")?;
        tell("Starting PostgreSQL …");
        let postgres = Postgres::start(folder.path(), password()?).await?;
        // From here on PostgreSQL's guard removes the folder, whatever becomes of us.
        let folder = folder.keep();
        tell("Starting the sample app and Curfew …");
        let ports = match pace {
            Pace::People => Ports {
                web: port_or_free(WEB_PORT)?,
                postgres: port_or_free(POSTGRES_PORT)?,
                app: app::start().await?.port(),
                upstream: postgres.port,
            },
            Pace::Walk => Ports {
                web: free_port()?,
                postgres: free_port()?,
                app: app::start().await?.port(),
                upstream: postgres.port,
            },
        };
        let ca = files::certificates(&folder)?;
        let config = files::configuration(&folder, ports, pace)?;
        let loaded = configuration::load(&config)?;
        for database in &loaded.config.postgres {
            postgres.set_up(database).await?;
        }
        let key = DataDir::of(&loaded.config)
            .create(ORIGIN)
            .doing("cannot make the data folder")?;
        let curfew = serve(&folder, &config).await?;
        let users = users(&DataDir::of(&loaded.config)).await?;
        Ok(Self {
            folder,
            ports,
            config,
            ca,
            key,
            users,
            curfew,
            postgres,
        })
    }

    /// Starts Curfew again.
    pub(super) async fn start_curfew(&mut self) -> Outcome {
        self.curfew = serve(&self.folder, &self.config).await?;
        Ok(())
    }

    /// A user of the demo.
    pub(super) fn user(&self, name: &str) -> Outcome<&User> {
        let found = self.users.iter().find(|user| user.name == name);
        found.ok_or_else(|| Failure::failed(format_args!("the demo has no user {name}")))
    }

    /// Curfew's own pages.
    pub(super) fn portal(&self) -> String {
        format!("https://{PORTAL}:{}", self.ports.web)
    }

    /// The sample app behind Curfew.
    pub(super) fn shop(&self) -> String {
        format!("https://{SHOP}:{}", self.ports.web)
    }

    /// The sample API behind Curfew.
    pub(super) fn api(&self) -> String {
        format!("https://{API}:{}", self.ports.web)
    }

    /// The data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Stops everything and leaves nothing.
    pub(super) async fn close(mut self) {
        self.curfew.stop().await;
        self.postgres.stop().await;
        // Where the guard was killed, the folder is still there.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(folder: &Path, config: &Path) -> Outcome<Child> {
    let own = std::env::current_exe().doing("cannot find our own program")?;
    let mut command = Command::new(own);
    command
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(["--json", "--until-stdin-ends"]);
    let log = folder.join("curfew.log");
    let mut child = Child::start(command, &log, true)?;
    let ready = async {
        let stdout = child.process.stdout.take()?;
        BufReader::new(stdout)
            .lines()
            .next_line()
            .await
            .ok()
            .flatten()
    };
    match tokio::time::timeout(CURFEW_START, ready).await {
        Ok(Some(_)) => Ok(child),
        Ok(None) | Err(_) => {
            child.stop().await;
            let said = fs::read_to_string(&log).unwrap_or_default();
            Err(Failure::failed(format_args!(
                "Curfew did not start: {}",
                said.trim()
            )))
        }
    }
}

async fn users(data: &DataDir) -> Outcome<Vec<User>> {
    let mut users = Vec::new();
    for (name, role) in [("ana", "analyst"), ("dan", "dba")] {
        let password = password()?;
        let operation = Operation::UserAdd {
            name: name.parse().doing(name)?,
            roles: [role.parse().doing(role)?].into(),
            password: password.clone().into(),
        };
        let answer = control::request(&data.control_socket(), &operation).await;
        match answer.doing("Curfew does not take operations")? {
            Answer::Enrolled { uri, secret, .. } => {
                code::code(&secret, 0)?;
                users.push(User {
                    name,
                    role,
                    password,
                    secret,
                    uri,
                });
            }
            Answer::Failed(text) => return Err(Failure::failed(text)),
            Answer::Done | Answer::Users(_) | Answer::Sessions(_) | Answer::Status(_) => {
                return Err(Failure::failed("Curfew gave no enrolment"));
            }
        }
    }
    Ok(users)
}

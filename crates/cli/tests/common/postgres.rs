//! A real PostgreSQL for the tests of the real program.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The account of the database.
pub(crate) const ACCOUNT: &str = "curfew";
/// Its password, and that of everybody else in the tests.
pub(crate) const PASSWORD: &str = "a long enough one 42";

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Where PostgreSQL's programs are.
pub(crate) fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.pop().unwrap().join("bin").join(name)
}

/// The account the server runs as: PostgreSQL refuses root.
fn ids() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Our own program, with its errors going to a file and its life tied to ours.
pub(crate) fn curfew(folder: &Path, log: &str) -> Command {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join(log))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    command
}

/// Makes a cluster and runs it until we are gone; then the whole folder is removed.
pub(crate) fn start(folder: &Path) -> (Child, u16) {
    use std::os::unix::process::CommandExt;
    let ids = ids();
    let home = folder.join("postgres");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("pw"), PASSWORD).unwrap();
    if let Some((uid, gid)) = ids {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
        chown(&home, Some(uid), Some(gid)).unwrap();
        chown(home.join("pw"), Some(uid), Some(gid)).unwrap();
    }
    let mut initdb = Command::new(program("initdb"));
    initdb
        .args(["-U", ACCOUNT, "-A", "scram-sha-256", "-E", "UTF8"])
        .args(["--locale=C", "--no-sync", "--no-instructions"])
        .arg(format!("--pwfile={}", home.join("pw").display()))
        .arg("-D")
        .arg(home.join("data"))
        .current_dir("/")
        .stdout(Stdio::null());
    if let Some((uid, gid)) = ids {
        initdb.uid(uid).gid(gid);
    }
    assert!(initdb.status().unwrap().success());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut guard = curfew(folder, "postgres.log");
    guard.arg("guard");
    if let Some((uid, gid)) = ids {
        guard.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    guard.arg("--remove").arg(folder).arg("--");
    guard.arg(program("postgres"));
    guard.arg("-D").arg(home.join("data"));
    let port_setting = format!("port={port}");
    for setting in [
        "listen_addresses=127.0.0.1",
        &port_setting,
        "unix_socket_directories=",
        "fsync=off",
        "max_connections=100",
    ] {
        guard.args(["-c", setting]);
    }
    let guard = guard.stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(start.elapsed() < START, "PostgreSQL does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    (guard, port)
}

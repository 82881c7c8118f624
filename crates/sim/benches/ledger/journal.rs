//! The journal's daemon (systemd-journald), sealing, in a place of its own.
//!
//! It runs in a mount namespace in which its folders are ours, so that the machine's own journal, if there
//! is one, is left alone. That takes root. Each group of messages is followed by `Synchronize` of
//! `io.systemd.Journal`. Its answer says that all were written and that their sync was begun, which is less
//! than durable.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{ENTRY_BYTES, Measured, commits};

const DAEMON: &str = "/lib/systemd/systemd-journald";

/// As little beside writing as can be, and no limit that would drop messages.
const CONFIGURATION: &str = "[Journal]\nStorage=persistent\nSeal=yes\nCompress=no\nSystemMaxUse=4G\n\
     RateLimitIntervalSec=0\nRateLimitBurst=0\nForwardToSyslog=no\nForwardToWall=no\n";

/// `$1` has the folders `run` and `log`, and the configuration.
const START: &str = "set -e
mkdir -p /run/systemd/journal /var/log/journal
mount --bind \"$1/run\" /run/systemd/journal
mount --bind \"$1/log\" /var/log/journal
mount --bind \"$1/conf\" /etc/systemd/journald.conf
mkdir -p /var/log/journal/$(cat /etc/machine-id)
journalctl --setup-keys --interval=1h >/dev/null 2>&1
exec /lib/systemd/systemd-journald";

/// A running daemon; ended with it.
struct Daemon {
    child: Child,
    run: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// `None` where it cannot run: it is not installed, or this is not root.
    fn start(folder: &Path) -> Option<Daemon> {
        let place = std::path::absolute(folder.join("journal")).unwrap();
        let run = place.join("run");
        for folder in [&run, &place.join("log")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(place.join("conf"), CONFIGURATION).unwrap();
        // It writes to memory until it is told that the disk is there.
        std::fs::write(run.join("flushed"), "").unwrap();
        let mut start = Command::new("unshare");
        start.args(["--mount", "--", "sh", "-c", START, "sh"]);
        start.arg(&place).stdin(Stdio::null());
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let child = Path::new(DAEMON).exists().then(|| start.spawn().ok())??;
        let mut daemon = Daemon { child, run };
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            if daemon.child.try_wait().unwrap().is_some() {
                return None;
            }
            if daemon.synchronize().is_ok() {
                return Some(daemon);
            }
        }
        None
    }

    fn synchronize(&self) -> std::io::Result<()> {
        let mut control = UnixStream::connect(self.run.join("io.systemd.journal"))?;
        control.set_read_timeout(Some(Duration::from_secs(30)))?;
        control.write_all(b"{\"method\":\"io.systemd.Journal.Synchronize\"}\0")?;
        let mut answer = Vec::new();
        BufReader::new(control).read_until(0, &mut answer)?;
        let is_done = answer == b"{\"parameters\":{}}\0";
        is_done.then_some(()).ok_or_else(|| {
            let text = String::from_utf8_lossy(&answer);
            std::io::Error::other(format!("the journal answers {text}"))
        })
    }
}

/// Messages a second in groups of `rows`; `None` where the daemon cannot run.
pub(crate) fn journal(folder: &Path, rows: usize, time: Duration) -> Option<Measured> {
    let daemon = Daemon::start(folder)?;
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(daemon.run.join("socket")).unwrap();
    let mut message = b"MESSAGE=".to_vec();
    message.resize(message.len() + ENTRY_BYTES, b'x');
    message.push(b'\n');
    let measured = commits(rows, time, |_| {
        for _ in 0..rows {
            socket.send(&message).unwrap();
        }
        daemon.synchronize().unwrap();
    });
    Some(measured)
}

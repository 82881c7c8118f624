//! Forwarding to rsyslog as Debian has it, with either of its TLS drivers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curfew_ledger::LogReader;

use super::{Arrived, LONG, Place, nothing_is_missing, record, wait};

/// A running rsyslogd that writes what it has parsed, a message a line.
struct Rsyslog<'a> {
    place: &'a Place,
    driver: &'static str,
    /// An address of this test alone.
    address: String,
    child: Option<Child>,
}

impl Drop for Rsyslog<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where a TLS driver of rsyslog's is.
fn has_driver(driver: &str) -> bool {
    let mut folders = vec![
        PathBuf::from("/usr/lib64/rsyslog"),
        "/usr/lib/rsyslog".into(),
    ];
    let by_machine = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    folders.extend(by_machine.map(|folder| folder.path().join("rsyslog")));
    let file = format!("lmnsd_{driver}.so");
    folders.iter().any(|folder| folder.join(&file).is_file())
}

impl<'a> Rsyslog<'a> {
    /// Starts it. Where it is not installed, one line says so.
    async fn start(place: &'a Place, driver: &'static str, last: u8) -> Option<Self> {
        if !has_driver(driver) {
            let why = format!("no rsyslog with the driver {driver} on this machine");
            crate::left_out::left_out("rsyslog", &why);
            return None;
        }
        let [.., a, b] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{b}.{last}", a.max(1));
        let made = rcgen::generate_simple_self_signed(vec![address.clone()]).unwrap();
        place.write("rsyslog-cert.pem", &made.cert.pem());
        place.write("rsyslog-key.pem", &made.signing_key.serialize_pem());
        let mut started = Self {
            place,
            driver,
            address,
            child: None,
        };
        place.write("rsyslog.conf", &started.configuration());
        started.run().await;
        Some(started)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(name)
    }

    /// As docs/export.md shows it.
    fn configuration(&self) -> String {
        let (driver, address) = (self.driver, &self.address);
        let folder = self.place.folder.path().display();
        format!(
            r#"
global(workDirectory="{folder}" maxMessageSize="64k" DefaultNetstreamDriver="{driver}"
       DefaultNetstreamDriverCAFile="{folder}/rsyslog-cert.pem"
       DefaultNetstreamDriverCertFile="{folder}/rsyslog-cert.pem"
       DefaultNetstreamDriverKeyFile="{folder}/rsyslog-key.pem")
module(load="imtcp" StreamDriver.Name="{driver}" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
template(name="parsed" type="string"
         string="%syslogfacility% %app-name% %hostname% %structured-data%\n")
ruleset(name="curfew") {{
    action(type="omfile" file="{folder}/rsyslog.out" template="parsed")
}}
input(type="imtcp" address="{address}" port="6514" ruleset="curfew")
"#
        )
    }

    /// Runs it until it listens.
    async fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.at("rsyslog.err"));
        // A daemon: where it lies is not on everybody's path.
        let usual = Path::new("/usr/sbin/rsyslogd");
        let program = if usual.is_file() {
            usual
        } else {
            Path::new("rsyslogd")
        };
        let child = Command::new(program)
            .arg("-n")
            .arg("-f")
            .arg(self.at("rsyslog.conf"))
            .arg("-i")
            .arg(self.at("rsyslog.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.child = Some(child.unwrap());
        let start = Instant::now();
        while tokio::net::TcpStream::connect((self.address.as_str(), 6514))
            .await
            .is_err()
        {
            let said = std::fs::read_to_string(self.at("rsyslog.err")).unwrap();
            assert!(start.elapsed() < LONG, "it does not listen: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it as the system would, so that it writes down what it has.
    async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let stopped = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let stopped = tokio::time::timeout(LONG, stopped).await;
        stopped.expect("it stops").unwrap();
    }

    fn forward(&self, plain_close: bool) -> String {
        format!(
            "[[forward]]\nname = \"siem\"\nkind = \"syslog\"\nca = \"rsyslog-cert.pem\"\n\
             address = \"{}:6514\"\nwindow = \"300ms\"\nplain_close = {plain_close}\n",
            self.address
        )
    }
}

/// What rsyslog has written, as it has understood it.
fn written(path: &Path) -> Vec<Arrived> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| {
        assert!(
            line.starts_with("13 curfew curfew.test [curfew@32473 "),
            "{line}"
        );
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        Arrived {
            index: field("index").parse().unwrap(),
            leaf: field("leaf"),
        }
    });
    lines.collect()
}

/// Waits until everything that is recorded now is acknowledged, durably, and written by rsyslog.
async fn forwarded(place: &Place, out: &Path) -> u64 {
    let size = LogReader::open(&place.ledger()).unwrap().size();
    wait("the cursor", || (place.cursor() >= size).then_some(())).await;
    let last = || {
        written(out)
            .last()
            .is_some_and(|last| last.index + 1 >= size)
    };
    wait("the last line", || last().then_some(())).await;
    size
}

/// Everything comes, in order; an absence loses nothing.
async fn goes_through(driver: &'static str, plain_close: bool, last: u8) {
    let place = Place::new();
    let Some(mut rsyslog) = Rsyslog::start(&place, driver, last).await else {
        return;
    };
    let out = rsyslog.at("rsyslog.out");
    let forward = rsyslog.forward(plain_close);
    let running = place.start(&forward).await;
    record(&running, 5_000).await;
    let size = forwarded(&place, &out).await;
    let came = written(&out);
    assert_eq!(came, place.expected(came.len() as u64));
    assert!(came.len() as u64 >= size);
    running.stop().await.unwrap();

    // Between two of its windows: stopping has the last one confirmed.
    rsyslog.stop().await;
    let running = place.start(&forward).await;
    record(&running, 50).await;
    let trouble = || place.signed() >= size + 50;
    wait("a checkpoint", || trouble().then_some(())).await;
    assert!(place.cursor() < size + 50);
    rsyslog.run().await;
    forwarded(&place, &out).await;
    running.stop().await.unwrap();
    let came = written(&out);
    nothing_is_missing(&came);
    let size = came.iter().map(|one| one.index + 1).max().unwrap();
    let expected = place.expected(size);
    for one in &came {
        assert_eq!(expected[usize::try_from(one.index).unwrap()], *one);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_on_openssl_confirms_what_it_got() {
    goes_through("ossl", false, 61).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_on_gnutls_gets_everything_where_its_plain_close_is_taken() {
    goes_through("gtls", true, 62).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_on_gnutls_confirms_nothing_so_its_plain_close_is_not_taken_by_itself() {
    let place = Place::new();
    let Some(rsyslog) = Rsyslog::start(&place, "gtls", 63).await else {
        return;
    };
    let running = place.start(&rsyslog.forward(false)).await;
    let out = rsyslog.at("rsyslog.out");
    // The same window comes again.
    let again = || written(&out).iter().filter(|one| one.index == 0).count() > 1;
    wait("a repetition", || again().then_some(())).await;
    assert_eq!(place.cursor(), 0);
    running.stop().await.unwrap();
}

//! Forwarding and exporting to rotel: a collector, with a reader and a writer of OTLP, that nobody
//! here wrote. What it passes on is what it understood. It may do so in another order, or twice.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderMap;
use axum::routing::post;
use curfew_entry::Verb;
use curfew_export::{Exporter, Format, Packing, Record, Source, Stream, otlp};
use curfew_ledger::LogReader;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;

use super::collector::{arrived, attribute, text};
use super::person::Person;
use super::standing::until;
use super::{LONG, Place, record, wait};

/// It is young: another version may do otherwise.
const ROTEL: &str = "rotel==0.0.1a15";

/// A record with what stands above it.
#[derive(Clone, Debug, PartialEq)]
struct Passed {
    resource: Vec<KeyValue>,
    scope: Option<InstrumentationScope>,
    record: LogRecord,
}

impl Passed {
    fn index(&self) -> u64 {
        arrived(&self.record).index
    }
}

fn passed(request: ExportLogsServiceRequest) -> Vec<Passed> {
    let mut all = Vec::new();
    for logs in request.resource_logs {
        let resource = logs.resource.unwrap_or_default().attributes;
        for scoped in logs.scope_logs {
            all.extend(scoped.log_records.into_iter().map(|record| Passed {
                resource: resource.clone(),
                scope: scoped.scope.clone(),
                record,
            }));
        }
    }
    all
}

/// Where rotel passes everything on to.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Passed>>>);

impl Sink {
    /// Gives its URL too.
    async fn start() -> (Self, String) {
        let sink = Self::default();
        let taking = sink.clone();
        let take = move |head: HeaderMap, body: Bytes| async move { taking.take(&head, &body) };
        let router = axum::Router::new()
            .route("/v1/logs", post(take))
            .layer(DefaultBodyLimit::disable());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (sink, format!("http://{address}"))
    }

    fn take(&self, head: &HeaderMap, body: &[u8]) -> [(&'static str, &'static str); 1] {
        assert_eq!(head["content-type"], "application/x-protobuf");
        let mut plain = Vec::new();
        if head.get("content-encoding").is_some_and(|it| it == "gzip") {
            std::io::copy(&mut GzDecoder::new(body), &mut plain).unwrap();
        } else {
            plain.extend_from_slice(body);
        }
        let request = ExportLogsServiceRequest::decode(plain.as_slice()).unwrap();
        self.0.lock().unwrap().extend(passed(request));
        [("content-type", "application/x-protobuf")]
    }

    /// Of one moment.
    fn all(&self) -> Vec<Passed> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until it has every entry from `from` to `to`.
    async fn has(&self, from: u64, to: u64) {
        wait("what rotel passes on", || {
            let seen = self.0.lock().unwrap();
            let seen: std::collections::BTreeSet<u64> = seen.iter().map(Passed::index).collect();
            (from..to).all(|index| seen.contains(&index)).then_some(())
        })
        .await;
    }
}

/// Puts rotel into a folder, for this test alone. Where that cannot be, one line says so.
fn installed(folder: &Path) -> Option<PathBuf> {
    let into = folder.join("rotel");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--disable-pip-version-check", "--retries", "1"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(&into)
        .arg(ROTEL);
    let program = into.join("rotel/rotel-agent");
    let mut version = Command::new(&program);
    version.arg("version");
    for (what, mut command) in [("cannot be installed", pip), ("does not run", version)] {
        let problem = match command.output() {
            Ok(done) if done.status.success() => continue,
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                said.trim().lines().last().unwrap_or_default().to_owned()
            }
            Err(error) => format!("{}: {error}", command.get_program().display()),
        };
        let why = format!("{ROTEL} from PyPI {what} here: {problem}");
        crate::left_out::left_out("rotel", &why);
        return None;
    }
    Some(program)
}

/// A running rotel.
struct Rotel<'a> {
    place: &'a Place,
    program: PathBuf,
    /// An address of this test alone.
    address: String,
    /// Where it passes everything on to.
    to: String,
    child: Option<Child>,
}

impl Drop for Rotel<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

impl<'a> Rotel<'a> {
    async fn start(place: &'a Place, to: String) -> Option<Self> {
        let folder = place.folder.path().to_path_buf();
        let program = tokio::task::spawn_blocking(move || installed(&folder));
        let program = program.await.unwrap()?;
        let [.., a, b] = std::process::id().to_be_bytes();
        let mut started = Self {
            place,
            program,
            address: format!("127.{}.{b}.64", a.max(1)),
            to,
            child: None,
        };
        started.run().await;
        Some(started)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(name)
    }

    /// Runs it until it listens.
    async fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.at("rotel.err"))
            .unwrap();
        let child = Command::new(&self.program)
            .arg("start")
            .args(["--otlp-http-endpoint", &format!("{}:4318", self.address)])
            .args(["--otlp-grpc-endpoint", &format!("{}:4317", self.address)])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &self.to])
            .arg("--pid-file")
            .arg(self.at("rotel.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let start = Instant::now();
        while tokio::net::TcpStream::connect((self.address.as_str(), 4318))
            .await
            .is_err()
        {
            let said = std::fs::read_to_string(self.at("rotel.err")).unwrap();
            assert!(start.elapsed() < LONG, "it does not listen: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// At once, as a breakdown of its machine would.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        format!("http://{}:4318/v1/logs", self.address)
    }

    fn forward(&self) -> String {
        let url = self.url();
        format!("[[forward]]\nname = \"siem\"\nkind = \"otlp\"\nurl = \"{url}\"\n")
    }

    /// Posts a line of an export.
    async fn post(&self, line: String) {
        let request = reqwest::Client::new().post(self.url());
        let request = request.header("content-type", "application/json");
        let answer = request.body(line).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(answer["partialSuccess"].is_null(), "{text}");
    }
}

/// All records of the log as it is now.
fn records(place: &Place) -> Vec<Record> {
    let reader = LogReader::open(&place.ledger()).unwrap();
    let mut stream = Stream::new();
    let entries = reader.range(0..reader.size()).map(Result::unwrap);
    entries
        .map(|(index, bytes)| stream.record(index, bytes))
        .collect()
}

/// Each is what the log has under its index: the whole of it, and with whose it is.
fn are_the_logs(place: &Place, all: &[Passed]) {
    let records = records(place);
    let wanted = passed(otlp::request(&records, &Source::of("curfew.test/log")));
    let leaves = place.expected(records.len() as u64);
    for one in all {
        let index = usize::try_from(one.index()).unwrap();
        assert_eq!(*one, wanted[index]);
        assert_eq!(arrived(&one.record), leaves[index]);
        let entry = String::from_utf8(records[index].bytes.clone()).unwrap();
        assert_eq!(text(&one.record.body), Some(entry));
    }
    let of_a_session = ["curfew.session.started", "curfew.action.denied"];
    for kind in of_a_session {
        let ones = all.iter().filter(|one| one.record.event_name == kind);
        let names: Vec<_> = ones
            .map(|one| attribute(&one.record, "user.name"))
            .collect();
        let ana = Some(Value::StringValue("ana".to_owned()));
        assert!(
            !names.is_empty() && names.iter().all(|name| *name == ana),
            "{kind}: {names:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotel_gets_every_entry_whole_live_and_in_an_export_and_its_death_loses_none() {
    let place = Place::new();
    let (sink, to) = Sink::start().await;
    let Some(mut rotel) = Rotel::start(&place, to).await else {
        return;
    };
    let forward = rotel.forward();
    let running = place.start(&forward).await;
    let ana = Person::new(running.registrar()).await;
    let refused = ana.ask(running.registrar(), Verb::WebRead, "nothing").await;
    assert!(refused.is_err());
    record(&running, 600).await;
    let size = LogReader::open(&place.ledger()).unwrap().size();
    wait("the cursor", || (place.cursor() >= size).then_some(())).await;
    sink.has(0, size).await;
    are_the_logs(&place, &sink.all());

    // What it has not acknowledged when it dies comes when it is back.
    rotel.kill();
    record(&running, 300).await;
    until(&place, |_, follower| follower.failing.is_some()).await;
    let has = place.cursor();
    let size = LogReader::open(&place.ledger()).unwrap().size();
    assert!(has < size);
    rotel.run().await;
    wait("the cursor", || (place.cursor() >= size).then_some(())).await;
    sink.has(has, size).await;
    running.stop().await.unwrap();
    are_the_logs(&place, &sink.all());

    // An export is the same once more.
    sink.0.lock().unwrap().clear();
    let mut exported = Vec::new();
    let source = Source::of("curfew.test/log");
    let exporter = Exporter::new(Format::Otlp, Packing::Plain, source, &mut exported);
    let (mut exporter, records) = (exporter.unwrap(), records(&place));
    let size = records.len() as u64;
    for record in records {
        exporter.push(record).unwrap();
    }
    exporter.finish().unwrap();
    for line in String::from_utf8(exported).unwrap().lines() {
        rotel.post(line.to_owned()).await;
    }
    sink.has(0, size).await;
    are_the_logs(&place, &sink.all());
}

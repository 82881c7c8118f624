//! What clients of both planes see of an outage of the audit log, and what becomes of it.

use std::process::Command as Process;
use std::time::{Duration, Instant};

use curfew_entry::Event;
use tokio_postgres::error::SqlState;

use crate::disk::{Fault, Small};
use crate::kit::{Person, Place, Served};
use crate::left_out::left_out;

/// How long the disk may take to fill, and the gateway to take entries again.
const SOON: Duration = Duration::from_secs(60);

/// A gateway whose disk will fail, and somebody at work on both planes.
struct Work {
    place: Place,
    served: Served,
    ana: Person,
    http: reqwest::Client,
    sql: tokio_postgres::Client,
    /// The table that is written to.
    table: String,
    /// Requests made so far: each has a path of its own.
    requests: usize,
}

impl Work {
    async fn begin(folder: &std::path::Path, table: &str) -> Self {
        let place = Place::new(folder).await;
        let ana = place.session("ana", "worker").await;
        let served = place.serve();
        let mut work = Self {
            http: place.client(&ana.bearer),
            sql: place.connect(&ana).await.unwrap(),
            table: table.to_owned(),
            place,
            served,
            ana,
            requests: 0,
        };
        let create = format!("create table {table} (a int)");
        work.sql.batch_execute(&create).await.unwrap();
        work.insert().await.unwrap();
        assert_eq!(work.post().await.status(), 200);
        work
    }

    async fn insert(&self) -> Result<(), tokio_postgres::Error> {
        let insert = format!("insert into {} values (1)", self.table);
        self.sql.batch_execute(&insert).await
    }

    /// Rows that are really there, seen around the gateway.
    async fn rows(&self) -> i64 {
        let count = format!("select count(*) from {}", self.table);
        let direct = self.place.direct().await;
        direct.query_one(&count, &[]).await.unwrap().get(0)
    }

    async fn post(&mut self) -> reqwest::Response {
        self.requests += 1;
        // A long path fills a segment sooner.
        let path = format!("/{}/{}", self.requests, "x".repeat(1_000));
        self.http.post(self.place.url(&path)).send().await.unwrap()
    }

    /// Asks until the ledger takes nothing more, and gives the first refusal.
    async fn until_refused(&mut self) -> reqwest::Response {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < SOON, "nothing is ever refused");
            let first = self.requests;
            self.requests += 64;
            let answers = (first..self.requests).map(|number| {
                let path = format!("/{number}/{}", "y".repeat(1_000));
                self.http.post(self.place.url(&path)).send()
            });
            let answers = futures_util::future::join_all(answers).await;
            let mut answers = answers.into_iter().flatten();
            if let Some(refused) = answers.find(|answer| answer.status() != 200) {
                return refused;
            }
        }
    }

    /// Both planes refuse in their own words, and nothing gets through.
    async fn refused(&mut self, state: &SqlState) {
        let refused = self.until_refused().await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        let text = refused.text().await.unwrap();
        assert!(text.contains("audit log"), "{text}");

        assert!(self.served.runs(), "it never dies of its disk");
        let before = self.rows().await;
        let error = self.insert().await.unwrap_err();
        told(&error, state);
        let read = format!("select a from {}", self.table);
        told(&self.sql.batch_execute(&read).await.unwrap_err(), state);
        told(&self.place.connect(&self.ana).await.err().unwrap(), state);
        assert_eq!(self.rows().await, before, "a statement went unrecorded");
        assert!(self.served.runs(), "it never dies of its disk");
    }

    /// Without a restart, and on the connection that was there before, work goes on.
    async fn recovers(&mut self) {
        let start = Instant::now();
        while self.post().await.status() != 200 {
            assert!(start.elapsed() < SOON, "it does not recover");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let before = self.rows().await;
        self.insert().await.unwrap();
        self.place.connect(&self.ana).await.unwrap();
        assert_eq!(self.rows().await, before + 1);
        let events = self.place.events();
        let noted = |wanted: fn(&Event) -> bool| events.iter().any(wanted);
        assert!(noted(|event| matches!(
            event,
            Event::RecordingFailed { .. }
        )));
        assert!(noted(|event| matches!(
            event,
            Event::RecordingResumed { .. }
        )));
    }

    /// After kill -9: everything that reached the app is on record, and the log holds.
    fn holds(self) {
        self.served.kill();
        self.place.mend();
        let events = self.place.events();
        let allowed = |path: &str| {
            events.iter().any(|event| {
                matches!(event, Event::ActionAllowed { action, .. }
                    if action.path.as_deref() == Some(path))
            })
        };
        for path in self.place.reached() {
            assert!(allowed(&path), "{path} went unrecorded");
        }
        let (whole, report) = self.place.verify();
        assert!(whole, "{report}");
    }
}

/// What a database client is told.
#[track_caller]
fn told(error: &tokio_postgres::Error, state: &SqlState) {
    let told = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(told.code(), state, "{told}");
    assert!(told.message().contains("audit log"), "{told}");
    assert!(told.hint().is_some(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_on_both_planes_and_recovers_without_a_restart() {
    let Some(small) = Small::in_memory() else {
        return;
    };
    let mut work = Work::begin(small.path(), "full_disk").await;
    let fault = Fault::full(small.path());
    work.refused(&SqlState::DISK_FULL).await;
    drop(fault);
    work.recovers().await;
    work.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sync_refuses_on_both_planes_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = Work::begin(dir.path(), "failing_sync").await;
    let Some(fault) = Fault::calls(&work.served, "fsync,fdatasync", "EIO") else {
        return;
    };
    work.refused(&SqlState::CANNOT_CONNECT_NOW).await;
    drop(fault);
    work.recovers().await;
    work.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_writes_refuses_on_both_planes_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = Work::begin(dir.path(), "no_writes").await;
    let calls = "pwrite64,ftruncate,fsync,fdatasync";
    let Some(fault) = Fault::calls(&work.served, calls, "EROFS") else {
        return;
    };
    work.refused(&SqlState::CANNOT_CONNECT_NOW).await;
    drop(fault);
    work.recovers().await;
    work.holds();
}

/// What the kernel does to a file system whose disk has an error. It stays like that until it is
/// mounted again, so that here only a restart mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_turns_read_only_refuses_on_both_planes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::ext4(folder.path()) else {
        return;
    };
    let Some(trigger) = small.trigger() else {
        let why = "this kernel has no way to trigger an error of ext4";
        left_out("trigger_fs_error", why);
        return;
    };
    let mut work = Work::begin(small.path(), "read_only").await;
    std::fs::write(trigger, "the test").unwrap();
    work.refused(&SqlState::CANNOT_CONNECT_NOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_is_named_at_the_start() {
    let Some(small) = Small::in_memory() else {
        return;
    };
    let place = Place::new(small.path()).await;
    place.session("ana", "worker").await;
    let read_only = Process::new("mount")
        .args(["-o", "remount,ro"])
        .arg(small.path())
        .status()
        .unwrap();
    assert!(read_only.success());
    let said = place.refused();
    assert!(said.contains("Read-only file system"), "{said}");
}

//! `curfew database`: the accounts of a database, made, looked at, and told of by a gateway that runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on must stop"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests start programs, and may wait"
)]

mod common;
#[path = "common/postgres.rs"]
mod postgres;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{CONFIG, POLICY, Place, Ran};
use postgres::{ACCOUNT, PASSWORD};

/// How long a gateway may take to notice what was put right: it looks every ten seconds.
const NOTICE: Duration = Duration::from_secs(30);

/// A server, a folder with a configuration for it, and what ends the server.
struct Scene {
    place: Place,
    port: u16,
    guard: Child,
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn configuration(port: u16) -> String {
    let web = CONFIG.replace("[tls]", "postgres = \"127.0.0.1:0\"\n\n[tls]");
    let mut text = format!(
        "{web}\n[[postgres]]\nname = \"orders\"\nenvironment = \"test\"\nhost = \"127.0.0.1\"\n\
         port = {port}\ndatabase = \"postgres\"\ntls = \"disable\"\n"
    );
    for class in ["connect", "read", "write", "ddl"] {
        text += &format!(
            "[postgres.accounts.{class}]\nuser = \"orders_{class}\"\npassword_file = \"{class}.password\"\n"
        );
    }
    text
}

impl Scene {
    fn set() -> Self {
        let folder = tempfile::Builder::new().prefix("curfew-test-").tempdir();
        let (guard, port) = postgres::start(&folder.unwrap().keep());
        let place = Place::new(&configuration(port), POLICY);
        let scene = Self { place, port, guard };
        let until = Instant::now() + Duration::from_secs(20);
        while !scene.psql("select 1").status.success() {
            assert!(Instant::now() < until, "PostgreSQL takes no connections");
            std::thread::sleep(Duration::from_millis(50));
        }
        scene
    }

    /// Runs SQL as the superuser with psql.
    fn psql(&self, sql: &str) -> std::process::Output {
        let psql = Command::new(postgres::program("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .args(["-h", "127.0.0.1", "-U", ACCOUNT, "-d", "postgres", "-p"])
            .arg(self.port.to_string())
            .env("PGPASSWORD", PASSWORD)
            .output();
        psql.unwrap()
    }

    fn done(&self, sql: &str) {
        let done = self.psql(sql);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Gives libpq's password file the superuser's password.
    fn know_password(&self) {
        let file = self.place.path().join(".pgpass");
        std::fs::write(
            &file,
            format!("127.0.0.1:{}:*:{ACCOUNT}:{PASSWORD}\n", self.port),
        )
        .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn apply(&self, more: &[&str]) -> Ran {
        let arguments = ["database", "setup", "orders", "--apply", "--as", ACCOUNT];
        self.place.run(&[&arguments[..], more].concat())
    }
}

#[test]
fn accounts_are_set_up_once_it_is_said_who_keeps_what_everybody_loses() {
    let scene = Scene::set();
    scene.done("create role app login; create table orders (id int)");

    // Nobody has run anything yet.
    let ran = scene.place.run(&["database", "check"]);
    assert_eq!(ran.code(), Some(1));
    assert!(
        ran.out().contains("connect.password: No such file"),
        "{}",
        ran.out()
    );
    let printed = scene.place.run(&["database", "setup", "orders"]).ok();
    let file = scene.place.path().join("read.password");
    let password = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(!printed.out().contains(password.trim_end()));
    assert!(
        printed
            .out()
            .starts_with("-- The accounts by which Curfew uses"),
        "{}",
        printed.out()
    );

    // A password is needed and there is nobody to ask; then it is in the file.
    let ran = scene.apply(&[]);
    assert_ne!(ran.code(), Some(0));
    assert!(
        ran.err().contains("a password is asked for at a terminal"),
        "{}",
        ran.err()
    );
    scene.know_password();
    let ran = scene.apply(&[]);
    assert_eq!(ran.code(), Some(2), "{}", ran.err());
    assert!(
        ran.err()
            .contains("these roles would lose what is taken from PUBLIC: app"),
        "{}",
        ran.err()
    );
    let ran = scene.apply(&["--grant-back", "app"]).ok();
    assert!(
        ran.out().contains("no more than their classes"),
        "{}",
        ran.out()
    );
    let kept =
        scene.psql("select has_function_privilege('app', 'pg_notify(text, text)', 'execute')");
    assert_eq!(String::from_utf8_lossy(&kept.stdout).trim(), "t");
    // It has all been taken by now: nobody loses anything more.
    scene.apply(&[]).ok();

    // The printed SQL does the same, run with psql.
    scene.done(
        &scene
            .place
            .run(&["database", "setup", "orders", "--grant-back", "app"])
            .out(),
    );
    scene.place.run(&["database", "check", "orders"]).ok();

    scene.done("grant delete on orders to orders_read");
    let ran = scene.place.run(&["database", "check", "--json"]);
    assert_eq!(ran.code(), Some(1));
    let told: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
    assert_eq!(told["database"], "orders");
    assert_eq!(told["severity"], "error");
    assert_eq!(
        told["fix"],
        "REVOKE DELETE ON TABLE public.orders FROM orders_read;"
    );
}

#[test]
fn what_cannot_be_set_up_is_said_so() {
    let place = Place::new(&configuration(9), POLICY);
    let ran = place.run(&["database", "setup", "nothing"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.err().contains("no database `nothing`"), "{}", ran.err());
    assert!(ran.err().contains("it has: orders"), "{}", ran.err());
    let ran = place.run(&["database", "setup", "orders", "--grant-back", "all"]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.err().contains("needs --apply"), "{}", ran.err());
    let (head, _) = configuration(9)
        .split_once("[postgres.accounts.connect]")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let place = Place::new(
        &format!("{head}user = \"u\"\ntrust = \"classifier\"\n"),
        POLICY,
    );
    let ran = place.run(&["database", "setup", "orders"]);
    assert_eq!(ran.code(), Some(2));
    assert!(
        ran.err().contains("has no [postgres.accounts]"),
        "{}",
        ran.err()
    );
    let place = Place::new(&format!("{head}user = \"u\"\n"), POLICY);
    let ran = place.run(&["database", "check"]);
    assert_eq!(ran.code(), Some(2));
    assert!(
        ran.err().contains("one account, `u`, for everybody"),
        "{}",
        ran.err()
    );
    assert!(ran.err().contains("curfew.toml:"), "{}", ran.err());
}

/// A gateway of the place, until it is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn serve(place: &Place) -> Serving {
    place.certify(&["curfew.localhost"]);
    place.run(&["init"]).ok();
    let serving = Command::new(env!("CARGO_BIN_EXE_curfew"))
        .args(["serve", "--until-stdin-ends"])
        .current_dir(place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(place.path().join("serve.log")).unwrap())
        .spawn();
    Serving(serving.unwrap())
}

/// Waits until the status says this of the database.
fn until_status(place: &Place, state: &str) -> serde_json::Value {
    let until = Instant::now() + NOTICE;
    loop {
        let ran = place.run(&["status", "--json"]);
        if let Ok(status) = serde_json::from_str::<serde_json::Value>(&ran.out())
            && status["databases"][0]["state"] == state
        {
            return status["databases"][0].clone();
        }
        assert!(Instant::now() < until, "{} {}", ran.out(), ran.err());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_gateway_that_runs_tells_why_a_database_is_not_served() {
    let scene = Scene::set();
    scene.know_password();
    scene.place.run(&["database", "setup", "orders"]).ok();
    let _serving = serve(&scene.place);
    // Nobody has made the accounts.
    let told = until_status(&scene.place, "refused");
    let what = told["problems"][0]["what"].as_str().unwrap();
    assert!(
        what.contains("account `orders_connect` (connect) cannot sign in"),
        "{what}"
    );
    let shown = scene.place.run(&["status"]).ok().out();
    assert!(
        shown.contains("not served, until this is put right:"),
        "{shown}"
    );
    scene.apply(&["--grant-back", "none"]).ok();
    let told = until_status(&scene.place, "served");
    assert_eq!(told["problems"], serde_json::json!([]));
    let log = std::fs::read_to_string(scene.place.path().join("serve.log")).unwrap();
    assert!(
        log.contains("not served: database `orders`: account `orders_read`"),
        "{log}"
    );
}

#[test]
fn trust_in_the_classifier_is_warned_of_at_each_start_and_in_the_status() {
    let text = configuration(9);
    let (head, _) = text.split_once("[postgres.accounts.connect]").unwrap();
    let place = Place::new(
        &format!("{head}user = \"u\"\ntrust = \"classifier\"\n"),
        POLICY,
    );
    let _serving = serve(&place);
    let told = until_status(&place, "served");
    let what = told["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains("all sessions use the account `u`"), "{what}");
    let log = std::fs::read_to_string(place.path().join("serve.log")).unwrap();
    assert!(
        log.contains("only Curfew's reading of SQL keeps them from"),
        "{log}"
    );
}

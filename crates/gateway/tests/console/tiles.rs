//! The log over HTTP as C2SP tlog-tiles.

use std::path::Path;
use std::process::Command;

use http::{Method, StatusCode};

use crate::device::approved;
use crate::kit::{Browser, World, count, ledger};

/// How many entries the newest checkpoint covers, once there are as many as `least`.
async fn signed(reader: &mut Browser<'_>, least: u64) -> (u64, String) {
    loop {
        let note = reader.get("/log/checkpoint").await;
        assert_eq!(note.status, StatusCode::OK, "{}", note.body);
        let size = note.body.lines().nth(1).unwrap().parse().unwrap();
        if size >= least {
            return (size, note.body);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn reads(world: &World) -> usize {
    let all = ledger(world);
    all.iter().filter(|one| one["verb"] == "log.read").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_are_served_to_whoever_may_read_the_log_and_recorded_once() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let (size, note) = signed(&mut ada, 4).await;
    assert!(note.starts_with("curfew.test/log\n"), "{note}");
    let bundle = format!("/log/tile/entries/000.p/{size}");
    let entries = ada.get(&bundle).await;
    assert_eq!(entries.status, StatusCode::OK, "{}", entries.body);
    assert_eq!(entries.header("content-type"), "application/octet-stream");
    assert_eq!(entries.header("cache-control"), "no-store");
    assert!(entries.body.contains("gateway.started"));
    let leaves = ada.get(&format!("/log/tile/0/000.p/{size}")).await;
    let mut rest = &entries.bytes[..];
    for leaf in leaves.bytes.chunks(32) {
        let (length, entry) = rest.split_first_chunk().unwrap();
        let (entry, after) = entry.split_at(u16::from_be_bytes(*length).into());
        assert_eq!(leaf, curfew_ledger::merkle::leaf_hash(entry).0);
        rest = after;
    }
    assert_eq!((leaves.bytes.len() as u64, rest.len()), (32 * size, 0));
    assert_eq!(reads(&world), 1, "one entry for many files");

    // A token opens the same, and its session is the same.
    let mut cli = approved(&world, &mut ada).await;
    assert_eq!(cli.get(&bundle).await.bytes, entries.bytes);
    let head = cli.send(Method::HEAD, &bundle, &[], &[]).await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    for odd in [
        "/log/tile/entries/0",
        "/log/tile/entries/000.p/256",
        "/log/tile/9/000",
        "/log/tile/0/x001/000",
        "/log/tile/entries/../../checkpoints",
        "/log/tile/entries/%2e%2e/%2e%2e/checkpoints",
    ] {
        let answer = cli.get(odd).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{odd}");
    }

    // What witnesses have signed, once they have.
    let witnessed = ada.get("/log/witnessed").await;
    assert_eq!(witnessed.status, StatusCode::NOT_FOUND);
    let published = curfew_ledger::Published::new(&world.gateway.ledger());
    let cosigned = format!("{note}\u{2014} north.example c2lnbmVk\n");
    published.keep_witnessed(&cosigned).unwrap();
    let witnessed = cli.get("/log/witnessed").await;
    assert_eq!(
        (witnessed.status, &witnessed.body),
        (StatusCode::OK, &cosigned)
    );
    assert_eq!(
        witnessed.header("content-type"),
        "text/plain; charset=utf-8"
    );
    assert_eq!(witnessed.header("cache-control"), "no-store");

    // Neither who may not, nor who is nobody.
    let denied = count(&world, "action.denied");
    let mut bob = world.signed_in("bob").await;
    assert_eq!(bob.get(&bundle).await.status, StatusCode::FORBIDDEN);
    assert_eq!(count(&world, "action.denied"), denied + 1);
    assert_eq!(
        bob.get("/log/witnessed").await.status,
        StatusCode::FORBIDDEN
    );
    for path in ["/log/checkpoint", "/log/witnessed"] {
        let nobody = world.browser().get(path).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    // What ended does not read on.
    cli.post("/api/v1/sign-out", &[]).await;
    assert_eq!(cli.get(&bundle).await.status, StatusCode::UNAUTHORIZED);
}

/// What `tests/foreign/read.go` says of a log in a folder, where Go and its library are.
fn read_by_go(log: &Path, key: &str) -> Option<(bool, String)> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/read.go");
    let library = Path::new("/usr/share/gocode");
    if !library.join("src/golang.org/x/mod/sumdb/tlog").is_dir() {
        crate::left_out::left_out("go", "Go's golang.org/x/mod is not installed");
        return None;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut go = Command::new("go");
    go.arg("run").arg(program).arg(log).arg(key);
    go.env("GO111MODULE", "off").env("GOPATH", library);
    go.env("GOCACHE", cache.path()).env("GOFLAGS", "");
    let run = go.output().expect("go runs");
    let told = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    Some((run.status.success(), told.into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn go_reads_the_log_on_disk_and_served_and_checks_every_proof() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    // A full tile and what goes beyond it.
    while ledger(&world).len() < 300 {
        assert_eq!(ada.get("/sessions").await.status, StatusCode::OK);
    }
    let (size, note) = signed(&mut ada, 300).await;
    let disk = world.gateway.ledger();
    let key = std::fs::read_to_string(disk.join("../keys/ledger.pub")).unwrap();
    let served = tempfile::tempdir().unwrap();
    std::fs::write(served.path().join("checkpoint"), &note).unwrap();
    for path in [
        "tile/0/000".to_owned(),
        format!("tile/0/001.p/{}", size - 256),
        "tile/1/000.p/1".to_owned(),
        "tile/entries/000".to_owned(),
        format!("tile/entries/001.p/{}", size - 256),
        // Gone from the disk, since the full one is there.
        "tile/entries/000.p/7".to_owned(),
    ] {
        let answer = ada.get(&format!("/log/{path}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let lasts = path == "tile/0/000";
        assert_eq!(answer.header("cache-control").contains("immutable"), lasts);
        let file = served.path().join(&path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, &answer.bytes).unwrap();
    }
    for folder in [disk.as_path(), served.path()] {
        let Some((good, told)) = read_by_go(folder, &key) else {
            return;
        };
        assert!(good && told.starts_with("curfew.test/log: "), "{told}");
    }
    // It does look: one bit of one entry.
    let bundle = served.path().join("tile/entries/000");
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    assert!(read_by_go(served.path(), &key).is_some_and(|(good, _)| !good));
}

//! Seeing and ending sessions, and reading the log.

use http::{Method, StatusCode};

use crate::device::approved;
use crate::kit::{World, count, ledger};

fn session_of(world: &World, subject: &str) -> String {
    let entries = ledger(world);
    let started = entries
        .iter()
        .rev()
        .find(|entry| entry["kind"] == "session.started" && entry["subject"] == subject);
    started.unwrap()["session"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_all_sessions_and_ends_one() {
    let world = World::start().await;
    let mut bob = world.signed_in("bob").await;
    let mut ada = world.signed_in("ada").await;
    let target = session_of(&world, "bob");

    let page = ada.get("/sessions").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains(&target) && page.body.contains(&session_of(&world, "ada")));

    let path = format!("/sessions/{target}/end");
    let forged = ada
        .post(&path, &[("csrf", &bob.get("/").await.csrf())])
        .await;
    assert_eq!(
        forged.status,
        StatusCode::FORBIDDEN,
        "a token of another session"
    );
    let ended = ada.post(&path, &[("csrf", &page.csrf())]).await;
    assert_eq!(
        (ended.status, ended.location()),
        (StatusCode::SEE_OTHER, "/sessions")
    );

    let after = bob.get("/").await;
    assert_eq!(after.location(), "/sign-in?ended=ended_by_admin");
    let told = bob.get(after.location()).await;
    assert!(told.body.contains("An administrator ended your session"));
    let entries = ledger(&world);
    let end = entries
        .iter()
        .find(|entry| entry["kind"] == "session.ended")
        .unwrap();
    assert_eq!(end["by"]["session"], session_of(&world, "ada").as_str());
    assert_eq!(end["reason"], "ended_by_admin");

    let gone = ada.post(&path, &[("csrf", &page.csrf())]).await;
    assert_eq!(gone.location(), "/sessions", "it is over already");
    let unknown = format!("/sessions/s_{}/end", "0".repeat(24));
    let unknown = ada.post(&unknown, &[("csrf", &page.csrf())]).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_and_end_only_their_own() {
    let world = World::start().await;
    let _ada = world.signed_in("ada").await;
    let mut bob = world.signed_in("bob").await;
    let mut other = world.browser();
    other.codes_used(1);
    other.sign_in("bob", "").await;
    let own = session_of(&world, "bob");

    let page = bob.get("/sessions").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains(&own) && !page.body.contains(&session_of(&world, "ada")));
    assert!(page.body.contains("These are your own"));

    let csrf = page.csrf();
    let path = format!("/sessions/{}/end", session_of(&world, "ada"));
    assert_eq!(
        bob.post(&path, &[("csrf", &csrf)]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(count(&world, "session.ended"), 0);
    let ended = bob
        .post(&format!("/sessions/{own}/end"), &[("csrf", &csrf)])
        .await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    let again = bob
        .post(&format!("/sessions/{own}/end"), &[("csrf", &csrf)])
        .await;
    assert_eq!(again.status, StatusCode::SEE_OTHER, "a double click");
    assert_eq!(count(&world, "session.ended"), 1);
    assert_eq!(other.get("/").await.location(), "/sign-in?ended=signed_out");

    let log = bob.get("/log").await;
    assert_eq!(log.status, StatusCode::FORBIDDEN);
    let reason = "The policy does not permit this: Ask an auditor for what you need of the log.";
    assert!(log.body.contains(reason), "{}", log.body);
    assert_eq!(bob.get("/log/0").await.status, StatusCode::FORBIDDEN);
    let mut cli = approved(&world, &mut bob).await;
    let api = cli.get("/api/v1/log").await;
    assert_eq!(api.status, StatusCode::FORBIDDEN);
    assert_eq!(api.json()["error_description"], reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_name_the_person_also_after_the_end() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut bob = world.signed_in("bob").await;
    bob.get("/sessions").await;
    let csrf = bob.get("/").await.csrf();
    bob.post("/sign-out", &[("csrf", &csrf)]).await;
    let entries = ledger(&world);
    let of_bob = |entry: &&serde_json::Value| {
        entry["kind"] == "action.denied" || entry["kind"] == "session.ended"
    };
    assert!(entries.iter().filter(of_bob).count() >= 2);
    let mut cli = approved(&world, &mut ada).await;
    let told = cli.get("/api/v1/log?limit=1000").await.json();
    for item in told["entries"].as_array().unwrap() {
        let (entry, named) = (&item["entry"], &item["subject"]);
        let knows = entry.get("session").is_some() && entry.get("subject").is_none();
        assert_eq!(named.is_string(), knows, "{item}");
        if of_bob(&entry) {
            assert_eq!(named, "bob");
        }
    }
    let ended = entries
        .iter()
        .position(|entry| entry["kind"] == "session.ended");
    let path = format!("/log/{}", ended.unwrap());
    let html = [("accept", "text/html,*/*")];
    let page = ada.send(Method::GET, &path, &[], &html).await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("vary"), "accept");
    for wanted in [
        "bob: session ended: signed_out",
        "Download as JSON",
        "signed_out",
    ] {
        assert!(page.body.contains(wanted), "{wanted}: {}", page.body);
    }
    let file = format!("{path}?download=1");
    let file = ada.send(Method::GET, &file, &[], &html).await;
    assert_eq!(file.json()["kind"], "session.ended");
    assert!(
        file.header("content-disposition")
            .starts_with("attachment; filename=\"entry-")
    );
    let page = ada.get("/log").await;
    assert!(
        page.body.contains("data-label=\"Who\">bob<br>"),
        "{}",
        page.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_the_log_stands_in_the_log() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let page = ada.get("/log").await;
    assert_eq!(page.status, StatusCode::OK);
    for wanted in ["log.read", "session.started", "policy.loaded", "entries."] {
        assert!(page.body.contains(wanted), "{wanted}");
    }
    let some = ada.get("/log?kind=session").await;
    assert!(some.body.contains("session.started") && !some.body.contains("policy.loaded"));
    let none = ada.get("/log?session=s_000000000000000000000000").await;
    assert!(none.body.contains("No entry was found"));

    let first = ada.get("/log/0").await;
    assert_eq!(
        first.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(first.json()["kind"], "log.opened");
    assert_eq!(ada.get("/log/999999").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ada.get("/log/x").await.status, StatusCode::NOT_FOUND);
    let reads = ledger(&world)
        .iter()
        .filter(|entry| entry["kind"] == "action.allowed" && entry["verb"] == "log.read")
        .count();
    assert_eq!(reads, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_passively_moves_no_clock() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    ada.get("/").await;
    let first = ada.get("/api/v1/session").await.json();
    let size = ledger(&world).len();
    for path in ["/api/v1/session", "/session/state", "/assets/curfew.css"] {
        assert_eq!(ada.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(ledger(&world).len(), size, "no entry either");
    let second = ada.get("/api/v1/session").await.json();
    assert_eq!(first["active_at"], second["active_at"]);
    assert_eq!(first["deadlines"]["idle"], first["deadline"]["at"]);
    assert_eq!(first["deadline"]["cause"], "idle");
    ada.get("/").await;
    assert_ne!(
        ada.get("/api/v1/session").await.json()["active_at"],
        first["active_at"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_password_is_shown_once() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let csrf = ada.get("/").await.csrf();
    let page = ada
        .post("/databases/orders/password", &[("csrf", &csrf)])
        .await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("cfd_") && page.body.contains("dbname=orders user=ada"));
    assert_eq!(count(&world, "credential.issued"), 2);
    assert!(
        !format!("{:?}", ledger(&world)).contains("cfd_"),
        "no secret in the log"
    );
    let forged = ada
        .post("/databases/orders/password", &[("csrf", "x")])
        .await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let unknown = ada
        .post("/databases/none/password", &[("csrf", &csrf)])
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

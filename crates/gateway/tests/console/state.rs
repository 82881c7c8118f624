//! What an open page learns of its session, and what nobody can learn.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{PORTAL, World, count, ledger};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_learns_how_its_session_stands_without_using_it() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let look = ada.get("/session/state").await;
    assert_eq!(look.header("cache-control"), "no-store");
    let look = look.json();
    assert_eq!(
        (&look["state"], &look["subject"]),
        (&"live".into(), &"ada".into())
    );
    let left = look["left_ms"].as_u64().unwrap();
    assert!((800_000..=900_000).contains(&left), "{left}");
    assert_eq!(look["extends_by"], "click");
    let csrf = look["csrf"].as_str().unwrap().to_owned();
    assert_eq!(csrf, ada.get("/").await.csrf(), "the forms of the page");

    let mut other_tab = world.browser();
    other_tab.cookies.clone_from(&ada.cookies);
    ada.post("/sign-out", &[("csrf", &csrf)]).await;
    let before = ledger(&world).len();
    for _ in 0..3 {
        let look = other_tab.get("/session/state").await;
        assert_eq!(look.status, StatusCode::OK);
        assert_eq!(look.json()["state"], "over");
        assert_eq!(look.json()["why"], "You signed out of this session.");
    }
    let nobody = world.browser().get("/session/state").await;
    assert_eq!(nobody.json()["why"], "You are not signed in here any more.");
    assert_eq!(ledger(&world).len(), before, "an open page raises no alarm");
    other_tab.get("/").await;
    assert_eq!(count(&world, "session.used_after_end"), 1, "a use does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_keeps_the_session_going_with_a_script_and_without() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let csrf = ada.get("/sessions").await.csrf();
    let active = async |browser: &mut crate::kit::Browser<'_>| {
        let session = browser.get("/api/v1/session").await.json();
        session["active_at"].as_str().unwrap().to_owned()
    };
    let before = active(&mut ada).await;
    let form = [("csrf", csrf.as_str()), ("to", "/sessions")];
    let stayed = ada.post("/session/stay", &form).await;
    assert_eq!(stayed.location(), "/sessions");
    let between = active(&mut ada).await;
    assert!(between > before);
    let json = [("accept", "application/json")];
    let stayed = ada.send(Method::POST, "/session/stay", &form, &json).await;
    assert_eq!(stayed.json()["state"], "live");
    assert!(active(&mut ada).await > between);
    let evil = [("csrf", csrf.as_str()), ("to", "//evil.test")];
    assert_eq!(ada.post("/session/stay", &evil).await.location(), "/");
    let forged = ada.post("/session/stay", &[("csrf", "x")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
}

/// Sends the head of a form, and of its body only the beginning.
async fn half_a_form(world: &World, path: &str) -> String {
    let mut stream = world.connect().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {PORTAL}\r\nContent-Length: 100\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\ncsrf=x"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(25), read).await;
    assert!(read.is_ok(), "the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_never_ends_loses_its_connection() {
    let world = World::start().await;
    let (page, api) = tokio::join!(
        half_a_form(&world, "/sign-in"),
        half_a_form(&world, "/oauth/device_authorization")
    );
    assert!(page.starts_with("HTTP/1.1 408"), "{page}");
    assert!(page.contains("That took too long"), "{page}");
    assert!(api.starts_with("HTTP/1.1 408"), "{api}");
    assert!(api.contains("\"error\":\"invalid_request\""), "{api}");
}

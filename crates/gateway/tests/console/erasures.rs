//! Erasing a person's values: by two others, and the log still holds.

use std::time::Duration;

use curfew_authority::Auditor;
use curfew_entry::Entry;
use http::StatusCode;

use crate::device::approved;
use crate::kit::{Browser, World, count, ledger};
use crate::values::concealing;

/// Sends a form of the page of erasures.
async fn post(browser: &mut Browser<'_>, path: &str, subject: &str) -> (StatusCode, String) {
    let csrf = browser.get("/erasures").await.csrf();
    let form = [("csrf", csrf.as_str()), ("subject", subject)];
    let answer = browser.post(path, &form).await;
    (answer.status, answer.body)
}

/// The index of the first entry of `session` that conceals something, after `from`.
fn concealed_of(world: &World, session: &str, from: usize) -> usize {
    let entries = ledger(world);
    let after = entries.iter().skip(from);
    let found = after
        .clone()
        .position(|entry| entry["session"] == session && entry["concealed"].is_object());
    from + found.unwrap()
}

fn newest<'e>(entries: &'e [serde_json::Value], kind: &str) -> (usize, &'e serde_json::Value) {
    let at = entries.iter().rposition(|entry| entry["kind"] == kind);
    let at = at.unwrap();
    (at, &entries[at])
}

async fn until_done(world: &World, wanted: usize) {
    for _ in 0..600 {
        if count(world, "erasure.done") >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the erasure is not done after a minute");
}

/// Has a subject's values erased by two people.
pub(crate) async fn erased(asks: &mut Browser<'_>, approves: &mut Browser<'_>, subject: &str) {
    let (status, body) = post(asks, "/erasures", subject).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    let entries = ledger(asks.world);
    let erasure = newest(&entries, "erasure.requested").1["erasure"].as_str();
    let approve = format!("/erasures/{}/approve", erasure.unwrap());
    let (status, body) = post(approves, &approve, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_asks_another_approves_and_the_values_are_gone_while_the_log_still_holds() {
    let world = concealing().await;
    let mut bob = world.signed_in("bob").await;
    assert_eq!(bob.get("/sessions").await.status, StatusCode::OK);
    let entries = ledger(&world);
    let (_, start) = newest(&entries, "session.started");
    let session = start["session"].as_str().unwrap().to_owned();
    let index = concealed_of(&world, &session, 0);
    let mut ada = world.signed_in("ada").await;
    let mut cyd = world.signed_in("cyd").await;
    let values = format!("/log/{index}/values");
    assert!(ada.get(&values).await.body.contains("<code>/"));

    assert_eq!(bob.get("/erasures").await.status, StatusCode::FORBIDDEN);
    let (status, body) = post(&mut ada, "/erasures", "ada").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("their own values"), "{body}");
    let (status, body) = post(&mut ada, "/erasures", "bob").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    let entries = ledger(&world);
    let erasure = newest(&entries, "erasure.requested").1["erasure"]
        .as_str()
        .unwrap();
    let approve = format!("/erasures/{erasure}/approve");
    let (status, body) = post(&mut ada, &approve, "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("omebody else"), "{body}");
    assert!(ada.get(&values).await.body.contains("<code>/"), "not yet");
    let (status, body) = post(&mut cyd, &approve, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{body}");
    assert!(ada.get(&values).await.body.contains("[erased]"), "at once");

    until_done(&world, 1).await;
    let entries = ledger(&world);
    let done = newest(&entries, "erasure.done").1;
    assert_eq!(
        (&done["subject"], &done["keys"]),
        (&"bob".into(), &1.into())
    );
    let approval = newest(&entries, "erasure.approved").0;
    assert_eq!(done["before"], approval);
    assert!(done["entries"].as_u64().unwrap() >= 1);

    bob.get("/sessions").await;
    let later = concealed_of(&world, &session, approval);
    let page = ada.get(&format!("/log/{later}/values")).await;
    assert!(page.body.contains("<code>/"), "a new key: {}", page.body);
    assert!(ada.get(&values).await.body.contains("[erased]"));
    audited(&world);
}

fn audited(world: &World) {
    let mut auditor = Auditor::new();
    let reader = curfew_ledger::LogReader::open(&world.gateway.ledger()).unwrap();
    for item in reader.range(0..reader.size()) {
        let (index, bytes) = item.unwrap();
        let entry = Entry::from_bytes(&bytes).unwrap();
        assert_eq!(auditor.check(index, &entry), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_takes_the_same_steps() {
    let world = concealing().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let asked = cli.post("/api/v1/subjects/bob/erase", &[]).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.body);
    let erasure = asked.json()["erasure"].as_str().unwrap().to_owned();
    let again = cli.post("/api/v1/subjects/bob/erase", &[]).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.body.contains(&erasure), "{}", again.body);
    let listed = cli.get("/api/v1/erasures").await.json();
    assert_eq!(listed["erasures"][0]["asked_by"], "ada");
    let approve = format!("/api/v1/erasures/{erasure}/approve");
    assert_eq!(cli.post(&approve, &[]).await.status, StatusCode::CONFLICT);
    let mut cyd = world.signed_in("cyd").await;
    let mut other = approved(&world, &mut cyd).await;
    let unknown = "/api/v1/erasures/e_000000000000000000000000/approve";
    assert_eq!(other.post(unknown, &[]).await.status, StatusCode::NOT_FOUND);
    let taken = other.post(&approve, &[]).await;
    assert_eq!(taken.status, StatusCode::OK, "{}", taken.body);
    until_done(&world, 1).await;
    let none = other.get("/api/v1/erasures").await.json();
    assert_eq!(none["erasures"], serde_json::json!([]));
    audited(&world);
}

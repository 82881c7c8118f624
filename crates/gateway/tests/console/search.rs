//! Searching the log, on the page and through the API.

use http::StatusCode;
use serde_json::Value;

use crate::device::approved;
use crate::kit::{World, count, ledger};

fn kinds(answer: &Value) -> Vec<&str> {
    let entries = answer["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|one| one["entry"]["kind"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_finds_entries_as_they_stand_in_the_log_and_goes_on_where_it_stopped() {
    let world = World::start().await;
    let mut bob = world.signed_in("bob").await;
    assert_eq!(bob.get("/log").await.status, StatusCode::FORBIDDEN);
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let found = cli
        .get("/api/v1/log/search?subject=bob&kind=session,action.denied")
        .await
        .json();
    assert_eq!(kinds(&found), ["action.denied", "session.started"]);
    assert_eq!(found["next"], Value::Null);
    let denied = &found["entries"][0];
    assert_eq!(denied["subject"], "bob", "the entry itself does not say");
    let index = usize::try_from(denied["index"].as_u64().unwrap()).unwrap();
    assert_eq!(denied["entry"], ledger(&world)[index]);

    let first = cli
        .get("/api/v1/log/search?limit=2&order=oldest")
        .await
        .json();
    assert_eq!(kinds(&first), ["log.opened", "gateway.started"]);
    let path = format!(
        "/api/v1/log/search?limit=1&order=oldest&after={}",
        first["next"]
    );
    assert_eq!(kinds(&cli.get(&path).await.json()), ["resources.loaded"]);
    let words = cli
        .get("/api/v1/log/search?text=Sessions+lifetime")
        .await
        .json();
    assert!(kinds(&words).contains(&"policy.loaded"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_needs_permission_and_is_recorded_without_its_words() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let path = "/api/v1/log/search?text=hunter2+password&kind=action&subject=bob";
    let found = cli.get(path).await;
    assert_eq!(found.status, StatusCode::OK, "{}", found.body);
    let entries = ledger(&world);
    let own = entries
        .iter()
        .rfind(|entry| entry["verb"] == "log.read")
        .unwrap();
    let told = own["search"].as_str().unwrap();
    assert!(
        told.starts_with("subject=bob kind=action words=2:"),
        "{told}"
    );
    assert!(own["path"].as_str().unwrap().ends_with("/log/search"));
    assert!(
        !entries
            .iter()
            .any(|entry| entry.to_string().contains("hunter2"))
    );

    // Its own record is durable before the search, and so is found by it.
    let again = cli
        .get("/api/v1/log/search?verb=log.read&limit=1")
        .await
        .json();
    assert!(
        again["entries"][0]["entry"]["search"]
            .as_str()
            .unwrap()
            .contains("verb=log.read")
    );

    let mut bob = world.signed_in("bob").await;
    let denied = count(&world, "action.denied");
    assert_eq!(
        bob.get("/log?text=password").await.status,
        StatusCode::FORBIDDEN
    );
    let mut cli = approved(&world, &mut bob).await;
    assert_eq!(cli.get(path).await.status, StatusCode::FORBIDDEN);
    assert_eq!(count(&world, "action.denied"), denied + 2);
    cli.bearer = None;
    assert_eq!(cli.get(path).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_makes_no_sense_names_its_place() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let reads = |world: &World| {
        let entries = ledger(world);
        entries
            .iter()
            .filter(|entry| entry["verb"] == "log.read")
            .count()
    };
    let before = reads(&world);
    for (query, field, hint) in [
        ("kind=acton", "kind: `acton`", "action.denied"),
        ("since=soon", "since: `soon`", "2h"),
        ("session=s_1", "session: `s_1`", "24"),
        ("knid=x", "knid", ""),
        ("limit=9999", "limit: 9999", "1 to 1000"),
    ] {
        let answer = cli.get(&format!("/api/v1/log/search?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let json = answer.json();
        let text = json["error_description"].as_str().unwrap();
        assert!(text.contains(field), "{text}");
        assert!(
            hint.is_empty() || json["hint"].as_str().unwrap().contains(hint),
            "{json}"
        );
        let page = ada.get(&format!("/log?{query}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(
            page.body.contains("role=\"alert\"") && page.body.contains(field),
            "{}",
            page.body
        );
    }
    assert_eq!(reads(&world), before, "nothing was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_finds_what_its_form_asks_for() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let page = ada
        .get("/log?text=policy.loaded&subject=&since=1h&order=newest")
        .await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("<details open"),
        "a filled field is shown"
    );
    assert!(page.body.contains("value=\"policy.loaded\""));
    assert!(
        page.body.contains("<span class=\"kind \">policy.loaded"),
        "{}",
        page.body
    );
    assert!(
        !page
            .body
            .contains("<span class=\"kind good\">session.started")
    );
    let who = ada.get("/log?kind=action&subject=ada").await;
    assert!(
        who.body.contains("data-label=\"Who\">ada<br>"),
        "whose session it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_gives_a_receipt_to_whoever_may_read_the_log() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    // A second may go by before the first checkpoint covers it.
    let given = loop {
        let given = cli.get("/api/v1/log/0/receipt").await.json();
        if given["reached"] != "durable" {
            break given;
        }
        assert_eq!(given["receipt"], Value::Null);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(given["reached"], "signed");
    let receipt = given["receipt"].as_str().unwrap();
    let receipt = curfew_ledger::Receipt::parse(receipt.as_bytes()).unwrap();
    let entry: Value = serde_json::from_slice(&receipt.entry.unwrap()).unwrap();
    assert_eq!((receipt.index, &entry), (0, &ledger(&world)[0]));
    for path in [
        "/api/v1/log/99999999/receipt",
        "/api/v1/log/18446744073709551615/receipt",
    ] {
        assert_eq!(cli.get(path).await.status, StatusCode::NOT_FOUND);
    }
    let odd = cli.get("/api/v1/log/first/receipt").await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    // Asking for one is reading the log.
    let seen = ledger(&world);
    let reads = seen.iter().filter(|entry| entry["verb"] == "log.read");
    assert!(reads.count() >= 3);
    let mut bob = world.signed_in("bob").await;
    let mut bobs = approved(&world, &mut bob).await;
    let refused = bobs.get("/api/v1/log/0/receipt").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

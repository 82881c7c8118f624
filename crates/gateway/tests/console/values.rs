//! Values that the log only commits to: who sees them, and what is left of them.

use http::StatusCode;
use serde_json::Value;

use crate::device::approved;
use crate::kit::{CONFIG, World, ledger};

/// A gateway that conceals paths and searches.
pub(crate) async fn concealing() -> World {
    let config = format!("{CONFIG}\n[log]\nconceal = [\"path\", \"search\"]\n");
    World::with(&config).await
}

/// The index of the newest entry with this verb.
fn newest(entries: &[Value], verb: &str) -> usize {
    entries
        .iter()
        .rposition(|entry| entry["verb"] == verb)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concealed_values_are_not_in_the_log_and_shown_to_those_who_may_see_them() {
    let world = concealing().await;
    let mut bob = world.signed_in("bob").await;
    assert_eq!(bob.get("/sessions").await.status, StatusCode::OK);
    let mut ada = world.signed_in("ada").await;
    assert_eq!(ada.get("/log?text=hunter2").await.status, StatusCode::OK);

    let entries = ledger(&world);
    let text = serde_json::to_string(&entries).unwrap();
    assert!(!text.contains("\"path\":\"/"), "a path is told");
    let index = newest(&entries, "log.read");
    assert!(entries[index]["concealed"]["search"].is_string());

    let page = ada.get(&format!("/log/{index}/values")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(page.body.contains("words=1:"), "{}", page.body);
    assert!(ada.get("/log").await.body.contains("/values\">values</a>"));
    let path = format!("/log/{index}/values");
    assert_eq!(bob.get(&path).await.status, StatusCode::FORBIDDEN);

    let mut cli = approved(&world, &mut ada).await;
    let given = cli.get(&format!("/api/v1/log/{index}/values")).await.json();
    assert_eq!(given["index"], index);
    assert_eq!(given["values"]["path"]["state"], "shown");
    assert_eq!(given["values"]["path"]["value"], "/log");
    let looks = newest(&ledger(&world), "log.reveal");
    assert!(looks > index, "the look is recorded");
    let plain = cli.get("/api/v1/log/0/values").await.json();
    assert_eq!(plain["values"], serde_json::json!({}));
    let past = cli.get("/api/v1/log/1000000/values").await;
    assert_eq!(past.status, StatusCode::NOT_FOUND);
}

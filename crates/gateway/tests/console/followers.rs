//! How far receivers of the log have come, on the log page and through the API.

use http::StatusCode;
use serde_json::Value;

use crate::device::approved;
use crate::kit::{CONFIG, World};

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_the_log_sees_what_receivers_lack_and_nothing_of_networks() {
    // Nobody listens there.
    let forward =
        "[[forward]]\nname = \"siem\"\nkind = \"otlp\"\nurl = \"http://127.77.66.55:9/v1/logs\"\n";
    let world = World::with(&format!("{CONFIG}\n{forward}")).await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let (answer, status) = loop {
        let answer = cli.get("/api/v1/log/followers").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let status = answer.json();
        if status["followers"][0]["failing"].is_object() {
            break (answer, status);
        }
        assert!(tokio::time::Instant::now() < end, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let siem = &status["followers"][0];
    assert_eq!(
        (&siem["name"], &siem["kind"]),
        (&"siem".into(), &"otlp".into())
    );
    assert_eq!(
        (&siem["has"], &siem["lacks"]),
        (&0.into(), &status["signed"])
    );
    assert_eq!(
        siem["failing"]["error"],
        "it cannot be reached, or broke off"
    );
    assert_eq!(status["not_signed"], Value::Null);

    let page = ada.get("/log").await;
    assert!(page.body.contains("Receivers and copies"), "{}", page.body);
    assert!(
        page.body
            .contains("<strong>siem</strong> <small>otlp</small>")
    );
    assert!(page.body.contains("it cannot be reached"));
    for text in [&page.body, &answer.body] {
        assert!(!text.contains("127.77.66"), "{text}");
    }
    let mut bob = world.signed_in("bob").await;
    let mut bobs = approved(&world, &mut bob).await;
    let refused = bobs.get("/api/v1/log/followers").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

//! The device grant and the API that its tokens open.

use http::StatusCode;

use crate::kit::{Browser, World, count, ledger};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn ask(cli: &mut Browser<'_>) -> (String, String) {
    let answer = cli
        .post(
            "/oauth/device_authorization",
            &[("client_id", "curfew-cli")],
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["interval"], 5);
    assert_eq!(json["expires_in"], 600);
    let text = |field: &str| json[field].as_str().unwrap().to_owned();
    let user = text("user_code");
    assert!(text("verification_uri_complete").ends_with(&format!("/device?user_code={user}")));
    (text("device_code"), user)
}

async fn poll(cli: &mut Browser<'_>, code: &str) -> (StatusCode, serde_json::Value) {
    let form = [
        ("grant_type", GRANT),
        ("client_id", "curfew-cli"),
        ("device_code", code),
    ];
    let answer = cli.post("/oauth/token", &form).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    (answer.status, answer.json())
}

/// A CLI whose device the browser approved.
pub(crate) async fn approved<'w>(world: &'w World, browser: &mut Browser<'w>) -> Browser<'w> {
    let mut cli = world.browser();
    let (device, user) = ask(&mut cli).await;
    let page = browser.get(&format!("/device?user_code={user}")).await;
    assert!(page.body.contains(&user) && page.body.contains("Connect this device?"));
    let form = [
        ("csrf", page.csrf()),
        ("user_code", user),
        ("choice", "approve".into()),
    ];
    let form: Vec<(&str, &str)> = form
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    // A double click.
    for _ in 0..2 {
        let done = browser.post("/device/decide", &form).await;
        assert!(done.body.contains("Device connected"), "{}", done.body);
    }
    let (status, json) = poll(&mut cli, &device).await;
    assert_eq!(status, StatusCode::OK, "{json}");
    assert_eq!(json["token_type"], "Bearer");
    assert!(json["expires_in"].as_u64().unwrap() > 3_600);
    let token = json["access_token"].as_str().unwrap();
    assert!(token.starts_with("cft_"));
    cli.bearer = Some(token.to_owned());
    let (_, json) = poll(&mut cli, &device).await;
    assert_eq!(json["error"], "invalid_grant", "a code works once");
    cli
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_is_slowed_down_and_can_be_denied() {
    let world = World::start().await;
    let mut cli = world.browser();
    let (device, user) = ask(&mut cli).await;
    let (status, json) = poll(&mut cli, &device).await;
    assert_eq!(
        (status, &json["error"]),
        (StatusCode::BAD_REQUEST, &"authorization_pending".into())
    );
    assert_eq!(poll(&mut cli, &device).await.1["error"], "slow_down");
    assert_eq!(poll(&mut cli, "cfdc_x").await.1["error"], "invalid_grant");

    let mut stranger = world.browser();
    let away = stranger.get(&format!("/device?user_code={user}")).await;
    assert_eq!(
        away.location(),
        format!("/sign-in?to=/device%3Fuser_code%3D{user}")
    );

    let mut ada = world.signed_in("ada").await;
    let page = ada
        .get(&format!("/device?user_code={}", user.to_lowercase()))
        .await;
    let csrf = page.csrf();
    let forged = [
        ("csrf", "x"),
        ("user_code", user.as_str()),
        ("choice", "approve"),
    ];
    assert_eq!(
        ada.post("/device/decide", &forged).await.status,
        StatusCode::FORBIDDEN
    );
    let deny = [
        ("csrf", csrf.as_str()),
        ("user_code", &user),
        ("choice", "deny"),
    ];
    assert!(
        ada.post("/device/decide", &deny)
            .await
            .body
            .contains("Device denied")
    );
    assert_eq!(poll(&mut cli, &device).await.1["error"], "access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_user_codes_is_stopped() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        last = ada.get("/device?user_code=BBBB-BBBB").await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_in_the_terms_of_oauth() {
    let world = World::start().await;
    let mut cli = world.browser();
    type Form<'f> = &'f [(&'f str, &'f str)];
    let cases: [(&str, Form<'_>, &str); 5] = [
        (
            "/oauth/device_authorization",
            &[("client_id", "other")],
            "invalid_client",
        ),
        ("/oauth/token", &[], "invalid_request"),
        (
            "/oauth/token",
            &[("grant_type", "password")],
            "unsupported_grant_type",
        ),
        ("/oauth/token", &[("grant_type", GRANT)], "invalid_client"),
        ("/oauth/revoke", &[], "invalid_request"),
    ];
    for (path, form, wanted) in cases {
        let answer = cli.post(path, form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {form:?}");
        assert_eq!(answer.json()["error"], wanted, "{path} {form:?}");
    }
    let metadata = cli
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    assert_eq!(metadata["issuer"], world.portal_url());
    assert_eq!(
        metadata["grant_types_supported"],
        serde_json::json!([GRANT])
    );
    let keys = cli.get("/.well-known/jwks.json").await.json();
    assert_eq!(keys["keys"][0]["crv"], "Ed25519");
    assert!(keys["keys"][0].get("d").is_none(), "only the public half");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_api_and_dies_with_its_session() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;

    let own = cli.get("/api/v1/session").await.json();
    assert_eq!(own["subject"], "ada");
    let listed = cli.get("/api/v1/sessions").await.json();
    assert_eq!(listed["sessions"][0]["session"], own["session"]);
    assert_eq!(listed["sessions"][0]["current"], true);
    let resources = cli.get("/api/v1/resources").await.json();
    let names: Vec<_> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["shop", "orders"]);
    let made = cli
        .post("/api/v1/databases/orders/password", &[])
        .await
        .json();
    assert_eq!(
        (&made["user"], &made["database"]),
        (&"ada".into(), &"orders".into())
    );
    assert_eq!(made["port"], world.gateway.running.postgres.unwrap().port());
    assert!(made["password"].as_str().unwrap().starts_with("cfd_"));
    let unknown = cli.post("/api/v1/databases/none/password", &[]).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.json()["hint"].is_string());

    let csrf = ada.get("/").await.csrf();
    ada.post("/sign-out", &[("csrf", &csrf)]).await;
    let after = cli.get("/api/v1/sessions").await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED);
    assert_eq!(after.json()["error"], "invalid_token");
    assert!(
        after
            .header("www-authenticate")
            .starts_with("Bearer realm=\"curfew\", error=")
    );
    let secrets = format!("{:?}", ledger(&world));
    assert!(
        !secrets.contains("cft_") && !secrets.contains("cfd_"),
        "no secret in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_alone_or_signs_its_session_out() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let token = cli.bearer.clone().unwrap();
    for form in [
        [("token", token.as_str())],
        [("token", token.as_str())],
        [("token", "cft_x")],
    ] {
        assert_eq!(
            cli.post("/oauth/revoke", &form).await.status,
            StatusCode::OK
        );
    }
    assert_eq!(
        cli.get("/api/v1/session").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        ada.get("/").await.status,
        StatusCode::OK,
        "the session lives on"
    );

    let mut cli = approved(&world, &mut ada).await;
    assert_eq!(
        cli.post("/api/v1/sign-out", &[]).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(ada.get("/").await.location(), "/sign-in?ended=signed_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_ends_sessions_and_follows_the_log() {
    let world = World::start().await;
    let mut bob = world.signed_in("bob").await;
    let mut ada = world.signed_in("ada").await;
    let mut cli = approved(&world, &mut ada).await;
    let listed = cli.get("/api/v1/sessions").await.json();
    let target = listed["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["subject"] == "bob")
        .unwrap()["session"]
        .as_str()
        .unwrap()
        .to_owned();

    let page = cli.get("/api/v1/log?limit=3").await.json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 3);
    let next = page["next_after"].as_u64().unwrap();
    assert_eq!(page["size"], next + 1);
    let (mut follower, path) = (world.browser(), format!("/api/v1/log?after={next}&wait=20"));
    follower.bearer = cli.bearer.clone();
    let begun = std::time::Instant::now();
    let (news, ended) = tokio::join!(follower.get(&path), async {
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        cli.post(&format!("/api/v1/sessions/{target}/end"), &[])
            .await
    });
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(10),
        "news come at once"
    );
    let kinds = news.json()["entries"].to_string();
    assert!(kinds.contains("session.end"), "{kinds}");
    assert_eq!(
        bob.get("/").await.location(),
        "/sign-in?ended=ended_by_admin"
    );

    let mut bob = world.browser();
    bob.codes_used(1);
    bob.sign_in("bob", "").await;
    let mut cli = approved(&world, &mut bob).await;
    assert_eq!(cli.get("/api/v1/log").await.status, StatusCode::FORBIDDEN);
    assert_eq!(cli.get("/api/v1/sessions").await.json()["own_only"], true);
    assert!(count(&world, "action.denied") >= 2);
}

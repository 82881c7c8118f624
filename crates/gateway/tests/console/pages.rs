//! What holds for every page.

use http::{Method, StatusCode};

use crate::kit::{CONFIG, World, count};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_protected_in_the_browser() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let paths = [
        "/",
        "/sessions",
        "/log",
        "/device",
        "/sign-in/again",
        "/sign-out",
        "/none",
        "/assets/curfew.css",
        "/assets/left.css?s=60",
        "/assets/curfew.js",
        "/session/state",
        "/log/1",
        "/assets/curfew.svg",
        "/api/v1/session",
        "/api/v1/none",
        "/.well-known/oauth-authorization-server",
    ];
    for path in paths {
        let answer = ada.get(path).await;
        for (name, wanted) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("strict-transport-security", "max-age=31536000"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), wanted, "{path} {name}");
        }
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with(
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
            ),
            "{policy}"
        );
        assert!(
            policy.contains("form-action 'self' https://shop.localhost:"),
            "{policy}"
        );
        let inline = answer
            .body
            .replace("<script src=\"/assets/curfew.js\" defer></script>", "");
        assert!(
            !inline.contains("<script") && !inline.contains("style="),
            "{path}"
        );
        assert!(!answer.body.contains("http-equiv"), "{path}: WCAG 2.2.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_to_people_and_to_programs() {
    let world = World::start().await;
    let mut ada = world.signed_in("ada").await;
    let cases = [
        (Method::GET, "/none", StatusCode::NOT_FOUND, "text/html"),
        (
            Method::DELETE,
            "/sessions",
            StatusCode::METHOD_NOT_ALLOWED,
            "text/html",
        ),
        (
            Method::GET,
            "/api/v1/none",
            StatusCode::NOT_FOUND,
            "application/json",
        ),
        (
            Method::DELETE,
            "/api/v1/log",
            StatusCode::METHOD_NOT_ALLOWED,
            "application/json",
        ),
        (
            Method::GET,
            "/oauth/token",
            StatusCode::METHOD_NOT_ALLOWED,
            "application/json",
        ),
        (
            Method::GET,
            "/api/v1/sessions",
            StatusCode::UNAUTHORIZED,
            "application/json",
        ),
    ];
    for (method, path, status, kind) in cases {
        let answer = ada.send(method.clone(), path, &[], &[]).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(
            answer.header("content-type").starts_with(kind),
            "{method} {path}"
        );
    }
    assert_eq!(
        ada.get("/api/v1/sessions").await.header("www-authenticate"),
        "Bearer realm=\"curfew\""
    );
    let long = "x".repeat(20_000);
    let answer = ada.post("/sign-out", &[("csrf", &long)]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_was_never_issued_is_forgotten_and_recorded() {
    let world = World::start().await;
    let mut browser = world.browser();
    browser
        .cookies
        .insert("__Host-curfew".into(), "cfs_never".into());
    let answer = browser.get("/sessions").await;
    assert_eq!(answer.location(), "/sign-in?to=/sessions");
    assert!(!browser.cookies.contains_key("__Host-curfew"));
    assert_eq!(count(&world, "credential.unknown"), 1);
    let mut cli = world.browser();
    cli.bearer = Some("cft_never".into());
    assert_eq!(
        cli.get("/api/v1/sessions").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(count(&world, "credential.unknown"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_name_the_public_ports() {
    let public = "[listen]\npublic_port = 443\npublic_postgres_port = 15432";
    let world = World::with(&CONFIG.replace("[listen]", public)).await;
    let mut ada = world.browser();
    let query = format!("?resource=shop&to=/cart&state={}", "A".repeat(43));
    let answer = ada.sign_in("ada", &query).await;
    let location = answer.location();
    assert!(
        location.starts_with("https://shop.localhost/"),
        "{location}"
    );
    let metadata = ada.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata.json()["issuer"], "https://curfew.localhost");
    // Forms are taken from where the browser is, not from where Curfew listens.
    let csrf = ada.get("/").await.csrf();
    let form = [("csrf", csrf.as_str())];
    let own = [("origin", "https://curfew.localhost")];
    let signed_out = ada.send(Method::POST, "/sign-out", &form, &own).await;
    assert_eq!(signed_out.status, StatusCode::OK, "{}", signed_out.body);
}

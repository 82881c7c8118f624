//! Signing in, again, and out.

use http::{Method, StatusCode};

use crate::kit::{PASSWORD, World, count, ledger};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_at_sign_in_and_ends_at_sign_out() {
    let world = World::start().await;
    let mut browser = world.browser();
    let away = browser.get("/").await;
    assert_eq!(
        (away.status, away.location()),
        (StatusCode::SEE_OTHER, "/sign-in")
    );

    let answer = browser.sign_in("ada", "").await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/")
    );
    let cookie = answer.set_cookie("__Host-curfew").unwrap();
    assert!(
        cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let known = answer.set_cookie("__Host-curfew-browser").unwrap();
    assert!(known.ends_with("; Max-Age=34560000"), "{known}");

    let home = browser.get("/").await;
    assert_eq!(home.status, StatusCode::OK);
    for wanted in [
        "Hello, ada",
        "curfew psql orders",
        "https://shop.localhost:",
        "this session",
    ] {
        assert!(home.body.contains(wanted), "{wanted}");
    }
    assert!(
        !home.body.contains("vault"),
        "what the policy closes is not offered"
    );

    let held = browser.session_cookie();
    let refused = browser.post("/sign-out", &[("csrf", "wrong")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        browser.get("/").await.status,
        StatusCode::OK,
        "nothing was done"
    );

    let csrf = home.csrf();
    let out = browser.post("/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(out.status, StatusCode::OK);
    assert!(out.body.contains("You are signed out"));
    assert_eq!(out.header("clear-site-data"), "\"cache\", \"storage\"");
    assert!(
        out.set_cookie("__Host-curfew")
            .unwrap()
            .contains("Max-Age=0")
    );

    browser.cookies.insert("__Host-curfew".into(), held);
    let after = browser.get("/log?kind=action").await;
    assert_eq!(
        after.location(),
        "/sign-in?to=/log%3Fkind%3Daction&ended=signed_out"
    );
    assert!(
        !browser.cookies.contains_key("__Host-curfew"),
        "the browser forgets it"
    );
    assert_eq!(count(&world, "session.used_after_end"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_reads_the_same_keeps_the_name_and_is_recorded() {
    let world = World::start().await;
    let mut texts = Vec::new();
    for (name, password) in [("ada", "wrong wrong wrong"), ("nobody", PASSWORD)] {
        let mut browser = world.browser();
        let csrf = browser.get("/sign-in").await.csrf();
        let form = [
            ("csrf", csrf.as_str()),
            ("name", name),
            ("password", password),
            ("code", "000000"),
        ];
        let answer = browser.post("/sign-in", &form).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(!answer.header("www-authenticate").is_empty());
        assert!(
            answer.body.contains(&format!("value=\"{name}\"")),
            "the name is kept"
        );
        assert!(!answer.body.contains(password), "the password is not");
        assert!(answer.set_cookie("__Host-curfew").is_none());
        let (_, text) = answer.body.split_once("role=\"alert\"").unwrap();
        texts.push(text.split_once("</p>").unwrap().0.to_owned());
    }
    assert_eq!(texts[0], texts[1]);
    assert_eq!(count(&world, "sign_in.refused"), 2);
    assert!(
        !format!("{:?}", ledger(&world)).contains("nobody"),
        "unknown names are not kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_attempts_have_to_wait() {
    let world = World::start().await;
    let mut browser = world.browser();
    let csrf = browser.get("/sign-in").await.csrf();
    let form = [
        ("csrf", csrf.as_str()),
        ("name", "bob"),
        ("password", "wrong"),
        ("code", "1"),
    ];
    let mut last = browser.post("/sign-in", &form).await;
    for _ in 0..40 {
        if last.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        last = browser.post("/sign-in", &form).await;
    }
    assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(last.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(last.body.contains("Too many attempts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_policy_gives_no_session_gets_none() {
    let world = World::start().await;
    let mut browser = world.browser();
    let answer = browser.sign_in("eve", "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.set_cookie("__Host-curfew").is_none());
    assert_eq!(
        (
            count(&world, "session.started"),
            count(&world, "sign_in.refused")
        ),
        (0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_from_elsewhere_does_nothing() {
    let world = World::start().await;
    let mut browser = world.browser();
    let csrf = browser.get("/sign-in").await.csrf();
    let code = browser.next_code("ada");
    let form = [
        ("csrf", csrf.as_str()),
        ("name", "ada"),
        ("password", PASSWORD),
        ("code", &code),
    ];
    for headers in [
        &[("origin", "https://evil.test")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ] {
        let answer = browser.send(Method::POST, "/sign-in", &form, headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        assert!(answer.set_cookie("__Host-curfew").is_none());
    }
    // Login CSRF: the attacker's token does not fit the victim's browser.
    let mut victim = world.browser();
    victim.get("/sign-in").await;
    let answer = victim.post("/sign-in", &form).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    // As browsers really send it.
    let headers = [("origin", "null"), ("sec-fetch-site", "same-origin")];
    let answer = browser
        .send(Method::POST, "/sign-in", &form, &headers)
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_of_somebody_else_ends_the_session_that_the_browser_held() {
    let world = World::start().await;
    let mut browser = world.browser();
    // A second form was open before the first sign-in.
    let page = browser.get("/sign-in").await;
    browser.sign_in("ada", "").await;
    let first = browser.session_cookie();
    let (csrf, code) = (page.csrf(), world.code("bob", 0));
    let form = [
        ("csrf", csrf.as_str()),
        ("name", "bob"),
        ("password", PASSWORD),
        ("code", &code),
    ];
    let answer = browser.post("/sign-in", &form).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_ne!(browser.session_cookie(), first, "the secret is new");
    assert_eq!(
        (
            count(&world, "session.started"),
            count(&world, "session.ended")
        ),
        (2, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn re_authentication_replaces_the_cookie_and_keeps_the_session() {
    let world = World::start().await;
    let mut browser = world.signed_in("ada").await;
    let old = browser.session_cookie();
    let page = browser.get("/sign-in/again?to=/sessions").await;
    assert!(page.body.contains("Signed in as <strong>ada</strong>"));
    let (csrf, code) = (page.csrf(), browser.next_code("ada"));
    let wrong = [
        ("csrf", csrf.as_str()),
        ("password", "wrong wrong"),
        ("code", &code),
    ];
    let refused = browser.post("/sign-in/again", &wrong).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let right = [
        ("csrf", csrf.as_str()),
        ("password", PASSWORD),
        ("code", &code),
        ("to", "/sessions"),
    ];
    let mut again = browser.post("/sign-in/again", &right).await;
    if again.status == StatusCode::TOO_MANY_REQUESTS {
        // The failure above makes the next attempt wait.
        let wait = again.header("retry-after").parse().unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
        again = browser.post("/sign-in/again", &right).await;
    }
    assert_eq!(
        (again.status, again.location()),
        (StatusCode::SEE_OTHER, "/sessions")
    );
    assert_ne!(browser.session_cookie(), old);
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    assert_eq!(count(&world, "session.reauthenticated"), 1);
    assert_eq!(count(&world, "session.started"), 1);
    browser.cookies.insert("__Host-curfew".into(), old);
    assert_eq!(
        browser.get("/").await.location(),
        "/sign-in",
        "the old cookie opens nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_its_session_by_a_code_and_nobody_else_does() {
    let world = World::start().await;
    let state = "A".repeat(43);
    let mut browser = world.browser();
    let query = format!("?resource=shop&to=/cart%3Fa%3D1&state={state}");
    let answer = browser.sign_in("ada", &query).await;
    let app = format!(
        "https://shop.localhost:{}/.curfew/arrive?code=",
        world.gateway.running.web.port()
    );
    assert!(answer.location().starts_with(&app), "{}", answer.location());
    assert!(
        answer.location().ends_with("&to=/cart%3Fa%3D1"),
        "{}",
        answer.location()
    );

    let straight = browser.get(&format!("/sign-in{query}")).await;
    assert!(
        straight.location().starts_with(&app),
        "a live session goes straight on"
    );

    let again = browser.get(&format!("/sign-in{query}&reauth=1")).await;
    assert!(
        again
            .location()
            .starts_with("/sign-in/again?resource=shop&to="),
        "{}",
        again.location()
    );

    let evil = browser.get("/sign-in?to=//evil.test").await;
    assert_eq!(evil.location(), "/");
    let evil = browser
        .get(&format!("/sign-in?resource=evil&to=/&state={state}"))
        .await;
    assert_eq!(evil.status, StatusCode::NOT_FOUND);
    let damaged = browser.get("/sign-in?resource=shop&to=/&state=x").await;
    assert_eq!(damaged.status, StatusCode::BAD_REQUEST);
}

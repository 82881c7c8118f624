//! Signing in with several tabs, with an old form, with two clicks: whoever did all right arrives.

use http::{Method, StatusCode};

use crate::kit::{Answer, Browser, PASSWORD, World, count};

const SAME_ORIGIN: [(&str, &str); 1] = [("sec-fetch-site", "same-origin")];

/// The form of a page, filled in.
fn filled<'a>(csrf: &'a str, name: &'a str, code: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("csrf", csrf),
        ("name", name),
        ("password", PASSWORD),
        ("code", code),
        ("to", "/sessions"),
    ]
}

fn alert(answer: &Answer) -> &str {
    let (_, rest) = answer.body.split_once("role=\"alert\"").expect("an alert");
    let (_, text) = rest.split_once('>').unwrap();
    text.split_once("</p>").unwrap().0
}

fn same_browser<'w>(of: &Browser<'w>) -> Browser<'w> {
    let mut other = of.world.browser();
    other.cookies.clone_from(&of.cookies);
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_twice_at_once_is_one_attempt() {
    let world = World::start().await;
    for round in 0..3 {
        let mut first = world.browser();
        let csrf = first.get("/sign-in").await.csrf();
        let name = ["ada", "bob", "cyd"][round];
        let code = world.code(name, 0);
        let form = filled(&csrf, name, &code);
        let mut second = same_browser(&first);
        let both = tokio::join!(
            first.post("/sign-in", &form),
            second.post("/sign-in", &form)
        );
        for answer in [&both.0, &both.1] {
            let wanted = (StatusCode::SEE_OTHER, "/sessions");
            assert_eq!((answer.status, answer.location()), wanted);
        }
        let cookie = first.session_cookie();
        assert_eq!(cookie, second.session_cookie(), "one session");
        assert_eq!(first.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(count(&world, "session.started"), 3);
    assert_eq!(count(&world, "sign_in.refused"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_again_arrives_and_after_signing_out_it_does_not() {
    let world = World::start().await;
    let mut browser = world.browser();
    let csrf = browser.get("/sign-in").await.csrf();
    let code = world.code("ada", 0);
    let form = filled(&csrf, "ada", &code);
    let mut lost = same_browser(&browser);
    browser.post("/sign-in", &form).await;
    let again = browser.post("/sign-in", &form).await;
    assert_eq!(again.location(), "/sessions", "signed in already");
    // The first answer never came to this browser.
    let late = lost.post("/sign-in", &form).await;
    assert_eq!(late.location(), "/sessions");
    assert_eq!(lost.session_cookie(), browser.session_cookie());
    let out = browser.get("/").await.csrf();
    browser.post("/sign-out", &[("csrf", &out)]).await;
    lost.cookies.remove("__Host-curfew");
    let over = lost.post("/sign-in", &form).await;
    assert_eq!(over.status, StatusCode::UNAUTHORIZED);
    assert!(alert(&over).contains("just used"), "{}", alert(&over));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_used_elsewhere_is_named_and_is_no_guess() {
    let world = World::start().await;
    let code = world.code("ada", 0);
    let mut first = world.browser();
    let csrf = first.get("/sign-in").await.csrf();
    first.post("/sign-in", &filled(&csrf, "ada", &code)).await;
    let mut phone = world.browser();
    let csrf = phone.get("/sign-in").await.csrf();
    for _ in 0..8 {
        let answer = phone.post("/sign-in", &filled(&csrf, "ada", &code)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(alert(&answer).contains("Wait until your authenticator app shows the next one"));
    }
    let next = world.code("ada", 1);
    let answer = phone.post("/sign-in", &filled(&csrf, "ada", &next)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    // Whoever has the code and not the password learns nothing.
    let mut thief = world.browser();
    let csrf = thief.get("/sign-in").await.csrf();
    let mut form = filled(&csrf, "ada", &code);
    form[2].1 = "wrong wrong wrong";
    let refused = thief.post("/sign-in", &form).await;
    assert_eq!(alert(&refused), "The name, password or code is not right.");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_were_opened_at_once_all_work() {
    let world = World::start().await;
    // Ten tabs without a cookie: the last one that is set is the browser's.
    let mut tabs = Vec::new();
    for _ in 0..10 {
        let mut tab = world.browser();
        let csrf = tab.get("/sign-in").await.csrf();
        tabs.push((csrf, tab.cookies["__Host-curfew-form"].clone()));
    }
    let mut browser = world.browser();
    let (_, last) = tabs.last().unwrap();
    let cookie = last.clone();
    browser.cookies.insert("__Host-curfew-form".into(), cookie);
    let code = world.code("ada", 0);
    for (n, (csrf, _)) in tabs.iter().enumerate() {
        let form = filled(csrf, "ada", &code);
        let send = browser.send(Method::POST, "/sign-in", &form, &SAME_ORIGIN);
        let answer = send.await;
        assert_eq!(answer.location(), "/sessions", "tab {n}: {}", answer.body);
    }
    assert_eq!(count(&world, "session.started"), 1);
    // A form without any cookie is still not taken from elsewhere.
    let mut stranger = world.browser();
    let form = filled(&tabs[0].0, "ada", &code);
    let foreign = [("sec-fetch-site", "same-site")];
    let answer = stranger.send(Method::POST, "/sign-in", &form, &foreign);
    assert_eq!(answer.await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_again_that_is_sent_twice_arrives_and_other_tabs_keep_their_forms() {
    let world = World::start().await;
    let mut browser = world.signed_in("ada").await;
    let other_tab = browser.get("/").await.csrf();
    let csrf = browser.get("/sign-in/again?to=/sessions").await.csrf();
    let code = world.code("ada", 1);
    let form = filled(&csrf, "ada", &code);
    let mut second = same_browser(&browser);
    let both = tokio::join!(
        browser.post("/sign-in/again", &form),
        second.post("/sign-in/again", &form)
    );
    assert_eq!(both.0.location(), "/sessions", "{}", both.0.body);
    assert_eq!(both.1.location(), "/sessions", "{}", both.1.body);
    assert_eq!(browser.session_cookie(), second.session_cookie());
    assert_eq!(count(&world, "session.reauthenticated"), 1);
    let form = [("csrf", other_tab.as_str())];
    let made = browser.post("/databases/orders/password", &form);
    assert_eq!(made.await.status, StatusCode::OK, "what was typed is good");
}

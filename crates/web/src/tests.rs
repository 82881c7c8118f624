//! The rules on request and answer heads.

use std::collections::BTreeSet;

use curfew_entry::{
    Aal, CredentialClass, Deadline, DeadlineCause, Limits, Proof, SessionId, Span, Timestamp, Verb,
};
use curfew_gate::{Grant, secret};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Version};

use super::fields::{self, Trusted};
use super::head::{self, Shape, Unfit};
use super::{credential, named_authority, own, public_authority, readable};

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let builder = Request::builder()
        .method(method)
        .uri(target)
        .version(Version::HTTP_11);
    let request = headers.iter().fold(builder, |builder, (name, value)| {
        builder.header(*name, *value)
    });
    request.body(()).unwrap().into_parts().0
}

fn checked(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Shape, u16> {
    let head = request(method, target, headers);
    head::check(&head, "shop.test").map_err(|Unfit { status, .. }| status.as_u16())
}

const HOST: (&str, &str) = ("host", "shop.test:8443");

const UPGRADES: (&str, &str) = ("connection", "keep-alive, Upgrade");

type Headers<'a> = &'a [(&'a str, &'a str)];
type Case<'a> = (&'a str, &'a str, Headers<'a>);

const AMBIGUOUS: [(Case<'static>, u16); 28] = [
    (
        (
            "POST",
            "/",
            &[
                HOST,
                ("content-length", "3"),
                ("transfer-encoding", "chunked"),
            ],
        ),
        400,
    ),
    (
        (
            "POST",
            "/",
            &[
                HOST,
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
        ),
        400,
    ),
    (
        ("POST", "/", &[HOST, ("transfer-encoding", "gzip, chunked")]),
        400,
    ),
    (
        (
            "POST",
            "/",
            &[HOST, ("transfer-encoding", "chunked, chunked")],
        ),
        400,
    ),
    (
        ("POST", "/", &[HOST, ("transfer-encoding", "chunked\t, x")]),
        400,
    ),
    (
        ("POST", "/", &[HOST, ("transfer-encoding", "identity")]),
        400,
    ),
    (
        (
            "POST",
            "/",
            &[HOST, ("content-length", "3"), ("content-length", "3")],
        ),
        400,
    ),
    (("POST", "/", &[HOST, ("content-length", "+3")]), 400),
    (("POST", "/", &[HOST, ("content-length", "3, 3")]), 400),
    (
        (
            "POST",
            "/",
            &[HOST, ("content-length", "99999999999999999999")],
        ),
        400,
    ),
    (("POST", "/", &[HOST, ("expect", "200-maybe")]), 417),
    (("GET", "/", &[]), 400),
    (("GET", "/", &[HOST, HOST]), 400),
    (("GET", "/", &[("host", "evil.test")]), 400),
    (("GET", "/", &[("host", "shop.test@evil.test")]), 400),
    (("GET", "/", &[("host", "shop.test:8443x")]), 400),
    (("GET", "https://evil.test/", &[HOST]), 400),
    (("TRACE", "/", &[HOST]), 405),
    (("CONNECT", "shop.test:443", &[HOST]), 501),
    (("OPTIONS", "*", &[HOST]), 400),
    (("GET", "/a/../admin", &[HOST]), 400),
    (("GET", "/a/%2e%2E/admin", &[HOST]), 400),
    (("GET", "/a/..;x=1/admin", &[HOST]), 400),
    (("GET", "/a%5c..%5cadmin", &[HOST]), 400),
    (("GET", "/a%2f..%5cadmin", &[HOST]), 400),
    (("GET", "/a/..%3bx/admin", &[HOST]), 400),
    (("GET", "/a%00b", &[HOST]), 400),
    (("GET", "/a\\b", &[HOST]), 400),
];

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for ((method, target, headers), wanted) in AMBIGUOUS {
        assert_eq!(
            checked(method, target, headers),
            Err(wanted),
            "{method} {target} {headers:?}"
        );
    }
    let good: [Case<'_>; 11] = [
        ("GET", "/", &[("host", "SHOP.test")]),
        ("GET", "https://shop.test:8443/x?y=../z", &[]),
        ("GET", "/a.b/...c/%2f/%41", &[HOST]),
        ("GET", "/w/AC%5CDC/x%0Ay", &[HOST]),
        ("POST", "/", &[HOST, ("transfer-encoding", "Chunked")]),
        (
            "POST",
            "/",
            &[HOST, ("content-length", "0"), ("expect", "100-Continue")],
        ),
        // Not nominated by Connection, so it means nothing.
        ("GET", "/", &[HOST, ("upgrade", "h2c")]),
        // Nobody need take what is offered (RFC 9110 section 7.8).
        ("GET", "/", &[HOST, UPGRADES, ("upgrade", "h2c")]),
        ("POST", "/", &[HOST, UPGRADES, ("upgrade", "TLS/1.0")]),
        ("GET", "/", &[HOST, UPGRADES, ("upgrade", "websocket, h2c")]),
        (
            "GET",
            "/",
            &[HOST, ("connection", "keep-alive, TE"), ("te", "trailers")],
        ),
    ];
    for (method, target, headers) in good {
        assert_eq!(
            checked(method, target, headers),
            Ok(Shape::Plain),
            "{method} {target}"
        );
    }
}

#[test]
fn only_a_whole_handshake_is_a_websocket() {
    let upgrade = ("upgrade", "WebSocket");
    let version = ("sec-websocket-version", "13");
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(
        checked("GET", "/", &[HOST, upgrade, UPGRADES, version, key]),
        Ok(Shape::WebSocket)
    );
    let bad: [(&str, Headers<'_>); 5] = [
        ("POST", &[HOST, upgrade, UPGRADES, version, key]),
        ("GET", &[HOST, upgrade, UPGRADES, key]),
        ("GET", &[HOST, upgrade, UPGRADES, version]),
        ("GET", &[HOST, upgrade, UPGRADES, version, key, key]),
        (
            "GET",
            &[
                HOST,
                upgrade,
                UPGRADES,
                version,
                key,
                ("content-length", "5"),
            ],
        ),
    ];
    for (method, headers) in bad {
        assert_eq!(checked(method, "/", headers), Err(400), "{headers:?}");
    }
    let old = ("sec-websocket-version", "8");
    let headers = [HOST, upgrade, UPGRADES, old, key];
    assert_eq!(checked("GET", "/", &headers), Err(426));
    let other = ("x-http-method-override", "DELETE");
    let headers = [HOST, upgrade, UPGRADES, version, key, other];
    assert_eq!(checked("GET", "/", &headers), Err(400));
}

#[test]
fn a_request_is_judged_by_the_method_that_the_resource_may_take() {
    let asked = |method: &str, target: &str, headers: Headers<'_>| {
        let asked = head::asked(&request(method, target, headers), Shape::Plain);
        let asked = asked.map_err(|unfit| unfit.status.as_u16())?;
        Ok((asked.verb, asked.method.to_string()))
    };
    let read = |method: &str| Ok((Verb::WebRead, method.to_owned()));
    let write = |method: &str| Ok((Verb::WebWrite, method.to_owned()));
    assert_eq!(asked("GET", "/?a=b", &[]), read("GET"));
    assert_eq!(asked("HEAD", "/", &[]), read("HEAD"));
    assert_eq!(asked("PUT", "/", &[]), write("PUT"));
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Verb",
        "Method_Override",
        "X_HTTP_Method_Override",
        "x.http.method",
        "X-Method-Override",
    ] {
        assert_eq!(asked("GET", "/", &[(name, "delete ")]), write("DELETE"));
        assert_eq!(asked("GET", "/", &[(name, "HEAD")]), read("GET"));
        assert_eq!(asked("POST", "/", &[(name, "GET")]), write("POST"));
        assert_eq!(asked("GET", "/", &[(name, "")]), Err(400));
        assert_eq!(asked("GET", "/", &[(name, "a b")]), Err(400));
    }
    assert_eq!(asked("GET", "/?x=1&_method=Delete", &[]), write("DELETE"));
    assert_eq!(asked("GET", "/?%5Fmethod=%50ut", &[]), write("PUT"));
    assert_eq!(asked("GET", "/?_HttpMethod=PATCH", &[]), write("PATCH"));
    assert_eq!(asked("GET", "/?_method=card&method=POST", &[]), read("GET"));
    let two = [
        ("x-http-method-override", "PUT"),
        ("x_http_method", "DELETE"),
    ];
    assert_eq!(asked("POST", "/", &two), Err(400));
    let both = [("x-http-method-override", "PUT")];
    assert_eq!(asked("GET", "/?_method=DELETE", &both), Err(400));
}

fn grant() -> Grant {
    let hour = Span::from_secs(3_600);
    Grant {
        session: SessionId::from_random([1; 12]),
        subject: "ada".parse().unwrap(),
        roles: BTreeSet::from(["dba".parse().unwrap(), "staff".parse().unwrap()]),
        proof: Proof {
            amr: BTreeSet::new(),
            aal: Aal::One,
            at: Timestamp::from_micros(0),
        },
        limits: Limits {
            idle: hour,
            reauth: hour,
            lifetime: hour,
        },
        deadline: Deadline {
            at: Timestamp::MAX,
            cause: DeadlineCause::Idle,
        },
        rules: Vec::new(),
        record: None,
        account: None,
    }
}

fn upstream_sees(method: &str, shape: Shape, headers: &[(&str, &str)]) -> HeaderMap {
    let mut head = request(method, "/", headers);
    let grant = grant();
    let trusted = Trusted {
        grant: &grant,
        address: "192.0.2.7".parse().unwrap(),
        authority: "shop.test:8443",
        assertion: Some(HeaderValue::from_static("signed")),
    };
    fields::to_upstream(&mut head, shape, trusted);
    head.headers
}

#[test]
fn a_resource_sees_nothing_of_curfews_secrets_and_no_forged_header() {
    let seen = upstream_sees(
        "GET",
        Shape::Plain,
        &[
            HOST,
            ("cookie", "a=1; __Host-curfew=secret; b=2"),
            ("cookie", "__HOST-Curfew-begin=secret; flag"),
            ("authorization", "Bearer cft_secret"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_host", "evil"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("curfew-subject", "root"),
            ("curfew_roles", "admin"),
            ("curfew.roles", "admin"),
            ("curfew-new", "x"),
            ("remote_user", "root"),
            ("true-client-ip", "10.0.0.1"),
            ("proxy", "http://evil"),
            ("x-original-url", "/admin"),
            ("x_original_method", "DELETE"),
            ("content_length", "7"),
            ("transfer.encoding", "chunked"),
            ("content-length", "0"),
            ("connection", "keep-alive, x-hop, curfew-assertion, cookie2"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("x-mine", "stays"),
        ],
    );
    let wanted = [
        ("cookie", "a=1; b=2"),
        ("cookie", "flag"),
        ("curfew-assertion", "signed"),
        ("curfew-roles", "dba,staff"),
        ("curfew-session", "s_010101010101010101010101"),
        ("curfew-subject", "ada"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "shop.test:8443"),
        ("x-forwarded-proto", "https"),
        ("x-mine", "stays"),
    ];
    let mut held: Vec<(&str, &str)> = seen
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    held.sort_unstable();
    assert_eq!(held, wanted);
}

#[test]
fn what_is_the_resources_own_stays() {
    let own = [
        HOST,
        ("authorization", "Basic eDp5"),
        ("x-http-method-override", "PUT"),
    ];
    let seen = upstream_sees("GET", Shape::Plain, &own);
    assert_eq!(seen[header::AUTHORIZATION], "Basic eDp5");
    assert_eq!(
        seen["x-http-method-override"], "PUT",
        "it was judged as one"
    );
    let seen = upstream_sees(
        "GET",
        Shape::WebSocket,
        &[HOST, ("connection", "upgrade"), ("upgrade", "websocket")],
    );
    assert_eq!(seen[header::CONNECTION], "upgrade");
    assert_eq!(seen[header::UPGRADE], "websocket");
}

#[test]
fn a_client_sees_nothing_that_belongs_to_the_hop_or_to_curfew() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("server", "Apache/1.3"),
        ("alt-svc", "h3=\":443\""),
        ("curfew-session", "x"),
        ("strict-transport-security", "max-age=0"),
        ("cache-control", "public, max-age=60"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "__Host-curfew=evil; Path=/; Secure"),
        ("set-cookie", " __hOST-CURFEW-begin=evil"),
        ("set-cookie", "=__Host-curfew=evil"),
        ("set-cookie", "b=2"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    fields::to_client(&mut headers);
    let all = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(all("strict-transport-security"), ["max-age=31536000"]);
    assert_eq!(headers.keys().count(), 3, "{headers:?}");
}

#[test]
fn the_resources_cookies_stay_as_they_are_byte_for_byte() {
    let seen = |version, lines: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        credential::strip(&mut headers, version);
        let left = headers.get_all(header::COOKIE).iter();
        let left: Vec<String> = left.map(|line| line.to_str().unwrap().to_owned()).collect();
        left.join("|")
    };
    let h1 = |line: &'static str| seen(Version::HTTP_11, &[line]);
    for same in [
        "a=1;b=2",
        "flag",
        "theme=dark; flag; id=7",
        "a=1;  b = 2 ;;c=\"x y\"",
        "=x",
    ] {
        assert_eq!(h1(same), same);
    }
    assert_eq!(h1("flag; __Host-curfew=s;b=2"), "flag;b=2");
    assert_eq!(h1("__Host-curfew=s;b"), "b");
    assert_eq!(h1("a;__HOST-CURFEW-begin=s;__Host-curfew=t"), "a");
    assert_eq!(h1("__Host-curfew=s"), "");
    let crumbs = ["a=1", "__Host-curfew=s", "flag"];
    assert_eq!(seen(Version::HTTP_2, &crumbs), "a=1; flag");
    assert_eq!(seen(Version::HTTP_11, &crumbs), "a=1|flag");
}

fn shown(headers: &[(&str, &str)]) -> Result<Option<(CredentialClass, String)>, u16> {
    let head = request("GET", "/", headers);
    let shown = credential::shown(&head.headers).map_err(|unfit| unfit.status.as_u16())?;
    Ok(shown.map(|shown| (shown.class, shown.hash.to_string())))
}

#[test]
fn a_session_is_presented_by_one_cookie_or_token() {
    let hash = |text| secret::hash(text).to_string();
    let cookie = |text| Ok(Some((CredentialClass::Cookie, hash(text))));
    let bearer = |text| Ok(Some((CredentialClass::Bearer, hash(text))));
    assert_eq!(shown(&[]), Ok(None));
    assert_eq!(shown(&[("cookie", "a=1;__Host-curfew=x=y")]), cookie("x=y"));
    assert_eq!(
        shown(&[("cookie", "__host-curfew=x; __Host-curfew-begin=y")]),
        Ok(None)
    );
    assert_eq!(shown(&[("authorization", "bearer cft_x")]), bearer("cft_x"));
    assert_eq!(
        shown(&[("authorization", "Bearer other")]),
        Ok(None),
        "the resource's own"
    );
    let both = [
        ("cookie", "__Host-curfew=x"),
        ("authorization", "Bearer cft_x"),
    ];
    assert_eq!(shown(&both), bearer("cft_x"));
    assert_eq!(
        shown(&[("cookie", "__Host-curfew=x; __Host-curfew=y")]),
        Err(400)
    );
    assert_eq!(
        shown(&[("cookie", "__Host-curfew=x"), ("cookie", "__Host-curfew=x")]),
        Err(400)
    );
    let two = [
        ("authorization", "Bearer cft_x"),
        ("authorization", "Basic x"),
    ];
    assert_eq!(shown(&two), Err(400));
    let long = format!("__Host-curfew={}", "x".repeat(200));
    assert_eq!(shown(&[("cookie", &long)]), Err(400));
}

#[test]
fn cookies_carry_what_browsers_need_to_guard_them() {
    let secret = "cfc_x".to_owned().into();
    let set = credential::set_session(&secret).unwrap();
    assert_eq!(
        set,
        "__Host-curfew=cfc_x; Path=/; Secure; HttpOnly; SameSite=Lax"
    );
    let begin = credential::set_begin(&secret).unwrap();
    assert_eq!(
        begin,
        "__Host-curfew-begin=cfc_x; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"
    );
    assert!(
        credential::clear_session()
            .unwrap()
            .to_str()
            .unwrap()
            .ends_with("Max-Age=0")
    );
}

#[test]
fn names_and_paths_are_told_apart() {
    assert_eq!(
        public_authority("a.test", "https://p.test:8443"),
        "a.test:8443"
    );
    assert_eq!(public_authority("a.test", "https://p.test"), "a.test");
    assert!(own::is_own("/.curfew") && own::is_own("/.curfew/x") && !own::is_own("/.curfewx"));
    let client = |bytes: &[u8]| readable(&HeaderValue::from_bytes(bytes).unwrap());
    assert_eq!(client(b"caf\xe9/1 x\x80"), "caf\\xe9/1 x\\x80");
    assert_eq!(client("Браузер/1.0".as_bytes()), "Браузер/1.0");
    let head = request("GET", "https://a.test:1/", &[]);
    assert_eq!(named_authority(&head), "a.test:1");
}

//! Curfew's own answers: small pages for people, small JSON for programs.

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Body;
use super::fields::HSTS;

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// A page navigation of an app: where sign-in helps, the browser is sent there.
    Navigation,
    /// A page for a person, which must not be redirected: a form that was sent, a handshake.
    Page,
    /// A page within another page. Nobody can sign in there: the portal shows itself in no frame,
    /// and a browser may keep cookies from it.
    Frame,
    /// JSON for a program.
    Program,
}

/// Marks an answer that is Curfew's own, as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own;

/// What Curfew says instead of the resource.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) status: StatusCode,
    /// A word for programs, such as `invalid_token`.
    pub(super) error: &'static str,
    pub(super) title: &'static str,
    /// What happened.
    pub(super) text: String,
    /// What to do about it.
    pub(super) hint: &'static str,
    /// Where to go from here, and what the link says.
    pub(super) link: Option<(String, &'static str)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Notice {
    pub(super) fn new(
        status: StatusCode,
        error: &'static str,
        title: &'static str,
        text: impl Into<String>,
    ) -> Self {
        let text = text.into();
        Self {
            status,
            error,
            title,
            text,
            hint: "",
            link: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    pub(super) fn link(mut self, target: String, label: &'static str) -> Self {
        self.link = Some((target, label));
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: Option<HeaderValue>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    /// The answer. A `303` is the notice with its link as target.
    pub(super) fn answer(self, manner: Manner) -> Response<Body> {
        let (kind, text) = match manner {
            Manner::Program => ("application/json", self.json()),
            Manner::Navigation | Manner::Page | Manner::Frame => {
                ("text/html; charset=utf-8", self.html(manner))
            }
        };
        let mut response = Response::new(full(text));
        response.extensions_mut().insert(Own);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let fixed = [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
            (header::STRICT_TRANSPORT_SECURITY, HSTS),
        ];
        headers.extend(fixed);
        if let Ok(policy) = HeaderValue::try_from(content_policy(manner)) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        if self.status == StatusCode::SEE_OTHER
            && let Some((target, _)) = &self.link
            && let Ok(target) = HeaderValue::try_from(target.as_str())
        {
            headers.insert(header::LOCATION, target);
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            error: &'a str,
            error_description: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            hint: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            link: Option<&'a str>,
        }
        let json = Json {
            error: self.error,
            error_description: &self.text,
            hint: self.hint,
            link: self.link.as_ref().map(|(target, _)| target.as_str()),
        };
        serde_json::to_string(&json).unwrap_or_default()
    }

    fn html(&self, manner: Manner) -> String {
        let (href, label) = match &self.link {
            Some((href, label)) => (href.as_str(), *label),
            None => ("", ""),
        };
        let page = Page {
            title: self.title,
            text: &self.text,
            hint: self.hint,
            href,
            label,
            // Out of the frame: there it can be signed in.
            apart: manner == Manner::Frame,
            style: STYLE,
        };
        page.render().unwrap_or_default()
    }
}

const STYLE: &str = ":root{color-scheme:light dark}\
body{margin:0;font:1rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText}\
main{max-width:34rem;margin:12vh auto;padding:0 1.25rem}\
h1{font-size:1.5rem;line-height:1.25}\
a{color:LinkText;font-weight:600}\
a:focus-visible{outline:3px solid;outline-offset:3px}\
small{opacity:.8}";

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ title }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p>{{ text }}</p>
{% if !hint.is_empty() %}<p>{{ hint }}</p>
{% endif %}{% if !href.is_empty() %}<p><a href="{{ href }}"{% if apart %} target="_blank" rel="noopener"{% endif %}>{{ label }}</a></p>
{% endif %}<p><small>Curfew</small></p>
</main>
</body>
</html>
"#
)]
struct Page<'a> {
    title: &'a str,
    text: &'a str,
    hint: &'a str,
    href: &'a str,
    label: &'a str,
    apart: bool,
    style: &'a str,
}

/// Nothing but the one style that stands in the page. Within a frame it says why the page is not
/// there: it has a link that opens a tab, and nothing else to click on.
fn content_policy(manner: Manner) -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let frames = if manner == Manner::Frame {
        "*"
    } else {
        "'none'"
    };
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors {frames}"
    )
}

/// A body with this text.
pub(super) fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body with nothing in it.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_shows_text_as_text_and_runs_nothing() {
        let notice = Notice::new(
            StatusCode::FORBIDDEN,
            "access_denied",
            "No",
            "<script>x</script>",
        )
        .link("/?a=1&b=\"".to_owned(), "Go");
        let response = notice.answer(Manner::Page);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key(header::LOCATION));
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'"));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(
            !text.contains("<script>") && !text.contains("b=\"\""),
            "{text}"
        );
        assert!(
            text.contains(STYLE) && text.contains("<h1>No</h1>"),
            "{text}"
        );
    }
}

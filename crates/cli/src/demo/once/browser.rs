//! A browser as far as the walk needs one: cookies, redirects, forms.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::cookie::{CookieStore, Jar};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::super::files::{API, PORTAL, SHOP};
use super::super::{code, stage::User};
use super::broken;
use crate::failure::{Doing, Outcome};

/// How long a page may take.
const PAGE: Duration = Duration::from_secs(10);

/// A browser with its own cookies.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    http: Client,
    jar: Arc<Jar>,
}

/// A page and where it was found.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) url: Url,
    pub(super) text: String,
}

/// A form of a page: where it goes, and its hidden fields.
#[derive(Debug, Eq, PartialEq)]
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

fn builder(ca: &Path) -> Outcome<reqwest::ClientBuilder> {
    let pem = std::fs::read(ca).doing(ca.display())?;
    let certificates = Certificate::from_pem_bundle(&pem).doing(ca.display())?;
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let builder = Client::builder()
        .tls_certs_only(certificates)
        .connect_timeout(PAGE);
    Ok([PORTAL, SHOP, API]
        .iter()
        .fold(builder, |builder, host| builder.resolve(host, here)))
}

impl Browser {
    /// A fresh one that trusts the demo's authority.
    pub(super) fn new(ca: &Path) -> Outcome<Self> {
        let jar = Arc::new(Jar::default());
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("text/html,application/xhtml+xml"),
        );
        let http = builder(ca)?
            .cookie_provider(Arc::clone(&jar))
            .default_headers(headers)
            .build()
            .doing("cannot set up TLS")?;
        Ok(Self { http, jar })
    }

    async fn page(request: RequestBuilder) -> Outcome<Page> {
        let response = request
            .timeout(PAGE)
            .send()
            .await
            .doing("the page does not come")?;
        let (status, url) = (response.status(), response.url().clone());
        let text = response.text().await.doing("the page was cut short")?;
        Ok(Page { status, url, text })
    }

    /// Opens a page, going where it sends us.
    pub(super) async fn open(&self, url: &str) -> Outcome<Page> {
        let navigation = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let request = navigation
            .iter()
            .fold(self.http.get(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        Self::page(request).await
    }

    /// Opens a stream of events that stays open.
    pub(super) async fn stream(&self, url: &str) -> Outcome<Response> {
        let request = self.http.get(url).header(ACCEPT, "text/event-stream");
        let response = request.send().await.doing("the stream does not open")?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        broken(format_args!(
            "the stream was answered with {}",
            response.status()
        ))
    }

    /// The cookies for an address, as they are sent.
    pub(super) fn cookies(&self, url: &str) -> Outcome<HeaderValue> {
        let url = Url::parse(url).doing(url)?;
        match self.jar.cookies(&url) {
            Some(cookies) => Ok(cookies),
            None => broken("the browser has no cookie"),
        }
    }

    /// Sends a form that was found on `page`, with more fields filled in.
    pub(super) async fn submit(
        &self,
        page: &Page,
        action: &str,
        more: &[(&str, &str)],
    ) -> Outcome<Page> {
        let Some(form) = form(&page.text, action) else {
            return broken(format_args!("{} has no form for {action}", page.url));
        };
        let url = page.url.join(&form.action).doing("the form's address")?;
        let mut fields = form.fields;
        fields.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        fields.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self::page(self.http.post(url).form(&fields)).await
    }

    /// Signs in: opens `url`, is sent to the sign-in page, fills it in, and comes back.
    pub(super) async fn sign_in(&self, url: &str, user: &User, step: i64) -> Outcome<Page> {
        let page = self.open(url).await?;
        if page.url.path() != "/sign-in" {
            return broken(format_args!(
                "{url} did not lead to sign-in, but to {}",
                page.url
            ));
        }
        let code = code::code(&user.secret, step)?;
        let filled = [
            ("name", user.name),
            ("password", &user.password),
            ("code", &code),
        ];
        let page = self.submit(&page, "/sign-in", &filled).await?;
        if page.status == StatusCode::OK && page.url.path() != "/sign-in" {
            return Ok(page);
        }
        broken(format_args!(
            "signing in as {} was answered with {}",
            user.name, page.status
        ))
    }

    /// A bearer token for programs, approved in this browser (RFC 8628).
    pub(super) async fn bearer(&self, portal: &str) -> Outcome<String> {
        let client = ("client_id", "curfew-cli");
        let device = self
            .post_form(&format!("{portal}/oauth/device_authorization"), &[client])
            .await?;
        let field = |name: &str| {
            device
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let page = self.open(&field("verification_uri_complete")).await?;
        let page = self
            .submit(&page, "/device/decide", &[("choice", "approve")])
            .await?;
        if page.status != StatusCode::OK {
            return broken(format_args!(
                "approving the device was answered with {}",
                page.status
            ));
        }
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        let code = field("device_code");
        let form = [grant, client, ("device_code", code.as_str())];
        let token = self
            .post_form(&format!("{portal}/oauth/token"), &form)
            .await?;
        match token.get("access_token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => broken(format_args!("no token, but {token}")),
        }
    }

    async fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Outcome<Value> {
        let page = Self::page(self.http.post(url).form(form)).await?;
        serde_json::from_str(&page.text).doing(url)
    }
}

/// Calls an API with a bearer token.
#[derive(Clone, Debug)]
pub(super) struct Api {
    http: Client,
    token: Option<String>,
}

impl Api {
    /// With this token, or without any.
    pub(super) fn new(ca: &Path, token: Option<String>) -> Outcome<Self> {
        let http = builder(ca)?
            .timeout(PAGE)
            .build()
            .doing("cannot set up TLS")?;
        Ok(Self { http, token })
    }

    async fn send(&self, mut request: RequestBuilder) -> Outcome<(StatusCode, Value)> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.doing("the API does not answer")?;
        let status = response.status();
        let text = response.text().await.doing("the answer was cut short")?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    pub(super) async fn get(&self, url: &str) -> Outcome<(StatusCode, Value)> {
        self.send(self.http.get(url)).await
    }

    pub(super) async fn post(&self, url: &str) -> Outcome<(StatusCode, Value)> {
        self.send(self.http.post(url)).await
    }
}

/// The form of `html` that goes to `action`.
fn form(html: &str, action: &str) -> Option<Form> {
    html.split("<form").skip(1).find_map(|part| {
        let part = part.split("</form>").next()?;
        let (head, body) = part.split_once('>')?;
        let goes_to = attribute(head, "action").unwrap_or_default();
        (goes_to.split('?').next() == Some(action)).then_some(())?;
        let fields = body.split("<input").skip(1).filter_map(|input| {
            let input = input.split('>').next()?;
            (attribute(input, "type").as_deref() == Some("hidden")).then_some(())?;
            Some((
                attribute(input, "name")?,
                attribute(input, "value").unwrap_or_default(),
            ))
        });
        Some(Form {
            fields: fields.collect(),
            action: goes_to,
        })
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(unescape(rest.split('"').next()?))
}

fn unescape(text: &str) -> String {
    let mut parts = text.split('&');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';').unwrap_or(("amp", part));
        let letter = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "amp" => Some('&'),
            _ => entity
                .strip_prefix('#')
                .and_then(|number| match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok(),
                    None => number.parse().ok(),
                })
                .and_then(char::from_u32),
        };
        out.extend(letter);
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_form_is_found_with_its_hidden_fields() {
        let html = r#"<form method="post" action="/sign-out"><input type="hidden" name="csrf" value="a"></form>
            <form method="post" action="/sign-in?x=1"><input type="hidden" name="csrf" value="b&#38;c">
            <input id="n" name="name" type="text" value="ana"></form>"#;
        let found = form(html, "/sign-in").unwrap();
        assert_eq!(found.action, "/sign-in?x=1");
        assert_eq!(found.fields, [("csrf".to_owned(), "b&c".to_owned())]);
        assert_eq!(form(html, "/other"), None);
    }

    #[test]
    fn entities_are_read() {
        assert_eq!(unescape("a&lt;b&#38;&#x41;&quot;"), "a<b&A\"");
    }
}

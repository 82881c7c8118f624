//! One entry of the ledger: a page for people, its bytes for programs. Reading it is itself an entry.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_entry::{Entry, SessionId, SubjectName, Verb, visible};
use curfew_export::Stream;
use serde::Deserialize;
use serde_json::Value;

use super::Portal;
use super::details::{Detail, fields, text_of};
use super::fault::Fault;
use super::frame::{Frame, page};
use super::log::unread;
use super::shelf::{self, Unread};
use super::viewer::Viewer;
use super::whose::{Whose, whose};

#[derive(askama::Template)]
#[template(path = "entry.html")]
struct EntryPage {
    frame: Frame,
    index: u64,
    kind: String,
    /// What happened, in a sentence.
    message: String,
    time: String,
    people: Vec<Person>,
    fields: Vec<Detail>,
    /// The entry of the connection it came through, or that it is the end of.
    opened_by: Option<u64>,
    /// It commits to values that can be asked for.
    conceals: bool,
}

/// A session that the entry tells of.
struct Person {
    session: SessionId,
    subject: Option<SubjectName>,
}

/// How it is wanted.
#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    download: String,
}

/// `/log/N`.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    Path(index): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Fault> {
    let index: u64 = index.parse().map_err(|_| unread(Unread::PastEnd))?;
    let Query(wanted) = wanted.map_err(|_| Fault::Malformed)?;
    let asked = viewer.ask(&portal, Verb::LogRead, None).await;
    let permit = asked.map_err(|refusal| viewer.fault(refusal))?;
    let bytes = shelf::one(&portal, index).await;
    viewer
        .settle(&portal, permit)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let bytes = bytes.map_err(unread)?;
    let download = wanted.download == "1";
    if download || !wants_page(&viewer.visit.headers) {
        return Ok(raw(index, bytes, download));
    }
    let whose = whose(&portal, std::iter::once(bytes.as_slice())).await;
    let whose = whose.map_err(|refusal| viewer.fault(refusal))?;
    let template = EntryPage::of(index, &bytes, &whose, {
        Frame::signed_in(&format!("Entry {index}"), "/log", &portal, &viewer)
    });
    let mut response = page(StatusCode::OK, &template);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Browsers say that they want a page where they do; whoever says nothing, or asks for JSON, is a
/// program.
fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html"))
}

/// The entry byte for byte as it is in the ledger.
fn raw(index: u64, bytes: Vec<u8>, download: bool) -> Response {
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    let vary = (VARY, HeaderValue::from_static("accept"));
    let mut response = ([(CONTENT_TYPE, kind), vary], bytes).into_response();
    let name = format!("attachment; filename=\"entry-{index}.json\"");
    if let (true, Ok(name)) = (download, HeaderValue::try_from(name)) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    response
}

impl EntryPage {
    fn of(index: u64, bytes: &[u8], whose: &Whose, frame: Frame) -> Self {
        let json: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let sessions: Vec<SessionId> = Entry::from_bytes(bytes)
            .map(|entry| entry.event.facets().sessions().cloned().collect())
            .unwrap_or_default();
        let people: Vec<Person> = sessions
            .into_iter()
            .map(|session| Person {
                subject: whose.get(&session).cloned(),
                session,
            })
            .collect();
        let record = Stream::new().record(index, bytes.to_vec());
        // Who did it, where the entry alone does not say.
        let subject = record.facts.subject.is_none().then(|| people.first());
        let subject = subject.flatten().and_then(|person| person.subject.as_ref());
        let message = match subject {
            Some(subject) => format!("{subject}: {}", record.facts.message),
            None => record.message(),
        };
        Self {
            frame,
            index,
            kind: text_of(&json, "kind"),
            message: visible(&message).into_owned(),
            time: text_of(&json, "time"),
            people,
            opened_by: ["connection", "action"]
                .iter()
                .find_map(|field| json.get(field).and_then(Value::as_u64)),
            conceals: json.get("concealed").is_some(),
            fields: fields(&json),
        }
    }
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::*;

    const CLOSED: &[u8] = br#"{"v":1,"time":"2026-11-23T16:40:00.000123Z","kind":"action.closed","session":"s_00112233445566778899aabb","action":41,"by":"client","closed":"2026-11-23T16:40:00.000004Z","bytes_in":10,"bytes_out":2000}"#;

    fn render(bytes: &[u8]) -> String {
        let session = "s_00112233445566778899aabb".parse().unwrap();
        let whose = Whose::from([(session, "ada".parse().unwrap())]);
        let page = EntryPage::of(7, bytes, &whose, Frame::signed_out("Entry 7"));
        page.render().unwrap()
    }

    #[test]
    fn an_entry_is_a_sentence_with_its_person_and_its_fields() {
        let html = render(CLOSED);
        for wanted in [
            "ada: connection closed by client",
            "href=\"/log/41\"",
            "href=\"/log?session=s_00112233445566778899aabb\"",
            "bytes_out",
            "href=\"/log/7?download=1\"",
        ] {
            assert!(html.contains(wanted), "{wanted}: {html}");
        }
    }

    #[test]
    fn what_clients_sent_stays_text_that_can_be_seen() {
        let denied = "{\"v\":1,\"time\":\"2026-11-23T16:40:00.000122Z\",\"kind\":\"action.denied\",\"session\":\"s_00112233445566778899aabb\",\"verb\":\"web.read\",\"resource\":\"wiki\",\"path\":\"/<script>\u{202e}\u{200b}\",\"client\":\"\u{9b}2J\",\"cause\":\"forbidden\"}";
        let html = render(denied.as_bytes());
        assert!(html.contains("&#60;script&#62;\\u202e\\u200b"), "{html}");
        for bad in ["<script>", "\u{202e}", "\u{200b}", "\u{9b}"] {
            assert!(!html.contains(bad), "{bad:?}");
        }
        assert!(render(b"\xff").contains("does not know"));
    }

    #[test]
    fn programs_get_the_bytes() {
        let accepts = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            wants_page(&headers)
        };
        assert!(accepts("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!accepts("application/json") && !accepts("*/*"));
        assert!(!wants_page(&HeaderMap::new()));
    }
}

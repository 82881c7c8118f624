//! The latest entries of the ledger, for people. Reading them is itself an entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use curfew_authority::{SessionId, Span, Verb};
use curfew_ledger::{Checkpoint, note::Note};
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::frame::{Frame, page};
use super::shelf::{self, Back, Unread};
use super::viewer::Viewer;
use super::{Portal, sessions, text};

/// Entries on one page.
const PAGE: usize = 100;

/// Characters of an entry's details that a row shows; the whole entry is one click away.
const DETAIL_CHARS_MAX: usize = 240;

/// Characters of one value within the details.
const VALUE_CHARS_MAX: usize = 80;

/// Characters of a hash that a row shows: enough to tell two apart.
const HASH_CHARS: usize = 12;

/// The longest word to filter by: the longest kind and a session's name are below 32 bytes.
const FILTER_BYTES_MAX: usize = 64;

#[derive(askama::Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    rows: Vec<Row>,
    kind: String,
    session: String,
    /// Older entries begin before this index.
    older: Option<String>,
    /// The look stopped before it had found a page full.
    from: u64,
    filtered: bool,
    size: u64,
    signed: Option<Signed>,
}

/// The newest checkpoint.
struct Signed {
    size: u64,
    behind: u64,
    note: String,
}

/// An entry in the table.
#[derive(Debug, Eq, PartialEq)]
struct Row {
    index: u64,
    time: String,
    time_text: String,
    kind: String,
    /// What the row's colour says: `good`, `bad` or nothing.
    tone: &'static str,
    session: String,
    subject: String,
    resource: String,
    details: String,
}

/// What to show.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    session: String,
    #[serde(default)]
    before: String,
}

impl Filter {
    fn cleaned(self) -> Self {
        let clean = |text: String| {
            let text = text.trim();
            let fits = text.len() <= FILTER_BYTES_MAX;
            if fits { text.to_owned() } else { String::new() }
        };
        Self {
            kind: clean(self.kind),
            session: clean(self.session),
            before: clean(self.before),
        }
    }

    fn is_empty(&self) -> bool {
        self.kind.is_empty() && self.session.is_empty()
    }

    /// `action` stands for every kind that begins with `action.`.
    fn takes(&self, entry: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let Ok(entry) = serde_json::from_slice::<Value>(entry) else {
            return false;
        };
        let kind = text_of(&entry, "kind");
        let kind_fits = self.kind.is_empty()
            || kind.strip_prefix(self.kind.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || self.kind.ends_with('.')
            });
        let session_fits = self.session.is_empty()
            || text_of(&entry, "session") == self.session
            || text_of(&entry, "target") == self.session;
        kind_fits && session_fits
    }
}

fn text_of<'v>(entry: &'v Value, field: &str) -> &'v str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A value in a few words: lists with commas, spans as people write them, hashes by their head.
fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            text::cut(text, HASH_CHARS)
        }
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Number(number) if name.ends_with("_us") && name != "boot_us" => {
            number.as_u64().map_or_else(
                || number.to_string(),
                |us| Span::from_micros(us).to_string(),
            )
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| plain(name, item)).collect();
            items.join(", ")
        }
        Value::Object(fields) => pairs(fields.iter(), ", "),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn pairs<'v>(fields: impl Iterator<Item = (&'v String, &'v Value)>, between: &str) -> String {
    let pairs: Vec<String> = fields
        .map(|(name, value)| {
            let shown = name.strip_suffix("_us").unwrap_or(name);
            format!(
                "{shown} {}",
                text::cut(&plain(name, value), VALUE_CHARS_MAX)
            )
        })
        .collect();
    pairs.join(between)
}

/// What an entry says beyond its columns, as `name value` pairs.
fn details(entry: &Value) -> String {
    const SHOWN: [&str; 6] = ["v", "time", "kind", "session", "subject", "resource"];
    let Some(fields) = entry.as_object() else {
        return String::new();
    };
    let rest = fields
        .iter()
        .filter(|(name, _)| !SHOWN.contains(&name.as_str()));
    text::cut(&pairs(rest, " · "), DETAIL_CHARS_MAX)
}

fn tone(kind: &str) -> &'static str {
    match kind {
        "session.started" | "recording.resumed" => "good",
        "sign_in.refused"
        | "action.denied"
        | "session.used_after_end"
        | "credential.unknown"
        | "credential.refused"
        | "recording.failed"
        | "clock.stepped" => "bad",
        _ => "",
    }
}

impl Row {
    fn of(index: u64, bytes: &[u8], subjects: &BTreeMap<String, String>) -> Self {
        let entry: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let kind = text_of(&entry, "kind").to_owned();
        let session = text_of(&entry, "session").to_owned();
        let own = text_of(&entry, "subject");
        let subject = match own {
            "" => subjects.get(&session).map_or("", String::as_str),
            own => own,
        };
        let time = text_of(&entry, "time").to_owned();
        let seconds = time
            .split_once('.')
            .map_or(time.as_str(), |(seconds, _)| seconds);
        Self {
            index,
            time_text: seconds.replacen('T', " ", 1),
            tone: tone(&kind),
            subject: subject.to_owned(),
            resource: text_of(&entry, "resource").to_owned(),
            details: details(&entry),
            time,
            kind,
            session,
        }
    }
}

/// Whose sessions they are, as far as the entries at hand and the live sessions tell.
async fn subjects(
    portal: &Portal,
    back: &Back,
) -> Result<BTreeMap<String, String>, crate::Refusal> {
    let live = sessions::live(portal, None).await?;
    let mut subjects: BTreeMap<String, String> = live
        .into_iter()
        .map(|view| (view.session.to_string(), view.subject.to_string()))
        .collect();
    for (_, bytes) in &back.entries {
        let entry: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let (session, subject) = (text_of(&entry, "session"), text_of(&entry, "subject"));
        if !session.is_empty() && !subject.is_empty() {
            subjects.insert(session.to_owned(), subject.to_owned());
        }
    }
    Ok(subjects)
}

fn unread(unread: Unread) -> Fault {
    match unread {
        Unread::PastEnd => Fault::NotFound("The log has no entry of that number."),
        Unread::Failed => Fault::Failed,
    }
}

fn signed(back: &Back) -> Option<Signed> {
    let note = back.checkpoint.clone()?;
    let parsed = Note::parse(note.as_bytes()).ok()?;
    let checkpoint = Checkpoint::parse(parsed.text()).ok()?;
    let size = checkpoint.size;
    Some(Signed {
        size,
        behind: back.size.saturating_sub(size),
        note,
    })
}

/// The page.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Fault> {
    let Query(filter) = filter.map_err(|_| Fault::Malformed)?;
    let filter = filter.cleaned();
    let before = filter.before.parse().ok();
    let asked = viewer.ask(&portal, Verb::LogRead, None).await;
    let permit = asked.map_err(|refusal| viewer.fault(refusal))?;
    // Recorded before it is read: the reading then stands in what is shown.
    viewer
        .settle(&portal, permit)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let looked_for = filter.clone();
    let back = shelf::back(&portal, before, PAGE, move |entry| looked_for.takes(entry))
        .await
        .map_err(unread)?;
    let subjects = subjects(&portal, &back)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let rows = back
        .entries
        .iter()
        .map(|(index, bytes)| Row::of(*index, bytes, &subjects));
    let template = LogPage {
        rows: rows.collect(),
        frame: Frame::signed_in("Log", "/log", &portal, &viewer),
        older: (back.from > 0).then(|| older(&filter, back.from)),
        from: back.from,
        filtered: !filter.is_empty(),
        kind: filter.kind,
        session: filter.session,
        size: back.size,
        signed: signed(&back),
    };
    Ok(page(StatusCode::OK, &template))
}

/// The link to older entries under the same filter.
fn older(filter: &Filter, from: u64) -> String {
    let encode = |text| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    format!(
        "/log?kind={}&session={}&before={from}",
        encode(filter.kind.as_str()),
        encode(filter.session.as_str()),
    )
}

/// One entry, byte for byte as it is in the ledger.
pub(super) async fn entry(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    Path(index): Path<String>,
) -> Result<Response, Fault> {
    let index = index.parse().map_err(|_| unread(Unread::PastEnd))?;
    let asked = viewer.ask(&portal, Verb::LogRead, None).await;
    let permit = asked.map_err(|refusal| viewer.fault(refusal))?;
    let bytes = shelf::one(&portal, index).await;
    viewer
        .settle(&portal, permit)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], bytes.map_err(unread)?).into_response())
}

/// Whether a text names a session, for links.
pub(super) fn is_session(text: &str) -> bool {
    text.parse::<SessionId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use askama::Template;

    const ALLOWED: &[u8] = br#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","kind":"action.allowed","session":"s_000000000000000000000001","verb":"web.read","resource":"shop","path":"/a","rules":["r"]}"#;

    fn filter(kind: &str, session: &str) -> Filter {
        Filter {
            kind: kind.into(),
            session: session.into(),
            before: String::new(),
        }
    }

    #[test]
    fn a_filter_takes_a_kind_a_family_of_kinds_and_a_session() {
        let session = "s_000000000000000000000001";
        for (kind, wanted) in [
            ("", true),
            ("action.allowed", true),
            ("action", true),
            ("action.", true),
            ("act", false),
            ("action.denied", false),
        ] {
            assert_eq!(filter(kind, "").takes(ALLOWED), wanted, "{kind}");
            assert_eq!(filter(kind, session).takes(ALLOWED), wanted, "{kind}");
            assert!(!filter(kind, "s_2").takes(ALLOWED));
        }
        assert!(!filter("action", "").takes(b"not json"));
    }

    #[test]
    fn a_row_shows_what_the_entry_says() {
        let subjects =
            BTreeMap::from([("s_000000000000000000000001".to_owned(), "ada".to_owned())]);
        let row = Row::of(7, ALLOWED, &subjects);
        assert_eq!(row.time_text, "2026-11-23 16:40:00");
        assert_eq!(
            (row.subject.as_str(), row.resource.as_str()),
            ("ada", "shop")
        );
        // In the order in which the JSON reader gives the fields.
        for wanted in ["path /a", "rules r", "verb web.read"] {
            assert!(row.details.contains(wanted), "{}", row.details);
        }
        assert_eq!(
            Row::of(8, b"\xff", &subjects).kind,
            "",
            "what is no entry breaks nothing"
        );
    }

    #[test]
    fn details_are_for_people() {
        let entry = serde_json::json!({
            "kind": "x", "roles": ["a", "b"], "limits": {"idle_us": 900_000_000_u64},
            "hash": "0123456789abcdef".repeat(4), "text": "a\n  b", "passive": true,
        });
        let details = details(&entry);
        for wanted in [
            "roles a, b",
            "limits idle 15m",
            "hash 0123456789ab…",
            "text a b",
            "passive true",
        ] {
            assert!(details.contains(wanted), "{details}");
        }
    }

    #[test]
    fn hostile_entries_stay_text() {
        let entry = br#"{"kind":"<b>x</b>","subject":"<script>","resource":"\"><img>","path":"<svg onload=x>"}"#;
        let html = LogPage {
            frame: Frame::signed_out("Log"),
            rows: vec![Row::of(1, entry, &BTreeMap::new())],
            kind: "\"><script>".into(),
            session: "'><script>".into(),
            older: Some(older(&filter("\"><script>", "a&b"), 5)),
            from: 5,
            filtered: true,
            size: 9,
            signed: Some(Signed {
                size: 1,
                behind: 8,
                note: "<script>\n".into(),
            }),
        }
        .render()
        .unwrap();
        for bad in ["<script", "<b>x", "<img>", "<svg onload"] {
            assert!(!html.contains(bad), "{bad}");
        }
        assert!(html.contains("before=5"));
    }
}

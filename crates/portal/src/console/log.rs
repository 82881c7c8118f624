//! The latest entries of the ledger, for people. Reading them is itself an entry.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use curfew_entry::{SessionId, Verb, visible};
use curfew_ledger::{Checkpoint, note::Note};
use curfew_search::{Answer, Asked, Query, QueryError};
use percent_encoding::NON_ALPHANUMERIC;
use serde_json::Value;

use super::details::{Detail, fields, text_of};
use super::fault::Fault;
use super::frame::{Frame, page};
use super::shelf::{self, Back, Unread};
use super::viewer::Viewer;
use super::whose::{Whose, whose};
use super::{Portal, followers, search, text};
use crate::search::Unanswered;

/// Entries on one page.
const PAGE: u64 = 100;

/// The same for what a search gives.
const PAGE_ENTRIES: usize = 100;

/// Characters of an entry's details that a row shows; the whole entry is one click away.
const DETAIL_CHARS_MAX: usize = 240;

/// Characters of one value within the details.
const VALUE_CHARS_MAX: usize = 80;

#[derive(askama::Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    rows: Vec<Row>,
    /// What is in the form.
    asked: Asked,
    /// The form shows all its fields.
    more_fields: bool,
    /// The link to what comes next.
    older: Option<String>,
    /// Something is looked for.
    filtered: bool,
    told: Option<String>,
    wrong: Option<Wrong>,
    size: u64,
    signed: Option<Signed>,
    /// Who follows the log; where something is looked for, they are not shown.
    followers: Vec<followers::Row>,
}

/// What is wrong with the question.
struct Wrong {
    problem: String,
    hint: String,
}

impl From<QueryError> for Wrong {
    fn from(error: QueryError) -> Self {
        Self {
            problem: visible(&error.to_string()).into_owned(),
            hint: visible(&error.hint).into_owned(),
        }
    }
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
    details: Vec<Detail>,
    /// It commits to values that can be asked for.
    conceals: bool,
}

/// What an entry says beyond its columns, as far as it fits.
fn details(entry: &Value) -> Vec<Detail> {
    const SHOWN: [&str; 6] = ["v", "time", "kind", "session", "subject", "resource"];
    let mut left = DETAIL_CHARS_MAX;
    let mut details = Vec::new();
    for mut detail in fields(entry) {
        if SHOWN.contains(&detail.name.as_str()) {
            continue;
        }
        if left == 0 {
            details.push(Detail::more());
            break;
        }
        detail.value = text::cut(&detail.value, VALUE_CHARS_MAX.min(left));
        left = left.saturating_sub(detail.name.len() + detail.value.chars().count());
        details.push(detail);
    }
    details
}

fn tone(kind: &str) -> &'static str {
    match kind {
        "session.started"
        | "recording.resumed"
        | "log.quorum_met"
        | "log.signing_resumed"
        | "log.timestamps_resumed"
        | "log.archiving_resumed" => "good",
        "sign_in.refused"
        | "action.denied"
        | "session.used_after_end"
        | "credential.unknown"
        | "credential.refused"
        | "recording.failed"
        | "log.quorum_lost"
        | "log.signing_failed"
        | "log.timestamps_stopped"
        | "log.archiving_failed"
        | "clock.stepped" => "bad",
        _ => "",
    }
}

impl Row {
    fn of(index: u64, bytes: &[u8], whose: &Whose) -> Self {
        let entry: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let kind = text_of(&entry, "kind");
        let session = text_of(&entry, "session");
        let subject = match text_of(&entry, "subject") {
            own if own.is_empty() => session
                .parse()
                .ok()
                .and_then(|session: SessionId| whose.get(&session))
                .map(ToString::to_string)
                .unwrap_or_default(),
            own => own,
        };
        let time = text_of(&entry, "time");
        let seconds = time
            .split_once('.')
            .map_or(time.as_str(), |(seconds, _)| seconds);
        Self {
            index,
            time_text: seconds.replacen('T', " ", 1),
            tone: tone(&kind),
            subject,
            resource: text_of(&entry, "resource"),
            details: details(&entry),
            conceals: entry.get("concealed").is_some(),
            time,
            kind,
            session,
        }
    }
}

pub(super) fn unread(unread: Unread) -> Fault {
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
) -> Result<Response, Fault> {
    let sent = search::asked(viewer.visit.uri.query().unwrap_or_default());
    let asked = sent.clone().unwrap_or_default();
    let checked = sent
        .map_err(|problem| Wrong {
            problem: visible(&problem).into_owned(),
            hint: String::new(),
        })
        .and_then(|asked| Ok(asked.check(viewer.now)?));
    let query = match checked {
        Ok(query) => query,
        Err(wrong) => {
            let mut template = LogPage::of(asked, &portal, &viewer);
            template.wrong = Some(wrong);
            return Ok(page(StatusCode::BAD_REQUEST, &template));
        }
    };
    // Recorded before it is read: the reading then stands in what is shown.
    let permit = if asked.is_open() {
        viewer.ask(&portal, Verb::LogRead, None).await
    } else {
        search::permit(&portal, &mut viewer, &query).await
    };
    let permit = permit.map_err(|refusal| viewer.fault(refusal))?;
    viewer
        .settle(&portal, permit)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let mut template = LogPage::of(asked, &portal, &viewer);
    if template.filtered {
        template.find(&portal, query).await?;
    } else {
        let newest = template.newest(&portal, query.before).await;
        newest.map_err(|failed| match failed {
            Failed::Unread(why) => unread(why),
            Failed::Refused(refusal) => viewer.fault(refusal),
        })?;
    }
    Ok(page(StatusCode::OK, &template))
}

/// Why the newest entries cannot be shown.
enum Failed {
    Unread(Unread),
    Refused(curfew_gate::Refusal),
}

impl LogPage {
    fn of(asked: Asked, portal: &Portal, viewer: &Viewer) -> Self {
        Self {
            frame: Frame::signed_in("Log", "/log", portal, viewer),
            rows: Vec::new(),
            filtered: !asked.is_open(),
            more_fields: has_more_fields(&asked),
            asked,
            older: None,
            told: None,
            wrong: None,
            size: 0,
            signed: None,
            followers: Vec::new(),
        }
    }

    /// Shows what fits.
    async fn find(&mut self, portal: &Arc<Portal>, mut query: Query) -> Result<(), Fault> {
        query.limit = PAGE_ENTRIES;
        let back = shelf::back(portal, None, 0).await.map_err(unread)?;
        let answer = portal.setup.search.answer(query).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unanswered::Busy) => return Err(Fault::Limit(super::fault::Limit::Searches)),
            Err(Unanswered::Failed) => return Err(Fault::Failed),
        };
        for hit in &answer.hits {
            let mut row = Row::of(hit.index, &hit.bytes, &Whose::new());
            if let (true, Some(subject)) = (row.subject.is_empty(), &hit.subject) {
                row.subject = subject.to_string();
            }
            self.rows.push(row);
        }
        self.told = told(&answer);
        self.older = answer.next.map(|next| link(&self.asked, next));
        self.size = back.size;
        self.signed = signed(&back);
        Ok(())
    }

    /// Shows the newest.
    async fn newest(&mut self, portal: &Arc<Portal>, before: Option<u64>) -> Result<(), Failed> {
        let back = shelf::back(portal, before, PAGE)
            .await
            .map_err(Failed::Unread)?;
        let rows = || back.entries.iter();
        let entries = rows().map(|(_, bytes)| bytes.as_slice());
        let whose = whose(portal, entries).await.map_err(Failed::Refused)?;
        self.rows = rows()
            .map(|(index, bytes)| Row::of(*index, bytes, &whose))
            .collect();
        self.older = (back.from > 0).then(|| link(&self.asked, back.from));
        self.size = back.size;
        self.signed = signed(&back);
        self.followers = followers::rows(portal).await;
        Ok(())
    }
}

/// Whether a field is filled in that stands behind the first row.
fn has_more_fields(asked: &Asked) -> bool {
    [
        &asked.session,
        &asked.resource,
        &asked.verb,
        &asked.address,
        &asked.since,
        &asked.until,
        &asked.order,
    ]
    .iter()
    .any(|field| !field.is_empty() && field.as_str() != "newest")
}

/// What has to be said of an answer beside its entries.
fn told(answer: &Answer) -> Option<String> {
    if answer.damaged {
        return Some(
            "The search index did not agree with the log. What it said wrongly is left out, and \
             the index is made anew."
                .to_owned(),
        );
    }
    let behind = answer.size.saturating_sub(answer.indexed);
    if answer.cut_short {
        return Some(format!(
            "The search stopped because it took too long: {behind} of {} entries are not in the \
             index yet. Go on below.",
            answer.size
        ));
    }
    None
}

/// The link to what comes next under the same question.
fn link(asked: &Asked, next: u64) -> String {
    let mut asked = asked.clone();
    if asked.order == "oldest" {
        asked.after = next.to_string();
    } else {
        asked.before = next.to_string();
    }
    let fields = serde_json::to_value(asked).unwrap_or_default();
    let pairs: Vec<String> = fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let value = value.as_str().unwrap_or_default();
            let value = percent_encoding::utf8_percent_encode(value, NON_ALPHANUMERIC);
            format!("{name}={value}")
        })
        .collect();
    format!("/log?{}", pairs.join("&"))
}

/// Whether a text names a session, for links.
pub(super) fn is_session(text: &str) -> bool {
    text.parse::<SessionId>().is_ok()
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::*;

    const ALLOWED: &[u8] = br#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","kind":"action.allowed","session":"s_000000000000000000000001","verb":"web.read","resource":"shop","path":"/a","rules":["r"]}"#;

    #[test]
    fn a_row_shows_what_the_entry_says() {
        let session = "s_000000000000000000000001".parse().unwrap();
        let whose = Whose::from([(session, "ada".parse().unwrap())]);
        let row = Row::of(7, ALLOWED, &whose);
        assert_eq!(row.time_text, "2026-11-23 16:40:00");
        assert_eq!(
            (row.subject.as_str(), row.resource.as_str()),
            ("ada", "shop")
        );
        // In the order in which the JSON reader gives the fields.
        let mut told: Vec<_> = row.details.iter().map(|d| (&*d.name, &*d.value)).collect();
        told.sort_unstable();
        assert_eq!(told, [("path", "/a"), ("rules", "r"), ("verb", "web.read")]);
        assert_eq!(
            Row::of(8, b"\xff", &whose).kind,
            "",
            "what is no entry breaks nothing"
        );
    }

    #[test]
    fn details_end_where_a_row_is_full() {
        let long = "x".repeat(500);
        let entry = serde_json::json!({"a": long, "b": long, "c": long, "d": long, "e": long});
        let details = details(&entry);
        assert_eq!(details.len(), 4);
        assert_eq!(details[0].value.chars().count(), 81);
        assert_eq!(details[3], Detail::more());
    }

    #[test]
    fn hostile_entries_stay_text() {
        let entry = "{\"kind\":\"<b>x</b>\",\"subject\":\"<script>\",\"resource\":\"\\\"><img>\",\"path\":\"<svg onload=x>\u{202e}\u{9b}2J\"}".as_bytes();
        let render = |wrong| {
            let page = LogPage {
                frame: Frame::signed_out("Log"),
                rows: vec![Row::of(1, entry, &Whose::new())],
                asked: Asked {
                    kind: "\"><script>".into(),
                    session: "'><script>".into(),
                    text: "</script><script>".into(),
                    ..Asked::default()
                },
                more_fields: true,
                older: Some(link(
                    &Asked {
                        kind: "\"><script>".into(),
                        session: "a&b".into(),
                        ..Asked::default()
                    },
                    5,
                )),
                filtered: true,
                told: Some("<script>".into()),
                wrong,
                size: 9,
                followers: vec![followers::Row::hostile()],
                signed: Some(Signed {
                    size: 1,
                    behind: 8,
                    note: "<script>\n".into(),
                }),
            };
            page.render().unwrap()
        };
        let html = render(None);
        assert!(html.contains("before=5"));
        let html = html
            + &render(Some(Wrong {
                problem: "<script>".into(),
                hint: "<img>".into(),
            }));
        for bad in [
            "<script>",
            "<script/",
            "<b>x",
            "<img>",
            "<svg onload",
            "\u{202e}",
            "\u{9b}",
        ] {
            assert!(!html.contains(bad), "{bad}");
        }
    }
}

//! Searching the ledger: what was asked, permission and record, and the answer as JSON.

use std::sync::Arc;

use axum::extract::{Query as Fields, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use curfew_entry::Verb;
use curfew_gate::{Permit, Refusal};
use curfew_search::{Answer, Asked, Query, QueryError};
use serde_json::Value;

use super::Portal;
use super::viewer::{Caller, Viewer};
use crate::oauth::Problem;
use crate::search::Unanswered;

/// How soon it is worth asking again where too many search at once, in seconds.
const RETRY_SECS: u64 = 5;

/// Reads a question out of an address.
pub(super) fn asked(query: &str) -> Result<Asked, String> {
    let pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    let uri: Uri = format!("/?{}", pairs.join("&"))
        .parse()
        .map_err(|_| "this is no address".to_owned())?;
    Fields::<Asked>::try_from_uri(&uri)
        .map(|Fields(asked)| asked)
        .map_err(|rejection| {
            let text = rejection.body_text();
            text.rsplit_once("string: ")
                .map_or(text.clone(), |(_, problem)| problem.to_owned())
        })
}

/// Asks for a permit to read what fits a query, and waits until that is recorded: the search then
/// finds its own entry.
pub(super) async fn permit(
    portal: &Portal,
    viewer: &mut Viewer,
    query: &Query,
) -> Result<Permit, Refusal> {
    let permit = viewer
        .ask_to_search(portal, Verb::LogRead, query.recorded())
        .await?;
    permit.recorded().await?;
    Ok(permit)
}

/// `GET /api/v1/log/search`.
pub(super) async fn api(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
) -> Result<Response, Problem> {
    let refused = |refusal: Refusal| Problem::refused(&refusal, &portal.setup.site.portal_url());
    let asked =
        asked(viewer.visit.uri.query().unwrap_or_default()).map_err(Problem::bad_request)?;
    let query = asked.check(viewer.now).map_err(wrong)?;
    let permit = permit(&portal, &mut viewer, &query)
        .await
        .map_err(refused)?;
    let answer = portal.setup.search.answer(query).await;
    viewer.settle(&portal, permit).await.map_err(refused)?;
    let answer = answer.map_err(|unanswered| match unanswered {
        Unanswered::Busy => Problem::too_many(
            "Too many searches are under way; try again soon",
            RETRY_SECS,
        ),
        Unanswered::Failed => Problem::unavailable("The log cannot be read at the moment"),
    })?;
    Ok((
        StatusCode::OK,
        [(CONTENT_TYPE, "application/json")],
        json(&answer),
    )
        .into_response())
}

fn wrong(error: QueryError) -> Problem {
    Problem::bad_request(error.to_string()).with_hint(error.hint)
}

/// Entries stand in the answer byte for byte, with their fields in the order of the ledger.
fn json(answer: &Answer) -> Vec<u8> {
    let next = answer.next.map_or(Value::Null, Value::from);
    let mut json = format!(
        "{{\"size\":{},\"indexed\":{},\"next\":{next},\"cut_short\":{},\"damaged\":{},\"entries\":[",
        answer.size, answer.indexed, answer.cut_short, answer.damaged,
    )
    .into_bytes();
    for (at, hit) in answer.hits.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let subject = hit.subject.as_ref().map_or_else(String::new, |name| {
            format!("\"subject\":{},", Value::from(name.as_str()))
        });
        let head = format!("{comma}{{\"index\":{},{subject}\"entry\":", hit.index);
        json.extend_from_slice(head.as_bytes());
        json.extend_from_slice(&hit.bytes);
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    json
}

#[cfg(test)]
mod tests {
    use curfew_search::Hit;

    use super::*;

    #[test]
    fn a_question_is_read_out_of_an_address() {
        let asked = asked("kind=action&&text=a+b%26c").unwrap();
        assert_eq!(
            (asked.kind.as_str(), asked.text.as_str()),
            ("action", "a b&c")
        );
        assert!(super::asked("").unwrap().is_open());
        for (query, wanted) in [("knid=x", "knid"), ("kind=a&kind=b", "kind")] {
            let problem = super::asked(query).unwrap_err();
            assert!(problem.contains(wanted), "{problem}");
        }
    }

    #[test]
    fn hits_stand_in_the_answer_as_they_are_in_the_ledger() {
        let answer = Answer {
            hits: vec![
                Hit {
                    index: 7,
                    subject: Some("ada".parse().unwrap()),
                    bytes: br#"{"v":1,"b":2,"a":3}"#.to_vec(),
                },
                Hit {
                    index: 5,
                    subject: None,
                    bytes: b"{}".to_vec(),
                },
            ],
            size: 9,
            indexed: 8,
            next: Some(5),
            ..Answer::default()
        };
        let wanted = r#"{"size":9,"indexed":8,"next":5,"cut_short":false,"damaged":false,"entries":[{"index":7,"subject":"ada","entry":{"v":1,"b":2,"a":3}},{"index":5,"entry":{}}]}"#;
        assert_eq!(String::from_utf8(json(&answer)).unwrap(), wanted);
    }
}

//! How far receivers and copies of the log have come, for those who may read it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use curfew_custody::progress::{Follower, Reader};
use curfew_custody::standing::{self, Status};
use curfew_entry::{Timestamp, Verb};

use super::Portal;
use super::viewer::Caller;
use crate::oauth::Problem;

/// A follower in the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) has: String,
    pub(super) lacks: String,
    /// When the oldest entry that it lacks was recorded.
    pub(super) since: Option<Moment>,
    /// What stands in the way, and since when.
    pub(super) failing: Option<(String, Moment)>,
}

/// A moment for programs and for people.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) exact: String,
    pub(super) text: String,
}

impl Moment {
    fn of(at: Timestamp) -> Self {
        let exact = at.to_string();
        let seconds = exact.split('.').next().unwrap_or_default();
        Self {
            text: seconds.replacen('T', " ", 1),
            exact,
        }
    }
}

impl From<Follower> for Row {
    fn from(follower: Follower) -> Self {
        let count = |count: Option<u64>| count.map_or("not known yet".into(), |n| n.to_string());
        let kind = follower.kind.as_str();
        Self {
            // Where there can be one alone, its kind says it all.
            name: Some(follower.name)
                .filter(|name| name != kind)
                .unwrap_or_default(),
            kind,
            has: count(follower.has),
            lacks: count(follower.lacks),
            since: follower.since.map(Moment::of),
            failing: follower
                .failing
                .map(|failing| (failing.error, Moment::of(failing.since))),
        }
    }
}

#[cfg(test)]
impl Row {
    /// One whose texts try to be more than that.
    pub(super) fn hostile() -> Self {
        let moment = || Moment {
            exact: "\"><img>".into(),
            text: "<b>x".into(),
        };
        Self {
            name: "<script>".into(),
            kind: "otlp",
            has: "<script>".into(),
            lacks: "<script>".into(),
            since: Some(moment()),
            failing: Some(("<script>".into(), moment())),
        }
    }
}

async fn look(portal: &Portal) -> Option<Status> {
    let setup = &portal.setup;
    standing::look(&setup.standing, setup.registrar.now(), Reader::Session).await
}

/// The rows for the log page; none when the look failed.
pub(super) async fn rows(portal: &Portal) -> Vec<Row> {
    let status = look(portal).await;
    let followers = status.map(|status| status.followers).unwrap_or_default();
    followers.into_iter().map(Row::from).collect()
}

/// `GET /api/v1/log/followers`.
pub(super) async fn api(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
) -> Result<Json<Status>, Problem> {
    let refused = |refusal| Problem::refused(&refusal, &portal.setup.site.portal_url());
    let asked = viewer.ask(&portal, Verb::LogRead, None).await;
    let permit = asked.map_err(refused)?;
    let status = look(&portal).await;
    viewer.settle(&portal, permit).await.map_err(refused)?;
    let failed = || Problem::unavailable("The log cannot be read at the moment");
    status.map(Json).ok_or_else(failed)
}

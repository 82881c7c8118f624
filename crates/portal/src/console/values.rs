//! Values that an entry only commits to, for those who may see them. Each look is an entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use curfew_entry::{Entry, Field, Verb, visible};
use curfew_gate::Refusal;
use curfew_values::{Fields, Shown};
use serde::Serialize;

use super::Portal;
use super::fault::Fault;
use super::frame::{Frame, page};
use super::shelf::{self, Unread};
use super::viewer::{Caller, Viewer};
use crate::oauth::Problem;

#[derive(askama::Template)]
#[template(path = "values.html")]
struct ValuesPage {
    frame: Frame,
    index: u64,
    rows: Vec<Row>,
}

struct Row {
    field: Field,
    value: Option<String>,
    /// What is said in its place.
    told: &'static str,
}

/// What is said where a value cannot be shown.
const fn told(shown: &Shown) -> &'static str {
    match shown {
        Shown::Value(_) => "",
        Shown::Erased => "erased",
        Shown::Missing => "not kept here, or damaged",
        Shown::Wrong => "what is kept is not what the log commits to",
    }
}

/// What is kept for an entry; nothing where it conceals nothing.
async fn kept(portal: &Arc<Portal>, index: u64) -> Result<Fields, Unread> {
    let bytes = shelf::one(portal, index).await?;
    let entry = Entry::from_bytes(&bytes).map_err(|error| {
        tracing::error!(%error, index, "an entry could not be read");
        Unread::Failed
    })?;
    let Some(concealed) = entry.event.concealed().cloned() else {
        return Ok(Fields::new());
    };
    let Some(store) = portal.setup.values.clone() else {
        let missing = concealed.into_keys().map(|field| (field, Shown::Missing));
        return Ok(missing.collect());
    };
    let read = tokio::task::spawn_blocking(move || store.read(index, &concealed)).await;
    match read {
        Ok(Ok(fields)) => Ok(fields),
        Ok(Err(error)) => {
            tracing::error!(%error, "the values beside the log could not be read");
            Err(Unread::Failed)
        }
        Err(error) => {
            tracing::error!(%error, "reading the values beside the log was cut short");
            Err(Unread::Failed)
        }
    }
}

/// What is shown, and the record of having looked.
async fn looked(
    portal: &Arc<Portal>,
    viewer: &mut Viewer,
    index: u64,
) -> Result<Result<Fields, Unread>, Refusal> {
    let permit = viewer.ask(portal, Verb::LogReveal, None).await?;
    let fields = kept(portal, index).await;
    viewer.settle(portal, permit).await?;
    Ok(fields)
}

/// The page.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    Path(index): Path<String>,
) -> Result<Response, Fault> {
    let not_found = || Fault::NotFound("The log has no entry of that number.");
    let index: u64 = index.parse().map_err(|_| not_found())?;
    let looked = looked(&portal, &mut viewer, index).await;
    let fields = looked.map_err(|refusal| viewer.fault(refusal))?;
    let fields = fields.map_err(|unread| match unread {
        Unread::PastEnd => not_found(),
        Unread::Failed => Fault::Failed,
    })?;
    let rows = fields.into_iter().map(|(field, shown)| Row {
        field,
        told: told(&shown),
        value: match shown {
            Shown::Value(value) => Some(visible(&value).into_owned()),
            Shown::Erased | Shown::Missing | Shown::Wrong => None,
        },
    });
    let template = ValuesPage {
        rows: rows.collect(),
        frame: Frame::signed_in("Concealed values", "/log", &portal, &viewer),
        index,
    };
    Ok(page(StatusCode::OK, &template))
}

#[derive(Serialize)]
pub(super) struct Given {
    index: u64,
    values: BTreeMap<Field, GivenValue>,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum GivenValue {
    Shown { value: String },
    Erased,
    Missing,
    Wrong,
}

impl From<Shown> for GivenValue {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Value(value) => Self::Shown { value },
            Shown::Erased => Self::Erased,
            Shown::Missing => Self::Missing,
            Shown::Wrong => Self::Wrong,
        }
    }
}

/// `GET /api/v1/log/INDEX/values`.
pub(super) async fn api(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
    Path(index): Path<String>,
) -> Result<Json<Given>, Problem> {
    let index = index
        .parse()
        .map_err(|_| Problem::bad_request("an entry is named by its number"))?;
    let looked = looked(&portal, &mut viewer, index).await;
    let fields =
        looked.map_err(|refusal| Problem::refused(&refusal, &portal.setup.site.portal_url()))?;
    let fields = fields.map_err(|unread| match unread {
        Unread::PastEnd => Problem::not_found("The log has no entry of that number"),
        Unread::Failed => Problem::unavailable("The log cannot be read at the moment"),
    })?;
    Ok(Json(Given {
        index,
        values: fields
            .into_iter()
            .map(|(field, shown)| (field, shown.into()))
            .collect(),
    }))
}

//! The sample web app and API that the demo protects. It knows nothing of Curfew but the header
//! that names the person.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::failure::{Doing, Outcome};

/// The pause between two ticks of the clock.
const TICK: Duration = Duration::from_millis(500);

/// Orders that are kept: a demo needs no more.
const ORDERS_MAX: usize = 100;

/// The longest name of a thing, in characters.
const ITEM_CHARS_MAX: usize = 80;

/// An order.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    item: String,
    quantity: u32,
    #[serde(default)]
    by: String,
}

type Orders = Arc<Mutex<Vec<Order>>>;

/// Serves the app on a free port of this machine, and says where.
pub(super) async fn start() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .doing("the sample app cannot listen")?;
    let address = listener
        .local_addr()
        .doing("the sample app cannot listen")?;
    let first = Order {
        item: "lanterns".into(),
        quantity: 12,
        by: "dan".into(),
    };
    let orders: Orders = Arc::new(Mutex::new(vec![first]));
    let router = Router::new()
        .route("/", get(page).post(order))
        .route("/events", get(events))
        .route("/ws", get(echo))
        .route("/api/orders", get(list).post(create))
        .with_state(orders);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the sample app stopped");
        }
    });
    Ok(address)
}

/// Who it is, as Curfew says. Curfew strips what clients send under this name.
fn subject(headers: &HeaderMap) -> String {
    headers
        .get("curfew-subject")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("nobody")
        .to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn add(orders: &Orders, mut order: Order, headers: &HeaderMap) -> Order {
    order.by = subject(headers);
    order.item = order.item.chars().take(ITEM_CHARS_MAX).collect();
    let mut held = orders.lock().unwrap_or_else(PoisonError::into_inner);
    if held.len() == ORDERS_MAX {
        held.remove(0);
    }
    held.push(order.clone());
    order
}

fn all(orders: &Orders) -> Vec<Order> {
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

async fn page(State(orders): State<Orders>, headers: HeaderMap) -> Html<String> {
    let rows: String = all(&orders)
        .iter()
        .map(|order| {
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(&order.item),
                order.quantity,
                escaped(&order.by)
            )
        })
        .collect();
    Html(
        include_str!("app.html")
            .replace("{subject}", &escaped(&subject(&headers)))
            .replace("{rows}", &rows),
    )
}

async fn order(
    State(orders): State<Orders>,
    headers: HeaderMap,
    Form(order): Form<Order>,
) -> Redirect {
    add(&orders, order, &headers);
    Redirect::to("/")
}

/// What the API answers.
#[derive(Serialize)]
struct Listed {
    subject: String,
    orders: Vec<Order>,
}

async fn list(State(orders): State<Orders>, headers: HeaderMap) -> Json<Listed> {
    Json(Listed {
        subject: subject(&headers),
        orders: all(&orders),
    })
}

async fn create(
    State(orders): State<Orders>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Response {
    let made = add(&orders, order, &headers);
    (axum::http::StatusCode::CREATED, Json(made)).into_response()
}

/// A clock, pushed by the server: no activity of the person.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(0_u64, |tick| async move {
        if tick > 0 {
            tokio::time::sleep(TICK).await;
        }
        let now = jiff::Timestamp::now();
        Some((Ok(Event::default().data(format!("{now:.0}"))), tick + 1))
    }))
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let answered = match message {
                Message::Text(text) => socket.send(Message::Text(text)).await,
                Message::Binary(bytes) => socket.send(Message::Binary(bytes)).await,
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if answered.is_err() {
                return;
            }
        }
    })
}

//! One real PostgreSQL for all tests, a gateway of its own for each, and three kinds of clients:
//! tokio-postgres, psql, and one that speaks the protocol byte by byte.

mod estate;
#[path = "../../shared/gateway.rs"]
mod gateway;
mod raw;
mod server;
mod world;

pub(crate) use estate::Estate;
pub(crate) use raw::{Raw, field, startup};
pub(crate) use server::Server;
pub(crate) use world::{POLICY, Person, World, fresh_name};

//! The web plane behind its real listener: what goes over the wire, in both directions.

mod apps;
mod backend;
mod flow;
mod guard;
mod harness;
mod requests;

//! The postgres plane.

mod sql;

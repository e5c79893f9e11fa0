//! The OpenAPI document.
//!
//! `schemas` and `responses` are the vocabulary of the handlers' attributes. `document` assembles the document from the
//! routes, with `examples` of all problems.

pub mod document;
mod examples;
mod flatten;
pub mod responses;
pub mod schemas;

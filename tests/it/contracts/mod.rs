//! Contracts of the code: problem documents, OpenAPI, documents, deployment files, licences and the structure of the
//! source.

mod architecture;
mod deploy;
mod documents;
mod monitoring;
mod openapi;
mod problems;
mod senders;
mod supply_chain;

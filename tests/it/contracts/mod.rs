//! Contracts of the code: problem documents, OpenAPI, documents, deployment files, licences and the structure of the
//! source.

mod architecture;
mod build_script;
mod deploy;
mod documents;
mod links;
mod monitoring;
mod openapi;
mod problems;
mod release;
mod senders;
mod supply_chain;

//! What must agree with the code: the OpenAPI document, the documents, the deployment files, the structure of the source.

mod architecture;
mod deploy;
mod documents;
mod openapi;
mod problems;
mod supply_chain;

//! Documentation that the service serves: the OpenAPI document and Swagger UI.

mod handlers;
pub mod openapi;

pub use self::handlers::{
    __path_file, __path_openapi, __path_page, __path_page_with_slash, file, openapi, page, page_with_slash,
};

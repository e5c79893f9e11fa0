//! `GET /segments/{name}/users` and `GET /segments/{name}/users/{user_id}`: the users of a segment.

pub mod list;
pub mod member;

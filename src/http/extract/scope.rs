//! The scope that a handler requires, read off its argument types, so that a route needs no second declaration of it.

use axum::extract::{Path, State};

use super::auth::{Authorized, Caller, RequiredScope};
use super::if_none_match::IfNoneMatch;
use crate::auth::Scope;

/// Scope that an argument of a handler requires.
pub trait ArgumentScope {
    const SCOPE: Option<Scope>;
}

impl<S: RequiredScope> ArgumentScope for Authorized<S> {
    const SCOPE: Option<Scope> = Some(S::SCOPE);
}

impl<S: RequiredScope> ArgumentScope for Caller<S> {
    const SCOPE: Option<Scope> = Some(S::SCOPE);
}

impl<S> ArgumentScope for State<S> {
    const SCOPE: Option<Scope> = None;
}

impl ArgumentScope for IfNoneMatch {
    const SCOPE: Option<Scope> = None;
}

impl<T> ArgumentScope for Path<T> {
    const SCOPE: Option<Scope> = None;
}

/// Scope that a handler requires: the one of its first argument. Implemented for the argument lists `T` of
/// [`Handler<T, S>`](axum::handler::Handler), which begin with a marker type of axum.
pub trait HandlerScope {
    const SCOPE: Option<Scope>;
}

impl HandlerScope for ((),) {
    const SCOPE: Option<Scope> = None;
}

macro_rules! scope_of_first_argument {
    ($($other:ident),*) => {
        impl<M, First: ArgumentScope, $($other),*> HandlerScope for (M, First, $($other),*) {
            const SCOPE: Option<Scope> = First::SCOPE;
        }
    };
}

scope_of_first_argument!();
scope_of_first_argument!(A);
scope_of_first_argument!(A, B);
scope_of_first_argument!(A, B, C);
scope_of_first_argument!(A, B, C, D);
scope_of_first_argument!(A, B, C, D, E);

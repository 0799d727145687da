//! The first door's frame: serving, layers, extractors, problems, who asks, and the document of all routes.

pub mod auth;
pub mod extract;
pub mod layers;
pub mod openapi;
pub mod page;
pub mod patch;
pub mod problem;
pub mod server;
mod strict;

pub use self::{
    auth::Caller,
    extract::{IfMatch, Json, Path, Query},
    page::{Listing, Page},
    patch::Patch,
    problem::Problem,
};

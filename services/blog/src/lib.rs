//! Posts, and publishing them on time. This file is the wiring: which doors blog has.

mod app;
mod categories;
mod config;
pub mod entity;
mod error;
mod feed;
mod http;
pub mod jobs;
mod markdown;
pub mod posts;
mod slugs;
mod tags;

use migrations::blog::Migrator;
use service_kit::{Doors, Service, Setup, service::Tables};

use crate::{app::App, config::Config};

/// blog, as the kit runs it.
pub fn service() -> Service {
    Service {
        name: "blog",
        about: "Posts, categories and tags; posts are published on time",
        port: 8081,
        variables: config::VARIABLES,
        jobs: jobs::CATALOGUE,
        tables: Tables::of::<Migrator>(),
        settings: Config::read,
        doors,
    }
}

fn doors(setup: &Setup) -> Doors {
    let app = App::new(setup);
    Doors { routes: http::routes(app), jobs: jobs::all(setup), listeners: Vec::new() }
}

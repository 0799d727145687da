//! What blog reads from the environment beside its jobs' variables.

use std::sync::Arc;

use scheduler::config::Invalid;
use serde::Deserialize;
use service_kit::{Variable, config::Section, service::Settings};

/// Every variable of blog's own.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "BLOG_PUBLIC_URL",
        default: "http://127.0.0.1:8081",
        meaning: "where readers find the blog; links in the feed begin with it",
        secret: false,
    },
    Variable { name: "BLOG_FEED_POSTS", default: "20", meaning: "posts the Atom feed has, 1 to 100", secret: false },
];

/// blog's own settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) public_url: String,
    pub(crate) feed_posts: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { public_url: "http://127.0.0.1:8081".to_owned(), feed_posts: 20 }
    }
}

impl Config {
    /// Reads and checks them.
    pub(crate) fn read(section: &Section) -> Result<Settings, Vec<Invalid>> {
        let config: Self = section.read("BLOG_")?;
        let invalid = |variable: &str, value: String, expected: &str| {
            Err(vec![Invalid { variable: variable.to_owned(), value, expected: expected.to_owned() }])
        };
        if !(config.public_url.starts_with("http://") || config.public_url.starts_with("https://")) {
            return invalid("BLOG_PUBLIC_URL", config.public_url, "an address that begins with http:// or https://");
        }
        if !(1..=100).contains(&config.feed_posts) {
            return invalid("BLOG_FEED_POSTS", config.feed_posts.to_string(), "a whole number from 1 to 100");
        }
        Ok(Arc::new(config))
    }
}

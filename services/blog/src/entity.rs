//! The tables, a file each; no behaviour.

pub mod category;
pub mod post;
pub mod post_category;
pub mod post_tag;
pub mod tag;

//! The Atom feed of published posts (RFC 4287).

use atom_syndication::{
    ContentBuilder, Entry, EntryBuilder, FeedBuilder, FixedDateTime, LinkBuilder, Person, TextBuilder,
};
use chrono::{DateTime, Utc};

use crate::entity::post;

/// The feed as XML. `updated` is the newest change; for an empty feed the beginning of time.
pub(crate) fn atom(public_url: &str, posts: &[post::Model]) -> String {
    let base = public_url.trim_end_matches('/');
    let updated = updated(posts);
    let own = format!("{base}/api/blog/feed.atom");
    FeedBuilder::default()
        .title("Blog")
        .id(own.clone())
        .updated(fixed(updated))
        .author(Person { name: "Blog".to_owned(), ..Person::default() })
        .link(LinkBuilder::default().rel("self").href(own).mime_type(Some("application/atom+xml".to_owned())).build())
        .link(LinkBuilder::default().rel("alternate").href(base.to_owned()).build())
        .entries(posts.iter().map(|post| entry(base, post)).collect::<Vec<_>>())
        .build()
        .to_string()
}

/// When the newest of them was changed.
pub(crate) fn updated(posts: &[post::Model]) -> DateTime<Utc> {
    posts.iter().map(|post| post.updated_at).max().unwrap_or(DateTime::UNIX_EPOCH)
}

fn fixed(at: DateTime<Utc>) -> FixedDateTime {
    at.fixed_offset()
}

fn entry(base: &str, post: &post::Model) -> Entry {
    let content =
        ContentBuilder::default().content_type(Some("html".to_owned())).value(Some(xml_text(&post.html))).build();
    let link =
        LinkBuilder::default().rel("alternate").href(format!("{base}/api/blog/posts/by-slug/{}", post.slug)).build();
    EntryBuilder::default()
        .title(TextBuilder::default().value(xml_text(&post.title)).build())
        // The id never changes, whatever becomes of the slug.
        .id(format!("urn:uuid:{}", post.id))
        .updated(fixed(post.updated_at))
        .published(post.published_at.map(fixed))
        .summary(post.excerpt.as_ref().map(|excerpt| TextBuilder::default().value(xml_text(excerpt)).build()))
        .link(link)
        .content(Some(content))
        .build()
}

/// Text without the characters that XML cannot carry at all.
fn xml_text(text: &str) -> String {
    let carried =
        |c: &char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(carried).collect()
}

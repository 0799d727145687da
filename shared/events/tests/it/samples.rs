//! One event of each type, as the wire tests and the catalogue page show it.

use chrono::{DateTime, Utc};
use events::{
    Event, EventData,
    blog::{self, Category, Post, Tag},
    foodfolio, link, twitchbot, warcraft,
};
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn event<D: EventData>(data: &D) -> Event {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    Event { id: id(1), ..Event::of(data, 7, at("2026-06-01T08:00:00.000512Z"), Some(traceparent)) }
}

fn post() -> Post {
    Post {
        post_id: id(2),
        title: "Bells that ring on time".to_owned(),
        slug: "bells-that-ring-on-time".to_owned(),
        status: "published".to_owned(),
        author_id: Some(id(3)),
        published_at: Some(at("2026-06-01T08:00:00Z")),
    }
}

fn category() -> Category {
    Category { category_id: id(4), name: "Towers".to_owned(), slug: "towers".to_owned(), parent_id: None }
}

fn tag() -> Tag {
    Tag { tag_id: id(5), name: "bells".to_owned(), slug: "bells".to_owned() }
}

/// One event of each type, in the order of the catalogue.
pub(crate) fn all() -> Vec<Event> {
    let mut all = said_by_blog();
    all.extend(said_by_others());
    all
}

fn said_by_blog() -> Vec<Event> {
    vec![
        event(&blog::PostCreated(Post { status: "draft".to_owned(), published_at: None, ..post() })),
        event(&blog::PostUpdated(Post { status: "draft".to_owned(), ..post() })),
        event(&blog::PostPublished(post())),
        event(&blog::PostUnpublished(Post { status: "draft".to_owned(), published_at: None, ..post() })),
        event(&blog::PostDeleted(post())),
        event(&blog::PostRestored(Post { status: "draft".to_owned(), published_at: None, ..post() })),
        event(&blog::PostScheduledPublished {
            post_id: id(2),
            title: post().title,
            slug: post().slug,
            scheduled_at: Some(at("2026-06-01T08:00:00Z")),
            published_at: at("2026-06-01T08:00:00.000512Z"),
        }),
        event(&blog::CategoryCreated(category())),
        event(&blog::CategoryUpdated(category())),
        event(&blog::CategoryDeleted(category())),
        event(&blog::TagCreated(tag())),
        event(&blog::TagUpdated(tag())),
        event(&blog::TagDeleted(tag())),
    ]
}

fn said_by_others() -> Vec<Event> {
    let detected_at = at("2026-06-01T08:00:00Z");
    let expiry_date = Some("2026-06-05".parse().unwrap());
    vec![
        event(&link::LinkExpired { link_id: id(6), short_code: "bell".to_owned(), expires_at: detected_at }),
        event(&foodfolio::DetailExpired { detail_id: id(7), variant_id: id(8), expiry_date, detected_at }),
        event(&foodfolio::DetailExpiringSoon {
            detail_id: id(7),
            variant_id: id(8),
            expiry_date,
            days_left: 4,
            detected_at,
        }),
        event(&foodfolio::VariantStockEmpty {
            variant_id: id(8),
            item_id: id(9),
            variant_name: "1 l".to_owned(),
            detected_at,
        }),
        event(&foodfolio::VariantStockLow {
            variant_id: id(8),
            item_id: id(9),
            variant_name: "1 l".to_owned(),
            current_stock: 1,
            min_sku: 3,
            detected_at,
        }),
        event(&twitchbot::StreamEnded {
            stream_id: id(10),
            channel_id: "141981764".to_owned(),
            channel_name: "belfry".to_owned(),
            duration_seconds: 5_400,
            ended_at: detected_at,
        }),
        event(&warcraft::CharacterSynced {
            character_id: id(11),
            name: "Campana".to_owned(),
            realm: "ravencrest".to_owned(),
            region: "eu".to_owned(),
            level: 80,
            item_level: 620,
            class_name: "Monk".to_owned(),
            race_name: "Dwarf".to_owned(),
            faction_name: "Alliance".to_owned(),
            achievement_points: 12_340,
            synced_at: detected_at,
        }),
        event(&warcraft::GuildSynced {
            guild_id: id(12),
            name: "Ringers".to_owned(),
            realm: "ravencrest".to_owned(),
            region: "eu".to_owned(),
            faction: "Alliance".to_owned(),
            member_count: 42,
            achievement_points: 2_340,
            synced_at: detected_at,
        }),
    ]
}

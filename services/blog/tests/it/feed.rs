//! The Atom feed.

use serde_json::json;
use test_kit::Home;

use crate::{at, blog, made};

#[tokio::test]
async fn the_feed_has_the_published_posts_and_is_not_sent_twice() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        made(&blog, json!({ "title": "A draft" })).await;
        let post = made(&blog, json!({ "title": "Bits & <pieces>", "content": "a *b*", "excerpt": "e\u{1}e" })).await;
        blog.api.post(&format!("{}/publish", at(&post))).await.expect(200);
        let feed = blog.api.get("/api/blog/feed.atom").await.expect(200);
        assert!(feed.header("content-type").starts_with("application/atom+xml"));
        assert!(feed.text.contains("<title>Bits &amp; &lt;pieces&gt;</title>"), "{}", feed.text);
        assert!(feed.text.contains(&format!("urn:uuid:{}", post["id"].as_str().expect("an id"))));
        assert!(feed.text.contains("rel=\"self\"") && !feed.text.contains("A draft") && !feed.text.contains('\u{1}'));
        let known = feed.header("etag").to_owned();
        let again =
            blog.api.send(reqwest::Method::GET, "/api/blog/feed.atom", &[("if-none-match", &known)], None).await;
        assert_eq!(again.status, 304);
    }
}

//! The HTTP contract: shapes, statuses, names of fields.

use std::collections::HashSet;

use serde_json::{Value, json};
use test_kit::Home;

use crate::{at, blog, in_ms, made, plain};

#[tokio::test]
async fn a_post_is_written_read_edited_deleted_and_restored() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let answer = blog.api.post_json("/api/blog/posts", &plain("Über Käse")).await.expect(201);
        let post = answer.json.clone();
        assert_eq!(answer.header("location"), at(&post));
        assert_eq!(answer.header("etag"), "\"1\"");
        assert_eq!((&post["slug"], &post["status"]), (&json!("uber-kase"), &json!("draft")), "{}", home.name);
        assert_eq!(post["html"], "<p>Some <em>text</em>.</p>\n");
        assert_eq!((&post["reading_time"], &post["published_at"]), (&json!(1), &Value::Null));

        let patched = blog.api.patch(&at(&post), &json!({ "title": "Käse", "excerpt": "short" })).await.expect(200);
        assert_eq!(patched.header("etag"), "\"2\"");
        assert_eq!((&patched.json["title"], &patched.json["slug"]), (&json!("Käse"), &json!("uber-kase")));
        let cleared = blog.api.patch(&at(&post), &json!({ "excerpt": null })).await.expect(200).json;
        assert_eq!((&cleared["excerpt"], &cleared["title"]), (&Value::Null, &json!("Käse")));

        let by_slug = blog.api.get("/api/blog/posts/by-slug/uber-kase").await.expect(200).json;
        assert_eq!(by_slug["id"], post["id"]);
        blog.api.delete(&at(&post)).await.expect(204);
        blog.api.get("/api/blog/posts/by-slug/uber-kase").await.expect(404);
        blog.api.delete(&at(&post)).await.expect(404);
        let restored = blog.api.post(&format!("{}/restore", at(&post))).await.expect(200).json;
        assert_eq!((&restored["status"], &restored["deleted_at"]), (&json!("draft"), &Value::Null));
        blog.api.post(&format!("{}/restore", at(&post))).await.expect(409);
    }
}

#[tokio::test]
async fn bad_input_is_a_problem_that_names_the_field() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    let table = [
        (json!({}), 400, "title"),
        (json!({ "title": "" }), 400, "title"),
        (json!({ "title": "t", "colour": "red" }), 400, "colour"),
        (json!({ "title": 3 }), 400, "title"),
        (json!({ "title": "a\u{0}b" }), 400, "title"),
        (json!({ "title": "t", "author_id": "me" }), 400, "author_id"),
        (json!({ "title": "t", "published_at": "tomorrow" }), 400, "published_at"),
        (json!({ "title": "t", "seo": { "canonical_url": "javascript:alert(1)" } }), 400, "seo.canonical_url"),
        (json!({ "title": "t", "seo": { "colour": "red" } }), 400, "seo.colour"),
        (json!({ "title": "t", "tag_ids": ["0190a000-0000-7000-8000-000000000000"] }), 400, "tag_ids"),
        (json!({ "title": "x".repeat(301) }), 400, "title"),
    ];
    for (body, status, field) in table {
        let answer = blog.api.post_json("/api/blog/posts", &body).await.expect(status);
        assert_eq!(answer.fields(), [field], "{body}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json["request_id"], answer.header("x-request-id"));
    }
    let post = |kind: &'static str, body: String| {
        let api = blog.api.clone();
        async move { api.send(reqwest::Method::POST, "/api/blog/posts", &[("content-type", kind)], Some(&body)).await }
    };
    post("application/json", format!("{{\"title\": \"{}\"}}", "x".repeat(2 * 1024 * 1024))).await.expect(413);
    post("application/json", format!("{}{}", "[".repeat(5_000), "]".repeat(5_000))).await.expect(400);
    post("application/json", "{".to_owned()).await.expect(400);
    post("text/plain", "{\"title\": \"t\"}".to_owned()).await.expect(415);
    blog.api.get("/api/blog/posts/not-an-id").await.expect(400);
    blog.api.get("/api/blog/posts/0190a000-0000-7000-8000-000000000000").await.expect(404);
    blog.api.get("/api/blog/posts?limit=0").await.expect(400);
    blog.api.get("/api/blog/posts?limit=201").await.expect(400);
    blog.api.get("/api/blog/posts?colour=red").await.expect(400);
    blog.api.get("/api/blog/posts?cursor=!!").await.expect(400);
    let wrong = blog.api.send(reqwest::Method::PUT, "/api/blog/posts", &[], None).await.expect(405);
    assert!(wrong.header("allow").contains("GET"), "{}", wrong.header("allow"));
    blog.api.get("/api/nothing").await.expect(404);
}

#[tokio::test]
async fn an_edit_meant_for_another_version_is_refused() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let post = made(&blog, plain("Versions")).await;
        let json = [("content-type", "application/json"), ("if-match", "\"1\"")];
        let edit = |title: &'static str| {
            let (api, path) = (blog.api.clone(), at(&post));
            async move {
                let body = json!({ "title": title }).to_string();
                api.send(reqwest::Method::PATCH, &path, &json, Some(&body)).await
            }
        };
        edit("First").await.expect(200);
        let stale = edit("Second").await.expect(412);
        assert!(stale.text.contains("\\\"2\\\""), "it tells the present ETag: {}", stale.text);
        assert_eq!(blog.api.get(&at(&post)).await.json["title"], "First");
    }
}

#[tokio::test]
async fn a_list_is_paged_without_gaps_while_posts_are_added_and_filtered_by_what_they_are() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        for number in 0..25 {
            made(&blog, plain(&format!("Post {number}"))).await;
        }
        let mut seen: Vec<String> = Vec::new();
        let mut path = "/api/blog/posts?limit=10".to_owned();
        loop {
            let page = blog.api.get(&path).await.expect(200).json;
            let items = page["items"].as_array().expect("items");
            seen.extend(items.iter().map(|post| post["title"].as_str().expect("a title").to_owned()));
            made(&blog, plain("Added meanwhile")).await;
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/blog/posts?limit=10&cursor={cursor}");
        }
        let expected: Vec<String> = (0..25).rev().map(|number| format!("Post {number}")).collect();
        assert_eq!(seen, expected, "{}", home.name);

        made(&blog, json!({ "title": "Later", "published_at": in_ms(3_600_000) })).await;
        let titles = |path: &'static str| {
            let api = blog.api.clone();
            async move {
                let page = api.get(path).await.expect(200).json;
                let items = page["items"].as_array().expect("items").clone();
                items.iter().map(|post| post["title"].as_str().expect("a title").to_owned()).collect::<Vec<_>>()
            }
        };
        assert_eq!(titles("/api/blog/posts?status=scheduled").await, ["Later"]);
        assert_eq!(titles("/api/blog/posts?q=post+2&limit=3").await, ["Post 24", "Post 23", "Post 22"]);
        assert!(titles("/api/blog/posts?status=published").await.is_empty());
    }
}

#[tokio::test]
async fn slugs_wished_for_in_the_same_moment_are_made_unique() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let both = (0..24).map(|_| made(&blog, plain("Same")));
        let posts = futures_util::future::join_all(both).await;
        let slugs: HashSet<&str> = posts.iter().map(|post| post["slug"].as_str().expect("a slug")).collect();
        let numbered: Vec<String> = (2..=24).map(|number| format!("same-{number}")).collect();
        let expected: HashSet<&str> = numbered.iter().map(String::as_str).chain(["same"]).collect();
        assert_eq!(slugs, expected, "{}", home.name);
    }
}

#[tokio::test]
async fn a_wrong_state_is_a_conflict_that_tells_the_present_one() {
    let home = Home::embedded();
    let blog = blog(&home).await;
    let post = made(&blog, plain("States")).await;
    let act = |verb: &'static str| {
        let (api, path) = (blog.api.clone(), format!("{}/{verb}", at(&post)));
        async move { api.post(&path).await }
    };
    assert_eq!(act("unpublish").await.expect(409).json["state"], "draft");
    let published = act("publish").await.expect(200).json;
    assert_eq!(published["status"], "published");
    assert!(published["published_at"].is_string());
    assert_eq!(act("publish").await.expect(409).json["state"], "published");
    let plan = json!({ "published_at": in_ms(60_000) });
    blog.api.post_json(&format!("{}/schedule", at(&post)), &plan).await.expect(409);
    let back = act("unpublish").await.expect(200).json;
    assert_eq!((&back["status"], &back["published_at"]), (&json!("draft"), &Value::Null));
    let past = json!({ "published_at": in_ms(-1_000) });
    let refused = blog.api.post_json(&format!("{}/schedule", at(&post)), &past).await.expect(400);
    assert_eq!(refused.fields(), ["published_at"]);
}

#[tokio::test]
async fn categories_form_a_tree_and_posts_keep_what_remains() {
    for home in Home::both().await {
        let blog = blog(&home).await;
        let make = |name: &'static str, parent: Value| {
            let api = blog.api.clone();
            async move {
                let body = json!({ "name": name, "parent_id": parent });
                api.post_json("/api/blog/categories", &body).await.expect(201).json
            }
        };
        let top = make("Top", Value::Null).await;
        let below = make("Below", top["id"].clone()).await;
        let path = |category: &Value| format!("/api/blog/categories/{}", category["id"].as_str().expect("an id"));
        let circle = blog.api.patch(&path(&top), &json!({ "parent_id": below["id"] })).await.expect(400);
        assert_eq!(circle.fields(), ["parent_id"]);
        blog.api.delete(&path(&top)).await.expect(409);
        let tag = blog.api.post_json("/api/blog/tags", &json!({ "name": "Tag" })).await.expect(201).json;
        let body = json!({ "title": "Joined", "category_ids": [below["id"]], "tag_ids": [tag["id"]] });
        let post = made(&blog, body).await;
        let found = blog.api.get(&format!("/api/blog/posts?tag_id={}", tag["id"].as_str().expect("an id"))).await;
        assert_eq!(found.json["items"][0]["id"], post["id"]);
        blog.api.delete(&path(&below)).await.expect(204);
        let after = blog.api.get(&at(&post)).await.expect(200).json;
        assert_eq!((&after["category_ids"], &after["tag_ids"]), (&json!([]), &json!([tag["id"]])), "{}", home.name);
    }
}

//! Markdown to HTML that is safe to show, and how long it takes to read.

use pulldown_cmark::{Options, Parser, html};

/// Words a reader reads in a minute.
const WORDS_A_MINUTE: usize = 200;

/// The HTML of a text: rendered, then stripped of everything that could run or load by itself.
pub(crate) fn to_html(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_FOOTNOTES;
    let mut rendered = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut rendered, Parser::new_ext(markdown, options));
    ammonia::clean(&rendered)
}

/// Minutes it takes to read a text; at least one.
pub(crate) fn reading_time(markdown: &str) -> i32 {
    let words = markdown.split_whitespace().count();
    i32::try_from(words.div_ceil(WORDS_A_MINUTE)).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use test_kit::fuzz;

    use super::*;

    #[test]
    fn markdown_is_rendered() {
        assert_eq!(to_html("# Hi\n\n*you*"), "<h1>Hi</h1>\n<p><em>you</em></p>\n");
        assert!(to_html("|a|\n|-|\n|1|").contains("<table>"));
    }

    const ATTACKS: [&str; 14] = [
        "<script>alert(1)</script>",
        "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt&colon;alert(1))",
        "![x](javascript:alert(1))",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<a href=\"data:text/html;base64,PHNjcmlwdD4=\">x</a>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<div style=\"background:url(javascript:alert(1))\">x</div>",
        "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<form action=javascript:alert(1)><button>x</button></form>",
        "<base href=\"javascript:/a/-alert(1)//\">",
        "```\n</code><script>alert(1)</script>\n```",
    ];

    /// Elements that run, load, frame or restyle.
    const LIVE: [&str; 17] = [
        "script", "iframe", "frame", "object", "embed", "applet", "svg", "math", "style", "base", "form", "input",
        "button", "link", "meta", "template", "video",
    ];

    /// The tags of a page: their names, and their attributes with entities undone. A reader of its own, which knows nothing
    /// of how the page was made.
    fn tags(html: &str) -> Vec<(String, Vec<(String, String)>)> {
        let (mut tags, mut rest) = (Vec::new(), html);
        while let Some((_, tag)) = rest.split_once('<') {
            let name: String = tag.chars().take_while(|c| !c.is_whitespace() && !"/>".contains(*c)).collect();
            let mut attributes = Vec::new();
            rest = tag.trim_start_matches('/').get(name.len()..).unwrap_or_default();
            while let Some(c) = rest.chars().next().filter(|c| *c != '>') {
                if c.is_whitespace() || c == '/' {
                    rest = &rest[c.len_utf8()..];
                    continue;
                }
                let end = rest.find(|c: char| c.is_whitespace() || "=>".contains(c)).unwrap_or(rest.len());
                let (attribute, after) = rest.split_at(end);
                // The sanitizer writes values in double quotes.
                let (value, after) = match after.strip_prefix("=\"").and_then(|value| value.split_once('"')) {
                    Some((value, after)) => (value, after),
                    None => ("", after.trim_start_matches('=')),
                };
                attributes.push((attribute.to_lowercase(), plain(value)));
                rest = after;
            }
            tags.push((name.to_lowercase(), attributes));
        }
        tags
    }

    /// A value as a browser takes an address (WHATWG URL): tabs and line breaks gone, and blanks and controls before it.
    fn plain(value: &str) -> String {
        let mut text = value.to_owned();
        for (entity, c) in
            [("&colon;", ":"), ("&#58;", ":"), ("&#x3a;", ":"), ("&tab;", ""), ("&newline;", ""), ("&amp;", "&")]
        {
            text = text.replace(entity, c);
        }
        let text: String =
            text.chars().filter(|c| !['\t', '\n', '\r'].contains(c)).flat_map(char::to_lowercase).collect();
        text.trim_start_matches(|c| c <= ' ').to_owned()
    }

    fn harmless(markdown: &str) {
        let html = to_html(markdown);
        for (name, attributes) in tags(&html) {
            assert!(!LIVE.contains(&name.as_str()), "{markdown:?} became {html}");
            for (attribute, value) in attributes {
                let runs =
                    attribute.starts_with("on") || ["style", "srcdoc", "formaction", "srcset"].contains(&&*attribute);
                let words = ["alt", "title"].contains(&&*attribute);
                let address =
                    !words && ["javascript:", "vbscript:", "data:"].iter().any(|scheme| value.starts_with(scheme));
                assert!(!runs && !address, "{markdown:?} became {html}");
            }
        }
        // A browser reads it as it was looked at: read once more, no attribute comes to light.
        let attributes =
            |html: &str| -> BTreeSet<(String, String)> { tags(html).into_iter().flat_map(|(_, all)| all).collect() };
        assert_eq!(attributes(&ammonia::clean(&html)), attributes(&html), "{markdown:?} became {html}");
    }

    #[test]
    fn no_script_survives_in_whatever_dress() {
        for attack in ATTACKS {
            harmless(attack);
        }
        let read = tags("<p a=\"1\" onclick><a href=\"java&#58;x\">y</a>");
        assert_eq!(read[0].1, [("a".to_owned(), "1".to_owned()), ("onclick".to_owned(), String::new())], "{read:?}");
        assert_eq!((read[1].0.as_str(), read[1].1[0].1.as_str(), read[2].0.as_str()), ("a", "java:x", ""));
    }

    #[test]
    fn fuzz_no_script_survives_whatever_is_written() {
        const WORDS: &[&str] = &[
            "<",
            ">",
            "</",
            "/>",
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "\"",
            "'",
            "`",
            "```",
            "\0",
            "&",
            "&#x6a;",
            "&colon;",
            "javascript:",
            "jav\tascript:",
            "data:text/html,",
            " onerror=alert(1) ",
            " onload=",
            "<script>",
            "<svg>",
            "<style>",
            "<math>",
            "<template>",
            "<noscript>",
            "<textarea>",
            "<title>",
            "<xmp>",
            "<plaintext>",
            "<table>",
            "<mglyph>",
            "[x](",
            "![x](",
            "[^1]",
            "[^1]: ",
            "\\",
            "\n\n",
            "    ",
            "| a | b |\n|-|-|\n",
            "[a]: javascript:alert(1)\n\n[a]",
            "~~",
            "**",
            "<a href=\"",
            "<img src=",
            "\u{feff}",
            "\u{202e}",
            "\u{0}",
            "style=\"x:expression(alert(1))\"",
        ];
        let examples =
            [&ATTACKS[..], &["# Hi\n\n*you* [x](https://example.org \"t\") ![i](i.png)\n\n- a\n- b[^1]\n\n[^1]: n"]]
                .concat();
        fuzz::all(6_000, fuzz::text(&examples, WORDS), |markdown| harmless(&markdown));
    }

    #[test]
    fn reading_takes_a_minute_for_each_two_hundred_words() {
        for (words, minutes) in [(0, 1), (1, 1), (200, 1), (201, 2), (1000, 5)] {
            assert_eq!(reading_time(&"word ".repeat(words)), minutes, "{words} words");
        }
    }
}

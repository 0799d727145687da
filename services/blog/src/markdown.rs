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
    use super::*;

    #[test]
    fn markdown_is_rendered() {
        assert_eq!(to_html("# Hi\n\n*you*"), "<h1>Hi</h1>\n<p><em>you</em></p>\n");
        assert!(to_html("|a|\n|-|\n|1|").contains("<table>"));
    }

    #[test]
    fn no_script_survives_in_whatever_dress() {
        let attacks = [
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
        for attack in attacks {
            let html = to_html(attack).to_lowercase();
            // Whatever is text may say what it likes; a tag may not.
            for tag in html.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
                let bad = ["script", "iframe", "svg", "style", "base", "form", "math", "on", "javascript", "data:"];
                let words = tag.split(|c: char| !(c.is_alphanumeric() || c == ':')).filter(|word| !word.is_empty());
                for word in words {
                    let live = bad.iter().any(|bad| word == *bad || word.starts_with(bad));
                    assert!(!live, "{attack} became {html}");
                }
            }
        }
    }

    #[test]
    fn reading_takes_a_minute_for_each_two_hundred_words() {
        for (words, minutes) in [(0, 1), (1, 1), (200, 1), (201, 2), (1000, 5)] {
            assert_eq!(reading_time(&"word ".repeat(words)), minutes, "{words} words");
        }
    }
}

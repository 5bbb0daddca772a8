//! Markdown to HTML, by pulldown-cmark.

use bench_guests::{Random, checksum, size_argument, text};
use pulldown_cmark::{Options, Parser, html};
use std::fmt::Write;

/// Paragraphs of the text, dressed up.
fn document(text: &str) -> String {
    let mut random = Random::new(3);
    let mut markdown = String::new();
    for (number, paragraph) in text.split("\n\n").enumerate() {
        let (first, rest) = paragraph.split_once(' ').unwrap_or((paragraph, ""));
        let _ = match random.number() % 8 {
            0 => write!(markdown, "## {first}\n\n{rest}\n\n"),
            1 => write!(markdown, "* **{first}**\n* {rest}\n  1. `{first}` <b>&amp;</b>\n\n"),
            2 => write!(markdown, "> {first} *{rest}*\n\n"),
            3 => write!(markdown, "| a | b |\n| - | -: |\n| {first} | {number} |\n\n{rest}\n\n"),
            4 => write!(markdown, "```\n{rest}\n```\n\n"),
            5 => write!(markdown, "[{first}](https://example.org/{number} \"{first}\") {rest}[^{number}]\n\n[^{number}]: {first}\n\n"),
            _ => write!(markdown, "{first} {rest}\n\n"),
        };
    }
    markdown
}

fn main() {
    let size = size_argument();
    let markdown = document(&text(20_000, 1));
    let mut page = String::new();
    for _ in 0..size {
        page.clear();
        html::push_html(&mut page, Parser::new_ext(&markdown, Options::all()));
    }
    println!("{} {} {:016x}", markdown.len(), page.len(), checksum(page.as_bytes()));
}

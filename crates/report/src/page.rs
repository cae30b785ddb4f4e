//! One self-contained HTML page: facts on top, then sections of text, charts, tables and samples, and the numbers behind
//! them as a JSON block.
//!
//! The page loads nothing and runs nothing; a content security policy in its head makes browsers hold it to that. It is
//! written so that it is well-formed XML too, apart from its doctype: a test can then check it with a strict parser.

use serde::{Deserialize, Serialize};

use crate::chart::{Chart, STYLE as CHART_STYLE};
use crate::escape;
use crate::markup::Markup;
use crate::samples::{Sample, samples_html};
use crate::settled::{SettledText, settled_html};
use crate::table::Table;

/// The id of the script block with the numbers.
const DATA_ID: &str = "sakiyomi-data";

/// A report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// Heading of the page and name of its tab.
    pub title: String,
    /// One or two sentences under the heading.
    pub lead: String,
    /// The few numbers to take away.
    pub summary: Vec<Fact>,
    /// The rest, in order.
    pub sections: Vec<Section>,
    /// The numbers behind the figures, embedded as JSON; `null` embeds nothing.
    pub data: serde_json::Value,
    /// Small print at the end: how and when the page was made.
    pub footer: String,
}

/// One number to take away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// What it is.
    pub label: String,
    /// The number with its unit.
    pub value: String,
    /// What it is compared with, or how it was measured.
    pub note: String,
    /// Whether it is good news.
    pub tone: Tone,
}

/// How a fact is to be taken. The words must say it too: tone is only a colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tone {
    /// Neither good nor bad.
    #[default]
    Plain,
    /// As hoped.
    Good,
    /// Not as hoped.
    Bad,
}

/// A part of the page under its own heading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What stands below it, in order.
    pub blocks: Vec<Block>,
}

/// A piece of a section. Texts are plain; what stands between backquotes is shown as code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Paragraphs that are not to be overlooked.
    Callout(Vec<String>),
    /// Charts, side by side where there is room.
    Charts(Vec<Chart>),
    /// A table.
    Table(Table),
    /// Text samples with a legend.
    Samples(Vec<Sample>),
    /// Text whose tokens show when their choices settled.
    Settled(SettledText),
}

impl Page {
    /// The page as the content of one `.html` file.
    pub fn html(&self) -> String {
        let mut markup = Markup::new();
        markup.trusted("<!doctype html>\n");
        markup.element("html").word("lang", "en").open();
        self.write_head(&mut markup);
        markup.element("body").open();
        markup.element("main").open();
        self.write_top(&mut markup);
        for section in &self.sections {
            write_section(&mut markup, section);
        }
        markup.close();
        self.write_end(&mut markup);
        markup.finish() + "\n"
    }

    fn write_head(&self, markup: &mut Markup) {
        markup.element("head").open();
        markup.element("meta").word("charset", "utf-8").empty();
        let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
        markup.element("meta").word("http-equiv", "Content-Security-Policy").word("content", policy).empty();
        let viewport = "width=device-width, initial-scale=1";
        markup.element("meta").word("name", "viewport").word("content", viewport).empty();
        markup.element("meta").word("name", "color-scheme").word("content", "light dark").empty();
        // Without an icon of its own a page served over HTTP would make the browser ask for one.
        markup.element("link").word("rel", "icon").word("href", "data:,").empty();
        markup.element("title").text(&self.title);
        markup.element("style").open();
        markup.trusted("\n");
        markup.trusted(include_str!("page.css"));
        markup.trusted(CHART_STYLE);
        markup.close();
        markup.close();
    }

    fn write_top(&self, markup: &mut Markup) {
        markup.element("header").open();
        markup.element("h1").text(&self.title);
        if !self.lead.is_empty() {
            markup.element("p").word("class", "lead").open();
            write_words(markup, &self.lead);
            markup.close();
        }
        markup.close();
        if self.summary.is_empty() {
            return;
        }
        markup.element("dl").word("class", "facts").open();
        for fact in &self.summary {
            let class = match fact.tone {
                Tone::Plain => "fact",
                Tone::Good => "fact good",
                Tone::Bad => "fact bad",
            };
            markup.element("div").word("class", class).open();
            markup.element("dt").text(&fact.label);
            markup.element("dd").word("class", "value").text(&fact.value);
            if !fact.note.is_empty() {
                markup.element("dd").word("class", "note").text(&fact.note);
            }
            markup.close();
        }
        markup.close();
    }

    fn write_end(&self, markup: &mut Markup) {
        let has_data = !self.data.is_null();
        if has_data || !self.footer.is_empty() {
            markup.element("footer").open();
            if !self.footer.is_empty() {
                markup.element("p").open();
                write_words(markup, &self.footer);
                markup.close();
            }
            if has_data {
                let hint = format!(
                    "The numbers behind the figures are inside this file, as JSON in the element `{DATA_ID}`. \
                     The page loads nothing from anywhere and runs no script."
                );
                markup.element("p").open();
                write_words(markup, &hint);
                markup.close();
            }
            markup.close();
        }
        if has_data {
            let block = markup.element("script").word("type", "application/json").word("id", DATA_ID);
            block.open();
            markup.trusted(&escape::json_in_script(&self.data));
            markup.close();
        }
    }
}

fn write_section(markup: &mut Markup, section: &Section) {
    markup.trusted("\n");
    markup.element("section").open();
    markup.element("h2").text(&section.heading);
    for block in &section.blocks {
        match block {
            Block::Text(text) => {
                markup.element("p").open();
                write_words(markup, text);
                markup.close();
            }
            Block::Callout(paragraphs) => {
                markup.element("div").word("class", "callout").open();
                for paragraph in paragraphs {
                    markup.element("p").open();
                    write_words(markup, paragraph);
                    markup.close();
                }
                markup.close();
            }
            Block::Charts(charts) => {
                markup.element("div").word("class", "charts").open();
                charts.iter().for_each(|chart| write_chart(markup, chart));
                markup.close();
            }
            Block::Table(table) => markup.trusted(&table.html()),
            Block::Samples(samples) => markup.trusted(&samples_html(samples)),
            Block::Settled(text) => markup.trusted(&settled_html(text)),
        }
    }
    markup.close();
}

fn write_chart(markup: &mut Markup, chart: &Chart) {
    markup.trusted("\n");
    markup.element("figure").word("class", "plot").open();
    markup.element("div").word("class", "scroll").open();
    markup.trusted(&chart.inline_svg());
    markup.close();
    if !chart.caption().is_empty() {
        markup.element("figcaption").open();
        write_words(markup, chart.caption());
        markup.close();
    }
    if let Some(table) = chart.numbers() {
        markup.element("details").open();
        markup.element("summary").text("Numbers");
        markup.trusted(&table.html());
        markup.close();
    }
    markup.close();
}

/// Plain text in which backquotes mark code.
fn write_words(markup: &mut Markup, words: &str) {
    for (index, part) in words.split('`').enumerate() {
        if index % 2 == 1 {
            markup.element("code").text(part);
        } else {
            markup.text(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backquotes_are_code_and_everything_is_escaped() {
        let mut markup = Markup::new();
        write_words(&mut markup, "run `a < b` & look");
        assert_eq!(markup.finish(), "run <code>a &lt; b</code> &amp; look");
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let html = Page { title: "empty".into(), ..Page::default() }.html();
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"));
        assert!(html.contains("<title>empty</title>"));
        assert!(!html.contains("<script"));
        assert!(html.ends_with("</html>\n"));
    }
}

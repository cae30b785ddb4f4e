//! Charts and pages as a strict parser sees them, and the page of the main job from made-up numbers.

mod charts;
mod figures;
mod main_job_page;
mod sweep_page;

use roxmltree::Document;

/// The document in `markup`, which must be well-formed XML (a page: apart from its doctype).
pub fn parsed(markup: &str) -> Document<'_> {
    let xml = markup.strip_prefix("<!doctype html>\n").unwrap_or(markup);
    Document::parse(xml).unwrap_or_else(|error| panic!("not well-formed: {error}\n{xml}"))
}

/// How many elements have this name.
pub fn count(document: &Document, name: &str) -> usize {
    document.descendants().filter(|node| node.tag_name().name() == name).count()
}

/// All text below the elements of this name.
pub fn texts(document: &Document, name: &str) -> Vec<String> {
    let named = document.descendants().filter(|node| node.tag_name().name() == name);
    named
        .map(|node| node.descendants().filter_map(|below| below.is_text().then(|| below.text())?).collect())
        .collect()
}

//! A small writer of elements, for SVG and HTML alike: every value is escaped, every tag that is opened gets closed.

use crate::escape;

/// Markup under construction.
pub(crate) struct Markup {
    out: String,
    open: Vec<&'static str>,
}

impl Markup {
    pub fn new() -> Self {
        Self { out: String::new(), open: Vec::new() }
    }

    /// Starts an element; it is written to its end by [`Element::open`], [`Element::empty`] or [`Element::text`].
    pub fn element(&mut self, tag: &'static str) -> Element<'_> {
        self.out.push('<');
        self.out.push_str(tag);
        Element { markup: self, tag }
    }

    /// Escaped text at the current place.
    pub fn text(&mut self, text: &str) {
        self.out.push_str(&escape::text(text));
    }

    /// Markup that this crate made itself.
    pub fn trusted(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    /// Closes the element opened last.
    pub fn close(&mut self) {
        if let Some(tag) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(tag);
            self.out.push('>');
        }
    }

    /// Closes what is still open and returns the markup.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }
}

/// The start tag being written.
pub(crate) struct Element<'m> {
    markup: &'m mut Markup,
    tag: &'static str,
}

impl Element<'_> {
    /// An attribute with text as its value.
    pub fn word(self, name: &str, value: &str) -> Self {
        self.markup.out.push_str(&format!(" {name}=\"{}\"", escape::text(value)));
        self
    }

    /// An attribute with a coordinate as its value, to a tenth of a unit: finer is invisible and doubles the file.
    pub fn number(self, name: &str, value: f64) -> Self {
        self.markup.out.push_str(&format!(" {name}=\"{}\"", coordinate(value)));
        self
    }

    /// Ends the start tag; what follows is inside the element.
    pub fn open(self) {
        self.markup.out.push('>');
        self.markup.open.push(self.tag);
    }

    /// Ends an element without content (SVG shapes, void HTML elements).
    pub fn empty(self) {
        self.markup.out.push_str("/>");
    }

    /// Writes the element with escaped text as its only content.
    pub fn text(self, content: &str) {
        self.markup.out.push_str(&format!(">{}</{}>", escape::text(content), self.tag));
    }
}

/// A coordinate with at most one decimal; what is not finite (a caller's mistake) becomes 0 and not invalid markup.
pub(crate) fn coordinate(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_string();
    }
    let rounded = (value * 10.0).round() / 10.0;
    // `+ 0.0` turns -0 into 0.
    format!("{}", rounded + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_tags_balanced() {
        let mut markup = Markup::new();
        markup.element("g").word("class", "a\"<").open();
        markup.element("rect").number("x", 1.25).number("y", -0.01).empty();
        markup.element("text").text("1 < 2");
        assert_eq!(
            markup.finish(),
            "<g class=\"a&quot;&lt;\"><rect x=\"1.3\" y=\"0\"/><text>1 &lt; 2</text></g>"
        );
    }

    #[test]
    fn a_coordinate_is_always_a_number() {
        assert_eq!(coordinate(f64::NAN), "0");
        assert_eq!(coordinate(f64::INFINITY), "0");
        assert_eq!(coordinate(12.0), "12");
    }
}

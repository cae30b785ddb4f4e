//! Text in which each token shows in which layers its choices settled.

use serde::{Deserialize, Serialize};

use crate::markup::Markup;

/// Shades of the layer in which the first choice settles.
const SHADES: usize = 7;

/// A text, token by token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SettledText {
    /// Blocks of the model.
    pub layers: usize,
    /// The tokens.
    pub tokens: Vec<SettledToken>,
}

/// One token, and what the model decides after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SettledToken {
    /// Its text.
    pub text: String,
    /// Layers in which the choices for what follows settle, from 0.
    pub settled: Vec<usize>,
    /// The likeliest of each layer, the first layer first, the likeliest first.
    pub lens: Vec<Vec<String>>,
}

/// As HTML. What the lens reads stands in the title of each token, where the pointer rests on it.
pub(crate) fn settled_html(text: &SettledText) -> String {
    let mut markup = Markup::new();
    markup.element("div").word("class", "settled").open();
    for token in &text.tokens {
        let first = token.settled.first().copied().unwrap_or(0);
        let shade = 1 + first * (SHADES - 1) / text.layers.saturating_sub(1).max(1);
        let lens: Vec<String> = token
            .lens
            .iter()
            .enumerate()
            .map(|(layer, tops)| format!("layer {layer}: {}", tops.join(" · ")))
            .collect();
        let element = markup.element("span").word("class", &format!("token l{shade}"));
        element.word("title", &lens.join("\n")).open();
        markup.element("b").text(&shown(&token.text));
        let layers: Vec<String> = token.settled.iter().map(usize::to_string).collect();
        markup.element("small").text(&layers.join(" "));
        markup.close();
    }
    markup.finish()
}

/// Blanks that are seen.
fn shown(text: &str) -> String {
    text.replace('\n', "↵").replace(' ', "·")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_show_their_layers_and_what_the_lens_reads() {
        let token = |text: &str, settled| SettledToken {
            text: text.into(),
            settled,
            lens: vec![vec!["a".into(), "<".into()], vec!["b".into()]],
        };
        let text = SettledText { layers: 12, tokens: vec![token(" x\n", vec![0, 3]), token("&", vec![11])] };
        let html = settled_html(&text);
        assert!(html.contains("<b>·x↵</b><small>0 3</small>"), "{html}");
        assert!(html.contains("token l1") && html.contains("token l7"));
        assert!(html.contains("layer 0: a · &lt;\nlayer 1: b"));
    }
}

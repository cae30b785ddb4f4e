//! How a family stores a decoder's tensors: under which names, which of them side by side in one, and which transposed.

use std::collections::HashMap;

use crate::config::{DecoderConfig, Family};
use crate::tensors::{EMBEDDING, TensorSpec, UNEMBEDDING};

/// A tensor as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    /// Shape in the file.
    pub(crate) shape: Vec<usize>,
    /// Indices in [`DecoderConfig::tensors`] of what it holds, one after the other along the outputs.
    pub(crate) parts: Vec<usize>,
    /// Stored `[inputs, outputs]` (`Conv1D` of GPT-2).
    pub(crate) transposed: bool,
}

/// A decoder as its family stores it.
#[derive(Debug)]
pub(crate) struct Storage {
    family: Family,
    pub(crate) tensors: Vec<StoredTensor>,
    /// The decoder's own tensors, to which the parts point.
    pub(crate) specs: Vec<TensorSpec>,
    /// Stored name of the embedding.
    pub(crate) embedding: String,
}

/// The unembedding has this name in every family. Tied models may repeat the embedding under it.
pub(crate) const STORED_UNEMBEDDING: &str = UNEMBEDDING;

/// Whether every tensor lies in the file under its own name and as it is.
pub(crate) fn keeps_names(config: &DecoderConfig) -> bool {
    config.tensors().iter().all(|spec| stored_name(config, &spec.name) == (spec.name.clone(), false))
}

impl Storage {
    pub(crate) fn of(config: &DecoderConfig) -> Self {
        let specs = config.tensors();
        let mut tensors: Vec<StoredTensor> = Vec::with_capacity(specs.len());
        let mut places: HashMap<String, usize> = HashMap::new();
        for (part, spec) in specs.iter().enumerate() {
            let (name, transposed) = stored_name(config, &spec.name);
            let place = *places.entry(name.clone()).or_insert_with(|| {
                let mut shape = spec.shape.clone();
                shape[0] = 0;
                tensors.push(StoredTensor { name, shape, parts: Vec::new(), transposed });
                tensors.len() - 1
            });
            tensors[place].parts.push(part);
            tensors[place].shape[0] += spec.shape[0];
        }
        for tensor in &mut tensors {
            if tensor.transposed {
                tensor.shape.reverse();
            }
        }
        Self { family: config.family, tensors, specs, embedding: stored_name(config, EMBEDDING).0 }
    }

    /// Tensors that are no weights and change nothing: frequencies that the configuration implies, and the masks of GPT-2.
    pub(crate) fn is_buffer(&self, name: &str) -> bool {
        let mask = self.family == Family::Gpt2
            && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
        mask || name.ends_with(".rotary_emb.inv_freq")
    }
}

/// What the family calls a tensor, and whether it stores it transposed.
fn stored_name(config: &DecoderConfig, name: &str) -> (String, bool) {
    match config.family {
        Family::Phi3 => (fused_name(name), false),
        Family::Gpt2 => gpt2_name(name, config.variant.bare_names),
        _ => (name.to_owned(), false),
    }
}

fn fused_name(name: &str) -> String {
    for part in ["q_proj", "k_proj", "v_proj"] {
        if let Some((before, after)) = name.split_once(part) {
            return format!("{before}qkv_proj{after}");
        }
    }
    for part in ["gate_proj", "up_proj"] {
        if let Some((before, after)) = name.split_once(part) {
            return format!("{before}gate_up_proj{after}");
        }
    }
    name.to_owned()
}

fn gpt2_name(name: &str, bare: bool) -> (String, bool) {
    const PARTS: [(&str, &str, bool); 11] = [
        ("model.embed_tokens.", "wte.", false),
        ("model.embed_positions.", "wpe.", false),
        ("model.norm.", "ln_f.", false),
        ("input_layernorm.", "ln_1.", false),
        ("post_attention_layernorm.", "ln_2.", false),
        ("self_attn.q_proj.", "attn.c_attn.", true),
        ("self_attn.k_proj.", "attn.c_attn.", true),
        ("self_attn.v_proj.", "attn.c_attn.", true),
        ("self_attn.o_proj.", "attn.c_proj.", true),
        ("mlp.up_proj.", "mlp.c_fc.", true),
        ("mlp.down_proj.", "mlp.c_proj.", true),
    ];
    let renamed = name.replacen("model.layers.", "h.", 1);
    let found = PARTS.iter().find(|(ours, ..)| renamed.contains(ours));
    // Only the unembedding has the same name, without the prefix of the rest.
    let Some((ours, theirs, map)) = found else { return (name.to_owned(), false) };
    let prefix = if bare { "" } else { "transformer." };
    let stored = format!("{prefix}{}", renamed.replacen(ours, theirs, 1));
    let transposed = *map && stored.ends_with(".weight");
    (stored, transposed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Variant;
    use crate::presets::preset;

    #[test]
    fn conv1d_maps_are_fused_and_transposed() {
        let mut config = preset("1M", 300).unwrap();
        config.family = Family::Gpt2;
        config.attention_bias = true;
        let storage = Storage::of(&config);
        let find = |name: &str| storage.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        let attention = find("transformer.h.1.attn.c_attn.weight");
        assert_eq!(
            (&attention.shape[..], attention.parts.len(), attention.transposed),
            (&[128, 384][..], 3, true)
        );
        assert_eq!(find("transformer.h.1.attn.c_attn.bias").shape, [384]);
        assert_eq!(find("transformer.wte.weight").shape, [300, 128]);
        config.variant = Variant { bare_names: true, ..Variant::default() };
        assert_eq!(Storage::of(&config).embedding, "wte.weight");
    }

    #[test]
    fn fused_maps_stand_one_after_the_other() {
        let mut config = preset("1M", 300).unwrap();
        config.family = Family::Phi3;
        config.kv_heads = 2;
        let storage = Storage::of(&config);
        let find = |name: &str| storage.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(find("model.layers.0.self_attn.qkv_proj.weight").shape, [128 + 64 + 64, 128]);
        assert_eq!(find("model.layers.0.mlp.gate_up_proj.weight").shape, [704, 128]);
        assert!(storage.tensors.iter().all(|tensor| tensor.name != "model.layers.0.mlp.up_proj.weight"));
    }
}

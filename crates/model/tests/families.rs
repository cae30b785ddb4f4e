//! Families: their configuration in both styles, what of it is refused, and their files read, written and read again.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use proptest::prelude::*;
use safetensors::SafeTensors;
use sakiyomi_model::checkpoint::{
    parse_config, parse_header, parse_index, read_config, read_params, write_config, write_params,
};
use sakiyomi_model::{Decoder, DecoderConfig, LayerSet, RopeScaling, Window};
use serde_json::{Value, json};

mod common;
use common::shared_model;

const FAMILIES: [&str; 8] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "smollm3", "gpt2"];

#[test]
fn both_styles_of_config_say_the_same() {
    for family in FAMILIES {
        assert_eq!(read(&fixture(family)), read(&fixture(&format!("{family}.v5"))), "{family}");
    }
}

#[test]
fn what_is_written_reads_back() {
    for family in FAMILIES {
        let config = read(&fixture(family));
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), &config).unwrap();
        assert_eq!(read_config(folder.path()).unwrap(), config, "{family}");
    }
    for (family, changes) in [
        ("qwen2", json!({"use_sliding_window": true, "sliding_window": 7, "max_window_layers": 2})),
        ("qwen3", json!({"use_sliding_window": true, "attention_bias": true, "max_window_layers": 1})),
        ("gemma2", json!({"attn_logit_softcapping": null, "final_logit_softcapping": 0.3})),
        ("mistral", json!({"sliding_window": null, "rope_scaling": {"type": "linear", "factor": 2.5}})),
        ("llama", json!({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}})),
        ("smollm3", json!({"no_rope_layers": null, "use_sliding_window": true, "sliding_window": 5})),
        ("phi3", json!({"partial_rotary_factor": 0.5, "sliding_window": null})),
        ("phi3", longrope()),
        ("gpt2", json!({"n_inner": 48, "tie_word_embeddings": false})),
    ] {
        let config = read(&with(family, &changes));
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), &config).unwrap();
        assert_eq!(read_config(folder.path()).unwrap(), config, "{family} with {changes}");
    }
}

#[test]
fn layers_are_what_transformers_makes_of_them() {
    let windows = |config: &DecoderConfig| -> Vec<Option<usize>> {
        (0..config.layers).map(|layer| config.window_of(layer)).collect()
    };
    assert_eq!(windows(&read(&fixture("mistral"))), [Some(8); 3]);
    assert_eq!(windows(&read(&fixture("gemma2"))), [Some(8), None, Some(8), None]);
    assert_eq!(windows(&read(&fixture("qwen2"))), [None; 3]);
    let on = json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 1});
    assert_eq!(windows(&read(&with("qwen2", &on))), [None, Some(9), Some(9)]);
    let named = json!({
        "use_sliding_window": true,
        "sliding_window": 4096,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    });
    assert_eq!(windows(&read(&with("qwen3", &named))), [Some(4096), None, None]);
    // Absent is not null: the class has a window of its own.
    let mut mistral = fixture("mistral");
    mistral.as_object_mut().unwrap().remove("sliding_window");
    assert_eq!(read(&mistral).variant.window, Some(Window { keys: 4096, layers: LayerSet::All }));
    assert_eq!(read(&with("mistral", &json!({"sliding_window": null}))).variant.window, None);

    let rotary = |changes: Value| read(&with("smollm3", &changes)).variant.rotary;
    assert_eq!(rotary(json!({})), LayerSet::Only(vec![0, 1, 2]));
    assert_eq!(
        rotary(json!({"no_rope_layers": null, "no_rope_layer_interval": 2})),
        LayerSet::Only(vec![0, 2])
    );
    assert_eq!(rotary(json!({"no_rope_layers": [1, 1, 1, 1]})), LayerSet::All);
    assert_eq!(read(&fixture("gpt2")).variant.rotary, LayerSet::Only(vec![]));
}

/// Values of transformers 5.23.0: `Phi3RotaryEmbedding` (`inv_freq` and `attention_scaling`) and `LlamaRotaryEmbedding` with the
/// settings below.
#[test]
fn stretched_frequencies_equal_transformers() {
    let phi3 = read(&with("phi3", &longrope()));
    let theirs = [
        1.0,
        0.421_962_6,
        0.179_536_2,
        0.076_923_08,
        0.033_154_204,
        0.014_362_9,
        0.006_25,
        0.002_730_346_8,
        0.001_196_908,
        0.000_526_315_77,
        0.000_232_079_47,
        0.000_102_592_12,
    ];
    assert_close(&phi3.inverse_frequencies(), &theirs);
    assert_close(&[phi3.rotary_factor()], &[1.264_911]);
    // The long factors hold for all positions of a longer text, so the short ones are all there is.
    assert_eq!(phi3.context, 32);

    let linear = json!({"hidden_size": 64, "num_attention_heads": 2, "head_dim": null, "num_key_value_heads": 2,
        "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}});
    let llama = read(&with("llama", &linear));
    let ours = llama.inverse_frequencies();
    assert_close(
        &[ours[0], ours[1], ours[7], ours[15]],
        &[0.25, 0.140_585_33, 0.004_445_698_6, 4.445_698_5e-5],
    );
    let dynamic = json!({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}});
    let plain = read(&with("llama", &json!({"rope_scaling": null})));
    let dynamic = read(&with("llama", &dynamic));
    assert_eq!(dynamic.rope.scaling, Some(RopeScaling::Dynamic { factor: 4.0 }));
    assert_eq!(dynamic.inverse_frequencies(), plain.inverse_frequencies());
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    for (family, changes, expected) in [
        (
            "llama",
            json!({"model_type": "rwkv"}),
            "supported are llama, mistral, qwen2, qwen3, gemma2, phi3, smollm3, gpt2",
        ),
        ("qwen2", json!({"architectures": ["LlamaForCausalLM"]}), "supported is Qwen2ForCausalLM"),
        (
            "llama",
            json!({"frobnicate": 3}),
            "`frobnicate` is 3, which is not supported; the field is not known here",
        ),
        ("llama", json!({"final_logit_softcapping": 30.0}), "`final_logit_softcapping` is 30.0"),
        ("mistral", json!({"attn_logit_softcapping": 30.0}), "`attn_logit_softcapping` is 30.0"),
        ("mistral", json!({"hidden_act": "gelu"}), "`hidden_act` is \"gelu\""),
        ("mistral", json!({"sakiyomi_image_grid": {"width": 4}}), "`sakiyomi_image_grid` is"),
        (
            "llama",
            json!({"sakiyomi_image_grid": {"width": 4, "hight": 4}}),
            "`sakiyomi_image_grid.hight` is 4",
        ),
        ("llama", json!({"sakiyomi_image_grid": {"start": 4}}), "`sakiyomi_image_grid.width` is missing"),
        ("mistral", json!({"num_key_value_heads": null}), "`num_key_value_heads` is missing"),
        ("mistral", json!({"sliding_window": 0}), "a sliding window of 0 keys"),
        ("mistral", json!({"quantization_config": {"bits": 4}}), "`quantization_config` is"),
        ("qwen2", json!({"use_mrope": true}), "`use_mrope` is true"),
        ("qwen2", json!({"layer_types": ["full_attention"]}), "`layer_types` is [\"full_attention\"]"),
        (
            "qwen2",
            json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"]}),
            "sliding layers need a sliding_window",
        ),
        ("qwen2", json!({"use_sliding_window": 1}), "`use_sliding_window` is 1, expected true or false"),
        ("qwen3", json!({"head_dim": null}), "`head_dim` is missing"),
        ("qwen3", json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` is 0.5"),
        (
            "qwen3",
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            "`rope_scaling.rope_type` is \"yarn\"",
        ),
        ("gemma2", json!({"use_bidirectional_attention": true}), "`use_bidirectional_attention` is true"),
        ("gemma2", json!({"hidden_activation": "gelu"}), "`hidden_activation` is \"gelu\""),
        ("gemma2", json!({"attn_logit_softcapping": -1.0}), "attention cap is -1"),
        ("gemma2", json!({"query_pre_attn_scalar": 0}), "query scale is 0"),
        (
            "gemma2",
            json!({"layer_types": vec!["chunked_attention"; 4]}),
            "supported are full_attention and sliding_attention",
        ),
        ("phi3", json!({"partial_rotary_factor": 1.5}), "rotary embedding needs an even number"),
        (
            "phi3",
            json!({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}),
            "`rope_scaling.short_factor` is missing",
        ),
        (
            "phi3",
            json!({"rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}}),
            "1 values in short_factor, it needs one for each of 4",
        ),
        ("phi3", json!({"lm_head_bias": true}), "`lm_head_bias` is true"),
        (
            "smollm3",
            json!({"no_rope_layers": [1, 0]}),
            "`no_rope_layers` is [1,0], expected 0 or 1 for each layer",
        ),
        (
            "smollm3",
            json!({"no_rope_layers": null, "no_rope_layer_interval": 0}),
            "`no_rope_layer_interval` is 0",
        ),
        ("smollm3", json!({"num_hidden_layers": 1_000_000_000}), "layers is 1000000000"),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true}),
            "`scale_attn_by_inverse_layer_idx` is true",
        ),
        ("gpt2", json!({"scale_attn_weights": false}), "`scale_attn_weights` is false"),
        ("gpt2", json!({"activation_function": "relu"}), "`activation_function` is \"relu\""),
        ("gpt2", json!({"add_cross_attention": true}), "`add_cross_attention` is true"),
        ("gpt2", json!({"n_embd": null}), "`n_embd` is missing"),
        ("gpt2", json!({"n_head": 5}), "n_embd 32 does not divide evenly among 5 heads"),
    ] {
        let text = with(family, &changes).to_string();
        let message = parse_config(text.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{family} with {changes}: {message}");
        assert!(!message.contains('\n') && message.len() < 300, "{message}");
    }
}

#[test]
fn half_of_a_config_is_refused_and_no_panic() {
    for family in FAMILIES {
        let whole = fixture(family);
        for key in whole.as_object().unwrap().keys() {
            for value in [
                None,
                Some(json!(null)),
                Some(json!(-1)),
                Some(json!("x")),
                Some(json!([0.5])),
                Some(json!({})),
            ] {
                let mut config = whole.clone();
                match value {
                    None => drop(config.as_object_mut().unwrap().shift_remove(key)),
                    Some(value) => config[key.as_str()] = value,
                }
                match parse_config(config.to_string().as_bytes()) {
                    Ok(config) => config.validate().unwrap(),
                    Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
                }
            }
        }
        let text = whole.to_string();
        for length in 0..text.len() {
            assert!(parse_config(&text.as_bytes()[..length]).is_err());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_description_or_an_error(
        family in 0..FAMILIES.len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = fixture(FAMILIES[family]).to_string().into_bytes();
        for (place, byte) in places {
            let place = place.index(bytes.len());
            // Digits and letters keep the file JSON often enough to get to the readers.
            bytes[place] = if byte < 200 { b"0123456789e-\"[]{}:,tfnull. "[byte as usize % 26] } else { byte };
        }
        for bytes in [&bytes, &noise] {
            if let Ok(config) = parse_config(bytes) {
                prop_assert!(config.validate().is_ok());
                prop_assert_eq!(config.inverse_frequencies().len(), config.rotated() / 2);
            }
            let _ = (parse_index(bytes), parse_header(bytes));
        }
    }
}

#[test]
fn a_new_model_of_every_family_is_saved_and_read_as_it_is() {
    for family in FAMILIES {
        let (decoder, params) = Decoder::initialise(&read(&fixture(family)), 3).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), &decoder.config).unwrap();
        write_params(folder.path(), &decoder.config, &params, &[]).unwrap();
        let config = read_config(folder.path()).unwrap();
        assert_eq!(config, decoder.config);
        let read = read_params(folder.path(), &config).unwrap();
        for ((_, ours), (_, theirs)) in params.iter().zip(read.iter()) {
            assert_eq!(
                (&ours.name, &ours.shape, bits(&ours.data)),
                (&theirs.name, &theirs.shape, bits(&theirs.data))
            );
        }
    }
}

#[test]
fn a_published_folder_is_saved_under_its_own_names() {
    for name in [
        "tiny-llama-tied",
        "tiny-llama-sharded-bf16",
        "tiny-mistral",
        "tiny-qwen2",
        "tiny-qwen2-untied",
        "tiny-qwen3",
        "tiny-qwen3-untied",
        "tiny-gemma2",
        "tiny-phi3",
        "tiny-smollm3",
        "tiny-gpt2",
        "tiny-gpt2-bare",
    ] {
        let Some(folder) = shared_model(name) else { return };
        let config = read_config(&folder).unwrap();
        let params = read_params(&folder, &config).unwrap();
        let copy = tempfile::tempdir().unwrap();
        write_config(copy.path(), &config).unwrap();
        write_params(copy.path(), &config, &params, &[]).unwrap();
        assert_eq!(read_config(copy.path()).unwrap(), config, "{name}");
        let mut published = stored(&folder);
        // The mask is no weight.
        published.retain(|tensor, _| !(config.variant.bare_names && tensor.ends_with(".attn.bias")));
        assert_eq!(stored(copy.path()), published, "{name}");
    }
}

/// Names, shapes and float32 bits of the tensors in a folder, as the safetensors crate sees them.
fn stored(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let bits = match tensor.dtype() {
                safetensors::Dtype::BF16 => tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&b| u32::from(u16::from_le_bytes(b)) << 16)
                    .collect(),
                _ => tensor.data().as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect(),
            };
            tensors.insert(name, (tensor.shape().to_vec(), bits));
        }
    }
    tensors
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn fixture(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn with(family: &str, changes: &Value) -> Value {
    let mut config = fixture(family);
    for (key, value) in changes.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    config
}

fn longrope() -> Value {
    json!({
        "hidden_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "original_max_position_embeddings": 32,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": (0..12).map(|i| 1.0 + 0.1 * f64::from(i)).collect::<Vec<_>>(),
            "long_factor": (0..12).map(|i| 2.0 + f64::from(i)).collect::<Vec<_>>(),
        },
    })
}

fn read(config: &Value) -> DecoderConfig {
    parse_config(config.to_string().as_bytes()).unwrap()
}

fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 4e-7 * theirs, "{ours} against {theirs}");
    }
}

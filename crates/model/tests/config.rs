//! `config.json`: published styles read alike, what is written reads back, what is not supported is named.

use std::path::Path;

use fs_err as fs;
use sakiyomi_model::checkpoint::{read_config, write_config};
use sakiyomi_model::presets::preset;
use sakiyomi_model::{DecoderConfig, Family, Grid, Result, Rope, RopeScaling, Variant};
use serde_json::{Value, json};

mod common;
use common::shared_model;

#[test]
fn shared_models_say_what_they_are() {
    let tiny = DecoderConfig {
        family: Family::Llama,
        vocabulary: 256,
        width: 32,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ffn: 80,
        context: 64,
        rope: Rope { theta: 10_000.0, scaling: None },
        norm_epsilon: 1e-5,
        tied: false,
        attention_bias: false,
        mlp_bias: false,
        begin_token: Some(1),
        end_tokens: vec![2],
        variant: Variant::default(),
    };
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 32,
    };
    let tied = DecoderConfig {
        layers: 2,
        context: 256,
        rope: Rope { theta: 500_000.0, scaling: Some(scaling) },
        tied: true,
        attention_bias: true,
        mlp_bias: true,
        ..tiny.clone()
    };
    let stories = DecoderConfig {
        vocabulary: 512,
        width: 64,
        layers: 5,
        heads: 8,
        kv_heads: 4,
        ffn: 172,
        context: 512,
        tied: true,
        ..tiny.clone()
    };
    for (name, expected) in [
        ("tiny-llama", &tiny),
        ("tiny-llama-sharded-bf16", &tiny),
        ("tiny-llama-tied", &tied),
        ("stories260k", &stories),
    ] {
        let Some(folder) = shared_model(name) else { return };
        assert_eq!(read_config(&folder).unwrap(), *expected, "{name}");
        let newer = folder.join("config.v5.json");
        if newer.is_file() {
            let config: Value = serde_json::from_slice(&fs::read(newer).unwrap()).unwrap();
            assert!(config.get("rope_parameters").is_some());
            assert_eq!(read(&config).unwrap(), *expected, "{name}, the style of transformers 5");
        }
    }
    // transformers 5.23.0, LlamaRotaryEmbedding.inv_freq of tiny-llama-tied.
    let theirs = [1.0, 0.004_700_754, 0.000_176_776_68, 6.647_869_7e-6];
    for (ours, theirs) in tied.inverse_frequencies().into_iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 3e-7 * theirs, "{ours} against {theirs}");
    }
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let config = read(&minimal()).unwrap();
    assert_eq!((config.kv_heads, config.head_dim, config.context), (4, 16, 2048));
    assert_eq!((config.begin_token, config.end_tokens), (Some(1), vec![2]));
    assert_eq!((config.norm_epsilon, config.rope), (1e-6, Rope { theta: 10_000.0, scaling: None }));
    assert!(!config.tied && !config.attention_bias && !config.mlp_bias);

    let config = read(&with(&[("bos_token_id", Value::Null), ("eos_token_id", Value::Null)])).unwrap();
    assert_eq!((config.begin_token, config.end_tokens), (None, vec![]));
    let config = read(&with(&[("eos_token_id", json!([7, 8]))])).unwrap();
    assert_eq!(config.end_tokens, [7, 8]);
}

#[test]
fn generation_config_names_the_end_tokens() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), minimal().to_string()).unwrap();
    let generation = folder.path().join("generation_config.json");
    fs::write(&generation, r#"{"eos_token_id": [5, 6]}"#).unwrap();
    assert_eq!(read_config(folder.path()).unwrap().end_tokens, [5, 6]);
    fs::write(&generation, "{}").unwrap();
    assert_eq!(read_config(folder.path()).unwrap().end_tokens, [2]);
    fs::write(&generation, r#"{"eos_token_id": "</s>"}"#).unwrap();
    let message = read_config(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("generation_config.json: `eos_token_id` is \"</s>\", expected a token id"),
        "{message}"
    );
}

#[test]
fn rope_is_read_wherever_it_stands() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4});
    let scaled = |original_context| {
        Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context,
        })
    };
    let rope = |fields: &[(&str, Value)]| read(&with(fields)).unwrap().rope;
    assert_eq!(rope(&[("rope_scaling", llama3.clone())]), Rope { theta: 1e4, scaling: scaled(2048) });
    let mut old_name = llama3.clone();
    let kind = old_name.as_object_mut().unwrap().remove("rope_type").unwrap();
    old_name["type"] = kind;
    old_name["original_max_position_embeddings"] = 32.into();
    assert_eq!(
        rope(&[("rope_scaling", old_name), ("rope_theta", json!(5e5))]),
        Rope { theta: 5e5, scaling: scaled(32) }
    );
    let inner = json!({"rope_theta": 7.0, "rope_type": "default", "partial_rotary_factor": 1.0});
    assert_eq!(
        rope(&[("rope_parameters", inner), ("rope_theta", json!(9.0))]),
        Rope { theta: 7.0, scaling: None }
    );
    assert_eq!(rope(&[("rope_parameters", json!({"rope_theta": 7}))]), Rope { theta: 7.0, scaling: None });
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    let cases = [
        ("model_type", json!("mamba"), "`model_type` is \"mamba\""),
        ("architectures", json!(["LlamaForSequenceClassification"]), "`architectures` is"),
        ("hidden_act", json!("gelu"), "`hidden_act` is \"gelu\", which is not supported; supported is silu"),
        ("sliding_window", json!(4096), "`sliding_window` is 4096"),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4}), "`quantization_config` is {"),
        ("pretraining_tp", json!(2), "`pretraining_tp` is 2"),
        ("partial_rotary_factor", json!(0.5), "`partial_rotary_factor` is 0.5"),
        ("final_logit_softcapping", json!(30.0), "`final_logit_softcapping` is 30.0"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "`layer_types` is"),
        ("no_rope_layers", json!([1, 0]), "`no_rope_layers` is [1,0]"),
        ("rope_scaling", json!({"type": "ntk", "factor": 2}), "`rope_scaling.type` is \"ntk\""),
        ("rope_scaling", json!({"factor": 2}), "`rope_scaling.factor` is 2"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 2}),
            "`rope_scaling.low_freq_factor` is missing",
        ),
        ("rope_scaling", json!(2.0), "`rope_scaling` is 2.0, expected an object"),
        ("rope_parameters", json!({"rope_type": "yarn"}), "`rope_parameters.rope_type` is \"yarn\""),
        ("rope_parameters", json!({"rope_type": 3}), "`rope_parameters.rope_type` is 3, expected a name"),
        (
            "rope_parameters",
            json!({"partial_rotary_factor": 0.25}),
            "`rope_parameters.partial_rotary_factor` is 0.25",
        ),
        ("rope_parameters", json!({"full_attention": {}}), "`rope_parameters.full_attention` is {}"),
        ("hidden_size", json!("64"), "`hidden_size` is \"64\", expected a whole number"),
        ("hidden_size", json!(-64), "`hidden_size` is -64"),
        ("hidden_size", json!(66), "hidden_size 66 does not divide evenly among 4 heads"),
        ("hidden_size", Value::Null, "`hidden_size` is missing"),
        ("num_attention_heads", json!(0), "among 0 heads"),
        ("num_hidden_layers", json!(1e30), "`num_hidden_layers` is 1e+30"),
        ("num_hidden_layers", json!(u64::MAX), "layers is 18446744073709551615"),
        ("tie_word_embeddings", json!("yes"), "`tie_word_embeddings` is \"yes\", expected true or false"),
        ("rms_norm_eps", json!(0), "norm_epsilon is 0"),
        ("bos_token_id", json!(100), "begin token 100 is outside the vocabulary of 100"),
        ("bos_token_id", json!(-1), "`bos_token_id` is -1, expected a token id"),
    ];
    for (key, value, expected) in cases {
        let message = read(&with(&[(key, value)])).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n') && message.len() < 300, "{message}");
    }
}

#[test]
fn what_does_nothing_is_ignored() {
    let fields = [
        ("sliding_window", json!(4096)),
        ("use_sliding_window", json!(false)),
        ("pretraining_tp", json!(1)),
        ("quantization_config", Value::Null),
        ("layer_types", json!(["full_attention"])),
        ("no_rope_layers", json!([1, 1])),
        ("attention_dropout", json!(0.1)),
        ("architectures", Value::Null),
        ("_name_or_path", json!("somewhere")),
        ("torch_dtype", json!("bfloat16")),
    ];
    assert_eq!(read(&with(&fields)).unwrap(), read(&minimal()).unwrap());
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = || read_config(folder.path()).unwrap_err().to_string();
    assert!(message().contains("holds no config.json"));
    for (text, expected) in [
        ("", "config.json: the file ends too early"),
        ("{\"model_type\": \"lla", "config.json: the file ends too early"),
        ("\u{0}\u{0}", "config.json: not JSON"),
        ("[]", "config.json: no JSON object"),
        ("{}", "`model_type` is missing"),
    ] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        assert!(message().contains(expected), "{}", message());
    }
    fs::write(folder.path().join("config.json"), [b'{', 0xff, b'}']).unwrap();
    assert!(message().contains("not JSON"));
}

#[test]
fn what_is_written_reads_back() {
    let mut config = preset("10M", 300).unwrap();
    for end_tokens in [vec![], vec![2], vec![3, 4]] {
        config.end_tokens = end_tokens;
        assert_eq!(written(&config), config);
        config.begin_token = Some(0);
    }
    config.rope = Rope {
        theta: 500_000.0,
        scaling: Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 256,
        }),
    };
    config.attention_bias = true;
    config.head_dim = 32;
    config.kv_heads = 2;
    config.tied = false;
    assert_eq!(written(&config), config);
}

#[test]
fn stories260k_is_written_as_it_was_published() {
    let Some(folder) = shared_model("stories260k") else { return };
    let out = tempfile::tempdir().unwrap();
    write_config(out.path(), &read_config(&folder).unwrap()).unwrap();
    for name in ["config.json", "generation_config.json"] {
        let json = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
        };
        assert_eq!(json(out.path()), json(&folder), "{name}");
    }
}

#[test]
fn a_model_that_cannot_be_built_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = preset("1M", 300).unwrap();
    config.kv_heads = 3;
    assert!(write_config(folder.path(), &config).unwrap_err().to_string().contains("key-value heads"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_image_grid_reads_back_and_turns_by_rows_and_columns() {
    let mut config = preset("1M", 300).unwrap();
    assert_eq!(written(&config).variant.grid, None);
    config.variant.grid = Some(Grid { start: 2, width: 14 });
    assert_eq!(written(&config), config);
    let (table, half) = (config.rope_table(), config.head_dim / 2);
    assert_eq!((table.half(), table.positions()), (half, config.context));
    let cosines = |position: usize| &table.cos[position * half..][..half];
    // Two cells down of the first one, and two to the right of it.
    let (down, right) = (cosines(2 + 28), cosines(2 + 2));
    assert_eq!((&down[..half / 2], &down[half / 2..]), (&right[half / 2..], &right[..half / 2]));
    assert_eq!((cosines(0), down[0]), (cosines(2), 2.0_f32.cos()));
}

fn minimal() -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 100,
    })
}

fn with(fields: &[(&str, Value)]) -> Value {
    let mut config = minimal();
    for (key, value) in fields {
        config[*key] = value.clone();
    }
    config
}

fn read(config: &Value) -> Result<DecoderConfig> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    read_config(folder.path())
}

fn written(config: &DecoderConfig) -> DecoderConfig {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), config).unwrap();
    read_config(folder.path()).unwrap()
}

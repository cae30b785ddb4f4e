//! Fields that no reader asks for: those known to leave the numbers alone, and those known to change them.

use serde_json::Value;

use super::fields::Fields;
use crate::error::Result;

/// Refuses, by name, every field that no reader has asked for and that may change the numbers.
pub(crate) fn refuse_the_rest(fields: &Fields<'_>) -> Result<()> {
    for key in fields.unseen() {
        // Names that begin so are notes of transformers to itself.
        if key.starts_with('_') || key.starts_with("unsloth") || WITHOUT_EFFECT.contains(&key.as_str()) {
            continue;
        }
        let (neutral, changing) = match CHANGING.iter().find(|(name, _)| name == key) {
            Some((_, neutral)) => (*neutral, true),
            None => (&[][..], false),
        };
        if !does_nothing(&fields.map[key], neutral) {
            return Err(fields.unsupported(
                key,
                match changing {
                    true => "this part of the model is not implemented",
                    false => "the field is not known here; remove it if the numbers do not depend on it",
                },
            ));
        }
    }
    Ok(())
}

/// Whether a value says that its field is switched off.
pub(crate) fn does_nothing(value: &Value, neutral: &[f64]) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| neutral.contains(&number)),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        Value::String(_) => false,
    }
}

/// Fields that change the numbers, and the values (beside null, false and empty) at which they do not.
///
/// Windows, caps and multipliers of families that have none, interleaved rotation, experts, quantisation, norms of whole queries:
/// each occurs in a published file that calls itself a relative of one of the families.
const CHANGING: &[(&str, &[f64])] = &[
    ("add_cross_attention", &[]),
    ("alibi", &[]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[]),
    ("clip_qkv", &[]),
    ("dim_model_base", &[]),
    ("embedding_multiplier", &[1.0]),
    ("final_logit_softcapping", &[]),
    ("full_attn_mod", &[1.0]),
    ("interpolate_factor", &[1.0]),
    ("is_encoder_decoder", &[]),
    ("kv_lora_rank", &[]),
    ("layer_types", &[]),
    ("lm_head_bias", &[]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("no_rope_layers", &[]),
    ("num_experts", &[0.0, 1.0]),
    ("num_local_experts", &[0.0, 1.0]),
    ("parallel_attn", &[]),
    ("partial_rotary_factor", &[1.0]),
    ("pretraining_tp", &[1.0]),
    ("pruned_heads", &[]),
    ("qk_layernorm", &[]),
    ("qk_norm", &[]),
    ("quantization_config", &[]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &[1.0]),
    ("rope_interleaved", &[]),
    ("scale_depth", &[]),
    ("scale_emb", &[1.0]),
    ("sliding_window", &[0.0]),
    ("use_alibi", &[]),
    ("use_bidirectional_attention", &[]),
    ("use_mrope", &[]),
    ("use_parallel_residual", &[]),
    ("use_qk_norm", &[]),
    ("use_sliding_window", &[]),
];

/// Fields that leave the numbers of a forward pass alone: training (nothing here drops values out), generation, caching, tasks
/// other than language modelling, and notes of the software that wrote the file.
const WITHOUT_EFFECT: &[&str] = &[
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "n_ctx",
    "name_or_path",
    "no_repeat_ngram_size",
    "no_rope_layer_interval",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "padding_side",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "reorder_and_upcast_attn",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

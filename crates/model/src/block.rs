//! A transformer block, written once over [`Ops`].

use std::sync::Arc;

use tensor::{
    Activation, AttentionSpec, HeadNorms, Linear, Norm, NormKind, Ops, ParamId, Params, Part, RopeTable,
};

use crate::config::{ActivationForm, DecoderConfig, NormForm};
use crate::error::{Error, Result};

/// One transformer block: attention and a feed-forward part, each after a norm (and before one, where the family has it), both
/// added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    attention_norm: Norm,
    qkv: [Linear; 3],
    output: Linear,
    /// After attention.
    attention_post_norm: Option<Norm>,
    ffn_norm: Norm,
    /// Gate and up, or up alone.
    ffn: Vec<Linear>,
    activation: Activation,
    down: Linear,
    /// After the feed-forward part.
    ffn_post_norm: Option<Norm>,
    attention: AttentionSpec,
}

impl Block {
    /// Finds a block's parameters under `prefix` (for example `model.layers.3`). It computes what layer `layer` of the decoder
    /// does; `slot` is its cache in an engine.
    pub fn find(
        params: &Params,
        config: &DecoderConfig,
        rope: &Arc<RopeTable>,
        prefix: &str,
        layer: usize,
        slot: usize,
    ) -> Result<Self> {
        let find = Finder { params, config, prefix };
        let variant = &config.variant;
        let (attention_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        let head_norms = variant.head_norms.then(|| -> Result<HeadNorms> {
            Ok(HeadNorms {
                query: find.param("self_attn.q_norm.weight")?,
                key: find.param("self_attn.k_norm.weight")?,
                epsilon: config.norm_epsilon,
            })
        });
        let post_norm = |name: &str| variant.post_norms.then(|| find.norm(name)).transpose();
        let (activation, inner): (_, &[&str]) = match variant.activation {
            ActivationForm::SiluGated => (Activation::SiluGated, &["mlp.gate_proj", "mlp.up_proj"]),
            ActivationForm::GeluGated => (Activation::GeluGated, &["mlp.gate_proj", "mlp.up_proj"]),
            ActivationForm::Gelu => (Activation::Gelu, &["mlp.up_proj"]),
        };
        // The norm before the feed-forward part has another name where there is one after attention.
        let ffn_norm =
            if variant.post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        Ok(Self {
            attention_norm: find.norm("input_layernorm")?,
            qkv: [
                find.linear("self_attn.q_proj", attention_bias)?,
                find.linear("self_attn.k_proj", attention_bias)?,
                find.linear("self_attn.v_proj", attention_bias)?,
            ],
            output: find.linear("self_attn.o_proj", config.output_bias())?,
            attention_post_norm: post_norm("post_attention_layernorm")?,
            ffn_norm: find.norm(ffn_norm)?,
            ffn: inner.iter().map(|name| find.linear(name, mlp_bias)).collect::<Result<_>>()?,
            activation,
            down: find.linear("mlp.down_proj", mlp_bias)?,
            ffn_post_norm: post_norm("post_feedforward_layernorm")?,
            attention: AttentionSpec {
                slot,
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: config.score_scale(),
                cap: variant.attention_cap,
                window: config.window_of(layer),
                head_norms: head_norms.transpose()?,
                rope: variant.rotary.contains(layer).then(|| Arc::clone(rope)),
            },
        })
    }

    /// `[rows, width]` to `[rows, width]`.
    pub fn forward<O: Ops>(&self, ops: &mut O, x: O::Var) -> O::Var {
        let normed = ops.norm(&x, &self.attention_norm);
        let qkv = ops.linear(normed, &self.qkv);
        let attended = ops.attention(qkv, &self.attention);
        let x = ops.narrow(x, self.attention.slot);
        let x = add(ops, attended, self.output, self.attention_post_norm.as_ref(), x);
        let normed = ops.norm(&x, &self.ffn_norm);
        let inner = ops.linear(normed, &self.ffn);
        let inner = ops.activate(inner, self.activation);
        add(ops, inner, self.down, self.ffn_post_norm.as_ref(), x)
    }

    /// Lets attention store keys and values of `x`, for rows that do not run through the block; gives what attention would have
    /// read, which is of no use.
    pub fn propagate<O: Ops>(&self, ops: &mut O, x: &O::Var) -> O::Var {
        let normed = ops.norm(x, &self.attention_norm);
        let qkv = ops.linear(normed, &self.qkv);
        ops.attention(qkv, &self.attention)
    }

    /// The cache that an engine keeps for it.
    pub fn attention(&self) -> &AttentionSpec {
        &self.attention
    }

    /// Groups of linear maps that are applied to one input, as an engine packs them.
    pub fn linear_groups(&self) -> Vec<Vec<Linear>> {
        vec![self.qkv.to_vec(), vec![self.output], self.ffn.clone(), vec![self.down]]
    }

    /// Its norms over whole rows.
    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        [&self.attention_norm, &self.ffn_norm]
            .into_iter()
            .chain(&self.attention_post_norm)
            .chain(&self.ffn_post_norm)
    }
}

impl Part for Block {
    fn forward<O: Ops>(&self, ops: &mut O, x: O::Var) -> O::Var {
        self.forward(ops, x)
    }
}

/// `residual + map(inner)`, with the norm that may stand between.
fn add<O: Ops>(
    ops: &mut O,
    inner: O::Var,
    map: Linear,
    post_norm: Option<&Norm>,
    residual: O::Var,
) -> O::Var {
    match post_norm {
        None => ops.linear_add(inner, map, residual),
        Some(norm) => {
            let part = ops.linear(inner, &[map]);
            ops.norm_add(part, norm, residual)
        }
    }
}

/// Finds parameters by name below a prefix.
pub(crate) struct Finder<'a> {
    pub(crate) params: &'a Params,
    pub(crate) config: &'a DecoderConfig,
    pub(crate) prefix: &'a str,
}

impl Finder<'_> {
    pub(crate) fn param(&self, name: &str) -> Result<ParamId> {
        let name = format!("{}.{name}", self.prefix);
        self.params.find(&name).ok_or(Error::MissingParameter { name })
    }

    pub(crate) fn norm(&self, name: &str) -> Result<Norm> {
        let kind = match self.config.variant.norm {
            NormForm::Rms => NormKind::Rms,
            NormForm::RmsPlusOne => NormKind::RmsPlusOne,
            NormForm::Layer => NormKind::Layer { bias: self.param(&format!("{name}.bias"))? },
        };
        let weight = self.param(&format!("{name}.weight"))?;
        Ok(Norm { weight, kind, epsilon: self.config.norm_epsilon })
    }

    fn linear(&self, name: &str, bias: bool) -> Result<Linear> {
        Ok(Linear {
            weight: self.param(&format!("{name}.weight"))?,
            bias: if bias { Some(self.param(&format!("{name}.bias"))?) } else { None },
        })
    }
}

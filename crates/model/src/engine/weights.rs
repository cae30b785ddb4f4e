//! Weights as the engine reads them: products packed once, tables and vectors as they are.

use kernels::packed::PackedF32;
use tensor::{Linear, Norm, NormKind, ParamId, Params};

use crate::Decoder;

/// Linear maps of one input, packed side by side.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) packed: PackedF32,
    pub(super) bias: Option<Vec<f32>>,
}

/// What an engine needs of a model; shared between engines.
#[derive(Debug, Default)]
pub struct EngineWeights {
    groups: ByParam<Group>,
    vectors: ByParam<Vec<f32>>,
    tables: ByParam<(Vec<f32>, usize)>,
}

/// Values by parameter: found by index, because every operation of every token looks one up.
#[derive(Debug)]
struct ByParam<T>(Vec<Option<T>>);

impl<T> Default for ByParam<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByParam<T> {
    fn insert(&mut self, id: ParamId, value: T) {
        if self.0.len() <= id.index() {
            self.0.resize_with(id.index() + 1, || None);
        }
        self.0[id.index()] = Some(value);
    }

    fn get(&self, id: ParamId) -> Option<&T> {
        self.0.get(id.index())?.as_ref()
    }
}

impl EngineWeights {
    /// Packs a decoder.
    pub fn new(decoder: &Decoder, params: &Params) -> Self {
        let mut weights = Self::default();
        for table in [Some(decoder.embedding.table), decoder.embedding.positions].into_iter().flatten() {
            let (_, width) = params.matrix_shape(table);
            weights.tables.insert(table, (params.data(table).to_vec(), width));
        }
        for block in &decoder.blocks {
            weights.add_block(block, params);
        }
        weights.add_norm(&decoder.norm, params);
        weights.add_group(&[Linear { weight: decoder.unembedding, bias: None }], params);
        weights
    }

    /// Packs a block that stands outside the decoder, such as a head.
    pub fn add_block(&mut self, block: &crate::Block, params: &Params) {
        for group in block.linear_groups() {
            self.add_group(&group, params);
        }
        for norm in block.norms() {
            self.add_norm(norm, params);
        }
        if let Some(norms) = &block.attention().head_norms {
            self.vectors.insert(norms.query, params.data(norms.query).to_vec());
            self.vectors.insert(norms.key, params.data(norms.key).to_vec());
        }
    }

    /// Packs linear maps of one input side by side; they are found again by the first map's weight.
    pub fn add_group(&mut self, maps: &[Linear], params: &Params) {
        let inputs = params.matrix_shape(maps[0].weight).1;
        let merged: Vec<_> = maps.iter().map(|map| params.merged(map.weight)).collect();
        let sizes = maps.iter().map(|map| params.matrix_shape(map.weight).0);
        let parts: Vec<(&[f32], usize)> = merged.iter().map(AsRef::as_ref).zip(sizes).collect();
        let bias = maps.iter().any(|map| map.bias.is_some()).then(|| {
            let of = |map: &Linear| match map.bias {
                Some(bias) => params.data(bias).to_vec(),
                None => vec![0.0; params.matrix_shape(map.weight).0],
            };
            maps.iter().flat_map(of).collect()
        });
        self.groups.insert(maps[0].weight, Group { packed: PackedF32::pack(&parts, inputs), bias });
    }

    /// Keeps a norm's gain, which is one more than its weight in some kinds, and its bias.
    fn add_norm(&mut self, norm: &Norm, params: &Params) {
        let mut gain = params.data(norm.weight).to_vec();
        match norm.kind {
            NormKind::Rms => {}
            NormKind::RmsPlusOne => gain.iter_mut().for_each(|weight| *weight += 1.0),
            NormKind::Layer { bias } => self.vectors.insert(bias, params.data(bias).to_vec()),
        }
        self.vectors.insert(norm.weight, gain);
    }

    pub(super) fn group(&self, first: ParamId) -> &Group {
        self.groups.get(first).expect("every linear map of the model was packed")
    }

    pub(super) fn vector(&self, id: ParamId) -> &[f32] {
        self.vectors.get(id).expect("every gain of the model was kept")
    }

    pub(super) fn table(&self, id: ParamId) -> (&[f32], usize) {
        let (table, width) = self.tables.get(id).expect("the embedding was kept");
        (table, *width)
    }
}

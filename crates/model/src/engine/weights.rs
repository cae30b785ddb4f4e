//! Weights as the engine reads them: products packed once, tables and vectors as they are.

use half::bf16;
use kernels::packed::{Packed, WeightType};
use tensor::{Linear, NormKind, ParamId, Params};

use crate::{Block, Decoder};

/// Linear maps of one input, packed side by side.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) packed: Packed,
    pub(super) bias: Option<Vec<f32>>,
}

/// What an engine needs of a model; shared between engines.
#[derive(Debug, Default)]
pub struct EngineWeights {
    weight_type: WeightType,
    decoder_bytes: usize,
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

/// A part of a model that an engine holds by itself.
pub(super) enum Part {
    /// Rows that are looked up.
    Table(ParamId),
    /// Maps of one input, found by the weight of the first.
    Group(Vec<Linear>),
    /// A gain, or the bias of a norm.
    Vector(ParamId),
}

/// What a decoder consists of.
pub(super) fn parts(decoder: &Decoder) -> Vec<Part> {
    let tables = [Some(decoder.embedding.table), decoder.embedding.positions];
    let mut parts: Vec<Part> = tables.into_iter().flatten().map(Part::Table).collect();
    parts.extend(decoder.blocks.iter().flat_map(parts_of_block));
    parts.extend(vectors_of_norm(&decoder.norm).into_iter().map(Part::Vector));
    parts.push(Part::Group(vec![Linear { weight: decoder.unembedding, bias: None }]));
    parts
}

fn parts_of_block(block: &Block) -> Vec<Part> {
    let mut parts: Vec<Part> = block.linear_groups().into_iter().map(Part::Group).collect();
    parts.extend(block.norms().flat_map(vectors_of_norm).map(Part::Vector));
    if let Some(norms) = &block.attention().head_norms {
        parts.extend([norms.query, norms.key].map(Part::Vector));
    }
    parts
}

fn vectors_of_norm(norm: &tensor::Norm) -> Vec<ParamId> {
    match norm.kind {
        NormKind::Rms | NormKind::RmsPlusOne => vec![norm.weight],
        NormKind::Layer { bias } => vec![norm.weight, bias],
    }
}

impl EngineWeights {
    /// Packs a decoder in f32.
    pub fn new(decoder: &Decoder, params: &Params) -> Self {
        Self::new_as(WeightType::F32, decoder, params)
    }

    /// Packs a decoder, its linear maps as `weight_type`. Norms and biases stay in f32; embeddings are rounded to bf16 unless the
    /// maps are f32; an unembedding that were int4 is int8: it decides every token, and is a small part of what is read.
    pub fn new_as(weight_type: WeightType, decoder: &Decoder, params: &Params) -> Self {
        let mut weights = Self::empty(weight_type);
        for part in parts(decoder) {
            match part {
                Part::Table(id) => {
                    let (_, width) = params.matrix_shape(id);
                    let mut table = params.data(id).to_vec();
                    if weight_type != WeightType::F32 {
                        table.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
                    }
                    weights.insert_table(id, table, width);
                }
                Part::Group(maps) => {
                    let kind = weights.type_of(decoder, &maps);
                    weights.add_group_as(kind, &maps, params);
                }
                Part::Vector(id) => weights.insert_vector(id, params.data(id).to_vec()),
            }
        }
        weights.raise_gains(decoder.blocks.iter().flat_map(Block::norms).chain([&decoder.norm]));
        weights.count_decoder();
        weights
    }

    /// How the linear maps are written.
    pub fn weight_type(&self) -> WeightType {
        self.weight_type
    }

    /// Bytes of the decoder's packed maps, those of heads not counted: what one run of the model with few rows has to read,
    /// next to its caches.
    pub fn decoder_bytes(&self) -> usize {
        self.decoder_bytes
    }

    /// Packs a block that stands outside the decoder, such as a head.
    pub fn add_block(&mut self, block: &Block, params: &Params) {
        for part in parts_of_block(block) {
            match part {
                Part::Group(maps) => self.add_group(&maps, params),
                Part::Vector(id) => self.insert_vector(id, params.data(id).to_vec()),
                Part::Table(_) => unreachable!("a block has no embedding"),
            }
        }
        self.raise_gains(block.norms());
    }

    /// Packs linear maps of one input side by side; they are found again by the first map's weight.
    pub fn add_group(&mut self, maps: &[Linear], params: &Params) {
        self.add_group_as(self.weight_type, maps, params);
    }

    /// Packs the unembedding of a head.
    pub fn add_unembedding(&mut self, unembedding: ParamId, params: &Params) {
        self.add_group_as(self.unembedding_type(), &[Linear { weight: unembedding, bias: None }], params);
    }

    /// Keeps a vector that stands outside the decoder, such as that of registers.
    pub fn add_vector(&mut self, id: ParamId, params: &Params) {
        self.insert_vector(id, params.data(id).to_vec());
    }

    fn add_group_as(&mut self, weight_type: WeightType, maps: &[Linear], params: &Params) {
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
        self.insert_group(maps[0].weight, Group { packed: Packed::pack(weight_type, &parts, inputs), bias });
    }

    /// Gains are one more than the weight in some kinds of norms.
    fn raise_gains<'a>(&mut self, norms: impl Iterator<Item = &'a tensor::Norm>) {
        for norm in norms.filter(|norm| norm.kind == NormKind::RmsPlusOne) {
            let gain = self.vectors.0[norm.weight.index()].iter_mut().flatten();
            gain.for_each(|weight| *weight += 1.0);
        }
    }

    fn unembedding_type(&self) -> WeightType {
        match self.weight_type {
            WeightType::Int4 => WeightType::Int8,
            other => other,
        }
    }

    /// How a group of a decoder is written.
    pub(super) fn type_of(&self, decoder: &Decoder, maps: &[Linear]) -> WeightType {
        if maps[0].weight == decoder.unembedding { self.unembedding_type() } else { self.weight_type }
    }

    pub(super) fn empty(weight_type: WeightType) -> Self {
        Self { weight_type, ..Self::default() }
    }

    pub(super) fn insert_group(&mut self, first: ParamId, group: Group) {
        self.groups.insert(first, group);
    }

    pub(super) fn insert_table(&mut self, id: ParamId, table: Vec<f32>, width: usize) {
        self.tables.insert(id, (table, width));
    }

    pub(super) fn insert_vector(&mut self, id: ParamId, vector: Vec<f32>) {
        self.vectors.insert(id, vector);
    }

    /// What is packed now is the decoder; heads come after it.
    pub(super) fn count_decoder(&mut self) {
        self.decoder_bytes = self.groups.0.iter().flatten().map(|group| group.packed.bytes()).sum();
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

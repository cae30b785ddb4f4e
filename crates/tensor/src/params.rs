//! Named parameters of a model and of what an objective adds to it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kernels::matmul::{View, ViewMut, Write};

/// Which parameter, within one [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(usize);

impl ParamId {
    /// Its place in the order in which parameters were added.
    pub fn index(self) -> usize {
        self.0
    }
}

/// One parameter: a name as in the checkpoint, a shape, values in row-major order.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name of the tensor in the checkpoint.
    pub name: String,
    /// Sizes of its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: Vec<f32>,
    /// Whether training may change it.
    pub trainable: bool,
}

/// A low-rank path beside a matrix `[outputs, inputs]`: `scale up down` is added to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapter {
    /// `[rank, inputs]`
    pub down: ParamId,
    /// `[outputs, rank]`
    pub up: ParamId,
    /// Factor of the path.
    pub scale: f32,
    /// Share of the inputs of the path that training drops.
    pub dropout: f32,
}

/// All parameters of a run, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Params {
    list: Vec<Param>,
    adapters: BTreeMap<ParamId, Adapter>,
}

impl Params {
    /// Adds a trainable parameter.
    ///
    /// # Panics
    /// When `data` does not have as many values as `shape` says.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> ParamId {
        let name = name.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}: shape {shape:?} and data disagree");
        self.list.push(Param { name, shape: shape.to_vec(), data, trainable: true });
        ParamId(self.list.len() - 1)
    }

    /// Adds a parameter whose values are kept elsewhere: only its name and shape are known here.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize]) -> ParamId {
        self.list.push(Param {
            name: name.into(),
            shape: shape.to_vec(),
            data: Vec::new(),
            trainable: false,
        });
        ParamId(self.list.len() - 1)
    }

    /// The parameter itself.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.list[id.0]
    }

    /// Its values.
    pub fn data(&self, id: ParamId) -> &[f32] {
        &self.list[id.0].data
    }

    /// Its values, to be changed.
    pub fn data_mut(&mut self, id: ParamId) -> &mut [f32] {
        &mut self.list[id.0].data
    }

    /// Outputs and inputs of a matrix stored `[outputs, inputs]`.
    pub fn matrix_shape(&self, id: ParamId) -> (usize, usize) {
        let shape = &self.list[id.0].shape;
        (shape[0], shape[1..].iter().product())
    }

    /// The parameter of that name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.list.iter().position(|p| p.name == name).map(ParamId)
    }

    /// Decides whether training may change a parameter.
    pub fn set_trainable(&mut self, id: ParamId, trainable: bool) {
        self.list[id.0].trainable = trainable;
    }

    /// Puts an adapter beside the matrix `id`.
    pub fn adapt(&mut self, id: ParamId, adapter: Adapter) {
        self.adapters.insert(id, adapter);
    }

    /// The adapter of the matrix `id`.
    pub fn adapter(&self, id: ParamId) -> Option<&Adapter> {
        self.adapters.get(&id)
    }

    /// Every matrix that has an adapter.
    pub fn adapters(&self) -> impl Iterator<Item = (ParamId, &Adapter)> {
        self.adapters.iter().map(|(id, adapter)| (*id, adapter))
    }

    /// The values of `id` with what its adapter adds, if it has one.
    pub fn merged(&self, id: ParamId) -> Cow<'_, [f32]> {
        let Some(adapter) = self.adapter(id) else { return Cow::Borrowed(self.data(id)) };
        let ((outputs, inputs), rank) = (self.matrix_shape(id), self.matrix_shape(adapter.down).0);
        let mut scaled = self.data(adapter.up).to_vec();
        kernels::vector::scale(&mut scaled, adapter.scale);
        let mut merged = self.data(id).to_vec();
        kernels::matmul::product_nn(
            View::new(&scaled, outputs, rank),
            View::new(self.data(adapter.down), rank, inputs),
            ViewMut::new(&mut merged, outputs, inputs),
            Write::Add,
        );
        Cow::Owned(merged)
    }

    /// Adds to every matrix what its adapter says; the adapters are gone then, and their parameters are not trained.
    pub fn merge(&mut self) {
        let ids: Vec<ParamId> = self.adapters.keys().copied().collect();
        for id in ids {
            let merged = self.merged(id).into_owned();
            self.list[id.0].data = merged;
        }
        for (_, adapter) in std::mem::take(&mut self.adapters) {
            self.set_trainable(adapter.down, false);
            self.set_trainable(adapter.up, false);
        }
    }

    /// Every parameter with its id.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param)> {
        self.list.iter().enumerate().map(|(i, p)| (ParamId(i), p))
    }

    /// How many parameters (tensors) there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many values those of `ids` have.
    pub fn values_of(&self, ids: &[ParamId]) -> usize {
        ids.iter().map(|&id| self.data(id).len()).sum()
    }

    /// How many values all of them have.
    pub fn values(&self) -> usize {
        self.list.iter().map(|p| p.data.len()).sum()
    }
}

//! Linear maps on the tape. Their products run in the precision of the tape; what is packed for several of them is packed once.

use std::ops::Range;

use kernels::matmul::{Factor, Precision, Side, View, ViewMut, Write, multiply};

use super::Tape;
use crate::{Arena, Linear, Params};

/// Where the buffers of factors come from, and what they are made ready for.
pub(super) struct Products<'t> {
    pub(super) precision: Precision,
    pub(super) arena: &'t mut Arena,
}

impl Products<'_> {
    /// A buffer for a factor of `rows` rows and `columns` columns.
    pub(super) fn buffer(&mut self, side: Side, rows: usize, columns: usize) -> Vec<f32> {
        self.arena.take(Factor::buffer_len(self.precision, side, rows, columns))
    }

    /// `dx (+)= dy W`.
    fn input_gradient(&mut self, dy: View, weight: View, dx: ViewMut, write: Write) {
        let mut left = self.buffer(Side::Left, dy.rows(), dy.columns());
        let mut right = self.buffer(Side::Right, weight.rows(), weight.columns());
        let factors = (
            Factor::plain(self.precision, Side::Left, dy, &mut left),
            Factor::plain(self.precision, Side::Right, weight, &mut right),
        );
        multiply(&factors.0, &factors.1, dx, write);
        self.arena.give(left);
        self.arena.give(right);
    }

    /// `dw (+)= dy^T x`; `x` is the right factor.
    pub(super) fn weight_gradient(&mut self, dy: View, x: &Factor, dw: ViewMut, write: Write) {
        let mut left = self.buffer(Side::Left, dy.columns(), dy.rows());
        let factor = Factor::transposed(self.precision, Side::Left, dy, &mut left);
        multiply(&factor, x, dw, write);
        self.arena.give(left);
    }
}

impl Tape<'_> {
    /// `y (+)= x W^T (+ b)` in the first `rows` rows for each of `maps`, their outputs side by side in rows of `y` that are
    /// `stride` wide.
    ///
    /// Rows of tokens have the bits that they have without registers: [`super::Layout::parts`].
    pub(super) fn apply(
        &mut self,
        x: usize,
        rows: usize,
        maps: &[Linear],
        y: &mut [f32],
        stride: usize,
        write: Write,
    ) {
        let (params, x) = (self.params, &self.nodes[x]);
        let mut products = Products { precision: self.precision, arena: self.arena };
        let parts: Vec<Range<usize>> = self.layout.parts(rows).collect();
        let mut buffers: Vec<Vec<f32>> =
            parts.iter().map(|rows| products.buffer(Side::Left, rows.len(), x.width)).collect();
        let inputs: Vec<Factor> = parts
            .iter()
            .zip(&mut buffers)
            .map(|(rows, buffer)| {
                let input =
                    View::new(&x.value[rows.start * x.width..rows.end * x.width], rows.len(), x.width);
                Factor::plain(products.precision, Side::Left, input, buffer)
            })
            .collect();
        let mut column = 0;
        for map in maps {
            let weight = weight(params, map, x.width);
            let (outputs, bias) = (weight.rows(), map.bias.map(|bias| params.data(bias)));
            let mut buffer = products.buffer(Side::Right, x.width, outputs);
            let weight = Factor::transposed(products.precision, Side::Right, weight, &mut buffer);
            for (rows, input) in parts.iter().zip(&inputs) {
                let columns = &mut y[rows.start * stride + column..];
                multiply(input, &weight, ViewMut::strided(columns, rows.len(), outputs, stride), write);
                if let Some(bias) = bias {
                    for row in columns.chunks_mut(stride).take(rows.len()) {
                        kernels::vector::add_assign(&mut row[..outputs], bias);
                    }
                }
            }
            products.arena.give(buffer);
            column += outputs;
        }
        drop(inputs);
        buffers.into_iter().for_each(|buffer| products.arena.give(buffer));
    }

    /// `dx += dy W`, `dW += dy^T x`, `db += sum of dy` in the first `rows` rows for each of `maps`; `dy` are their gradients side
    /// by side in rows `stride` wide.
    pub(super) fn linear_back(&mut self, x: usize, rows: usize, maps: &[Linear], dy: &[f32], stride: usize) {
        let params = self.params;
        let inputs = self.nodes[x].width;
        if self.nodes[x].requires_gradient {
            let (mut dx, mut write) = self.gradient_of(x);
            let (here, beyond) = dx.split_at_mut(rows * inputs);
            if write == Write::Overwrite {
                beyond.fill(0.0);
            }
            let mut products = Products { precision: self.precision, arena: self.arena };
            for_each_map(params, maps, |map, offset, outputs| {
                let dy = View::strided(&dy[offset..], rows, outputs, stride);
                let weight = weight(params, map, inputs);
                products.input_gradient(dy, weight, ViewMut::new(here, rows, inputs), write);
                write = Write::Add;
            });
            self.nodes[x].gradient = Some(dx);
        }
        if !maps.iter().any(|map| self.map_trained(map)) {
            return;
        }
        let mut products = Products { precision: self.precision, arena: self.arena };
        let mut buffer = products.buffer(Side::Right, rows, inputs);
        let input = View::new(&self.nodes[x].value[..rows * inputs], rows, inputs);
        let input = Factor::plain(products.precision, Side::Right, input, &mut buffer);
        let gradients = &mut self.gradients;
        for_each_map(params, maps, |map, offset, outputs| {
            let dy = View::strided(&dy[offset..], rows, outputs, stride);
            if let Some((slot, write)) = gradients.as_mut().and_then(|g| g.slot(map.weight)) {
                products.weight_gradient(dy, &input, ViewMut::new(slot, outputs, inputs), write);
            }
            if let Some(slot) = map.bias.and_then(|b| gradients.as_mut().and_then(|g| g.adding_slot(b))) {
                for row in 0..rows {
                    kernels::vector::add_assign(slot, dy.row(row));
                }
            }
        });
        products.arena.give(buffer);
    }
}

/// Each map with its first output among those of all, and how many it has.
fn for_each_map(params: &Params, maps: &[Linear], mut found: impl FnMut(&Linear, usize, usize)) {
    let mut offset = 0;
    for map in maps {
        let (outputs, _) = params.matrix_shape(map.weight);
        found(map, offset, outputs);
        offset += outputs;
    }
}

fn weight<'p>(params: &'p Params, map: &Linear, inputs: usize) -> View<'p> {
    let (outputs, wanted) = params.matrix_shape(map.weight);
    assert_eq!(wanted, inputs, "{}: inputs and the width of x disagree", params.get(map.weight).name);
    View::new(params.data(map.weight), outputs, inputs)
}

//! Drafting with joint heads: each place is chosen from its distribution given the tokens before it, the decided one and the
//! drafted ones (Basharin et al. 2410.17765, section 3.3).

use kernels::likelihood::softmax_in_place;
use kernels::vector::add_scaled;
use model::Decoder;
use model::engine::{Engine, EngineWeights, Rows};
use tensor::{Linear, Ops, Params};

use super::JointHeads;
use super::circuit::Scratch;
use crate::{Chooser, Drafter, Verified};

impl Drafter for JointHeads {
    fn longest(&self) -> usize {
        self.spec.n - 1
    }

    fn taps(&self) -> Vec<usize> {
        vec![self.layers - 1]
    }

    fn pack(&self, weights: &mut EngineWeights, params: &Params) {
        // Side by side: all components read the same state, so drafting is one product.
        weights.add_group(&self.all_maps(), params);
        if let Some(gate) = self.gate {
            weights.add_group(&[gate], params);
        }
    }

    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        if length == 0 {
            return;
        }
        let last = engine.copy_rows(&verified.states[0], verified.rows - 1, 1);
        let gate = self.gate.map(|gate| {
            let normed = decoder.final_norm(engine, &last);
            engine.linear(normed, &[gate])
        });
        // Unembedding of all components of all places: one pass over the weights.
        let width = last.width;
        let side_by_side = engine.linear(last, &self.all_maps());
        let first_place = usize::from(!self.mixes());
        let rows = (length + 1 - first_place) * self.spec.rank;
        let states = engine.reshape(side_by_side, width, rows);
        let normed = decoder.final_norm(engine, &states);
        engine.recycle(states);
        let mut logits = decoder.logits(engine, normed);
        match gate {
            None => {
                for row in logits.data.chunks_exact_mut(logits.width) {
                    chooser.choose(row);
                }
            }
            Some(gate) => {
                self.choose(&mut logits, gate.row(0), verified.decided(), length, chooser);
                engine.recycle(gate);
            }
        }
        engine.recycle(logits);
    }
}

impl JointHeads {
    fn all_maps(&self) -> Vec<Linear> {
        self.maps.iter().flatten().copied().collect()
    }

    /// `logits` are `[place, rank]` rows.
    fn choose(
        &self,
        logits: &mut Rows,
        gate_logits: &[f32],
        decided: u32,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        let (n, rank, vocabulary) = (self.spec.n, self.spec.rank, logits.width);
        let mut gate = Vec::new();
        self.circuit.gate(gate_logits, &mut gate);
        let mut logs = vec![0.0; n * rank];
        let mut scratch = Scratch::default();
        let (mut flow, mut d_gate) = (vec![0.0; rank], vec![0.0; self.circuit.gate_width()]);
        let mut mixture = vec![0.0; vocabulary];
        let mut token = decided;
        for (place, components) in
            logits.data.chunks_exact_mut(vocabulary * rank).enumerate().take(length + 1)
        {
            for component in components.chunks_exact_mut(vocabulary) {
                softmax_in_place(component);
            }
            if place > 0 {
                self.circuit.log_probability(&gate, &logs, &|other| other < place, &mut scratch);
                self.circuit.responsibilities(&gate, &scratch, &mut flow);
                let mut shares = vec![0.0; n * rank];
                self.circuit.back(&gate, &flow, &mut scratch, &mut shares, &mut d_gate);
                mixture.fill(0.0);
                for (component, share) in
                    components.chunks_exact(vocabulary).zip(&shares[place * rank..(place + 1) * rank])
                {
                    add_scaled(&mut mixture, *share as f32, component);
                }
                mixture.iter_mut().for_each(|probability| *probability = probability.ln());
                token = chooser.choose(&mut mixture);
            }
            for (log, component) in logs[place * rank..].iter_mut().zip(components.chunks_exact(vocabulary)) {
                *log = f64::from(component[token as usize].max(f32::MIN_POSITIVE)).ln();
            }
        }
    }
}

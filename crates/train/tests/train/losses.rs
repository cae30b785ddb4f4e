//! Losses: nothing crosses a document, nothing looks ahead.

use data::Batch;

use crate::support::{Model, VOCABULARY, documents, every_kind, packed, tiny_config};

#[test]
fn packed_documents_lose_what_they_lose_alone() {
    let documents = documents(&[9, 1, 5, 12, 3, 2]);
    let together = packed(&documents, documents.iter().map(Vec::len).sum(), 3);
    assert_eq!(together.batch, 1);
    for spec in every_kind() {
        let model = Model::new(&tiny_config(true), &spec);
        let packed = model.sums(&together);
        let alone: Vec<_> = documents.iter().map(|tokens| model.sums(&Batch::single(tokens, 3))).collect();
        for depth in 0..spec.n {
            let nll: f64 = alone.iter().map(|sums| sums[depth].nll).sum();
            let targets: usize = alone.iter().map(|sums| sums[depth].targets).sum();
            let correct: usize = alone.iter().map(|sums| sums[depth].correct).sum();
            assert_eq!((packed[depth].targets, packed[depth].correct), (targets, correct), "{spec:?}");
            assert!(
                (packed[depth].nll - nll).abs() < 1e-5 * nll,
                "{spec:?}: {} against {nll}",
                packed[depth].nll
            );
        }
    }
}

#[test]
fn later_tokens_change_no_earlier_loss() {
    let tokens = &documents(&[12])[0];
    let mut last_is_no_target = Batch::single(tokens, 3);
    last_is_no_target.loss_mask[11] = false;
    let mut other_last = last_is_no_target.clone();
    other_last.tokens[11] = (tokens[11] + 1) % VOCABULARY as u32;
    for spec in every_kind() {
        let model = Model::new(&tiny_config(true), &spec);
        assert_eq!(model.sums(&last_is_no_target), model.sums(&other_last), "{spec:?}");
        // The same change within the context is seen.
        other_last.tokens[3] = (tokens[3] + 1) % VOCABULARY as u32;
        assert_ne!(model.sums(&last_is_no_target), model.sums(&other_last), "{spec:?}");
        other_last.tokens[3] = tokens[3];
    }
}

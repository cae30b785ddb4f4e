//! Nothing crosses a document, and every pair of an input and its target comes exactly once, packed or
//! padded.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sakiyomi_data::batch::{Batch, NO_TARGET, PADDING};
use sakiyomi_data::{Corpus, Loader, evaluation_batches};

/// Documents whose tokens are all different, so that a token tells where it is from.
fn numbered(lengths: &[usize]) -> Corpus {
    let mut next = 1000;
    let documents: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| {
            next += length as u32;
            (next - length as u32..next).collect()
        })
        .collect();
    Corpus::from_tokens(&documents)
}

/// Every pair of an input and its target at a depth, with how often it occurs.
fn pairs(batches: &[Batch], depth: usize) -> BTreeMap<(u32, u32), usize> {
    let mut pairs = BTreeMap::new();
    let mut targets = Vec::new();
    for batch in batches {
        batch.targets(depth, &mut targets);
        for (input, &target) in batch.inputs().into_iter().zip(&targets) {
            if target != NO_TARGET {
                *pairs.entry((input, target)).or_insert(0) += 1;
            }
        }
    }
    pairs
}

/// The pairs that the documents have, straight from the definition.
fn pairs_of_documents(corpus: &Corpus, documents: &[usize], depth: usize) -> BTreeMap<(u32, u32), usize> {
    documents
        .iter()
        .flat_map(|&document| {
            let tokens = corpus.document(document).unwrap();
            let ahead = tokens[depth.min(tokens.len())..].to_vec();
            tokens.into_iter().zip(ahead)
        })
        .map(|pair| (pair, 1))
        .collect()
}

/// Checks segments, positions and visibility against the tokens themselves.
fn check_layout(batch: &Batch, corpus: &Corpus) {
    let document_of =
        |token: u32| (0..corpus.documents()).find(|&d| corpus.document(d).unwrap().contains(&token)).unwrap();
    for row in 0..batch.batch {
        for index in 0..batch.stride() {
            let at = row * batch.stride() + index;
            let (segment, token) = (batch.segments[at], batch.tokens[at]);
            assert_eq!(batch.loss_mask[at], segment != PADDING);
            if index > 0 {
                let (before, token_before) = (batch.segments[at - 1], batch.tokens[at - 1]);
                let continues = before != PADDING && token == token_before + 1 && {
                    document_of(token) == document_of(token_before)
                };
                assert_eq!(before == segment, continues || (segment == PADDING && before == PADDING));
            }
            if index < batch.length {
                let at_input = row * batch.length + index;
                let first = batch.first_visible[at_input] as usize;
                assert_eq!(first + batch.positions[at_input] as usize, index);
                if segment == PADDING {
                    assert_eq!(first, index);
                } else {
                    let start = row * batch.stride() + first;
                    assert!((start..=at).all(|seen| batch.segments[seen] == segment));
                    assert!(first == 0 || batch.segments[start - 1] != segment);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_pair_comes_once(
        lengths in prop::collection::vec(0usize..30, 1..12),
        batch in 1usize..4,
        length in 1usize..20,
        lookahead in 1usize..5,
        seed in any::<u64>(),
    ) {
        let corpus = Arc::new(numbered(&lengths));
        let documents: Vec<usize> = (0..corpus.documents()).filter(|document| document % 5 != 3).collect();
        let evaluated = all_batches(&corpus, &documents, batch, length, lookahead, 0);
        let trained = Loader::new(corpus.clone(), documents.clone(), 1, length, lookahead, seed);
        let longest = documents.iter().map(|&document| lengths[document]).max().unwrap();
        prop_assert_eq!(trained.is_err(), longest <= lookahead);
        for batch in &evaluated {
            check_layout(batch, &corpus);
        }
        let epoch: Option<Vec<Batch>> = trained.ok().map(|mut loader| {
            (0..loader.windows_per_epoch()).map(|_| loader.next().unwrap()).collect()
        });
        for depth in 1..=lookahead {
            let expected = pairs_of_documents(&corpus, &documents, depth);
            prop_assert_eq!(&pairs(&evaluated, depth), &expected);
            if let Some(epoch) = &epoch {
                epoch.iter().for_each(|batch| check_layout(batch, &corpus));
                prop_assert_eq!(&pairs(epoch, depth), &expected);
            }
        }
    }

    #[test]
    fn a_restored_loader_goes_on(
        lengths in prop::collection::vec(1usize..20, 2..8),
        batch in 1usize..4,
        steps in 0usize..20,
        seed in any::<u64>(),
    ) {
        let corpus = Arc::new(numbered(&[&lengths[..], &[9]].concat()));
        let documents: Vec<usize> = (0..corpus.documents()).collect();
        let mut first = Loader::new(corpus.clone(), documents.clone(), batch, 7, 2, seed).unwrap();
        for _ in 0..steps {
            first.next().unwrap();
        }
        let saved = serde_json::to_string(&first.state()).unwrap();
        let mut second = Loader::new(corpus, documents, batch, 7, 2, seed ^ 1).unwrap();
        second.restore(&serde_json::from_str(&saved).unwrap()).unwrap();
        prop_assert_eq!(second.state(), first.state());
        for _ in 0..12 {
            prop_assert_eq!(first.next().unwrap(), second.next().unwrap());
        }
        prop_assert_eq!(second.epoch(), first.epoch());
    }
}

#[test]
fn epochs_and_seeds_differ_and_repeat() {
    let corpus = Arc::new(numbered(&[40, 3, 17, 25, 60, 8]));
    let documents: Vec<usize> = (0..6).collect();
    let tokens = |seed| {
        let mut loader = Loader::new(corpus.clone(), documents.clone(), 4, 8, 3, seed).unwrap();
        let steps = loader.windows_per_epoch().div_ceil(4);
        (0..2 * steps).map(|_| loader.next().unwrap().tokens).collect::<Vec<_>>()
    };
    let once = tokens(1);
    assert_eq!(once, tokens(1));
    assert_ne!(once, tokens(2));
    assert_ne!(once[..once.len() / 2], once[once.len() / 2..]);
}

#[test]
fn a_corpus_shorter_than_a_row_is_padded() {
    let corpus = Arc::new(numbered(&[3, 2]));
    let mut loader = Loader::new(corpus, vec![0, 1], 2, 10, 2, 0).unwrap();
    assert_eq!(loader.windows_per_epoch(), 1);
    let batch = loader.next().unwrap();
    assert_eq!(batch.segments.iter().filter(|&&segment| segment == PADDING).count(), 2 * (12 - 5));
    assert_eq!(batch.count_targets(1), 2 * 3);
    assert_eq!(batch.count_targets(2), 2);
    assert_eq!(loader.epoch(), 1);
}

#[test]
fn evaluation_stops_at_the_limit_and_pads_the_last_batch() {
    let corpus = Arc::new(numbered(&[30, 30]));
    let all = all_batches(&corpus, &[0, 1], 4, 8, 1, 0);
    assert_eq!(all.len(), 2);
    assert_eq!(all_batches(&corpus, &[0, 1], 4, 8, 1, 1), all[..1]);
    assert!(all_batches(&corpus, &[], 4, 8, 1, 0).is_empty());
    let found = evaluation_batches(&corpus, &[0, 1], 4, 8, 1, 0).unwrap();
    assert_eq!((found.count(), found.first(1).count(), found.first(9).count()), (2, 1, 2));
    assert_eq!(found.first(1).iter().collect::<Result<Vec<_>, _>>().unwrap(), all[..1]);
}

fn all_batches(
    corpus: &Arc<Corpus>,
    documents: &[usize],
    batch: usize,
    length: usize,
    lookahead: usize,
    most: usize,
) -> Vec<Batch> {
    let found = evaluation_batches(corpus, documents, batch, length, lookahead, most).unwrap();
    let batches: Vec<Batch> = found.iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(batches.len(), found.count());
    batches
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    let corpus = Arc::new(numbered(&[3, 2]));
    let refused = |documents: Vec<usize>, batch, length, lookahead| {
        Loader::new(corpus.clone(), documents, batch, length, lookahead, 0).err().unwrap().to_string()
    };
    let short = refused(vec![0, 1], 1, 8, 3);
    assert!(short.contains("no document is longer than 3 tokens") && short.contains("document 1"), "{short}");
    assert!(refused(vec![], 1, 8, 3).contains("no text"));
    assert!(refused(vec![0], 0, 8, 3).contains("at least 1"));

    let mut loader = Loader::new(corpus.clone(), vec![0, 1], 1, 8, 1, 0).unwrap();
    let other = Loader::new(corpus.clone(), vec![0], 1, 8, 1, 0).unwrap().state();
    let message = loader.restore(&other).unwrap_err().to_string();
    assert!(message.contains("training tokens was 3") && message.contains("5 now"), "{message}");
    // As many tokens: one of them another, the documents in another order, an edge elsewhere.
    let changed = Corpus::from_tokens(&[vec![1000, 1001, 1002], vec![1003, 1005]]);
    let moved = Corpus::from_tokens(&[vec![1000, 1001], vec![1002, 1003, 1004]]);
    for (text, documents) in
        [(Arc::new(changed), vec![0, 1]), (Arc::clone(&corpus), vec![1, 0]), (Arc::new(moved), vec![0, 1])]
    {
        let other = Loader::new(text, documents, 1, 8, 1, 0).unwrap().state();
        let message = loader.restore(&other).unwrap_err().to_string();
        assert!(message.contains("the training text has changed since"), "{message}");
    }
    let other = Loader::new(corpus, vec![0, 1], 1, 9, 1, 0).unwrap().state();
    assert!(loader.restore(&other).unwrap_err().to_string().contains("length of a row"));
}

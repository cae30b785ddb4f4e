//! Heads on a model that somebody else trained; skipped where the data are not there.

use std::path::{Path, PathBuf};

use objective::HeadKind;
use train::config::TrainMode;
use train::{Checkpoint, Observer, RunConfig, train};

#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[derive(Default)]
struct Losses(Vec<Vec<f64>>, Vec<Vec<f64>>);

impl Observer for Losses {
    fn evaluated(&mut self, evaluation: &train::events::EvaluationEvent) {
        self.0.push(evaluation.loss.clone());
        self.1.push(evaluation.accuracy.clone());
    }
}

#[test]
fn heads_learn_on_a_frozen_published_model_which_stays_as_it_was() {
    let (Some(init), Some(text)) = (shared("models/stories260k"), shared("text/tinystories-sample.txt"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for head in [HeadKind::Linear, HeadKind::Layer] {
        let mut config = RunConfig::default();
        config.run.folder = folder.path().join(format!("{head:?}"));
        config.model.architecture = None;
        config.model.init = Some(init.clone());
        config.data.train = vec![text.clone()];
        config.data.split = train::config::SplitKind::Last;
        config.data.cache = folder.path().join("cache");
        config.objective.head = head;
        config.objective.n = 2;
        config.train.mode = TrainMode::Heads;
        config.train.steps = 24;
        config.train.batch = 4;
        config.train.length = 128;
        config.train.warmup_steps = 4;
        config.evaluation.every = 1000;
        config.evaluation.batches = 2;
        let mut losses = Losses::default();
        let before = {
            let start = train::start::start(&config).unwrap().checkpoint;
            let data = train::prepare::prepare(&config, &start.vocabulary, &mut |_| true).unwrap();
            data.held_out.evaluate(&start.params, &start.decoder, &start.objective).unwrap()
        };
        let outcome = train(&config, false, &mut losses).unwrap();
        let (after, accuracy) = (&losses.0[0], &losses.1[0]);
        assert_eq!(before.loss[0], after[0], "{head:?}: the frozen model changed");
        assert!(after[0] < 2.0, "{head:?}: a trained model predicts its own kind of text: {}", after[0]);
        assert!(after[1] < before.loss[1] - 0.5, "{head:?}: {} to {}", before.loss[1], after[1]);
        assert!(accuracy[1] > before.accuracy[1], "{head:?}: {} to {}", before.accuracy[1], accuracy[1]);

        let stripped = folder.path().join("stripped");
        Checkpoint::load(&outcome.last).unwrap().save_without_heads(&stripped).unwrap();
        let original = Checkpoint::load(&init).unwrap();
        let stripped = Checkpoint::load(&stripped).unwrap();
        assert_eq!(stripped.decoder.config, original.decoder.config);
        for ((_, a), (_, b)) in stripped.params.iter().zip(original.params.iter()) {
            assert_eq!((&a.name, &a.data), (&b.name, &b.data));
        }
    }
}

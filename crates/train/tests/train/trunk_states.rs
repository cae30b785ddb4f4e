//! States of a frozen trunk that are kept on disk change nothing but time.

use std::path::{Path, PathBuf};

use objective::HeadKind;
use train::config::{ObjectiveKind, TrainMode};
use train::events::Event;
use train::{RunConfig, train};

use crate::runs::resuming_changes_nothing;
use crate::small_run::{Watcher, config, finish, record, state};

/// A trained model in `folder`.
fn base(folder: &Path, seed: u64) -> PathBuf {
    let mut base = config(folder);
    base.run.folder = folder.join(format!("base-{seed}"));
    base.run.seed = seed;
    base.objective.kind = ObjectiveKind::NextToken;
    finish(&base, false).last
}

/// A run of heads on it; its text has fewer rows than the run takes.
fn on(folder: &Path, base: &Path, name: &str) -> RunConfig {
    let mut config = config(folder);
    config.run.folder = folder.join(name);
    config.model.architecture = None;
    config.model.init = Some(base.to_owned());
    config.train.mode = TrainMode::Heads;
    config.train.cache_states = true;
    config.train.steps = 60;
    config
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder.join("cache")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "f32")).collect()
}

/// Rows that ran through the trunk.
fn computed(config: &RunConfig) -> usize {
    let mut watcher = Watcher::default();
    assert!(train(config, false, &mut watcher).unwrap().finished);
    let note = watcher.notes.iter().find(|note| note.contains("ran through the frozen model")).unwrap();
    note.split(' ').next().unwrap().parse().unwrap()
}

fn losses(config: &RunConfig) -> Vec<Vec<f64>> {
    let of = |event| match event {
        Event::Step(step) => Some(step.loss),
        _ => None,
    };
    record(config).into_iter().filter_map(of).collect()
}

#[test]
fn a_row_runs_through_the_trunk_once_and_the_next_run_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let trunk = base(folder.path(), 1);
    let run = |name: &str| on(folder.path(), &trunk, name);
    let first = run("first");
    let rows = computed(&first);
    assert!(rows > 20 && rows < 120, "{rows} of 120");
    let second = run("second");
    assert_eq!(computed(&second), 0);
    assert!(state(&first) == state(&second), "weights, moments or position differ");
    assert_eq!(losses(&first), losses(&second));

    // The same losses as without, but for rounding, as long as the rows are the same.
    let mut without = run("without");
    without.train.cache_states = false;
    finish(&without, false);
    let epoch = rows / without.train.batch;
    for (kept, run) in losses(&first).iter().zip(losses(&without)).take(epoch) {
        assert!(kept.iter().zip(&run).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{kept:?} {run:?}");
    }

    // A damaged record is noticed.
    let [file] = &files(folder.path())[..] else { panic!("one trunk, one text: one file") };
    let mut bytes = fs_err::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(file, &bytes).unwrap();
    let third = run("third");
    assert_eq!(computed(&third), 1);
    assert!(state(&first) == state(&third));

    // Another trunk, and heads that begin lower, have files of their own.
    let other = on(folder.path(), &base(folder.path(), 2), "other");
    assert_eq!(computed(&other), rows);
    let mut layer = run("layer");
    layer.objective.head = HeadKind::Layer;
    assert_eq!(computed(&layer), rows);
    assert_eq!(files(folder.path()).len(), 3);
}

#[test]
fn resuming_changes_nothing_with_states_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let trunk = base(folder.path(), 1);
    resuming_changes_nothing(|config| {
        config.model.architecture = None;
        config.model.init = Some(trunk.clone());
        config.train.mode = TrainMode::Heads;
        config.train.cache_states = true;
        config.objective.kind = ObjectiveKind::Joint;
    });
}

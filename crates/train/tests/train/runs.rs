//! Whole runs: going on, stopping, crashing, and refusing to.

use std::path::Path;

use objective::{HeadKind, JointStart, Objective};
use tensor::Params;
use train::config::{Dtype, ObjectiveKind, Schedule, TrainMode};
use train::events::{self, Event};
use train::{Checkpoint, Observer, Progress, RunConfig, RunFolder, train};

use crate::small_run::{Watcher, config, finish, record, state};

/// Runs `change`d settings through, once without interruption, once stopped and once crashed.
pub fn resuming_changes_nothing(change: impl Fn(&mut RunConfig)) {
    let folders = [0, 1, 2].map(|_| tempfile::tempdir().unwrap());
    let configs = folders.each_ref().map(|folder| {
        let mut config = config(folder.path());
        change(&mut config);
        config
    });
    finish(&configs[0], false);

    let outcome =
        train(&configs[1], false, &mut Watcher { stop_after: Some(3), ..Watcher::default() }).unwrap();
    assert!(!outcome.finished && outcome.step == 3);
    let mut watcher = Watcher::default();
    train(&configs[1], true, &mut watcher).unwrap();
    assert_eq!(watcher.started.as_ref().unwrap().2, 3);
    assert_eq!(watcher.steps.iter().map(|step| step.step).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);

    // The newest checkpoint is of step 4, so step 5 is done twice.
    let mut watcher = Watcher { crash_after: Some(5), ..Watcher::default() };
    let crash =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| train(&configs[2], false, &mut watcher)));
    assert!(crash.is_err());
    finish(&configs[2], true);

    for interrupted in &configs[1..] {
        assert!(state(&configs[0]) == state(interrupted), "weights, moments or position differ");
        assert_eq!(record(&configs[0]), record(interrupted));
    }
}

#[test]
fn resuming_changes_nothing_with_linear_heads_and_accumulation() {
    resuming_changes_nothing(|config| config.train.accumulate = 2);
}

#[test]
fn resuming_changes_nothing_with_layer_heads_and_a_curriculum() {
    resuming_changes_nothing(|config| {
        config.objective.head = HeadKind::Layer;
        config.objective.curriculum_steps = 2;
        config.train.schedule = Schedule::Wsd;
    });
}

#[test]
fn resuming_changes_nothing_in_bf16_and_recomputing() {
    resuming_changes_nothing(|config| {
        config.train.dtype = Dtype::Bf16;
        config.train.recompute_activations = true;
    });
}

#[test]
fn resuming_changes_nothing_with_the_next_token_only() {
    resuming_changes_nothing(|config| config.objective.kind = ObjectiveKind::NextToken);
}

#[test]
fn resuming_changes_nothing_with_heads_on_a_frozen_model() {
    let base_folder = tempfile::tempdir().unwrap();
    let mut base = config(base_folder.path());
    base.objective.kind = ObjectiveKind::NextToken;
    let trained = finish(&base, false).last;
    let on_base = |config: &mut RunConfig| {
        config.model.architecture = None;
        config.model.init = Some(trained.clone());
        config.train.mode = TrainMode::Heads;
    };
    resuming_changes_nothing(on_base);

    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    on_base(&mut config);
    let mut watcher = Watcher::default();
    let last = train(&config, false, &mut watcher).unwrap().last;
    let weights = |folder: &Path| fs_err::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&last) == weights(&trained), "the frozen model changed");
    // Loss at depth 1 is that of the frozen model; the others fall.
    let (first, end) = (&watcher.evaluations[0].loss, &watcher.evaluations.last().unwrap().loss);
    assert_eq!(first[0], end[0]);
    assert!(end[1] < first[1] && end[2] < first[2], "{first:?} to {end:?}");
    let (sizes, origin, _) = watcher.started.unwrap();
    assert_eq!(sizes.trained_parameters, 2 * 16 * 16);
    assert!(origin.ends_with("with new heads"), "{origin}");
}

#[test]
fn a_run_learns_and_leaves_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // All of the held-out text, so that deeper depths have fewer targets.
    config.evaluation.batches = 0;
    config.train.steps = 40;
    let mut watcher = Watcher::default();
    let outcome = train(&config, false, &mut watcher).unwrap();
    let (first, last) = (&watcher.steps[0].loss, &watcher.steps[39].loss);
    assert!((first[0] - 257f64.ln()).abs() < 0.3, "an untrained model knows nothing: {first:?}");
    assert!((0..3).all(|depth| last[depth] < first[depth] - 1.0), "{first:?} to {last:?}");
    let evaluation = outcome.evaluation.unwrap();
    assert!(
        (evaluation.loss[0] / std::f64::consts::LN_2 - evaluation.bits_per_byte).abs()
            < 0.02 * evaluation.bits_per_byte
    );

    let run = RunFolder::new(&config.run.folder);
    assert_eq!(RunConfig::read(&run.run_file(), &[]).unwrap(), config);
    let records = events::read_all(&run.events()).unwrap();
    assert!(matches!(&records[0].event, Event::RunStarted(sizes) if sizes.depths == 3 && sizes.steps == 40));
    assert!(matches!(&records.last().unwrap().event, Event::Finished { step: 40, .. }));
    assert!(run.last().join("trainer").is_dir());
    assert!(!run.best().join("trainer").exists());
    let best = Checkpoint::load(&outcome.best.unwrap()).unwrap();
    assert_eq!(best.objective.heads().unwrap().spec().n, 3);
    Checkpoint::load(&outcome.last).unwrap();

    let targets: Vec<u64> = evaluation.targets.iter().map(|&targets| targets as u64).collect();
    assert_eq!(watcher.evaluations.last().unwrap().targets, targets);
    assert!(targets[0] > targets[1] && targets[1] > targets[2], "{targets:?}");

    // A run that is done has nothing left to do.
    let again = train(&config, true, &mut ()).unwrap();
    assert!(again.finished && again.step == 40 && again.evaluation.unwrap().loss == evaluation.loss);
    assert_eq!(again.seconds, outcome.seconds);
    assert_eq!(events::read_all(&run.events()).unwrap(), records);
    // Unless the end was not noted any more.
    let text = fs_err::read_to_string(run.events()).unwrap();
    let (before, _) = text.trim_end().rsplit_once('\n').unwrap();
    fs_err::write(run.events(), format!("{before}\n")).unwrap();
    train(&config, true, &mut ()).unwrap();
    let end = events::read(&run.events()).unwrap().pop().unwrap().event;
    assert_eq!(end, Event::Finished { step: 40, seconds: outcome.seconds });
    // More steps go on from there.
    config.train.steps = 41;
    let mut watcher = Watcher::default();
    train(&config, true, &mut watcher).unwrap();
    assert_eq!(watcher.steps.len(), 1);
}

#[test]
fn the_time_before_a_resumption_counts() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let stopped = train(&config, false, &mut Watcher { stop_after: Some(3), ..Watcher::default() }).unwrap();
    assert!(stopped.seconds > 0.0);
    // As if the first steps had taken an hour.
    let run = RunFolder::new(&config.run.folder);
    let file = run.last().join("trainer/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
    assert_eq!(state["seconds"], stopped.seconds);
    state["seconds"] = 3600.0.into();
    fs_err::write(&file, serde_json::to_vec(&state).unwrap()).unwrap();
    let outcome = finish(&config, true);
    assert!(outcome.seconds > 3600.0, "{}", outcome.seconds);
    let end = events::read(&run.events()).unwrap().pop().unwrap().event;
    assert_eq!(end, Event::Finished { step: 8, seconds: outcome.seconds });
}

#[test]
fn a_run_does_not_go_on_with_other_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let held_out = folder.path().join("held-out.txt");
    fs_err::write(&held_out, "Two toads sat on log 3.\n\nNo fly came.\n").unwrap();
    config.data.held_out = vec![held_out.clone()];
    config.train.steps = 2;
    finish(&config, false);
    config.train.steps = 4;
    let refusal = || train(&config, true, &mut ()).unwrap_err().to_string();
    // One byte of each for another, so that no size tells.
    for (file, what) in [(&config.data.train[0], "the training text"), (&held_out, "the held-out text")] {
        let text = fs_err::read_to_string(file).unwrap();
        fs_err::write(file, text.replacen("log 3", "log 4", 1)).unwrap();
        let message = refusal();
        assert!(message.contains(&format!("{what} has changed since it was saved; put")), "{message}");
        assert!(!message.contains('\n'));
        fs_err::write(file, text).unwrap();
    }
    finish(&config, true);
}

#[test]
fn an_interruption_before_the_first_checkpoint_loses_nothing() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let configs = folders.each_ref().map(|folder| config(folder.path()));
    finish(&configs[0], false);
    let mut watcher = Watcher { crash_after: Some(1), ..Watcher::default() };
    let crash =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| train(&configs[1], false, &mut watcher)));
    assert!(crash.is_err());
    finish(&configs[1], true);
    assert!(state(&configs[0]) == state(&configs[1]));
    assert_eq!(record(&configs[0]), record(&configs[1]));
}

#[test]
fn runs_are_not_mixed_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 2;
    let refusal = |config: &RunConfig, resume: bool| train(config, resume, &mut ()).unwrap_err().to_string();
    assert!(refusal(&config, true).contains("holds no run to resume"));
    finish(&config, false);
    assert!(refusal(&config, false).contains("already holds a run: add --resume"));
    config.train.batch = 3;
    config.objective.weights = vec![1.0, 1.0, 0.0];
    let message = refusal(&config, true);
    assert!(message.contains("other values of objective.weights, train.batch:"), "{message}");
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    struct Second(RunConfig);
    impl Observer for Second {
        fn stepped(&mut self, progress: &Progress) {
            if progress.step.step == 1 {
                let message = train(&self.0, true, &mut ()).unwrap_err().to_string();
                assert!(message.contains("another process trains in this folder"), "{message}");
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 2;
    train(&config, false, &mut Second(config.clone())).unwrap();
}

#[test]
fn text_that_is_too_short_is_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.data.train = vec![folder.path().join("short.txt")];
    fs_err::write(&config.data.train[0], "ab").unwrap();
    config.objective.n = 4;
    let message = train(&config, false, &mut ()).unwrap_err().to_string();
    assert!(message.contains("give at least 2; a .txt file of several needs a separator"), "{message}");
    let short = folder.path().join("short.jsonl");
    fs_err::write(&short, "{\"text\": \"a\"}\n".repeat(3)).unwrap();
    let before = std::mem::replace(&mut config.data.train, vec![short]);
    let message = train(&config, false, &mut ()).unwrap_err().to_string();
    config.data.train = before;
    assert!(message.starts_with("data.held_out_fraction holds out no document of more than"), "{message}");
    config.data.held_out = config.data.train.clone();
    config.data.train = vec![folder.path().join("text.txt")];
    let message = train(&config, false, &mut ()).unwrap_err().to_string();
    assert!(message.contains("data.held_out has no document of more than 4 tokens"), "{message}");
    // Documents that are long enough come after the batches that are looked at.
    let mixed = folder.path().join("mixed.txt");
    fs_err::write(&mixed, format!("{}A toad sat there.\n", "ab\n\n".repeat(60))).unwrap();
    config.data.held_out = vec![mixed];
    config.data.separator = "\n\n".to_owned();
    config.evaluation.batches = 1;
    let message = train(&config, false, &mut ()).unwrap_err().to_string();
    assert!(message.contains("nothing to predict at depth 4: take longer documents"), "{message}");
    assert!(!config.run.folder.exists());
    config.evaluation.batches = 0;
    config.train.steps = 1;
    assert!(finish(&config, false).evaluation.unwrap().targets[3] > 0);
}

#[test]
fn heads_of_the_starting_checkpoint_are_taken_over_if_they_fit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 2;
    let first = finish(&config, false).last;
    config.model.architecture = None;
    config.model.init = Some(first.clone());
    config.train.mode = TrainMode::Full;
    let origin = |config: &RunConfig| train::start::start(config).unwrap();
    let same = origin(&config);
    assert!(same.origin.ends_with("and its heads"), "{}", same.origin);
    let stored = Checkpoint::load(&first).unwrap();
    for ((_, a), (_, b)) in stored.params.iter().zip(same.checkpoint.params.iter()) {
        assert_eq!((&a.name, &a.data), (&b.name, &b.data));
    }
    config.objective.n = 2;
    assert!(origin(&config).origin.ends_with("with new heads"));
    config.objective.kind = ObjectiveKind::NextToken;
    assert_eq!(origin(&config).origin, first.display().to_string());
}

#[test]
fn joint_heads_begin_at_the_linear_heads_of_the_starting_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 2;
    (config.objective.n, config.objective.head) = (3, HeadKind::Linear);
    let mut learnt = Checkpoint::load(&finish(&config, false).last).unwrap();
    // Far from the identity, at which they would begin without.
    for id in learnt.objective.parameters().to_vec() {
        learnt.params.data_mut(id).iter_mut().for_each(|value| *value = -*value);
    }
    let linear = folder.path().join("linear");
    learnt.save(&linear).unwrap();
    let learnt = learnt.params;
    config.model.architecture = None;
    config.model.init = Some(linear);
    config.train.mode = TrainMode::Heads;
    (config.objective.kind, config.objective.n, config.objective.rank) = (ObjectiveKind::Joint, 4, 1);
    let origin = |config: &RunConfig| train::start::start(config).unwrap();
    let largest = |map: &[f32], other: &dyn Fn(usize) -> f32| {
        map.iter().enumerate().map(|(index, value)| (value - other(index)).abs()).fold(0.0, f32::max)
    };
    let one = origin(&config).checkpoint.params;
    let of = |params: &Params, name: &str| params.data(params.find(name).unwrap()).to_vec();
    // Rank 1 is the same heads under other names.
    assert_eq!(of(&one, "joint.3.1.map.weight"), of(&learnt, "heads.3.map.weight"));
    config.objective.rank = 2;
    let start = origin(&config);
    assert!(start.origin.ends_with("that begin at its linear heads"), "{}", start.origin);
    let begun = &start.checkpoint.params;
    let width = start.checkpoint.decoder.config.width;
    let identity = |index: usize| if index.is_multiple_of(width + 1) { 1.0 } else { 0.0 };
    for place in [2, 3] {
        let head = of(&learnt, &format!("heads.{place}.map.weight"));
        let states = [1, 2].map(|state| of(begun, &format!("joint.{place}.{state}.map.weight")));
        assert_ne!(states[0], states[1]);
        assert!(states.iter().all(|map| largest(map, &|index| head[index]) < 0.2));
        assert!(largest(&head, &identity) > 1.5);
    }
    // The first place has no linear head, and the fourth none here.
    for name in ["joint.1.1.map.weight", "joint.4.2.map.weight"] {
        assert!(largest(&of(begun, name), &identity) < 0.2, "{name}");
    }
    config.objective.joint_start = JointStart::Random;
    assert!(origin(&config).origin.ends_with("with new joint heads"));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let states = [1, 3].map(|threads| {
        let config = config(folders[usize::from(threads == 3)].path());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| finish(&config, false));
        state(&config)
    });
    assert!(states[0] == states[1]);
}

#[test]
fn a_run_that_seconds_bound_ends_with_them_and_keeps_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // Far more than three steps take, so that the clock does not end them.
    (config.train.steps, config.train.seconds) = (0, Some(1e6));
    (config.evaluation.every, config.checkpoint.every) = (0, 0);
    let stopped = train(&config, false, &mut Watcher { stop_after: Some(3), ..Watcher::default() }).unwrap();
    assert!(!stopped.finished && stopped.training_seconds > 0.0, "{stopped:?}");
    let before = record_seconds(&config, 3);
    assert!((before - stopped.training_seconds).abs() < 1e-9 * before, "{before} {stopped:?}");

    config.train.seconds = Some(before + 0.1);
    let outcome = finish(&config, true);
    assert!(outcome.step > 3 && outcome.step == outcome.steps, "{outcome:?}");
    assert!(outcome.training_seconds >= before + 0.1, "{outcome:?}");
    assert!((record_seconds(&config, usize::MAX) - outcome.training_seconds).abs() < 1e-9);
    let without_last = record_seconds(&config, outcome.step - 1);
    assert!(without_last < before + 0.1, "it ends with the step in which the seconds are used up");
    // There is nothing left to do.
    assert_eq!(finish(&config, true).step, outcome.step);
}

/// Seconds of the first `steps` steps, by the events.
fn record_seconds(config: &RunConfig, steps: usize) -> f64 {
    let records = events::read(&RunFolder::new(&config.run.folder).events()).unwrap();
    let seconds = |event: &Event| match event {
        Event::Step(step) if step.step <= steps => config.tokens_per_step() as f64 / step.tokens_per_s,
        _ => 0.0,
    };
    records.iter().map(|record| seconds(&record.event)).sum()
}

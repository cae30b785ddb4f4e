//! How runs end before their last step, and what they leave.

use train::events::{self, Event};
use train::{Error, Observer, Progress, RunConfig, RunFolder, train};

use crate::small_run::{Watcher, config, finish, record, state};

fn refusal(config: &RunConfig, resume: bool) -> String {
    let message = train(config, resume, &mut ()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// The steps of the checkpoints in a run's folder: `last`, then those kept before it.
fn kept(config: &RunConfig) -> Vec<usize> {
    let run = RunFolder::new(&config.run.folder);
    let step = |folder: std::path::PathBuf| {
        let text = fs_err::read(folder.join("trainer/state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["step"].as_u64().unwrap() as usize
    };
    let older = (1..100).rev().map(|step| run.kept(step)).filter(|folder| folder.exists());
    std::iter::once(run.last()).chain(older).map(step).collect()
}

/// Trains well for a while, then with `change`d settings until the run is stopped; what it says, and what was good.
fn thrown_out(change: impl Fn(&mut RunConfig)) -> (String, Watcher) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 40;
    config.checkpoint.every = 20;
    config.evaluation.every = 0;
    finish(&config, false);
    let good = state(&config);
    config.train.steps = 400;
    change(&mut config);
    let mut watcher = Watcher::default();
    let error = train(&config, true, &mut watcher).unwrap_err();
    let Error::Diverged { step, safe, .. } = &error else { panic!("{error}") };
    let message = error.to_string();
    assert!(message.starts_with(&format!("step {step}: the ")) && !message.contains('\n'), "{message}");
    assert!(
        message.contains(&format!("the checkpoint of step {} is whole", safe.newest.unwrap())),
        "{message}"
    );
    // What is said to be whole is what a resumed run goes on from, and with the old settings it goes on as if nothing had
    // been.
    config.train.learning_rate = 1e-2;
    config.train.clip = 1.0;
    config.train.steps = 40;
    let mut resumed = Watcher::default();
    train(&config, true, &mut resumed).unwrap();
    assert_eq!(resumed.started.unwrap().2, safe.newest.unwrap());
    if safe.newest == Some(40) {
        let run = RunFolder::new(&config.run.folder);
        let weights = fs_err::read(run.kept(40).join("model.safetensors"))
            .or_else(|_| fs_err::read(run.last().join("model.safetensors")));
        assert!(
            good.iter()
                .any(|(name, bytes)| name == "model.safetensors" && *bytes == *weights.as_ref().unwrap())
        );
    }
    (message, watcher)
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_leaves_the_good_checkpoint() {
    let (message, _) = thrown_out(|config| {
        config.train.learning_rate = 1e30;
        config.checkpoint.every = 1;
    });
    assert!(
        message.contains("a lower train.learning_rate (now 1e30) or a smaller train.clip (now 1)"),
        "{message}"
    );
    assert!(
        message.starts_with("step 42: ") && message.contains("checkpoint of step 40 is whole"),
        "{message}"
    );
}

#[test]
fn a_loss_that_explodes_stops_the_run_and_leaves_the_good_checkpoint() {
    let (message, watcher) = thrown_out(|config| {
        config.train.learning_rate = 3.0;
        config.train.clip = 0.0;
        config.checkpoint.every = 1;
    });
    assert!(message.contains("the loss at depth") && message.contains("explodes: it is"), "{message}");
    assert!(message.contains("(now 0, which is off)"), "{message}");
    assert!(message.contains("checkpoint of step 40 is whole"), "{message}");
    assert!(watcher.notes.contains(&"train.learning_rate is another than before".to_owned()));
}

#[test]
fn a_loss_that_rises_slowly_keeps_new_checkpoints_from_being_written() {
    let (message, watcher) = thrown_out(|config| {
        config.train.learning_rate = 3.0;
        config.train.clip = 0.0;
        config.checkpoint.every = 1;
        // So far that it takes several steps.
        config.watch.loss_factor = 6.0;
    });
    assert!(message.contains("explodes"), "{message}");
    assert!(
        watcher.notes.iter().any(|note| note.contains("no checkpoint, the loss has risen")),
        "{:?}",
        watcher.notes
    );
}

#[test]
fn a_run_without_gain_ends_early_and_stays_ended_until_it_may_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.train.steps = 40;
    config.evaluation.every = 2;
    config.watch.patience = 2;
    // The first evaluation is the one to beat; nothing beats it by that much.
    config.watch.minimum_gain = 100.0;
    let outcome = finish(&config, false);
    assert_eq!((outcome.step, outcome.steps), (6, 40));
    assert!(outcome.early.as_ref().unwrap().contains("no better held-out loss in 2 evaluations"));
    assert!(outcome.last.exists() && outcome.best.unwrap().exists());
    let run = RunFolder::new(&config.run.folder);
    let records = events::read_all(&run.events()).unwrap();
    assert!(matches!(records.last().unwrap().event, Event::Finished { step: 6, .. }));
    assert_eq!(finish(&config, true).step, 6);
    assert_eq!(events::read_all(&run.events()).unwrap(), records);
    config.watch.patience = 0;
    let outcome = finish(&config, true);
    assert_eq!((outcome.step, outcome.early), (40, None));

    // With no least gain a run that learns goes on, also with a patience of 1.
    let folder = tempfile::tempdir().unwrap();
    let mut config = self::config(folder.path());
    config.watch.patience = 1;
    assert_eq!(finish(&config, false).step, 8);
}

#[test]
fn the_last_checkpoints_are_kept_and_an_interruption_does_not_change_which() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let mut configs = folders.each_ref().map(|folder| config(folder.path()));
    for (config, keep_last) in configs.iter_mut().zip([3, 3]) {
        config.checkpoint.every = 1;
        config.checkpoint.keep_last = keep_last;
    }
    finish(&configs[0], false);
    assert_eq!(kept(&configs[0]), [8, 7, 6]);
    train(&configs[1], false, &mut Watcher { stop_after: Some(5), ..Watcher::default() }).unwrap();
    assert_eq!(kept(&configs[1]), [5, 4, 3]);
    finish(&configs[1], true);
    assert_eq!(kept(&configs[1]), [8, 7, 6]);
    configs[1].checkpoint.keep_last = 1;
    configs[1].train.steps = 9;
    finish(&configs[1], true);
    assert_eq!(kept(&configs[1]), [9]);
}

#[test]
fn a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before() {
    let damages: [&dyn Fn(&std::path::Path); 4] = [
        &|last| fs_err::remove_dir_all(last).unwrap(),
        &|last| fs_err::write(last.join("trainer/state.json"), "{").unwrap(),
        &|last| {
            let file = last.join("model.safetensors");
            let bytes = fs_err::read(&file).unwrap();
            fs_err::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        &|last| fs_err::remove_file(last.join("trainer/moments.safetensors")).unwrap(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let whole = config(folder.path());
    finish(&whole, false);
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.checkpoint.every = 2;
        train(&config, false, &mut Watcher { stop_after: Some(5), ..Watcher::default() }).unwrap();
        let run = RunFolder::new(&config.run.folder);
        damage(&run.last());
        let mut watcher = Watcher::default();
        train(&config, true, &mut watcher).unwrap();
        let (_, origin, done) = watcher.started.unwrap();
        assert_eq!((done, origin.ends_with("step-4 after step 4")), (4, true), "{origin}");
        assert!(state(&config) == state(&whole));
        assert_eq!(record(&config), record(&whole));
        assert_eq!(kept(&config), [8, 6]);
    }
    // With nothing else to go on from it is refused, and said why.
    let run = RunFolder::new(&whole.run.folder);
    fs_err::remove_dir_all(run.kept(4)).unwrap();
    damages[1](&run.last());
    assert!(refusal(&whole, true).contains("checkpoints/last/trainer/state.json"));
}

#[test]
fn a_folder_that_vanishes_stops_the_run_and_put_back_goes_on() {
    struct Mover<'a>(&'a RunConfig);
    impl Observer for Mover<'_> {
        fn stepped(&mut self, progress: &Progress) {
            if progress.step.step == 5 {
                fs_err::rename(&self.0.run.folder, self.0.run.folder.with_extension("away")).unwrap();
            }
        }
    }
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let [whole, moved] = folders.each_ref().map(|folder| config(folder.path()));
    finish(&whole, false);
    let message = train(&moved, false, &mut Mover(&moved)).unwrap_err().to_string();
    assert!(message.starts_with("step 6: ") && message.contains("run is no longer there"), "{message}");
    assert!(!moved.run.folder.exists(), "nothing is written where the folder was");
    fs_err::rename(moved.run.folder.with_extension("away"), &moved.run.folder).unwrap();
    finish(&moved, true);
    assert!(state(&moved) == state(&whole));
    assert_eq!(record(&moved), record(&whole));
}

#[test]
fn a_checkpoint_that_cannot_be_written_stops_the_run_with_the_one_before_whole() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let [whole, blocked] = folders.each_ref().map(|folder| config(folder.path()));
    finish(&whole, false);
    struct Blocker<'a>(&'a RunConfig);
    impl Observer for Blocker<'_> {
        fn stepped(&mut self, progress: &Progress) {
            if progress.step.step == 5 {
                // A file where the new checkpoint wants to be a folder.
                fs_err::write(self.0.run.folder.join("checkpoints/.last.partial"), "").unwrap();
            }
        }
    }
    let message = train(&blocked, false, &mut Blocker(&blocked)).unwrap_err().to_string();
    assert!(message.starts_with("step 8: ") && message.contains(".last.partial"), "{message}");
    assert!(message.contains("the checkpoint of step 4 is whole"), "{message}");
    fs_err::remove_file(blocked.run.folder.join("checkpoints/.last.partial")).unwrap();
    finish(&blocked, true);
    assert!(state(&blocked) == state(&whole));
    assert_eq!(record(&blocked), record(&whole));
}

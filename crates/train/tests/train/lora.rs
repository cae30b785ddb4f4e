//! Adapters: gradients, dropout, files, merging, and whole runs with the model frozen.

use std::path::{Path, PathBuf};

use model::{Decoder, LoraSpec};
use objective::{HeadStart, HeadsSpec, ParallelHeads};
use tensor::random;
use train::config::{ObjectiveKind, TrainMode};
use train::{Checkpoint, RunConfig, train};

use crate::small_run::{Watcher, config, finish};
use crate::support::{Model, documents, packed, relative_difference, slope, tiny_config};

fn spec(targets: &[&str]) -> LoraSpec {
    LoraSpec {
        rank: 2,
        alpha: 3.0,
        dropout: 0.0,
        rank_stabilised: false,
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
    }
}

/// The tiny model with adapters that are not zero.
fn adapted(spec: &LoraSpec) -> Model {
    let mut model = Model::new(&tiny_config(true), &HeadsSpec::next_token());
    spec.attach(&model.decoder.config, &mut model.params, 1).unwrap();
    let mut rng = random::seeded(4, 4);
    for id in model::lora::adapter_parameters(&model.params) {
        let values = random::normal(&mut rng, model.params.data(id).len(), 0.35);
        model.params.data_mut(id).copy_from_slice(&values);
    }
    model
}

#[test]
fn finite_differences_agree_through_adapters() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let mut model = adapted(&spec(&["all-linear"]));
    let gradients = model.gradients(std::slice::from_ref(&batch), 1);
    let ids: Vec<_> = model.params.iter().map(|(id, _)| id).collect();
    let mut of_adapters = 0;
    for (id, gradient) in ids.into_iter().zip(gradients) {
        let name = model.params.get(id).name.clone();
        of_adapters += usize::from(name.contains("lora_"));
        let index =
            (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
        let before = model.params.data(id)[index];
        let numeric = slope(before, |value| {
            model.params.data_mut(id)[index] = value;
            model.loss(&batch)
        });
        let exact = f64::from(gradient[index]);
        assert!(
            exact != 0.0 && (numeric - exact).abs() < 2e-4 + 5e-3 * exact.abs(),
            "{name}: {numeric}, {exact}"
        );
    }
    assert_eq!(of_adapters, 3 * 7 * 2);
}

#[test]
fn merged_matrices_compute_what_adapters_computed() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let mut model = adapted(&spec(&["q_proj", "down_proj"]));
    let before = model.loss(&batch);
    let plain = Model::new(&tiny_config(true), &HeadsSpec::next_token()).loss(&batch);
    model.params.merge();
    assert!((model.loss(&batch) - before).abs() < 1e-5 && (plain - before).abs() > 1e-2);
    assert_eq!(model.params.adapters().count(), 0);
}

#[test]
fn dropout_repeats_and_does_not_depend_on_the_batch() {
    let mut batch = packed(&documents(&[3, 2, 8, 2, 5, 11]), 8, 3);
    batch.draws = (0..batch.batch as u64).map(|number| 7 * number + 1).collect();
    let rows: Vec<_> = (0..batch.batch).map(|index| batch.row(index)).collect();
    let model = adapted(&LoraSpec { dropout: 0.4, ..spec(&["all-linear"]) });
    let one = std::slice::from_ref(&batch);
    let together = model.gradients(one, 1);
    assert_eq!(together, model.gradients(one, 1));
    for (apart, all) in model.gradients(&rows, 1).iter().zip(&together) {
        assert!(relative_difference(apart, all) < 1e-5);
    }
    let without = adapted(&spec(&["all-linear"])).gradients(one, 1);
    assert!(without.iter().zip(&together).any(|(a, b)| relative_difference(a, b) > 1e-2));
    // The held-out loss is that of the whole model.
    assert_eq!(model.loss(&batch), adapted(&spec(&["all-linear"])).loss(&batch));
}

#[test]
fn targets_that_match_nothing_are_told_what_there_is() {
    let refusal = |spec: &LoraSpec| spec.modules(&tiny_config(true)).unwrap_err().to_string();
    let message = refusal(&spec(&["q_proj", "query"]));
    assert!(
        message.contains("\"query\" matches nothing; there are down_proj, gate_proj, k_proj"),
        "{message}"
    );
    assert!(refusal(&spec(&[])).contains("no targets"));
    assert_eq!(spec(&["model.layers.1.*"]).modules(&tiny_config(true)).unwrap().len(), 7);
}

/// A small model on disk.
fn base(folder: &Path) -> PathBuf {
    let mut base = config(folder);
    base.objective.kind = ObjectiveKind::NextToken;
    base.run.folder = folder.join("base");
    finish(&base, false).last
}

fn on(base: &Path) -> impl Fn(&mut RunConfig) {
    let base = base.to_owned();
    move |config| {
        config.model.architecture = None;
        config.model.init = Some(base.clone());
        config.train.mode = TrainMode::Lora;
        config.lora.rank = 3;
        config.lora.dropout = 0.2;
        config.objective.kind = ObjectiveKind::Registers;
    }
}

/// A base on disk, and a run that adapts it.
fn run_on_a_base(folder: &Path) -> (PathBuf, RunConfig) {
    let base = base(folder);
    let mut config = config(folder);
    on(&base)(&mut config);
    (base, config)
}

#[test]
fn resuming_changes_nothing_with_adapters_and_registers() {
    let folder = tempfile::tempdir().unwrap();
    crate::runs::resuming_changes_nothing(on(&base(folder.path())));
}

/// A run whose newest checkpoint has lost its adapter, or got that of another run, goes on from the one before.
#[test]
fn a_checkpoint_without_the_runs_adapter_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut config) = run_on_a_base(folder.path());
    (config.train.steps, config.checkpoint.every, config.checkpoint.keep_last) = (4, 2, 2);
    let last = train(&config, false, &mut ()).unwrap().last;
    let settings = last.join("adapter/adapter_config.json");
    let text = fs_err::read_to_string(&settings).unwrap();
    fs_err::write(&settings, text.replace("\"use_rslora\": false", "\"use_rslora\": true")).unwrap();
    config.train.steps = 6;
    let own = config.clone();
    let resume = || {
        let mut watcher = Watcher::default();
        train(&own, true, &mut watcher).map(|_| watcher.notes.join("; "))
    };
    let notes = resume().unwrap();
    assert!(notes.contains("adapter_config.json is not of this run): going on from"), "{notes}");

    fs_err::remove_dir_all(last.join("adapter")).unwrap();
    for kept in fs_err::read_dir(last.parent().unwrap()).unwrap() {
        let kept = kept.unwrap().path();
        if kept != last {
            fs_err::remove_dir_all(kept).unwrap();
        }
    }
    let refusal = resume().unwrap_err().to_string();
    assert!(refusal.contains("adapter_config.json is missing; the checkpoint is incomplete"), "{refusal}");

    // An adapter with the same numbers on fewer matrices.
    config.lora.targets = vec!["q_proj".to_owned()];
    (config.run.folder, config.train.steps) = (last.join("../../../fewer"), 2);
    let fewer = train(&config, false, &mut ()).unwrap().last;
    fs_err::rename(fewer.join("adapter"), last.join("adapter")).unwrap();
    let refusal = resume().unwrap_err().to_string();
    assert!(refusal.contains("adapter_config.json is not of this run"), "{refusal}");
}

#[test]
fn a_run_trains_adapters_alone_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    let (base, mut config) = run_on_a_base(folder.path());
    config.train.steps = 30;
    let mut watcher = Watcher::default();
    let outcome = train(&config, false, &mut watcher).unwrap();
    let (sizes, origin, _) = watcher.started.unwrap();
    // Two blocks: four maps of 16 x 16, three of 16 x 24; and the vector of the registers.
    assert_eq!(sizes.trained_parameters, 2 * 3 * (4 * 32 + 3 * 40) + 16);
    assert!(origin.ends_with("with new adapters"), "{origin}");
    let weights = |folder: &Path| fs_err::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&outcome.last) == weights(&base), "the frozen model changed");
    let (first, last) = (&watcher.evaluations[0].loss, &watcher.evaluations.last().unwrap().loss);
    assert!(last[0] < first[0] && last[1] < first[1], "{first:?} to {last:?}");

    let mut loaded = Checkpoint::load(&outcome.last).unwrap();
    assert_eq!(loaded.lora.as_ref().map(|lora| (lora.rank, lora.targets.len())), Some((3, 14)));
    let names = loaded.merge().unwrap();
    assert_eq!(names.len(), 14);
    let merged = folder.path().join("merged");
    loaded.save(&merged).unwrap();
    let merged = Checkpoint::load(&merged).unwrap();
    assert!(merged.lora.is_none() && merged.objective.registers().is_some());

    // The adapter belongs to its base, and to no other.
    let adapter = outcome.last.join("adapter");
    let mut again = Checkpoint::load(&base).unwrap();
    again.adapt(&adapter).unwrap();
    let refusal = merged.clone().adapt(&adapter).unwrap_err().to_string();
    assert!(refusal.contains("other weights"), "{refusal}");
    let (decoder, mut params) = Decoder::initialise(&tiny_config(true), 1).unwrap();
    let heads = ParallelHeads::attach(HeadsSpec::next_token(), &decoder, &mut params, HeadStart::Finished);
    let mut other = Checkpoint { decoder, params, objective: heads.unwrap().into(), ..again };
    other.lora = None;
    assert!(other.adapt(&adapter).unwrap_err().to_string().contains("adapter: "));
    config.model.init = Some(outcome.last.clone());
    config.run.folder = folder.path().join("on-top");
    let refusal = train(&config, false, &mut ()).unwrap_err().to_string();
    let folder = outcome.last.display();
    let merging = format!("must be merged first: sakiyomi merge {folder} --output {folder}-merged");
    assert!(refusal.ends_with(&merging), "{refusal}");
}

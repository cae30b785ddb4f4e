//! The sizes that are foretold are those of the run.

use objective::Objective;
use train::config::{Architecture, Dtype, TrainMode};
use train::step::Stepper;
use train::{RunConfig, plan};

fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.data.train = vec!["a.txt".into()];
    config.model.architecture = Some(Architecture {
        preset: "1M".into(),
        width: Some(64),
        layers: Some(4),
        heads: Some(4),
        ..Architecture::default()
    });
    config.train.batch = 4;
    config.train.length = 64;
    config
}

#[test]
fn parameters_and_memory_are_near_what_a_step_takes() {
    let ways = [(Dtype::F32, false), (Dtype::Bf16, false), (Dtype::F32, true), (Dtype::Bf16, true)];
    let heads = ["linear", "layer", "causal", "anticausal"];
    for (head, (dtype, recompute)) in heads.into_iter().flat_map(|head| ways.map(|way| (head, way))) {
        let mut config = config();
        config.train.dtype = dtype;
        config.train.recompute_activations = recompute;
        config.objective.head = serde_json::from_str(&format!("{head:?}")).unwrap();
        config.objective.n = 3;
        let plan = plan(&config).unwrap();
        let start = train::start::start(&config).unwrap().checkpoint;
        assert_eq!(plan.trunk_parameters + plan.head_parameters, start.params.values(), "{head}");
        assert_eq!(plan.trained_parameters, start.params.values());
        assert_eq!(plan.tokens_per_step, 256);
        let documents: Vec<Vec<u32>> = (0..8).map(|_| (0..90).map(|token| token % 50).collect()).collect();
        let corpus = data::Corpus::from_tokens(&documents).into();
        let found = data::evaluation_batches(&corpus, &(0..8).collect::<Vec<_>>(), 4, 64, 3, 1).unwrap();
        let batches: Vec<data::Batch> = found.iter().collect::<data::Result<_>>().unwrap();
        let mut stepper = Stepper::new(&start.params, &config.train);
        stepper.gradients(&start.params, &start.decoder, &start.objective, &batches, 3);
        let taken = 4 * (4 * start.params.values() + stepper.buffer_values()) as u64;
        let ratio = plan.memory_bytes as f64 / taken as f64;
        assert!(
            (0.75..1.35).contains(&ratio),
            "{head}, {dtype:?}, recompute {recompute}: {ratio} of {taken}"
        );
    }
}

#[test]
fn matched_parameters_take_layers_from_the_trunk() {
    let mut config = config();
    config.objective.head = objective::HeadKind::Layer;
    config.model.architecture.as_mut().unwrap().layers = Some(6);
    let free = plan(&config).unwrap();
    config.objective.match_parameters = true;
    let matched = plan(&config).unwrap();
    assert_eq!((free.decoder.layers, matched.decoder.layers), (6, 3));
    assert_eq!(matched.trunk_parameters + matched.head_parameters, free.trunk_parameters);
    config.objective.n = 7;
    let message = plan(&config).unwrap_err().to_string();
    assert!(message.contains("would move 6 of 6 layers"), "{message}");
}

#[test]
fn sizes_that_do_not_fit_name_the_key() {
    let refusal = |change: &dyn Fn(&mut RunConfig)| {
        let mut config = config();
        change(&mut config);
        plan(&config).unwrap_err().to_string()
    };
    let architecture = |config: &mut RunConfig| config.model.architecture.clone().unwrap();
    let change = |config: &mut RunConfig| {
        config.model.architecture = Some(Architecture { preset: "2M".into(), ..architecture(config) });
    };
    assert!(refusal(&change).starts_with("model.architecture.preset is \"2M\": the presets are 1M, 3M"));
    let change = |config: &mut RunConfig| {
        config.model.architecture = Some(Architecture { heads: Some(5), ..architecture(config) });
    };
    assert!(refusal(&change).starts_with("model.architecture.heads is 5, which does not divide"));
    let message = refusal(&|config| config.train.length = 513);
    assert!(message.contains("513, longer than the model's context of 512"), "{message}");
    let message = refusal(&|config| config.objective.n = 65);
    assert!(message.starts_with("objective.n"), "{message}");
    let message = refusal(&|config| {
        config.model.architecture = None;
        config.model.init = Some("nowhere".into());
        config.train.mode = TrainMode::Full;
    });
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn new_heads_know_which_parameters_are_theirs() {
    let start = train::start::start(&config()).unwrap().checkpoint;
    assert!(start.params.iter().all(|(_, param)| param.trainable));
    assert_eq!(start.objective.parameters().len(), 3);
}

//! Registers: what pins them to the paper (MuToR 2505.10518), on the kernels that train.

use data::Batch;
use kernels::matmul::Precision;
use model::{Decoder, DecoderConfig, LoraSpec};
use objective::{Objective, OffsetsPer, Placed, RegisterStart, Registers, RegistersSpec, Window};
use tensor::random::{self, Seeded};
use tensor::{Arena, Blend, Gradients, Layout, LearningRows, LossSum, NO_TARGET, Ops, Params, Tape};
use train::config::{ObjectiveKind, TrainSection};
use train::step::Stepper;
use train::{Checkpoint, RunFolder, train};

use crate::small_run::{Watcher, config, finish};
use crate::support::{documents, families, fill, packed, relative_difference, slope, tiny_config};

struct Model {
    decoder: Decoder,
    params: Params,
    objective: Registers,
    precision: Precision,
}

fn spec(d_min: usize, d_max: usize) -> RegistersSpec {
    RegistersSpec { d_min, d_max, ..RegistersSpec::default() }
}

/// Offsets, density and number drawn, so that every path is taken.
fn mixed() -> RegistersSpec {
    RegistersSpec { offsets: OffsetsPer::Register, density: 0.7, consecutive: 2, decoys: 0.5, ..spec(1, 3) }
}

impl Model {
    fn new(config: &DecoderConfig, spec: RegistersSpec) -> Self {
        let (decoder, mut params) = Decoder::initialise(config, 1).unwrap();
        let start = RegisterStart::Fresh { seed: 1 };
        let objective = Registers::attach(spec, &decoder, &mut params, start).unwrap();
        fill(&mut params, 9);
        Self { decoder, params, objective, precision: Precision::F32 }
    }

    /// With adapters on every map, which say something.
    fn adapted(mut self) -> Self {
        let adapters = LoraSpec {
            rank: 2,
            alpha: 3.0,
            dropout: 0.4,
            rank_stabilised: false,
            targets: vec!["all-linear".to_owned()],
        };
        adapters.attach(&self.decoder.config, &mut self.params, 1).unwrap();
        fill(&mut self.params, 8);
        self
    }

    fn parts(&self) -> usize {
        self.objective.depths()
    }

    fn placed(&self, batch: &Batch) -> Vec<Placed> {
        self.objective.place(batch, self.parts())
    }

    fn sums(&self, batch: &Batch, training: bool) -> Vec<LossSum> {
        let window = self.objective.window(std::slice::from_ref(batch), self.parts());
        let window = Window { training, ..window };
        let layout = self.objective.layout(batch, self.parts());
        let mut arena = Arena::default();
        let mut tape = Tape::evaluation(&self.params, &mut arena, &layout);
        self.objective.loss(&mut tape, &self.decoder, batch, &window)
    }

    /// What training minimises.
    fn loss(&self, batch: &Batch) -> f64 {
        let sums = self.sums(batch, true);
        let mean = |sums: &[LossSum]| {
            let targets: usize = sums.iter().map(|sum| sum.targets).sum();
            sums.iter().map(|sum| sum.nll).sum::<f64>() / targets.max(1) as f64
        };
        let weight = f64::from(self.objective.spec().weight);
        (1.0 - weight) * mean(&sums[..1]) + weight * mean(&sums[1..])
    }

    fn gradients(&self, batches: &[Batch]) -> Vec<Vec<f32>> {
        let mut stepper = Stepper::new(&self.params, &TrainSection::default());
        stepper.gradients(&self.params, &self.decoder, &self.objective, batches, self.parts());
        let gradients = stepper.last_gradients();
        self.params.iter().map(|(id, _)| gradients.get(id).unwrap_or_default().to_vec()).collect()
    }

    /// Normed states of all rows, with registers where `placed` says.
    fn states(&self, batch: &Batch, placed: &[Placed]) -> Vec<f32> {
        self.states_carrying(batch, placed, Vec::new())
    }

    /// The same with registers that carry tokens.
    fn states_carrying(&self, batch: &Batch, placed: &[Placed], carried: Vec<Blend>) -> Vec<f32> {
        let registers = placed.iter().map(|placed| placed.register).collect();
        let layout = Layout { registers, ..crate::support::layout(batch) };
        let mut arena = Arena::default();
        let mut tape = Tape::evaluation(&self.params, &mut arena, &layout).in_precision(self.precision);
        let (decoder, vector) = (&self.decoder, self.objective.vector());
        let rows = match placed.is_empty() {
            true => tape.embed(&decoder.embedding, &batch.inputs()),
            false => tape.embed_with_registers(&decoder.embedding, &batch.inputs(), vector, carried),
        };
        let states = decoder.run_blocks(&mut tape, rows, 0..decoder.blocks.len(), &mut |_, _, _| {});
        let normed = decoder.final_norm(&mut tape, &states);
        tape.value(&normed).to_vec()
    }
}

fn batch() -> Batch {
    packed(&documents(&[9, 5, 12, 3]), 8, 3)
}

#[test]
fn finite_differences_agree_for_every_family() {
    let batch = batch();
    let mut rng = random::seeded(3, 3);
    for config in [tiny_config(true), tiny_config(false)].into_iter().chain(families()) {
        finite_differences_agree(&config, mixed(), &batch, &mut rng);
    }
    // None carries a token, so that all begin as one row.
    finite_differences_agree(&tiny_config(true), RegistersSpec { decoys: 0.0, ..mixed() }, &batch, &mut rng);
}

fn finite_differences_agree(config: &DecoderConfig, spec: RegistersSpec, batch: &Batch, rng: &mut Seeded) {
    let mut model = Model::new(config, spec);
    let gradients = model.gradients(std::slice::from_ref(batch));
    let ids: Vec<_> = model.params.iter().map(|(id, _)| id).collect();
    for (id, gradient) in ids.into_iter().zip(gradients) {
        let name = model.params.get(id).name.clone();
        let largest =
            (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
        let drawn = (random::uniform(rng) * gradient.len() as f32) as usize;
        for index in [largest, drawn] {
            let before = model.params.data(id)[index];
            let numeric = slope(before, |value| {
                model.params.data_mut(id)[index] = value;
                model.loss(batch)
            });
            let exact = f64::from(gradient[index]);
            let allowed = 2e-4 + 5e-3 * exact.abs();
            let family = config.family;
            assert!(
                (numeric - exact).abs() < allowed,
                "{family:?}, {name}[{index}]: {numeric} against {exact}"
            );
        }
    }
}

/// Test (a) of the method, to the bit.
#[test]
fn tokens_have_the_same_bits_with_and_without_registers() {
    // Few rows are products of their own, many are taken together with the registers.
    let many = packed(&documents(&[7; 50]), 8, 3);
    assert!(many.batch * many.length >= kernels::matmul::MANY_ROWS);
    let tiny = || Model::new(&tiny_config(true), mixed());
    let bf16 = Model { precision: Precision::Bf16, ..tiny() };
    let models = families().into_iter().map(|config| Model::new(&config, mixed()));
    for model in models.chain([tiny(), tiny().adapted(), bf16]) {
        for batch in [&batch(), &many] {
            let placed = model.placed(batch);
            assert!(placed.len() > 10);
            let (with, without) = (model.states(batch, &placed), model.states(batch, &[]));
            let config = &model.decoder.config;
            assert_eq!(with[..without.len()], without, "{:?}, {:?}", config.family, model.precision);
            assert_eq!(with.len(), without.len() + placed.len() * config.width);
        }
    }
}

/// Tests (b) and (c): a register knows the tokens up to its own, and no other register.
#[test]
fn a_register_sees_the_tokens_before_it_and_itself() {
    for config in [tiny_config(true)].into_iter().chain(families()) {
        let model = Model::new(&config, mixed());
        let width = config.width;
        let batch = batch();
        let placed = model.placed(&batch);
        let tokens = batch.batch * batch.length * width;
        let states = model.states(&batch, &placed);
        for (index, one) in placed.iter().enumerate() {
            let together = &states[tokens + index * width..][..width];
            // All others stand elsewhere.
            let mut moved = placed.clone();
            moved.iter_mut().for_each(|placed| placed.register.position += 1);
            moved[index] = *one;
            let among_moved = model.states(&batch, &moved);
            let among_moved = &among_moved[tokens + index * width..][..width];
            assert_eq!(together, among_moved, "{:?}: other registers were seen", config.family);
            let mut other = batch.clone();
            let (row, anchor) = (one.register.row as usize, one.register.anchor as usize);
            for later in anchor + 1..batch.length {
                let at = row * batch.stride() + later;
                other.tokens[at] = (other.tokens[at] + 1) % 11;
            }
            let changed = model.states(&other, &placed);
            let changed = &changed[tokens + index * width..][..width];
            assert_eq!(together, changed, "{:?}: later tokens were seen", config.family);
            let at = row * batch.stride() + anchor;
            other.tokens[at] = (other.tokens[at] + 1) % 11;
            let changed = model.states(&other, &placed);
            assert_ne!(together, &changed[tokens + index * width..][..width]);
        }
    }
}

/// Its position alone tells a register how far ahead it looks.
#[test]
fn the_position_decides_what_a_register_says() {
    let batch = Batch::single(&documents(&[8])[0], 3);
    for config in families() {
        let model = Model::new(&config, spec(1, 3));
        let mut near = objective_at(&model, &batch, 1);
        near.truncate(3);
        let mut far = near.clone();
        far.iter_mut().for_each(|placed| placed.register.position += 2);
        assert_ne!(model.states(&batch, &near), model.states(&batch, &far), "{:?}", config.family);
    }
}

/// What decoys rest on: with the token of its position, as a whole, a register that looks two tokens ahead is that token's row.
#[test]
fn a_register_that_carries_its_own_token_is_the_row_of_that_token() {
    let batch = Batch::single(&documents(&[8])[0], 3);
    for config in [tiny_config(true)].into_iter().chain(families()) {
        let model = Model::new(&config, spec(2, 2));
        let placed = objective_at(&model, &batch, 2);
        let carried = placed.iter().map(|placed| Blend { share: 1.0, ..placed.carried }).collect();
        let states = model.states_carrying(&batch, &placed, carried);
        let (tokens, registers) = states.split_at(batch.length * config.width);
        assert_eq!(registers.len(), 6 * config.width);
        let difference = relative_difference(registers, &tokens[config.width..][..registers.len()]);
        assert!(difference < 1e-5, "{:?}: {difference}", config.family);
    }
}

#[test]
fn a_measurement_leaves_out_what_registers_carry() {
    let batch = batch();
    let model = Model::new(&tiny_config(true), RegistersSpec { decoys: 1.0, ..spec(1, 3) });
    let bare = Model::new(&tiny_config(true), spec(1, 3));
    assert_eq!(model.sums(&batch, false), bare.sums(&batch, true));
    assert_ne!(model.sums(&batch, true)[1..], bare.sums(&batch, true)[1..]);
    assert_eq!(model.sums(&batch, true)[0], bare.sums(&batch, true)[0]);
}

fn objective_at(model: &Model, batch: &Batch, offset: usize) -> Vec<Placed> {
    let fixed = RegistersSpec { d_min: offset, d_max: offset, ..model.objective.spec().clone() };
    let objective = Registers::find(fixed, &model.decoder, &model.params).unwrap();
    objective.place(batch, 2)
}

/// Gradients of the loss of registers alone, one for each parameter.
fn gradients_of_registers(
    model: &Model,
    batch: &Batch,
    carried: Option<Blend>,
    recomputes: bool,
) -> Vec<Vec<f32>> {
    let placed = model.placed(batch);
    let carried = carried.map_or_else(Vec::new, |blend| vec![blend; placed.len()]);
    let layout = model.objective.layout(batch, model.parts());
    let (mut gradients, mut arena) = (Gradients::new(&model.params), Arena::default());
    let mut tape = Tape::training(&model.params, &mut gradients, &mut arena, &layout).recomputing(recomputes);
    let start = tape.mark();
    let (decoder, vector) = (&model.decoder, model.objective.vector());
    let rows = tape.embed_with_registers(&decoder.embedding, &batch.inputs(), vector, carried);
    let states = decoder.run_blocks(&mut tape, rows, 0..decoder.blocks.len(), &mut |_, _, _| {});
    let normed = decoder.final_norm(&mut tape, &states);
    let targets: Vec<u32> = placed.iter().map(|placed| placed.target).collect();
    let first = batch.batch * batch.length;
    let rows = LearningRows { first, targets: &targets, scale: 1.0 };
    tape.cross_entropy_of_rows(&normed, decoder.unembedding, &[rows], None, None);
    tape.backward_to(start);
    model.params.iter().map(|(id, _)| gradients.get(id).unwrap_or_default().to_vec()).collect()
}

/// Test (e): the loss of registers alone reaches every tensor of the model, and their vector.
#[test]
fn the_loss_of_registers_reaches_the_whole_model() {
    for config in [tiny_config(true)].into_iter().chain(families()) {
        let model = Model::new(&config, spec(2, 2));
        let gradients = gradients_of_registers(&model, &batch(), None, false);
        for ((_, param), gradient) in model.params.iter().zip(gradients) {
            assert!(gradient.iter().any(|&value| value != 0.0), "{:?}: {}", config.family, param.name);
        }
    }
}

/// Registers that carry nothing go through the first maps as one row; with a share of 0 of a token each goes by itself.
#[test]
fn registers_that_are_alike_give_the_gradients_that_each_gives_by_itself() {
    let bare = RegistersSpec { decoys: 0.0, ..mixed() };
    for config in families() {
        alike_and_apart_agree(&Model::new(&config, bare.clone()));
    }
    alike_and_apart_agree(&Model::new(&tiny_config(true), bare.clone()));
    alike_and_apart_agree(&Model::new(&tiny_config(true), bare).adapted());
}

fn alike_and_apart_agree(model: &Model) {
    let nothing = Some(Blend { token: 0, share: 0.0 });
    for recomputes in [false, true] {
        let together = gradients_of_registers(model, &batch(), None, recomputes);
        let apart = gradients_of_registers(model, &batch(), nothing, recomputes);
        for ((_, param), (one, other)) in model.params.iter().zip(together.iter().zip(&apart)) {
            let difference = relative_difference(one, other);
            assert!(difference < 1e-5, "{:?}, {}: {difference}", model.decoder.config.family, param.name);
        }
    }
}

#[test]
fn packed_documents_lose_what_they_lose_alone() {
    let documents = documents(&[9, 1, 5, 12, 3, 2]);
    let together = packed(&documents, documents.iter().map(Vec::len).sum(), 3);
    for offset in 1..=3 {
        for config in families() {
            let model = Model::new(&config, spec(offset, offset));
            let packed = model.sums(&together, true);
            let alone: Vec<_> =
                documents.iter().map(|tokens| model.sums(&Batch::single(tokens, 3), true)).collect();
            for part in 0..2 {
                let nll: f64 = alone.iter().map(|sums| sums[part].nll).sum();
                let targets: usize = alone.iter().map(|sums| sums[part].targets).sum();
                assert_eq!(packed[part].targets, targets);
                assert!((packed[part].nll - nll).abs() < 1e-5 * nll, "{:?}", config.family);
            }
        }
    }
}

#[test]
fn batches_of_one_add_up_to_one_batch() {
    let mut batch = packed(&documents(&[3, 2, 8, 2, 5, 11]), 8, 3);
    batch.draws = (0..batch.batch as u64).map(|number| number * 5 + 1).collect();
    let rows: Vec<_> = (0..batch.batch).map(|index| batch.row(index)).collect();
    let model = Model::new(&tiny_config(true), mixed());
    let together = model.gradients(std::slice::from_ref(&batch));
    for (one, all) in model.gradients(&rows).iter().zip(&together) {
        assert!(relative_difference(one, all) < 1e-5);
    }
}

/// An answer shorter than every offset: the loss is that of the tokens, and a number.
#[test]
fn a_batch_without_registers_is_a_number() {
    let batch = Batch::single(&[1, 2, 3], 3);
    let model = Model::new(&tiny_config(true), spec(3, 3));
    assert!(model.placed(&batch).is_empty());
    let sums = model.sums(&batch, true);
    assert_eq!(sums[1], LossSum::default());
    let plain = model.states(&batch, &[]);
    assert!(plain.iter().all(|value| value.is_finite()) && sums[0].targets == 2);
    let gradients = model.gradients(std::slice::from_ref(&batch));
    assert!(gradients.iter().flatten().all(|value| value.is_finite()));
    let nothing = Batch { loss_mask: vec![false; batch.stride()], ..batch };
    let gradients = model.gradients(std::slice::from_ref(&nothing));
    assert!(gradients.iter().flatten().all(|&value| value == 0.0));
    let mut targets = Vec::new();
    nothing.targets(1, &mut targets);
    assert!(targets.iter().all(|&target| target == NO_TARGET));
}

#[test]
fn resuming_changes_nothing_with_registers() {
    crate::runs::resuming_changes_nothing(|config| {
        config.objective.kind = ObjectiveKind::Registers;
        config.objective.density = 0.5;
        config.objective.offsets = OffsetsPer::Register;
        config.objective.curriculum_steps = 2;
        config.train.accumulate = 2;
    });
}

#[test]
fn a_run_with_registers_leaves_a_plain_model_and_their_vector() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.objective.kind = ObjectiveKind::Registers;
    (config.objective.d_min, config.objective.d_max) = (2, 3);
    config.train.steps = 40;
    let mut watcher = Watcher::default();
    let outcome = train(&config, false, &mut watcher).unwrap();
    let (sizes, origin, _) = watcher.started.unwrap();
    assert_eq!((sizes.head_parameters, sizes.tokens_ahead), (16, vec![1, 2, 3]));
    assert!(origin.ends_with("with registers"), "{origin}");
    let (first, last) = (&watcher.evaluations[0].loss, &watcher.evaluations.last().unwrap().loss);
    assert!((0..3).all(|part| last[part] < first[part]), "{first:?} to {last:?}");

    let loaded = Checkpoint::load(&outcome.last).unwrap();
    let registers = loaded.objective.registers().unwrap();
    assert_eq!(registers.spec(), &config.objective.registers(config.run.seed));
    assert!(loaded.params.data(registers.vector()).iter().any(|&value| value != 0.0));
    assert_eq!(loaded.objective.drafter().unwrap().longest(), 2);
    // Without the two files beside it the checkpoint is an ordinary model, and the same one.
    let plain = folder.path().join("plain");
    loaded.save_without_heads(&plain).unwrap();
    assert!(!plain.join("mtp.json").exists());
    let plain = Checkpoint::load(&plain).unwrap();
    assert_eq!((plain.objective.depths(), plain.params.len() + 1), (1, loaded.params.len()));

    // Training goes on from it with its vector, under other settings too.
    config.model.architecture = None;
    config.model.init = Some(RunFolder::new(&config.run.folder).last());
    config.train.mode = train::config::TrainMode::Full;
    config.run.folder = folder.path().join("second");
    config.objective.d_max = 4;
    config.train.steps = 1;
    let mut watcher = Watcher::default();
    train(&config, false, &mut watcher).unwrap();
    assert!(watcher.started.unwrap().1.ends_with("and its registers"));
    config.run.folder = folder.path().join("third");
    config.objective.kind = ObjectiveKind::NextToken;
    finish(&config, false);
}

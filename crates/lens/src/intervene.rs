//! The intervention: does a token jump to the next task when a state of another token, which has settled already, is put in its
//! place?
//!
//! Pairs have the same first choice at the end and settle it in very different layers. The state of the early one after layer
//! `sat_1(early) + delta` becomes that of the late one after the same layer, at its position alone, and the model runs on. Counted is
//! how often the late one then settles in that very layer with the same choice.
//!
//! That is partly true by definition: from `delta = 0` on the injected state decodes to the shared token, before it does not. Hence
//! two controls: a state of a third token in the same layer that decodes to the same token, whether it has settled or not; and what
//! the injection does to the second choice and to the probe's opinion, which no definition decides.

use model::taps::{Input, Taps};
use serde::Serialize;
use tensor::Arena;
use tensor::random::{self, Seeded};

use crate::error::{Error, Result};
use crate::item::Item;
use crate::look::{Look, look};
use crate::probe::Probe;
use crate::saturation::{Decision, saturation_layers};

/// Purpose of the random stream that chooses pairs and controls.
const CHOOSING: u64 = 45;

/// What to inject.
#[derive(Clone, Copy, Debug)]
pub struct Intervention {
    /// Pairs, at most.
    pub pairs: usize,
    /// Layers before and after saturation.
    pub reach: usize,
    /// How many layers later the late one must settle.
    pub gap: usize,
    /// Choices that are followed, at least 2.
    pub choices: usize,
    /// Seed of the choice of pairs and controls.
    pub seed: u64,
}

impl Intervention {
    /// The paper's settings for deep models, less for shallow ones: (reach, gap).
    pub fn usual(layers: usize) -> (usize, usize) {
        match layers {
            0..=23 => (3.min(layers.saturating_sub(1) / 2), (layers / 4).max(2)),
            24..=39 => (3, 5),
            _ => (5, 10),
        }
    }
}

/// One row of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    item: usize,
    row: usize,
}

/// Two rows with the same first choice.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    early: Spot,
    late: Spot,
    token: u32,
    early_layer: usize,
}

/// Chooses pairs among what saturated: the same first choice, the late one at least `gap` layers later, and room for `reach` layers
/// around the early one's.
///
/// # Errors
/// When there is none.
pub fn choose_pairs(decisions: &[Decision], layers: usize, settings: &Intervention) -> Result<Vec<Pair>> {
    if settings.choices < 2 {
        return Err(Error::setting("k", "an intervention follows at least 2 choices"));
    }
    let mut order: Vec<&Decision> = decisions.iter().collect();
    let mut rng = random::seeded(settings.seed, CHOOSING);
    for place in (1..order.len()).rev() {
        order.swap(place, below(&mut rng, place + 1));
    }
    let spot = |d: &Decision| Spot { item: d.item as usize, row: d.row as usize };
    // By choice: early ones that wait for a late one, and late ones that wait for an early one.
    let mut waiting: std::collections::HashMap<u32, Vec<&Decision>> = std::collections::HashMap::new();
    let mut pairs = Vec::new();
    for decision in order {
        if pairs.len() == settings.pairs {
            break;
        }
        let others = waiting.entry(decision.tokens[0]).or_default();
        let fits = |early: &Decision, late: &Decision| {
            let (first, second) = (usize::from(early.layers[0]), usize::from(late.layers[0]));
            first.saturating_add(settings.gap) <= second
                && first >= settings.reach
                && first.saturating_add(settings.reach) < layers
        };
        let partner = others.iter().position(|other| fits(other, decision) || fits(decision, other));
        match partner {
            None => others.push(decision),
            Some(place) => {
                let other = others.swap_remove(place);
                let (early, late) = if fits(other, decision) { (other, decision) } else { (decision, other) };
                let early_layer = usize::from(early.layers[0]);
                pairs.push(Pair {
                    early: spot(early),
                    late: spot(late),
                    token: early.tokens[0],
                    early_layer,
                });
            }
        }
    }
    match pairs.is_empty() {
        false => Ok(pairs),
        true => Err(Error::NothingLeft(format!(
            "no two tokens share their first choice and settle it {} layers apart, the early one between layers {} and {}: look at \
             more tokens, or ask for less (--gap, --reach)",
            settings.gap,
            settings.reach,
            layers.saturating_sub(settings.reach + 1)
        ))),
    }
}

fn below(rng: &mut Seeded, limit: usize) -> usize {
    ((f64::from(random::uniform(rng)) * limit as f64) as usize).min(limit - 1)
}

/// What an injection did, over all pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Response {
    /// Injections.
    pub injections: usize,
    /// Share that then settled in the layer of the injection, with the same first choice at the end.
    pub switched: Option<f64>,
    /// Share with the same first choice at the end.
    pub same_choice: Option<f64>,
    /// Mean layer in which the first choice settles then.
    pub first_layer: Option<f64>,
    /// By how many layers the second choice settles earlier than without the injection.
    pub second_earlier: Option<f64>,
    /// Share of the states after the next layer of which the probe says that the first choice is settled.
    pub probe_settled: Option<f64>,
}

/// The response at one distance from the early token's saturation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AtDelta {
    /// Layers after the early token's saturation at which its state is taken and put.
    pub delta: i64,
    /// The early token's state.
    pub injected: Response,
    /// A third token's state of the same layer that decodes to the same token.
    pub control: Response,
    /// Nothing put anywhere.
    pub untouched: Response,
}

/// Sums of responses.
#[derive(Clone, Copy, Default)]
struct Sums {
    injections: usize,
    switched: usize,
    same: usize,
    first_layer: f64,
    second_earlier: f64,
    probed: usize,
    probe_settled: usize,
}

impl Sums {
    fn response(&self) -> Response {
        let share = |count: usize| (self.injections > 0).then(|| count as f64 / self.injections as f64);
        let mean = |sum: f64| (self.injections > 0).then(|| sum / self.injections as f64);
        Response {
            injections: self.injections,
            switched: share(self.switched),
            same_choice: share(self.same),
            first_layer: mean(self.first_layer),
            second_earlier: mean(self.second_earlier),
            probe_settled: (self.probed > 0).then(|| self.probe_settled as f64 / self.probed as f64),
        }
    }
}

/// The items that pairs stand in, in the order of their indices; all others may be dropped.
pub fn wanted_items(pairs: &[Pair]) -> Vec<usize> {
    let mut wanted: Vec<usize> = pairs.iter().flat_map(|pair| [pair.early.item, pair.late.item]).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Injects. `items` are those of [`wanted_items`], each with its index.
///
/// # Errors
/// When the model refuses an item.
pub fn intervene(
    model: &dyn Taps,
    items: &[(usize, Item)],
    pairs: &[Pair],
    settings: &Intervention,
    probe: Option<&Probe>,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<AtDelta>> {
    let (layers, width) = (model.sizes().layers, model.sizes().width);
    let pool = Pool::look(model, items)?;
    let mut rng = random::seeded(settings.seed, CHOOSING + 1);
    let deltas: Vec<i64> = (-(settings.reach as i64)..=settings.reach as i64).collect();
    // For each pair and delta, a third row whose state decodes to the same token in that layer.
    let controls: Vec<Vec<Option<Spot>>> = pairs
        .iter()
        .map(|pair| {
            let layer = |delta: i64| (pair.early_layer as i64 + delta) as usize;
            deltas.iter().map(|delta| pool.alike(pair, layer(*delta), &mut rng)).collect()
        })
        .collect();
    let mut wanted: Vec<Spot> =
        pairs.iter().map(|pair| pair.early).chain(controls.iter().flatten().flatten().copied()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let states = states_of(model, items, &wanted)?;
    let mut sums = vec![[Sums::default(); 3]; deltas.len()];
    let mut arena = Arena::default();
    for (index, (pair, controls)) in pairs.iter().zip(&controls).enumerate() {
        let mut runs: Vec<Option<(usize, &[f32])>> = vec![None];
        for (delta, control) in deltas.iter().zip(controls) {
            let layer = (pair.early_layer as i64 + delta) as usize;
            runs.push(state_at(&states, &wanted, pair.early, layer, width).map(|state| (layer, state)));
            runs.push(
                control
                    .and_then(|spot| state_at(&states, &wanted, spot, layer, width))
                    .map(|state| (layer, state)),
            );
        }
        let found = run_pair(model, &mut arena, items, pair, &runs, settings.choices)?;
        let before = &found[0];
        for (place, delta) in deltas.iter().enumerate() {
            let layer = (pair.early_layer as i64 + delta) as usize;
            for (kind, run) in [1 + 2 * place, 2 + 2 * place, 0].into_iter().enumerate() {
                if kind < 2 && runs[run].is_none() {
                    continue;
                }
                count(&mut sums[place][kind], &found[run], before, pair.token, layer, layers, probe);
            }
        }
        progress(index + 1);
    }
    let at = |(delta, sums): (&i64, &[Sums; 3])| AtDelta {
        delta: *delta,
        injected: sums[0].response(),
        control: sums[1].response(),
        untouched: sums[2].response(),
    };
    Ok(deltas.iter().zip(&sums).map(at).collect())
}

/// What one run gave at the late token's row.
struct Outcome {
    layers: [u16; crate::look::MOST_CHOICES],
    token: u32,
    /// `[layers][width]`
    states: Vec<Vec<f32>>,
}

fn count(
    sums: &mut Sums,
    found: &Outcome,
    before: &Outcome,
    token: u32,
    layer: usize,
    layers: usize,
    probe: Option<&Probe>,
) {
    let same = found.token == token;
    sums.injections += 1;
    sums.same += usize::from(same);
    sums.switched += usize::from(same && usize::from(found.layers[0]) == layer);
    sums.first_layer += f64::from(found.layers[0]);
    sums.second_earlier += f64::from(before.layers[1]) - f64::from(found.layers[1]);
    if let Some(probe) = probe
        && layer + 1 < layers
    {
        sums.probed += 1;
        sums.probe_settled += usize::from(probe.settled(layer + 1, &found.states[layer + 1]));
    }
}

/// Runs the late token's item once for each entry of `runs`, as one batch, with that state put after that layer.
fn run_pair(
    model: &dyn Taps,
    arena: &mut Arena,
    items: &[(usize, Item)],
    pair: &Pair,
    runs: &[Option<(usize, &[f32])>],
    choices: usize,
) -> Result<Vec<Outcome>> {
    let sizes = model.sizes();
    let (width, layers) = (sizes.width, sizes.layers);
    let input = shortened(&item_of(items, pair.late.item).input, pair.late.row, model);
    let length = model.rows(&input);
    let mut states = vec![Vec::with_capacity(layers); runs.len()];
    // Whisper runs one sound at a time; everything else as many as there are.
    let at_once = if matches!(input, Input::Speech { .. }) { 1 } else { runs.len() };
    for (first, part) in (0..).step_by(at_once).zip(runs.chunks(at_once)) {
        let inputs = vec![input.clone(); part.len()];
        model.run(arena, &inputs, &mut |layer, stream| {
            for (index, run) in part.iter().enumerate() {
                let place = (index * length + pair.late.row) * width;
                if let Some((_, state)) = run.filter(|(at, _)| *at == layer) {
                    stream[place..place + width].copy_from_slice(state);
                }
                states[first + index].push(stream[place..place + width].to_vec());
            }
        })?;
    }
    let mut logits = Vec::new();
    let outcomes = states.into_iter().map(|states| {
        model.read_out(arena, &states.concat(), &mut logits);
        let mut top = Vec::with_capacity(layers * choices);
        for logits in logits.chunks_exact(sizes.outputs) {
            top.extend(crate::look::likeliest_places(logits, choices));
        }
        let token = top[(layers - 1) * choices];
        Outcome { layers: saturation_layers(&top, layers, choices), token, states }
    });
    Ok(outcomes.collect())
}

/// Without what stands after the row, where nothing looks back from there.
fn shortened(input: &Input, row: usize, model: &dyn Taps) -> Input {
    match input {
        Input::Tokens(tokens) if model.causal() => Input::Tokens(tokens[..=row].to_vec()),
        other => other.clone(),
    }
}

fn item_of(items: &[(usize, Item)], index: usize) -> &Item {
    let place = items.binary_search_by_key(&index, |(index, _)| *index);
    &items[place.expect("the items of all pairs were kept")].1
}

/// What every row of the kept items decodes to in every layer.
struct Pool {
    spots: Vec<Spot>,
    /// `[spots, layers]`
    top: Vec<u32>,
    layers: usize,
}

impl Pool {
    fn look(model: &dyn Taps, items: &[(usize, Item)]) -> Result<Self> {
        let layers = model.sizes().layers;
        let mut pool = Self { spots: Vec::new(), top: Vec::new(), layers };
        let mut all = items.iter().map(|(_, item)| Ok(item.clone()));
        look(model, &mut all, Look { choices: 1, states: false }, &mut |seen| {
            pool.spots
                .extend(seen.places.iter().map(|place| Spot { item: items[place.item].0, row: place.row }));
            pool.top.extend_from_slice(&seen.top);
            Ok(())
        })?;
        Ok(pool)
    }

    fn top_at(&self, place: usize, layer: usize) -> u32 {
        self.top[place * self.layers + layer]
    }

    /// A random row other than the pair's that decodes in `layer` to what the early one decodes to there.
    fn alike(&self, pair: &Pair, layer: usize, rng: &mut Seeded) -> Option<Spot> {
        let early = self.spots.iter().position(|spot| *spot == pair.early)?;
        let token = self.top_at(early, layer);
        let fits = |place: &usize| {
            self.top_at(*place, layer) == token
                && self.spots[*place] != pair.early
                && self.spots[*place] != pair.late
        };
        let alike: Vec<usize> = (0..self.spots.len()).filter(fits).collect();
        (!alike.is_empty()).then(|| self.spots[alike[below(rng, alike.len())]])
    }
}

/// States of `wanted` rows after every layer, `[wanted][layers, width]`.
fn states_of(model: &dyn Taps, items: &[(usize, Item)], wanted: &[Spot]) -> Result<Vec<Vec<f32>>> {
    let (width, mut arena) = (model.sizes().width, Arena::default());
    let mut states = vec![Vec::new(); wanted.len()];
    for (index, item) in items {
        let here: Vec<usize> = (0..wanted.len()).filter(|place| wanted[*place].item == *index).collect();
        if here.is_empty() {
            continue;
        }
        model.run(&mut arena, std::slice::from_ref(&item.input), &mut |_, stream| {
            for &place in &here {
                let row = wanted[place].row;
                states[place].extend_from_slice(&stream[row * width..(row + 1) * width]);
            }
        })?;
    }
    Ok(states)
}

fn state_at<'s>(
    states: &'s [Vec<f32>],
    wanted: &[Spot],
    spot: Spot,
    layer: usize,
    width: usize,
) -> Option<&'s [f32]> {
    let place = wanted.binary_search(&spot).ok()?;
    states[place].get(layer * width..(layer + 1) * width)
}

#[cfg(test)]
mod tests {
    use model::taps::TapSizes;

    use super::*;
    use crate::look::MOST_CHOICES;

    /// Three outputs, four layers; a row's state is its logits. Tokens are layers: a row is undecided (output 0) before the layer
    /// that its token says, and from there on stays at whatever leads.
    #[derive(Default)]
    struct Toy(tensor::Params);

    impl Taps for Toy {
        fn params(&self) -> &tensor::Params {
            &self.0
        }

        fn sizes(&self) -> TapSizes {
            TapSizes { layers: 8, width: 3, outputs: 3, block_work: 1, read_out_work: 1 }
        }

        fn causal(&self) -> bool {
            true
        }

        fn rows(&self, input: &Input) -> usize {
            match input {
                Input::Tokens(tokens) => tokens.len(),
                _ => 0,
            }
        }

        fn run(&self, _: &mut Arena, inputs: &[Input], hook: &mut model::taps::Hook) -> model::Result<()> {
            let tokens: Vec<u32> = inputs
                .iter()
                .flat_map(|input| if let Input::Tokens(tokens) = input { tokens.clone() } else { Vec::new() })
                .collect();
            let mut stream = [3.0, 0.0, 1.0].repeat(tokens.len());
            for layer in 0..8 {
                for (token, state) in tokens.iter().zip(stream.chunks_mut(3)) {
                    if *token == layer {
                        state[1] = 5.0;
                    }
                }
                hook(layer as usize, &mut stream);
            }
            Ok(())
        }

        fn read_out(&self, _: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
            logits.clear();
            logits.extend_from_slice(states);
        }
    }

    #[test]
    fn an_injected_state_switches_the_late_token_from_saturation_on() {
        let items = vec![(4, Item::text(vec![2, 7, 3, 7], 0)), (9, Item::text(vec![7, 2], 1))];
        let mut decisions = Vec::new();
        let mut all = items.iter().map(|(_, item)| Ok(item.clone()));
        look(&Toy::default(), &mut all, Look { choices: 2, states: false }, &mut |seen| {
            for (row, place) in seen.places.iter().enumerate() {
                let layers = saturation_layers(seen.top_of(row), 8, 2);
                let mut tokens = [0; MOST_CHOICES];
                tokens[..2].copy_from_slice(&seen.top_of(row)[14..]);
                let item = items[place.item].0 as u32;
                decisions.push(Decision {
                    group: 0,
                    item,
                    row: place.row as u32,
                    target: None,
                    layers,
                    tokens,
                });
            }
            Ok(())
        })
        .unwrap();
        let settings = Intervention { pairs: 10, reach: 2, gap: 3, choices: 2, seed: 1 };
        let pairs = choose_pairs(&decisions, 8, &settings).unwrap();
        assert_eq!(pairs.len(), 3);
        assert!(wanted_items(&pairs).iter().all(|item| [4, 9].contains(item)));
        let response = intervene(&Toy::default(), &items, &pairs, &settings, None, &mut |_| {}).unwrap();
        let switched: Vec<f64> = response.iter().map(|at| at.injected.switched.unwrap()).collect();
        assert_eq!(switched, [0.0, 0.0, 1.0, 1.0, 1.0]);
        // Without an injection the late tokens settle in the last layer.
        assert!(
            response
                .iter()
                .all(|at| at.untouched.first_layer == Some(7.0) && at.untouched.switched == Some(0.0))
        );
        assert!(response.iter().all(|at| at.injected.same_choice == Some(1.0)));
        // The second choice settles with the first here: undecided, then chosen.
        assert!(response[2].injected.second_earlier.unwrap() > 3.0);
    }

    #[test]
    fn too_few_pairs_are_said() {
        let settings = Intervention { pairs: 10, reach: 2, gap: 3, choices: 2, seed: 1 };
        let message = choose_pairs(&[], 8, &settings).unwrap_err().to_string();
        assert!(message.contains("3 layers apart"), "{message}");
        assert_eq!(Intervention::usual(48), (5, 10));
        assert_eq!(Intervention::usual(12), (3, 3));
    }
}

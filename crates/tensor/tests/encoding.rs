//! Operations of encoders on the tape: gradients against finite differences, and values that may be looked at and changed.

use sakiyomi_tensor::{
    Activation, Arena, Gradients, Layout, Linear, Norm, NormKind, Ops, Params, Tape, Var, random,
};

const WIDTH: usize = 6;
const PIXELS: usize = 5;
const CLASSES: usize = 4;

struct Model {
    params: Params,
    embed: Linear,
    query: Linear,
    memory: [Linear; 2],
    output: Linear,
    up: Linear,
    down: Linear,
    norm: Norm,
    classes: Linear,
    input: Vec<f32>,
    other: Vec<f32>,
    layout: Layout,
}

/// Two pictures of three patches, which look at themselves and at two foreign rows.
fn model() -> Model {
    let mut params = Params::default();
    let mut rng = random::seeded(3, 1);
    let mut linear = |name: &str, outputs: usize, inputs: usize| {
        let mut add = |name: String, shape: &[usize]| {
            let data = random::normal(&mut rng, shape.iter().product(), 0.4);
            params.add(name, shape, data)
        };
        Linear {
            weight: add(name.to_owned(), &[outputs, inputs]),
            bias: Some(add(format!("{name}.b"), &[outputs])),
        }
    };
    let [embed, query, output] = [("embed", PIXELS), ("query", WIDTH), ("output", WIDTH)]
        .map(|(name, inputs)| linear(name, WIDTH, inputs));
    let memory = ["keys", "values"].map(|name| linear(name, WIDTH, WIDTH));
    let (up, down, classes) =
        (linear("up", 7, WIDTH), linear("down", WIDTH, 7), linear("classes", CLASSES, WIDTH));
    let gain = linear("gain", WIDTH, 1);
    let norm =
        Norm { weight: gain.weight, kind: NormKind::Layer { bias: gain.bias.unwrap() }, epsilon: 1e-5 };
    let input = random::normal(&mut random::seeded(4, 1), 6 * PIXELS, 1.0);
    let other = random::normal(&mut random::seeded(5, 1), 4 * WIDTH, 1.0);
    let layout = Layout {
        batch: 2,
        length: 3,
        positions: vec![0, 1, 2, 0, 1, 2],
        first_visible: vec![0; 6],
        ..Layout::default()
    };
    Model { params, embed, query, memory, output, up, down, norm, classes, input, other, layout }
}

impl Model {
    fn loss(&self, tape: &mut Tape) -> f64 {
        let x = tape.input(&self.input, PIXELS);
        let x = tape.linear(x, &[self.embed]);
        let x = self.attend(tape, x, None);
        let foreign = tape.input(&self.other, WIDTH);
        let x = self.attend(tape, x, Some(foreign));
        let shared = tape.share(&x);
        let inner = tape.linear(shared, &[self.up]);
        let inner = tape.activate(inner, Activation::GeluErf);
        let x = tape.linear_add(inner, self.down, x);
        let x = tape.norm(&x, &self.norm);
        tape.cross_entropy(&x, self.classes.weight, &[1, 0, 3, 2, 2, 0], 1.0, None).nll
    }

    fn attend(&self, tape: &mut Tape, x: Var, foreign: Option<Var>) -> Var {
        let normed = tape.norm(&x, &self.norm);
        let looked_at = foreign.unwrap_or_else(|| tape.share(&normed));
        let queries = tape.linear(normed, &[self.query]);
        let memory = tape.linear(looked_at, &self.memory);
        let attended = tape.full_attention(queries, memory, 2, 0.5);
        tape.linear_add(attended, self.output, x)
    }
}

#[test]
fn gradients_of_every_parameter_agree_with_finite_differences() {
    let model = model();
    let (mut gradients, mut arena) = (Gradients::new(&model.params), Arena::default());
    let mut tape = Tape::training(&model.params, &mut gradients, &mut arena, &model.layout);
    let start = tape.mark();
    let loss = model.loss(&mut tape);
    tape.backward_to(start);
    let at = |params: &Params| {
        let mut arena = Arena::default();
        model.loss(&mut Tape::evaluation(params, &mut arena, &model.layout))
    };
    assert!((loss - at(&model.params)).abs() < 1e-5);
    for (id, param) in model.params.iter().filter(|(_, param)| param.name != "classes.b") {
        let analytic = gradients.get(id).unwrap_or_else(|| panic!("no gradient reached {}", param.name));
        // A constant that is added to every key changes no weight.
        assert!(param.name == "keys.b" || analytic.iter().any(|g| *g != 0.0), "{}", param.name);
        for (index, &gradient) in analytic.iter().enumerate() {
            let moved = |step: f32| {
                let mut moved = model.params.clone();
                moved.data_mut(id)[index] += step;
                at(&moved)
            };
            let numeric = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            let difference = (numeric - f64::from(gradient)).abs();
            assert!(
                difference < 4e-3 * (1.0 + numeric.abs()),
                "{}[{index}]: {numeric} {gradient}",
                param.name
            );
        }
    }
}

#[test]
fn changed_values_are_what_later_operations_read() {
    let model = model();
    let mut arena = Arena::default();
    let mut tape = Tape::evaluation(&model.params, &mut arena, &model.layout);
    let x = tape.input(&model.input, PIXELS);
    tape.value_mut(&x)[..PIXELS].fill(0.0);
    let y = tape.linear(x, &[model.embed]);
    let bias = model.params.data(model.embed.bias.unwrap());
    assert_eq!(&tape.value(&y)[..WIDTH], bias);
    assert_ne!(&tape.value(&y)[WIDTH..2 * WIDTH], bias);
}

//! Encoders against their goldens: logits, streams after every block, features of waves, and what the lens reads.

use std::path::Path;

use fs_err as fs;
use sakiyomi_model::encoder::{Bert, Keyword, Kind, Vit, VitConfig, Weights, Whisper, kind_of};
use sakiyomi_model::taps::{DecoderTaps, Input, Taps};
use sakiyomi_model::{Decoder, checkpoint};
use serde_json::{Value, json};
use tensor::{Arena, Gradients};

mod common;
use common::shared_model;

fn golden(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{place}]: {a}, golden {b}");
    }
}

/// Sums and the first values of a stream, at the row of `first8` (0 for encoders, the last for decoders).
fn assert_stream(states: &[f32], golden: &Value, tolerances: &Value, row: usize) {
    let what = golden["after"].as_str().unwrap();
    let abs_sum = golden["abs_sum"].as_f64().unwrap();
    let room = tolerances["sum_rel_to_abs_sum"].as_f64().unwrap() * abs_sum;
    let shape = tokens(&golden["shape"]);
    let (rows, width) = (shape[0] as usize, shape[1] as usize);
    let states = &states[..rows * width];
    let sum: f64 = states.iter().map(|x| f64::from(*x)).sum();
    let sum_of_sizes: f64 = states.iter().map(|x| f64::from(x.abs())).sum();
    assert!((sum - golden["sum"].as_f64().unwrap()).abs() <= room, "{what}: sum {sum}");
    assert!((sum_of_sizes - abs_sum).abs() <= room, "{what}: {sum_of_sizes}");
    let tolerance = tolerances["hidden_abs"].as_f64().unwrap() as f32;
    assert_near(&states[row * width..row * width + 8], &floats(&golden["first8"]), tolerance, what);
}

#[test]
fn bert_meets_its_golden() {
    let Some(folder) = shared_model("tiny-bert") else { return };
    assert_eq!(kind_of(&folder).unwrap(), Kind::Bert);
    let model = Bert::load(&folder, Weights::Stored).unwrap();
    let golden = golden(&folder, "golden.json");
    let mut arena = Arena::default();
    for case in golden["cases"].as_array().unwrap() {
        // Padding stands to the right and is seen by nobody: it can be left out.
        let length = tokens(&case["attention_mask"]).iter().filter(|mask| **mask == 1).count();
        let (ids, types) = (&tokens(&case["ids"])[..length], &tokens(&case["token_type_ids"])[..length]);
        let mut streams = Vec::new();
        model.run_segments(&mut arena, ids, types, &mut |_, states| streams.push(states.to_vec())).unwrap();
        let golden_streams = case["hidden"].as_array().unwrap();
        for (states, golden_stream) in streams.iter().zip(&golden_streams[1..]) {
            assert_stream(states, golden_stream, &golden["tolerances"], 0);
        }
        let mut logits = Vec::new();
        model.read_out(&mut arena, streams.last().unwrap(), &mut logits);
        let tolerance = golden["tolerances"]["logits_abs"].as_f64().unwrap() as f32;
        assert_near(&logits[256..512], &floats(&case["prediction_logits_position_1"]), tolerance, "logits");
        let argmax: Vec<u32> = logits.chunks(256).map(|row| kernels::argmax::argmax(row) as u32).collect();
        assert_eq!(argmax, tokens(&case["prediction_argmax_unmasked"]));
    }
}

#[test]
fn vit_meets_its_golden_and_is_written_back() {
    let Some(folder) = shared_model("tiny-vit") else { return };
    let model = Vit::load(&folder, Weights::Stored).unwrap();
    let written = tempfile::tempdir().unwrap();
    model.save(written.path()).unwrap();
    let again = Vit::load(written.path(), Weights::Stored).unwrap();
    let golden = golden(&folder, "golden.json");
    let mut arena = Arena::default();
    let cases = golden["cases"].as_array().unwrap();
    let inputs: Vec<Input> =
        cases.iter().map(|case| Input::Image(floats(&case["pixel_values_chw"]))).collect();
    for model in [model, again] {
        let mut streams = Vec::new();
        model.run(&mut arena, &inputs, &mut |_, states| streams.push(states.to_vec())).unwrap();
        for (index, case) in cases.iter().enumerate() {
            let golden_streams = case["hidden"].as_array().unwrap();
            for (states, golden_stream) in streams.iter().zip(&golden_streams[1..]) {
                assert_stream(&states[index * 17 * 32..], golden_stream, &golden["tolerances"], 0);
            }
            let mut logits = Vec::new();
            model.read_out(&mut arena, &streams.last().unwrap()[index * 17 * 32..][..32], &mut logits);
            let tolerance = golden["tolerances"]["logits_abs"].as_f64().unwrap() as f32;
            assert_near(&logits, &floats(&case["logits"]), tolerance, "logits");
        }
    }
}

#[test]
fn vit_learns_to_tell_two_images_apart() {
    let config = VitConfig {
        width: 16,
        layers: 2,
        heads: 2,
        ffn: 32,
        side: 4,
        patch: 2,
        channels: 1,
        classes: 3,
        epsilon: 1e-6,
    };
    let mut model = Vit::random(config, 1).unwrap();
    let images = [vec![0.5; 16], (0..16).map(|i| i as f32 / 8.0 - 1.0).collect::<Vec<f32>>()];
    let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let (mut gradients, mut arena) = (Gradients::new(&model.params), Arena::default());
    let mut optimiser = tensor::Optimiser::new(&model.params, tensor::Decay::Matrices);
    let rule = tensor::AdamW { learning_rate: 0.01, ..tensor::AdamW::default() };
    let mut losses = Vec::new();
    for _ in 0..30 {
        gradients.clear();
        losses.push(model.gradients(&mut gradients, &mut arena, &images, &[0, 2]).nll);
        optimiser.update(&mut model.params, &gradients, rule, 1.0);
    }
    assert!(losses[29] < 0.2 * losses[0], "{losses:?}");
    let mut states = Vec::new();
    let inputs: Vec<Input> = images.iter().map(|image| Input::Image(image.to_vec())).collect();
    model.run(&mut arena, &inputs, &mut |_, rows| states = rows.to_vec()).unwrap();
    let mut logits = Vec::new();
    model.read_out(&mut arena, &[&states[..16], &states[5 * 16..6 * 16]].concat(), &mut logits);
    assert_eq!([kernels::argmax::argmax(&logits[..3]), kernels::argmax::argmax(&logits[3..])], [0, 2]);
}

#[test]
fn whisper_meets_its_golden() {
    let Some(folder) = shared_model("tiny-whisper") else { return };
    let model = Whisper::load(&folder, Weights::Stored).unwrap();
    let golden = golden(&folder, "golden.json");
    let mut arena = Arena::default();
    for case in golden["cases"].as_array().unwrap() {
        let mel = floats(&case["input_features_mel_by_frame"]);
        let mut streams = Vec::new();
        let memory = model.encode(&mut arena, &mel, &mut |_, states| streams.push(states.to_vec())).unwrap();
        streams.push(memory.clone());
        let ids = tokens(&case["decoder_ids"]);
        let input = Input::Speech { memory: memory.clone(), tokens: ids.clone() };
        let mut decoder = Vec::new();
        model.run(&mut arena, &[input], &mut |_, states| decoder.push(states.to_vec())).unwrap();
        let golden_streams = case["hidden"].as_array().unwrap();
        let expected = golden_streams.iter().filter(|stream| stream["after"] != "decoder block input");
        for (states, golden_stream) in streams.iter().chain(&decoder).zip(expected) {
            let last = tokens(&golden_stream["shape"])[0] as usize - 1;
            assert_stream(states, golden_stream, &golden["tolerances"], last);
        }
        let mut logits = Vec::new();
        model.read_out(&mut arena, &decoder.last().unwrap()[(ids.len() - 1) * 32..], &mut logits);
        let tolerance = golden["tolerances"]["logits_abs"].as_f64().unwrap() as f32;
        assert_near(&logits, &floats(&case["last_logits"]), tolerance, "logits");
        let expected = tokens(&case["greedy_ids"]);
        assert_eq!(model.greedy(&mut arena, &memory, &ids, expected.len()).unwrap(), expected);
    }
}

#[test]
fn the_keyword_transformer_meets_its_golden_from_the_wave_on() {
    let Some(folder) = shared_model("kwt1") else { return };
    let model = Keyword::load(&folder, Weights::Stored).unwrap();
    let golden = golden(&folder, "golden_logits.json");
    let tolerance = |name: &str| golden["tolerances"][name].as_f64().unwrap() as f32;
    let mut arena = Arena::default();
    for (clip, case) in golden["clips"].as_object().unwrap() {
        let bytes = fs::read(folder.join(clip)).unwrap();
        let samples: Vec<f32> =
            bytes[44..].chunks(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect();
        let features = model.features(&samples);
        assert_near(&features[..40], &floats(&case["mfcc_first_frame"]), tolerance("mfcc_abs"), clip);
        assert_near(&features[97 * 40..], &floats(&case["mfcc_last_frame"]), tolerance("mfcc_abs"), clip);
        let mut class_rows = Vec::new();
        model
            .run(&mut arena, &[Input::Sound(features)], &mut |_, states| {
                class_rows.push(states[..64].to_vec())
            })
            .unwrap();
        let (mut logits, mut top) = (Vec::new(), Vec::new());
        for (layer, row) in class_rows.iter().enumerate() {
            let expected = floats(&case["cls_first8_after"][layer + 1]);
            assert_near(&row[..8], &expected, tolerance("hidden_abs"), clip);
            model.read_out(&mut arena, row, &mut logits);
            top.push(kernels::argmax::argmax(&logits) as u32);
        }
        assert_near(&logits, &floats(&case["logits"]), tolerance("logits_abs"), clip);
        assert_eq!(top, tokens(&case["head_top1_after"])[1..], "{clip}");
        assert_eq!(model.config.labels[top[11] as usize], case["top1"].as_str().unwrap());
    }
}

/// The lens at the last layer is the model: logits of the read-out are those of the golden, and so is every layer's top 5.
#[test]
fn the_lens_of_a_decoder_meets_its_golden() {
    let Some(folder) = shared_model("stories260k") else { return };
    let config = checkpoint::read_config(&folder).unwrap();
    let params = checkpoint::read_params(&folder, &config).unwrap();
    let model = DecoderTaps { decoder: Decoder::find(&config, &params).unwrap(), params };
    let lens = &golden(&folder, "golden.json")["logit_lens"];
    let input = Input::Tokens(tokens(&lens["ids"]));
    let mut streams = Vec::new();
    let mut arena = Arena::default();
    model.run(&mut arena, &[input], &mut |_, states| streams.push(states.to_vec())).unwrap();
    let mut logits = Vec::new();
    for (states, golden_layer) in streams.iter().zip(&lens["layers"].as_array().unwrap()[1..]) {
        model.read_out(&mut arena, states, &mut logits);
        for (row, logits) in logits.chunks(512).enumerate() {
            let ids = tokens(&golden_layer["top5_ids"][row]);
            let found: Vec<f32> = ids.iter().map(|id| logits[*id as usize]).collect();
            assert_near(&found, &floats(&golden_layer["top5_logits"][row]), 1e-3, "top 5");
        }
    }
}

#[test]
fn random_weights_need_no_file_of_weights_and_repeat() {
    for name in ["tiny-bert", "tiny-vit", "tiny-whisper", "kwt1"] {
        let Some(shared) = shared_model(name) else { return };
        let folder = tempfile::tempdir().unwrap();
        fs::copy(shared.join("config.json"), folder.path().join("config.json")).unwrap();
        let load = |seed| -> Box<dyn Taps> {
            let (folder, weights) = (folder.path(), Weights::Random(seed));
            match kind_of(folder).unwrap() {
                Kind::Bert => Box::new(Bert::load(folder, weights).unwrap()),
                Kind::Vit => Box::new(Vit::load(folder, weights).unwrap()),
                Kind::Whisper => Box::new(Whisper::load(folder, weights).unwrap()),
                Kind::Keyword => Box::new(Keyword::load(folder, weights).unwrap()),
                Kind::Decoder => panic!("{name} is no decoder"),
            }
        };
        let logits = |model: &dyn Taps| {
            let states: Vec<f32> = (0..model.sizes().width).map(|i| (i as f32).sin()).collect();
            let mut logits = Vec::new();
            model.read_out(&mut Arena::default(), &states, &mut logits);
            logits
        };
        assert_eq!(logits(&*load(1)), logits(&*load(1)), "{name}");
        assert_ne!(logits(&*load(1)), logits(&*load(2)), "{name}");
    }
}

#[test]
fn what_a_model_cannot_do_is_said() {
    let Some(shared) = shared_model("tiny-bert") else { return };
    let folder = tempfile::tempdir().unwrap();
    let refusal = |change: Value| {
        let mut config = golden(&shared, "config.json");
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        match Bert::load(folder.path(), Weights::Random(1)) {
            Ok(_) => panic!("{change} was accepted"),
            Err(error) => error.to_string(),
        }
    };
    assert!(refusal(json!({"architectures": ["BertModel"]})).contains("head of BertForPreTraining"));
    assert!(refusal(json!({"position_embedding_type": "relative_key"})).contains("absolute"));
    assert!(refusal(json!({"num_attention_heads": 5})).contains("5 heads"));
    assert!(refusal(json!({"frobnication": 3})).contains("frobnication"));
    let model = Bert::load(&shared, Weights::Stored).unwrap();
    let run = |ids: Vec<u32>| model.run(&mut Arena::default(), &[Input::Tokens(ids)], &mut |_, _| {});
    assert!(run(vec![300]).unwrap_err().to_string().contains("token 300"));
    assert!(run(vec![1; 65]).unwrap_err().to_string().contains("context is 64"));
}

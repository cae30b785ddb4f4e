//! Joint heads through the command line: train, resume, draft, verify; and the task with a known optimum.

use crate::support::{CHECKPOINT, Place, training, training_from};

/// Three tokens together, in two states.
fn joint() -> Vec<&'static str> {
    vec!["objective.kind=joint", "objective.rank=2", "objective.n=3"]
}

#[test]
fn joint_heads_train_draft_and_verify() {
    let place = Place::trained(&joint());
    let mtp: serde_json::Value =
        serde_json::from_slice(&place.read(&format!("{CHECKPOINT}/mtp.json"))).unwrap();
    assert_eq!((&mtp["kind"], &mtp["joint"]["rank"]), (&"joint".into(), &2.into()));
    let text = |draft: &str| {
        let drafting = ["--max-new-tokens", "30", "--ignore-end", "--draft", draft];
        place.succeeds(&[&["generate", CHECKPOINT, "--prompt", "the fox"], &drafting[..]].concat())
    };
    assert_eq!(text("joint"), text("none"));
    place.refuses(&["generate", CHECKPOINT, "--draft", "heads"], &["--draft heads", "no parallel heads"]);
    let verified = place.json(&["verify", CHECKPOINT, "--max-new-tokens", "12", "--draws", "150"]);
    assert_eq!((&verified["holds"], &verified["draft_lengths"]), (&true.into(), &2.into()));
    let evaluated = place.json(&["eval", CHECKPOINT, "--data", "text.jsonl", "--length", "32"]);
    let losses: Vec<f64> =
        evaluated["loss"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 4, "the next token, and three depths together");
    let joint = evaluated["joint_loss"].as_f64().unwrap();
    assert!((losses[1..].iter().sum::<f64>() - joint).abs() < 1e-9);
    assert_eq!(evaluated["usage"].as_array().map(Vec::len), Some(2));
    let events = String::from_utf8(place.read("run/events.jsonl")).unwrap();
    assert!(events.contains("\"usage_entropy\":") && events.contains("\"joint_loss\":"), "{events}");
}

#[test]
fn joint_heads_on_a_frozen_model_and_on_another_one() {
    let place = Place::trained(&[]);
    let frozen = |folder: &'static str, more: &[&'static str]| {
        let own = ["train.mode=heads", folder, "model.init=run/checkpoints/last"];
        [training_from(&own), joint(), more.to_vec()].concat()
    };
    place.succeeds(&frozen("run.folder=frozen", &["objective.joint=tree"]));
    let trunk = |folder: &str| place.read(&format!("{folder}/model.safetensors"));
    assert_eq!(trunk("frozen/checkpoints/last"), trunk(CHECKPOINT));
    // From what the model itself says, and from states that are kept.
    let distilled =
        ["objective.distill=0.5", "train.cache_states=true", "data.cache=states", "train.steps=8"];
    // So many rows will run through the frozen model: two a step, and none of those that have.
    let to_keep = |folder: &'static str, more: &[&'static str]| {
        place.json(&frozen(folder, &[more, &["--dry-run"]].concat()))["rows_to_keep"].clone()
    };
    assert_eq!(to_keep("run.folder=distilled", &distilled), 16);
    assert!(to_keep("run.folder=distilled", &[]).is_null() && !place.exists("states"));
    place.succeeds(&frozen("run.folder=distilled", &distilled));
    assert_eq!(to_keep("run.folder=after", &distilled), 0);
    assert_eq!(to_keep("run.folder=after", &[&distilled[..], &["train.steps=10"]].concat()), 4);
    assert_eq!(trunk("distilled/checkpoints/last"), trunk(CHECKPOINT));
    // Heads of the same shape go on; of another shape they are new.
    let again = |rank: &'static str, folder: &'static str| {
        let own =
            ["train.mode=heads", folder, "model.init=frozen/checkpoints/last", "objective.joint=tree", rank];
        place.succeeds(&[training_from(&own), vec!["objective.kind=joint", "objective.n=3"]].concat())
    };
    again("objective.rank=2", "run.folder=again");
    again("objective.rank=3", "run.folder=more");
    // A checkpoint whose model was exchanged is refused.
    place.copy_checkpoint("frozen/checkpoints/last", "exchanged");
    place.train(&["run.folder=other", "run.seed=7"]);
    fs_err::copy(
        place.path("other/checkpoints/last/model.safetensors"),
        place.path("exchanged/model.safetensors"),
    )
    .unwrap();
    place.refuses(&["verify", "exchanged"], &["mtp.json"]);
}

#[test]
fn bad_settings_of_joint_heads_are_refused() {
    let place = Place::new();
    let refuses = |setting: &str, words: &[&str]| {
        place.refuses(&[training(&["objective.kind=joint"]), vec![setting]].concat(), words);
    };
    refuses("objective.rank=0", &["objective.rank", "0"]);
    refuses("objective.n=0", &["objective.n is 0: give 1 to 64"]);
    refuses("objective.balance=-1", &["objective.balance"]);
    refuses("objective.weights=[1.0]", &["objective.weights", "1 weights for 4 depths"]);
    refuses("objective.distill=1.5", &["objective.distill", "1.5"]);
    refuses("objective.rank=1000", &["objective.rank", "1000"]);
    refuses("train.cache_states=true", &["train.cache_states", "heads"]);
    place.write("short.jsonl", "{\"text\": \"abc\"}\n".repeat(20));
    let longer = ["objective.kind=joint", "objective.n=12", "data.train=short.jsonl"];
    place.refuses(&training(&longer), &["12"]);
}

#[test]
fn a_planted_mixture_comes_with_its_optimum() {
    let place = Place::new();
    let small = ["--train", "50", "--held-out", "20", "--restarts", "1", "--output", "planted"];
    let generate = [&["data", "generate", "planted-mixture"], &small[..]].concat();
    let told = place.json(&generate);
    let gap: Vec<f64> = told["gap"].as_array().unwrap().iter().map(|gap| gap.as_f64().unwrap()).collect();
    assert!(gap[0] > gap[1] && gap[1] > gap[2] && gap[2] > gap[3] && gap[3] == 0.0, "{gap:?}");
    let lines = String::from_utf8(place.read("planted/train.jsonl")).unwrap();
    assert!(
        lines.lines().count() == 50 && lines.lines().all(|line| line.len() == "{\"text\":\"abcd\"}".len())
    );
    assert!(place.exists("planted/held-out.jsonl") && place.exists("planted/optimum.json"));
    place.refuses(&generate, &["planted exists"]);
    let none = ["data", "generate", "planted-mixture", "--output", "none", "--train", "0"];
    place.refuses(&none, &["--train 0"]);
}

//! Prompts and answers: tasks, conversations, registers, adapters, and what cannot be learnt from.

use crate::support::{CHECKPOINT, Place, training, training_from};

const GRAPHS: &[&str] = &[
    "data",
    "generate",
    "star-graph",
    "--output",
    "graphs",
    "--nodes",
    "12",
    "--length",
    "4",
    "--train",
    "60",
    "--test",
    "8",
];

const ON_GRAPHS: &[&str] = &[
    "data.examples=prompts",
    "data.train=graphs/train.txt",
    "data.held_out=graphs/test.txt",
    "data.tokenizer=graphs",
    "objective.kind=registers",
    "objective.d_min=2",
];

#[test]
fn a_task_is_drawn_trained_with_registers_and_answered() {
    let place = Place::new();
    let drawn = place.json(GRAPHS);
    assert_eq!((drawn["training"].as_u64(), drawn["test"].as_u64()), (Some(60), Some(8)));
    place.refuses(GRAPHS, &["graphs exists"]);
    let again: Vec<&str> = GRAPHS.iter().map(|&word| if word == "graphs" { "again" } else { word }).collect();
    place.succeeds(&again);
    for file in ["train.txt", "test.txt", "tokenizer.json"] {
        assert_eq!(place.read(&format!("graphs/{file}")), place.read(&format!("again/{file}")));
    }
    let shown = place.json(&[&["data", "show", "run.toml", "--rows", "1"], ON_GRAPHS].concat());
    let tokens = shown["rows"][0].as_array().unwrap();
    let learnt: Vec<bool> = tokens.iter().map(|token| token["target"] == true).collect();
    // The first graph of the row: 6 edges and the question, then the path and its end.
    assert!(
        learnt[..21].iter().all(|&learnt| !learnt) && learnt[21..26].iter().all(|&learnt| learnt),
        "{learnt:?}"
    );
    let registers = |token: usize| tokens[token]["registers"].as_array().unwrap().len();
    assert_eq!((registers(19), registers(20)), (0, 1));

    place.train(ON_GRAPHS);
    let answered = place.json(&["eval", CHECKPOINT, "--data", "graphs/test.txt", "--task", "exact-match"]);
    assert_eq!((answered["answered"].as_u64(), answered["task"].as_str()), (Some(8), Some("exact-match")));
    let few = ["eval", CHECKPOINT, "--data", "graphs/test.txt", "--task", "exact-match", "--count", "2"];
    assert_eq!(place.json(&few)["answered"], 2);
    // However many are answered together, the answers are the same.
    let all = ["eval", CHECKPOINT, "--data", "graphs/test.txt", "--task", "exact-match", "--show-wrong", "8"];
    let together = |batch: &'static str| place.json(&[&all[..], &["--batch", batch]].concat());
    assert_eq!(together("1"), together("3"));
    place.refuses(&[&all[..], &["--batch", "0"]].concat(), &["--batch 0"]);
    place.succeeds(&["generate", CHECKPOINT, "--prompt", "1,2|3,4/1,2=", "--max-new-tokens", "3"]);
}

#[test]
fn every_task_is_drawn() {
    let place = Place::new();
    for task in ["addition", "polynomial", "induction"] {
        let arguments = ["data", "generate", task, "--output", task, "--train", "5", "--test", "3"];
        let drawn = place.json(&arguments);
        assert!(drawn["first"].as_str().unwrap().contains('='), "{drawn}");
        let lines = String::from_utf8(place.read(&format!("{task}/test.txt"))).unwrap().lines().count();
        assert_eq!(lines, 3);
    }
    let none = ["data", "generate", "addition", "--digits", "1", "--output", "x"];
    place.refuses(&none, &["different examples"]);
    let nodes = ["data", "generate", "star-graph", "--nodes", "5", "--output", "x"];
    place.refuses(&nodes, &["9 nodes, and there are 5"]);
    place.refuses(
        &[GRAPHS, &["--chains", "60", "--hide-start", "41"]].concat(),
        &["60 % chains", "100 percent"],
    );
    assert!(!place.exists("x") && !place.exists("graphs"));
}

#[test]
fn starts_are_hidden_in_training_only() {
    let place = Place::new();
    place.succeeds(&[GRAPHS, &["--chains", "40", "--hide-start", "60"]].concat());
    let hidden = |file: &str| {
        let text = String::from_utf8(place.read(&format!("graphs/{file}"))).unwrap();
        text.lines().filter(|line| line.contains("/$,")).count()
    };
    assert_eq!((hidden("train.txt"), hidden("test.txt")), (60, 0));
}

#[test]
fn images_are_learnt_down_and_to_the_right() {
    let place = Place::new();
    // Ten images of 4 x 4, brighter from one to the next; labels 0, 1, 2, 0, ...
    let images: Vec<u8> = (0..10u8).flat_map(|image| [image * 25; 16]).collect();
    place.write(
        "images-idx3-ubyte",
        [&[0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 4], &images[..]].concat(),
    );
    let labels: Vec<u8> = (0..10u8).map(|image| image % 3).collect();
    let of_labels = [&[0, 0, 8, 1, 0, 0, 0, 10], &labels[..]].concat();
    let from =
        |images: &'static str| ["data", "generate", "image-grid", "--images", images, "--output", "none"];
    let few = ["--train", "4", "--test", "2"];
    place.refuses(&[&from("images-idx3-ubyte")[..], &few].concat(), &["image 1 has no class", "labels"]);
    place.write("labels-idx1-ubyte", of_labels);
    place.refuses(&[&from("labels-idx1-ubyte")[..], &few].concat(), &["holds labels"]);
    let grid = |train: &'static str| {
        let sizes = ["--side", "4", "--levels", "16", "--train", train, "--test", "2"];
        let images = ["data", "generate", "image-grid", "--images", "images-idx3-ubyte", "--output", "grid"];
        [&images[..], &sizes].concat()
    };
    place.refuses(&grid("9"), &["10 images", "--train 9"]);
    let drawn = place.json(&grid("8"));
    let first = drawn["first"].as_str().unwrap();
    let (class, cells) = first.split_once('=').unwrap();
    assert!((16..19).contains(&class.parse::<u32>().unwrap()) && cells.split(',').count() == 16, "{first}");
    let on_grid = [
        "data.examples=prompts",
        "data.train=grid/train.txt",
        "data.held_out=grid/test.txt",
        "data.tokenizer=grid",
        "objective.kind=registers",
        "objective.d_max=2",
        "objective.grid_width=4",
        "objective.row_end=drop",
        "model.architecture.grid_width=4",
    ];
    let shown = place.json(&[&["data", "show", "run.toml", "--rows", "1"], &on_grid[..]].concat());
    let offsets: Vec<u64> = shown["rows"][0]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|token| {
            token["registers"].as_array().unwrap().iter().filter_map(|register| register["offset"].as_u64())
        })
        .collect();
    assert!(!offsets.is_empty() && offsets.iter().all(|offset| [1, 4, 5].contains(offset)), "{offsets:?}");
    place.train(&on_grid);
    let config = String::from_utf8(place.read("run/checkpoints/last/config.json")).unwrap();
    assert!(config.contains("sakiyomi_image_grid"), "{config}");
    let other = [&on_grid[..], &["model.architecture.grid_width=1", "run.folder=wide"]].concat();
    place.refuses(&training(&other), &["objective.grid_width is 4, and model.architecture.grid_width is 1"]);
    let narrow = ["model.architecture.grid_width=1", "run.folder=wide"];
    place.refuses(&training(&narrow), &["1 cells in a row"]);
    let sheet = ["generate", CHECKPOINT, "--grid-sheet", "sheet.png", "--side", "4"];
    place.refuses(&sheet, &["--temperature 1"]);
    place.refuses(&[&sheet[..], &["--prompt", "16="]].concat(), &["--prompt"]);
    let drawing = [&sheet[..], &["--temperature", "1", "--samples", "2"]].concat();
    place.refuses(&[&drawing[..], &["--levels", "19"]].concat(), &["19 numbers", "--levels 19"]);
    let drawn = place.json(&drawing);
    assert_eq!((drawn["classes"].as_u64(), drawn["samples"].as_u64()), (Some(3), Some(2)), "{drawn}");
    assert!(place.read("sheet.png").starts_with(b"\x89PNG"));
    place.refuses(&drawing, &["sheet.png exists"]);
    let nowhere =
        ["generate", CHECKPOINT, "--grid-sheet", "no/sheet.png", "--side", "4", "--temperature", "1"];
    place.refuses(&nowhere, &["--grid-sheet no/sheet.png: there is no folder no"]);
    let wide = [&on_grid[..], &["objective.d_max=5", "run.folder=wide"]].concat();
    place.refuses(&training(&wide), &["objective.grid_width", "2 to 4"]);
}

#[test]
fn conversations_are_learnt_by_a_template() {
    let place = Place::new();
    place.succeeds(&["data", "tokenizer", "text.jsonl", "--size", "280", "--output", "tokenizer.json"]);
    let template = "{% for message in messages %}{{ message.role + ': ' + message.content + '<|end|>\\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    place.write("chat.jinja", template);
    let said = |role: &str, text: &str| format!(r#"{{"role": "{role}", "content": "{text}"}}"#);
    let conversation = |number: usize| {
        let (asked, answer) = (
            said("user", &format!("the {number}?")),
            said("assistant", "a hill, and rain, and nobody else did"),
        );
        format!("{{\"messages\": [{asked}, {answer}]}}\n")
    };
    place.write("chat.jsonl", (0..30).map(conversation).collect::<String>());
    let chat = [
        "data.train=chat.jsonl",
        "train.length=120",
        "data.examples=messages",
        "data.tokenizer=tokenizer.json",
        "data.chat_template=chat.jinja",
        "objective.kind=registers",
    ];
    place.train(&chat);
    assert_eq!(place.read("run/checkpoints/last/chat_template.jinja"), template.as_bytes());
    let asked =
        place.succeeds(&["generate", CHECKPOINT, "--chat", "--prompt", "the 3?", "--max-new-tokens", "4"]);
    assert!(!asked.is_empty());

    let refuses = |line: &str, words: &[&str]| {
        place.write("bad.jsonl", format!("{}{line}\n", conversation(1)));
        place.refuses(&training(&[&chat[..], &["data.train=bad.jsonl", "run.folder=bad"]].concat()), words);
    };
    refuses(&format!("{{\"messages\": [{}]}}", said("user", "a")), &["bad.jsonl:2", "no answer"]);
    refuses(
        &format!("{{\"messages\": [{}]}}", said("assistant", "a")),
        &["bad.jsonl:2", "roles out of order"],
    );
    refuses("{\"messages\": 3}", &["bad.jsonl:2", "no list"]);
    refuses("{\"text\": \"a\"}", &["bad.jsonl:2", "no field \"messages\""]);
    place.write("raising.jinja", "{{ raise_exception('no such role') }}");
    let raising = ["data.chat_template=raising.jinja", "run.folder=bad"];
    place.refuses(&training(&[&chat[..], &raising].concat()), &["chat.jsonl:1", "no such role"]);
    // A template that was exchanged after training.
    place.write("run/checkpoints/last/chat_template.jinja", "{{ messages }}");
    place.refuses(&["generate", CHECKPOINT, "--prompt", "a"], &["chat template", "another one"]);
}

#[test]
fn adapters_are_trained_merged_and_refused() {
    let place = Place::trained(&["objective.kind=next-token", "run.folder=base"]);
    let base = "model.init=base/checkpoints/last";
    let lora = [base, "train.mode=lora", "lora.rank=2", "lora.targets=[\"q_proj\", \"down_proj\"]"];
    place.succeeds(&training_from(&lora));
    assert!(place.exists("run/checkpoints/last/adapter/adapter_config.json"));
    let merged = place.json(&["merge", CHECKPOINT, "--output", "merged"]);
    assert_eq!(merged["merged"].as_array().unwrap().len(), 4);
    assert!(place.exists("merged/model.safetensors") && !place.exists("merged/adapter"));
    let text =
        |folder: &str| place.succeeds(&["generate", folder, "--prompt", "the", "--max-new-tokens", "8"]);
    text("merged");
    text(CHECKPOINT);
    place.refuses(&["merge", "merged", "--output", "twice"], &["has no adapter"]);
    place.refuses(&["merge", CHECKPOINT, "--output", "merged"], &["merged exists"]);
    let other = ["merge", "merged", "--adapter", "run/checkpoints/last/adapter", "--output", "twice"];
    place.refuses(&other, &["other weights"]);
    let none = [base, "train.mode=lora", "lora.targets=[\"query\"]", "run.folder=none"];
    place.refuses(&training_from(&none), &["\"query\" matches nothing", "q_proj"]);
}

#[test]
fn examples_without_an_answer_long_enough_are_refused() {
    let place = Place::new();
    place.write("short.txt", (0..20).map(|number| format!("{number}=1\n")).collect::<String>());
    let short = [
        "data.train=short.txt",
        "data.examples=prompts",
        "objective.kind=registers",
        "objective.d_min=6",
        "objective.d_max=8",
    ];
    place.refuses(&training(&short), &["objective.d_max is 8", "the longest answer has 2 tokens"]);
    let sparse = ["data.train=short.txt", "data.examples=prompts", "objective.kind=registers"];
    let sparse = [&sparse[..], &["objective.d_min=2", "objective.d_max=2", "objective.density=0.1"]].concat();
    let none = ["objective.density is 0.1", "the longest answer, which has room for 1", "give at least 0.5"];
    place.refuses(&training(&sparse), &none);
    let late = ["objective.kind=registers", "train.steps=6", "objective.curriculum_steps=6"];
    place.refuses(&training(&late), &["objective.curriculum_steps is 6", "the run has 6 steps"]);
    let exits = ["model.architecture.layers=2", "train.exit_weight=0.3"];
    place.refuses(&training(&exits), &["train.exit_weight", "of 2 there is none"]);
    place.write("short.txt", "no answer here\n");
    place.refuses(&training(&short), &["short.txt:1", "\"=\""]);
    place.refuses(&training(&["objective.kind=registers", "objective.d_max=0"]), &["objective.d_max is 0"]);
    place.refuses(
        &training(&["objective.kind=registers", "objective.register_weight=1"]),
        &["objective.register_weight is 1"],
    );
    place.refuses(&training(&["data.examples=messages"]), &["data.chat_template is needed"]);
}

//! A sweep from its file to its tables: what is done is not done again, and what fails ends nothing.

use serde_json::Value;

use crate::support::{Place, stderr};

/// Sizes for a moment of training, on the text of the place.
const SETTINGS: &str = "\
[settings]
data.train = \"text.jsonl\"
model.architecture = { width = 16, layers = 2, heads = 2, ffn = 32, context = 128 }
run.threads = 1
train = { steps = 3, batch = 2, length = 32, warmup_steps = 1 }
evaluation = { every = 0, batches = 1 }
objective.n = 3
[measure]
batches = 2
prompts = 2
prompt_tokens = 8
new_tokens = 8
";

const GRID: &str = "seeds = [1, 2]\n[grid]\nobjective.head = [\"linear\", \"layer\"]\n";

fn place(sweep: &str) -> Place {
    let place = Place::new();
    place.write("sweep.toml", format!("{sweep}{SETTINGS}"));
    place
}

/// Heads and rows of a table of the sweep.
fn table(place: &Place, name: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let text = String::from_utf8(place.read(&format!("runs/sweep/{name}"))).unwrap();
    let mut rows = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<String>>());
    (rows.next().unwrap(), rows.collect())
}

/// The value of a column in a row, as a number.
fn number(table: &(Vec<String>, Vec<Vec<String>>), row: usize, column: &str) -> f64 {
    let value = cell(table, row, column);
    value.parse().unwrap_or_else(|_| panic!("{column} is {value:?}"))
}

/// The cell of a column in a row, as it stands there.
fn cell<'a>((heads, rows): &'a (Vec<String>, Vec<Vec<String>>), row: usize, column: &str) -> &'a str {
    let index = heads.iter().position(|head| head == column);
    &rows[row][index.unwrap_or_else(|| panic!("{column} in {heads:?}"))]
}

#[test]
fn a_grid_ends_in_one_table_and_is_not_done_twice() {
    let place = place(GRID);
    let planned = place.succeeds(&["sweep", "sweep.toml", "--dry-run"]);
    assert!(planned.contains("head=layer seed=2") && !place.exists("runs"), "{planned}");
    let told = place.succeeds(&["sweep", "sweep.toml"]);
    assert!(told.contains("head=linear") && told.contains(" ± ") && told.contains("identical"), "{told}");
    assert!(told.contains("4 done (0 before), 0 failed, 0 left"), "{told}");

    let (runs, summary) = (table(&place, "runs.csv"), table(&place, "summary.csv"));
    assert_eq!((runs.1.len(), summary.1.len()), (4, 2));
    // Seed 1 of both variants, then seed 2: rows 0 and 2 are of the first variant.
    let (one, two) = (number(&runs, 0, "loss_1"), number(&runs, 2, "loss_1"));
    let mean = f64::midpoint(one, two);
    assert!((number(&summary, 0, "loss_1_mean") - mean).abs() < 1e-12);
    assert!((number(&summary, 0, "loss_1_sd") - (one - two).abs() / 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(number(&runs, 0, "tokens_seen"), 3.0 * 2.0 * 32.0);
    for column in ["bits_per_byte_3", "tokens_per_forward_2", "speedup_2", "training_seconds", "seed"] {
        assert!(number(&runs, 3, column) > 0.0, "{column}");
    }
    assert!(number(&runs, 1, "head_parameters") > number(&runs, 0, "head_parameters"));
    let page = String::from_utf8(place.read("runs/sweep/report.html")).unwrap();
    assert!(page.contains("Tokens per forward against draft length") && page.contains("head=layer"));

    place.remove("runs/sweep/runs.csv");
    let again = place.json(&["sweep", "sweep.toml"]);
    assert_eq!((&again["done"], &again["skipped"], &again["left"]), (&4.into(), &4.into(), &0.into()));
    assert_eq!(table(&place, "runs.csv"), runs);
    let more = place.json(&["sweep", "sweep.toml", "--set", "seeds=[1,2,3]", "--only", "head=linear"]);
    assert_eq!((&more["done"], &more["skipped"]), (&3.into(), &2.into()));
    let shown = place.succeeds(&["sweep", "sweep.toml", "--set", "seeds=[3,4]", "--report-only"]);
    assert!(shown.contains("1 done (1 before), 0 failed, 3 left"), "{shown}");
    // Other measurements need no other training.
    let before = place.read("runs/sweep/runs.csv");
    place.succeeds(&["sweep", "sweep.toml", "--only", "head=linear seed=1", "--set", "measure.prompts=1"]);
    assert_ne!(place.read("runs/sweep/runs.csv"), before);
    assert_eq!(fs_err::read_dir(place.path("runs/sweep/runs")).unwrap().count(), 5);
}

#[test]
fn whole_answers_are_counted() {
    let place = place("");
    // One answer is learnt at once, and it is right three times out of four.
    place.write("train.txt", (0..40).map(|line| format!("{line}=yes\n")).collect::<String>());
    place.write("test.txt", "50=yes\n51=no\n52=yes\n53=yes\n");
    let answers = [
        "settings.data={ examples = \"prompts\", train = \"train.txt\", held_out = \"test.txt\" }",
        "settings.objective={ kind = \"next-token\" }",
        "settings.train.steps=100",
        "settings.train.learning_rate=1e-2",
        "settings.evaluation.batches=0",
        "measure={ prompts = 0 }",
    ];
    let mut words = vec!["sweep", "sweep.toml"];
    answers.iter().for_each(|value| words.extend(["--set", value]));
    assert!(place.succeeds(&words).contains("0.750"));
    assert_eq!(number(&table(&place, "runs.csv"), 0, "answers"), 0.75);
    assert_eq!(number(&table(&place, "summary.csv"), 0, "answers_mean"), 0.75);
}

/// Registers held out on answers of three letters and an end: one that looks six tokens ahead finds no target.
const REGISTERS: &[&str] = &[
    "sweep",
    "sweep.toml",
    "--set",
    "settings.data={ examples = \"prompts\", train = \"long.txt\", held_out = \"short.txt\" }",
    "--set",
    "settings.objective={ kind = \"registers\", d_max = 6 }",
    "--set",
    "measure={ prompts = 0 }",
];

fn swept_registers(more: &[&str]) -> Place {
    let place = place("seeds = [1, 2]\n");
    let answers = |answer: &str| (0..40).map(|line| format!("{line}={answer}\n")).collect::<String>();
    place.write("long.txt", answers("yesterday"));
    place.write("short.txt", answers("yes"));
    place.succeeds(&[REGISTERS, more].concat());
    place
}

#[test]
fn a_loss_without_targets_is_no_loss_of_zero() {
    let place = swept_registers(&[]);
    let (runs, summary) = (table(&place, "runs.csv"), table(&place, "summary.csv"));
    for row in 0..2 {
        for depth in 1..=7 {
            let targets = number(&runs, row, &format!("targets_{depth}"));
            for name in ["loss", "bits_per_byte", "accuracy"] {
                let value = cell(&runs, row, &format!("{name}_{depth}"));
                assert_eq!(value.is_empty(), targets == 0.0, "{name}_{depth} is {value:?} of {targets}");
            }
        }
        assert!(number(&runs, row, "loss_2") > 0.0, "one token ahead there are targets");
        assert_eq!(cell(&runs, row, "loss_7"), "", "six tokens ahead there are none");
    }
    assert_eq!(cell(&summary, 0, "loss_7_mean"), "");
}

#[test]
fn losses_of_registers_are_told_by_their_offsets() {
    let place = swept_registers(&["--set", "settings.objective.d_min=3"]);
    for name in ["runs.csv", "summary.csv"] {
        assert_eq!(cell(&table(&place, name), 0, "tokens_ahead"), "1 3 4 5 6", "{name}");
    }
    let page = String::from_utf8(place.read("runs/sweep/report.html")).unwrap();
    assert!(page.contains("Loss by tokens ahead") && !page.contains("each head"));
    assert!(page.contains(" at 3.00</title>") && !page.contains(" at 2.00</title>"));
}

#[test]
fn the_page_tells_the_threads_of_its_runs() {
    let place = swept_registers(&["--threads", "3"]);
    assert_eq!(cell(&table(&place, "runs.csv"), 0, "threads"), "3");
    let page = String::from_utf8(place.read("runs/sweep/report.html")).unwrap();
    assert!(page.contains(" cores, 3 used"), "{page}");
    // Whatever makes the page anew.
    place.succeeds(&[REGISTERS, &["--report-only", "--threads", "5"]].concat());
    assert_eq!(String::from_utf8(place.read("runs/sweep/report.html")).unwrap(), page);
}

#[test]
fn results_of_older_versions_are_read_with_what_their_events_tell() {
    let place = swept_registers(&[]);
    let runs = table(&place, "runs.csv");
    let folders: Vec<_> = fs_err::read_dir(place.path("runs/sweep/runs")).unwrap().collect();
    for folder in folders {
        let file = folder.unwrap().path().join("result.json");
        let mut result: Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
        for new in ["tokens_ahead", "threads"] {
            result.as_object_mut().unwrap().remove(new).unwrap();
        }
        fs_err::write(file, result.to_string()).unwrap();
    }
    place.succeeds(&[REGISTERS, &["--report-only"]].concat());
    assert_eq!(table(&place, "runs.csv"), runs);
}

#[test]
fn what_fails_is_told_and_the_others_go_on() {
    let place = place(
        "[variants.head.bad]\nobjective.head = \"anticausal\"\n[variants.head.after]\nmodel.init = \"run:head=bad\"\n\
         train.mode = \"full\"\n[variants.head.good]\nobjective.head = \"linear\"\n",
    );
    // `after` takes the sizes of what it starts from.
    let text = String::from_utf8(place.read("sweep.toml")).unwrap();
    let sizes = "model.architecture = { width = 16, layers = 2, heads = 2, ffn = 32, context = 128 }\n";
    let of = |head: &str, text: &str| {
        text.replace(&format!("[variants.head.{head}]\n"), &format!("[variants.head.{head}]\n{sizes}"))
    };
    place.write("sweep.toml", of("good", &of("bad", &text.replace(sizes, ""))));
    let output = place.run(&["sweep", "sweep.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["done"], &told["finished"], &told["left"]),
        (&1.into(), &true.into(), &0.into()),
        "{told}"
    );
    let failure = |index: usize| told["failures"][index]["reason"].as_str().unwrap().to_owned();
    assert!(failure(0).contains("anticausal heads are the last 3 blocks"), "{told}");
    assert!(failure(1).contains("starts from head=bad seed=1, which has no result"), "{told}");
    let rows = table(&place, "runs.csv").1;
    assert_eq!(rows.len(), 3);
    assert!(rows[1][1].contains("anticausal"), "{rows:?}");
}

#[test]
fn what_is_measured_must_fit_before_anything_is_trained() {
    let refused = place("");
    let long = ["sweep", "sweep.toml", "--set", "measure.new_tokens=120"];
    refused.refuses(&long, &["measure.prompt_tokens 8 and measure.new_tokens 120 take 129 positions", "128"]);
    assert!(!refused.exists("runs/sweep/runs"));
    refused.succeeds(&["sweep", "sweep.toml", "--set", "measure.new_tokens=119"]);
}

/// Whoever reads the table may go away; that a run failed is told all the same.
#[cfg(unix)]
#[test]
fn a_closed_pipe_hides_no_verdict() {
    let place = place("[variants.head.bad]\nobjective.head = \"anticausal\"\n");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .current_dir(place.path(""))
        .args(["sweep", "sweep.toml"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn runs_start_from_runs_and_texts_are_made() {
    let place = place(
        "[text.tales]\ntales_bytes = 20000\n[variants.method.base]\nobjective.kind = \"next-token\"\n\
         model.architecture = { width = 16, layers = 2, heads = 2, ffn = 32, context = 128 }\n\
         [variants.method.frozen]\nmodel.init = \"run:method=base\"\ntrain.mode = \"heads\"\n",
    );
    let text = String::from_utf8(place.read("sweep.toml")).unwrap();
    let (head, settings) = text.split_once("[settings]").unwrap();
    let settings: String =
        settings.lines().filter(|line| !line.starts_with("model.")).map(|line| format!("{line}\n")).collect();
    place.write(
        "sweep.toml",
        format!("{head}[settings]{}", settings.replace("\"text.jsonl\"", "\"text:tales\"")),
    );
    let told = place.json(&["sweep", "sweep.toml", "--only", "frozen"]);
    assert_eq!(told["done"], 2, "with the run that it starts from: {told}");
    let runs = table(&place, "runs.csv");
    assert_eq!(number(&runs, 0, "loss_1"), number(&runs, 1, "loss_1"), "a frozen model stays as it is");
    assert!(number(&runs, 1, "loss_3") > 0.0);
    assert_eq!(number(&runs, 0, "depths"), 1.0);
}

#[test]
fn bad_sweep_files_are_one_line() {
    let refuses = |sweep: &str, words: &[&str]| {
        let place = place(sweep);
        place.refuses(&["sweep", "sweep.toml"], &[&["sweep.toml"], words].concat());
        assert!(!place.exists("runs"), "nothing was begun");
    };
    refuses("sedes = [1]\n", &["unknown key sedes; did you mean seeds?"]);
    refuses("[grid]\ntrain.steps = []\n", &["grid.train.steps is an empty list"]);
    refuses("[grid]\ntrain.stesp = [1]\n", &["unknown key train.stesp; did you mean train.steps?"]);
    refuses("[grid]\nobjective.head = [\"liner\"]\n", &["did you mean linear?"]);
    refuses("seeds = [1\n", &["line "]);
    refuses("seeds = []\n", &["seeds is an empty list"]);
    refuses(
        "[variants.stop.a]\ntrain = { tokens = 10, seconds = 3 }\n",
        &["train.tokens and train.seconds exclude each other"],
    );
    let place = place("base = \"nowhere.toml\"\n");
    place.refuses(&["sweep", "sweep.toml"], &["nowhere.toml"]);
    place.refuses(&["sweep", "nothing.toml"], &["nothing.toml"]);
    place.refuses(&["sweep", "sweep.toml", "--set", "base=run.toml", "--only", "zebra"], &["--only zebra"]);
    let missing = ["--set", "base=run.toml", "--set", "settings.data.train=gone.txt"];
    place.refuses(&[&["sweep", "sweep.toml"], &missing[..]].concat(), &["gone.txt is missing", "--set"]);
    let unset = ["--set", "base=run.toml", "--set", "settings.data.train=text:c", "--set"];
    let unset = [&["sweep", "sweep.toml"], &unset[..], &["text.c.files=[\"$SAKIYOMI_NOT_SET\"]"]].concat();
    place.refuses(&unset, &["text.c", "SAKIYOMI_NOT_SET is not set"]);
    place.refuses(
        &["sweep", "sweep.toml", "--report-only", "--output", "none", "--set", "base=run.toml"],
        &["no sweep in this folder"],
    );
}

#[cfg(unix)]
mod interrupted {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Longer than any machine needs for a few steps of a small model.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// So many steps that a run does not end while the test looks on.
    const LONG: &[&str] = &[
        "sweep",
        "sweep.toml",
        "--set",
        "settings.train.steps=400",
        "--set",
        "settings.checkpoint.every=10",
    ];

    fn begun(place: &Place) -> Child {
        let child = Command::new(assert_cmd::cargo::cargo_bin("sakiyomi"))
            .current_dir(place.path(""))
            .args(LONG)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while steps_done(place) < 12 {
            assert!(began.elapsed() < PATIENCE, "the run does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Steps that the events of all runs tell of.
    fn steps_done(place: &Place) -> usize {
        let Ok(runs) = fs_err::read_dir(place.path("runs/sweep/runs")) else { return 0 };
        runs.map(|run| fs_err::read_to_string(run.unwrap().path().join("events.jsonl")).unwrap_or_default())
            .map(|events| events.matches("\"event\":\"step\"").count())
            .sum()
    }

    #[test]
    fn after_a_kill_the_run_goes_on_to_the_same_bits() {
        let places = [place(""), place("")];
        let mut child = begun(&places[0]);
        child.kill().unwrap();
        child.wait().unwrap();
        for place in &places {
            place.succeeds(LONG);
        }
        let [killed, whole] = places.each_ref().map(|place| {
            let runs = table(place, "runs.csv");
            assert_eq!(runs.1.len(), 1);
            (1..=3).map(|depth| number(&runs, 0, &format!("loss_{depth}"))).collect::<Vec<f64>>()
        });
        assert_eq!(killed, whole);
        let run =
            fs_err::read_dir(places[0].path("runs/sweep/runs")).unwrap().next().unwrap().unwrap().path();
        let events = fs_err::read_to_string(run.join("events.jsonl")).unwrap();
        assert!(
            events.contains("\"event\":\"resumed\",\"step\":"),
            "the run went on, it did not begin again"
        );
        assert!(!events.contains("\"event\":\"resumed\",\"step\":0"));
    }

    #[test]
    fn ctrl_c_keeps_what_is_done_and_says_how_to_go_on() {
        let place = place("");
        let child = begun(&place);
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("0 done (0 before), 0 failed, 1 left"), "{told}");
        let command =
            "sakiyomi sweep sweep.toml --set settings.train.steps=400 --set settings.checkpoint.every=10";
        assert!(told.contains(command), "{told}");
        assert!(place.succeeds(LONG).contains("1 done (0 before), 0 failed, 0 left"));
    }
}

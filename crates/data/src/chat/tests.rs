use std::path::Path;

use super::*;

fn chatml() -> ChatTemplate {
    let source = "{{ bos_token }}{% for message in messages %}\n\
                  {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}\n\
                  {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
    let tokens = [("bos_token".to_owned(), "<s>".to_owned())].into();
    ChatTemplate::new(source.to_owned(), tokens).unwrap()
}

/// Every published template in the shared data gives the text that jinja2 and transformers give, or refuses where they refuse.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn renderings_equal_those_of_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/chat_templates");
    let Ok(text) = fs_err::read_to_string(folder.join("golden.json")) else {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    };
    let golden: Value = serde_json::from_str(&text).unwrap();
    let now: jiff::civil::DateTime = golden["now"].as_str().unwrap().parse().unwrap();
    let time = move |format: &str| jiff::fmt::strtime::format(format, now).map_err(|error| error.to_string());
    let mut cases = 0;
    for (name, entry) in golden["templates"].as_object().unwrap() {
        let source = fs_err::read_to_string(folder.join(entry["file"].as_str().unwrap())).unwrap();
        let tokens = entry["special_tokens"].as_object().unwrap().iter();
        let tokens = tokens.filter_map(|(name, token)| Some((name.clone(), token.as_str()?.to_owned())));
        let template = ChatTemplate::new(source, tokens.collect()).unwrap();
        for case in entry["cases"].as_array().unwrap() {
            let messages = &golden["conversations"][case["conversation"].as_str().unwrap()];
            let tools = (case["tools"] == true).then_some(&golden["tools"]);
            let asks = case["add_generation_prompt"] == true;
            let rendered = Renderer::new(&template, time).and_then(|it| it.render(messages, tools, asks));
            let what = format!("{name}, {}, tools {}, asks {asks}", case["conversation"], case["tools"]);
            match case["text"].as_str() {
                Some(text) => assert_eq!(rendered.as_deref(), Ok(text), "{what}"),
                None => assert!(rendered.is_err(), "{what}: {rendered:?}"),
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 90);
}

#[test]
fn answers_are_learnt_with_the_end_of_their_turn() {
    let conversation = json!([
        {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c?"}, {"role": "assistant", "content": "d"},
    ]);
    let (text, spans) = chatml().answers(&conversation, None).unwrap();
    assert!(text.starts_with("<s><|im_start|>user\na?"));
    let said: Vec<&str> = spans.into_iter().map(|span| &text[span]).collect();
    assert_eq!(said, ["b<|im_end|>\n", "d<|im_end|>\n"]);
}

#[test]
fn what_cannot_be_learnt_from_is_refused_in_one_line() {
    let refusal = |conversation: Value| {
        let reason = chatml().answers(&conversation, None).unwrap_err();
        assert!(!reason.contains('\n'));
        reason
    };
    assert!(refusal(json!([{"role": "user", "content": "a"}])).contains("no answer"));
    assert!(refusal(json!([{"role": "assistant", "content": "a"}])).contains("begins with an answer"));
    let system = json!({"role": "system", "content": "s"});
    let first = refusal(json!([system, {"role": "assistant", "content": "a"}]));
    assert!(first.contains("begins with an answer"), "{first}");
    assert!(refusal(json!([{"content": "a"}])).contains("message 1 has no role"));
    let (asked, answer) =
        (json!({"role": "user", "content": "a"}), json!({"role": "assistant", "content": "b"}));
    let twice = refusal(json!([asked, answer, answer]));
    assert!(twice.starts_with("messages 2 and 3 are both the assistant's: roles out of order"), "{twice}");
    for silent in
        [json!({"role": "assistant", "content": " "}), json!({"role": "assistant", "content": null})]
    {
        let reason = refusal(json!([asked, answer, asked, silent]));
        assert!(reason.starts_with("message 4, an answer, is empty"), "{reason}");
    }
    assert_eq!(
        refusal(json!([{"role": "user"}, answer])),
        "message 1 (user) has nothing but a role: give its content"
    );
    assert!(chatml().answers(&json!([asked, system, answer]), None).is_ok());
    let silent =
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}".to_owned();
    let silent = ChatTemplate::new(silent, BTreeMap::new()).unwrap();
    let reason = silent.answers(&json!([asked, answer]), None).unwrap_err();
    assert_eq!(reason, "the chat template leaves out what the assistant says: there is nothing to learn");
    let called = json!({"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]});
    assert!(chatml().answers(&json!([asked, called]), None).is_ok());
    assert!(refusal(json!("a")).contains("no list"));
    let raising = "{{ raise_exception('roles must alternate') }}".to_owned();
    let raising = ChatTemplate::new(raising, BTreeMap::new()).unwrap();
    let reason = raising.answers(&json!([asked]), None).unwrap_err();
    assert_eq!(reason, "the chat template refuses it: roles must alternate (line 1 of the chat template)");
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned();
    let endless = ChatTemplate::new(endless, BTreeMap::new()).unwrap();
    let reason = endless.answers(&json!([asked, answer]), None).unwrap_err();
    assert!(reason.starts_with("the chat template does not come to an end"), "{reason}");
    let changing = "{% for m in messages %}{{ m.role if loop.last else 'past' }}{% endfor %}".to_owned();
    let changing = ChatTemplate::new(changing, BTreeMap::new()).unwrap();
    let two = json!([asked, answer, asked]);
    assert!(changing.answers(&two, None).unwrap_err().contains("in another way"));
    let broken = ChatTemplate::new("{% for %}".to_owned(), BTreeMap::new()).unwrap_err().to_string();
    assert!(broken.starts_with("chat template: ") && !broken.contains('\n'), "{broken}");
}

/// Each of these chains, as long, is parsed link by link on the stack.
#[test]
fn chains_that_would_overflow_the_stack_are_refused() {
    let reason = |source: String| ChatTemplate::new(source, BTreeMap::new()).unwrap_err().to_string();
    let chains = [
        format!("{{{{ x{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|upper".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{% set a = x{} %}}", "[0]".repeat(100_000)),
        format!("{{% if {}x %}}{{% endif %}}", "a and ".repeat(100_000)),
    ];
    for chain in chains {
        let reason = reason(chain);
        assert!(reason.contains("words and signs: break it up"), "{reason}");
    }
    let branches = format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(100_000));
    assert!(reason(branches).contains("100000 times elif"));
    // Just within the bounds: these fit onto a stack.
    for source in [
        format!("{{{{ {}1 }}}}", "-".repeat(499)),
        format!("{{{{ {}1 }}}}", "not ".repeat(499)),
        format!("{{{{ 1{} }}}}", "+1".repeat(249)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(500)),
    ] {
        ChatTemplate::new(source, BTreeMap::new()).unwrap();
    }
}

#[test]
fn what_is_rendered_is_no_longer_than_a_document() {
    let endless = "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}".to_owned();
    let template = ChatTemplate::new(endless, BTreeMap::new()).unwrap();
    let reason = template.render(&json!([]), None, false).unwrap_err();
    assert_eq!(
        reason,
        "the chat template writes more than 33554432 bytes for one conversation: it repeats itself"
    );
}

#[test]
fn a_template_is_found_where_tokenizers_keep_it() {
    let config = json!({"chat_template": "a", "eos_token": {"content": "</s>"}, "pad_token": null});
    let found = ChatTemplate::in_files(&config, None).unwrap();
    assert_eq!((found.source.as_str(), found.special_tokens["eos_token"].as_str()), ("a", "</s>"));
    assert!(!found.special_tokens.contains_key("pad_token"));
    assert_eq!(ChatTemplate::in_files(&config, Some("b")).unwrap().source, "b");
    let several = json!({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]});
    assert_eq!(ChatTemplate::in_files(&several, None).unwrap().source, "d");
    assert!(ChatTemplate::in_files(&json!({}), None).is_none());
    assert_ne!(found.digest(), ChatTemplate::in_files(&several, None).unwrap().digest());
}

/// A template that does `step` with `ns.x` so many times, and `then` something with it.
fn looped(first: &str, times: usize, step: &str, then: &str) -> String {
    format!(
        "{{% set ns = namespace(x={first}) %}}{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}{then}"
    )
}

#[test]
fn values_that_hold_too_much_are_not_written() {
    let refusal = |source: &str| {
        let template = ChatTemplate::new(source.to_owned(), BTreeMap::new()).unwrap();
        template.render(&json!([{"role": "user", "content": "a"}]), None, true).expect_err(source)
    };
    let deep = "nested more than 150 levels deep (line 1 of the chat template)";
    let long = "would be longer than 33554432 bytes (line 1 of the chat template)";
    for (step, then) in
        [("[ns.x]", "{{ ns.x }}"), ("{'a': ns.x}", "{{ ns.x|tojson }}"), ("[ns.x]", "{{ ns.x|tojson }}")]
    {
        let reason = refusal(&looped("[]", 90_000, step, then));
        assert!(reason.contains(deep), "{step} {then}: {reason}");
    }
    // A list that holds itself 2^60 times over.
    for then in ["{{ ns.x }}", "{{ ns.x|tojson }}"] {
        let reason = refusal(&looped("['a']", 60, "[ns.x, ns.x]", then));
        assert!(reason.contains(long), "{then}: {reason}");
    }
    for indent in ["10000000000000000000", "9000000000000000000", "3000000000"] {
        let reason = refusal(&format!("{{{{ messages|tojson(indent={indent}) }}}}"));
        assert!(reason.contains(long), "{indent}: {reason}");
    }
}

#[test]
fn values_may_be_a_million_levels_deep() {
    let nest =
        "{% for i in range(1000) %}{% for j in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    for then in ["", "{% if ns.x == [ns.x] %}{% endif %}"] {
        let source = format!("{{% set ns = namespace(x=[]) %}}{nest}{then}");
        let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
        assert_eq!(template.render(&json!([]), None, true).as_deref(), Ok(""), "{then}");
    }
}

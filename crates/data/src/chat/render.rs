//! Rendering a template in an environment like that of transformers.
//!
//! A template comes with the model that the user chose. One that goes wrong ends in a line: its steps are counted, what it writes is
//! bounded, and values that are nested deeply are not written. Not bounded is what a single step makes of a list that was added to
//! itself dozens of times, or of two that are compared and nested more than a million levels deep: only a template does that which
//! means harm.

use std::collections::BTreeMap;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use super::ChatTemplate;
use super::{bounds, python};
use crate::documents::MOST_DOCUMENT_BYTES;

const NAME: &str = "chat template";

/// Steps that a template may take, and 64 bytes each that it may write: far more than conversations of any model's context need,
/// and a second at most for one that would not come to an end.
const MOST_STEPS: u64 = 10_000_000;

/// Stack of a rendering, for a million levels of lists within each other: each takes a frame to compare, and a smaller one to drop.
/// Memory is taken for the levels that there are.
const STACK_BYTES: usize = 1 << 29;

/// Whether the template can be understood.
pub(super) fn check(template: &ChatTemplate) -> Result<(), String> {
    environment(&template.source, local_time).map(|_| ())
}

/// The time of the machine, written as `format` says.
pub(super) fn local_time(format: &str) -> Result<String, String> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|error| error.to_string())
}

/// Does `work`, which renders, where values may be nested deeply.
pub(super) fn on_a_deep_stack<T: Send>(
    work: impl Fn() -> Result<T, String> + Copy + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        match std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|_| {
                Err("the chat template makes its renderer fail: it cannot be used".to_owned())
            }),
            // No room for such a stack, of which every template that means well needs next to nothing.
            Err(_) => work(),
        }
    })
}

/// A template that was understood.
pub(super) struct Renderer<'a> {
    environment: Environment<'a>,
    special_tokens: &'a BTreeMap<String, String>,
}

impl<'a> Renderer<'a> {
    /// `now` writes the time.
    pub(super) fn new(
        template: &'a ChatTemplate,
        now: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let environment = environment(&template.source, now)?;
        Ok(Self { environment, special_tokens: &template.special_tokens })
    }

    /// The text of `messages`.
    pub(super) fn render(
        &self,
        messages: &serde_json::Value,
        tools: Option<&serde_json::Value>,
        asks: bool,
    ) -> Result<String, String> {
        let mut context: BTreeMap<&str, Value> = [
            ("messages", value_of(messages)),
            ("tools", tools.map_or(Value::from(()), value_of)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(asks)),
        ]
        .into();
        context.extend(self.special_tokens.iter().map(|(name, token)| (&**name, Value::from(&**token))));
        let compiled = self.environment.get_template(NAME).map_err(|error| one_line(&error))?;
        let mut written = Bounded::default();
        match compiled.render_captured_to(context, &mut written) {
            Ok(_) => String::from_utf8(written.text).map_err(|error| error.to_string()),
            Err(_) if written.is_full => Err(format!(
                "the chat template writes more than {MOST_DOCUMENT_BYTES} bytes for one conversation: it repeats itself"
            )),
            Err(error) => Err(one_line(&error)),
        }
    }
}

/// Text that becomes no longer than a document may be, so that a template cannot fill the memory.
#[derive(Default)]
struct Bounded {
    text: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > MOST_DOCUMENT_BYTES {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A JSON value as a template sees it, keys in their order.
fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value_of).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (key.as_str(), value_of(value))))
        }
    }
}

fn environment<'a>(
    source: &str,
    now: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static,
) -> Result<Environment<'a>, String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| one_line(&error))?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|output, _, value| {
        if value.is_undefined() {
            return Ok(());
        }
        output.write_str(&python::text(value)?).map_err(Error::from)
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, Error> {
        let indent: Option<usize> = options.get("indent")?;
        let ascii: Option<bool> = options.get("ensure_ascii")?;
        python::json(&value, indent, ascii.unwrap_or(false))
    });
    environment.add_function("raise_exception", |reason: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        now(&format).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
    });
    let source = without_generation_tags(source);
    bounds::check(&source)?;
    environment.add_template_owned(NAME, source).map_err(|error| one_line(&error))?;
    Ok(environment)
}

/// transformers marks what the assistant says with a tag of its own. It changes no text; a condition that always holds treats the
/// white space around it alike.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else { break };
        let tag = &rest[at..at + length + 2];
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        let replaced = match inner {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        };
        text += &rest[..at];
        text += &replaced;
        rest = &rest[at + length + 2..];
    }
    text + rest
}

fn one_line(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("the chat template does not come to an end (stopped after {MOST_STEPS} steps)");
    }
    let line = error.line().map_or(String::new(), |line| format!(" (line {line} of the chat template)"));
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("the chat template refuses it: {}{line}", what.replace('\n', " "))
}

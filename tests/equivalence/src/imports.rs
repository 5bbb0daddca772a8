//! Puts definitions in the place of imports, in the text of a module as it is printed: each import in a line of its own.

/// Replaces imports by what `define` gives for a module, a name and the imported item, such as `(func (;0;) (type 3))`.
/// Those for which it gives none stay. Indices do not change, as long as no import stays behind one that is replaced.
pub fn replace(text: &str, mut define: impl FnMut(&str, &str, &str) -> Option<String>) -> String {
    let mut replaced = String::with_capacity(text.len());
    for line in text.lines() {
        let definition = parts(line).and_then(|(module, name, item)| define(module, name, item));
        replaced.push_str(definition.as_deref().unwrap_or(line));
        replaced.push('\n');
    }
    replaced
}

/// Module, name and item of a line that imports something.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let rest = line.trim().strip_prefix("(import \"")?;
    let (module, rest) = rest.split_once("\" \"")?;
    let (name, rest) = rest.split_once("\" ")?;
    Some((module, name, rest.strip_suffix(')')?))
}

/// An imported item with something behind its type: a function's body, a global's value.
#[must_use]
pub fn with_body(item: &str, body: &str) -> String {
    let item = item.strip_suffix(')').unwrap_or(item);
    format!("{item} {body})")
}

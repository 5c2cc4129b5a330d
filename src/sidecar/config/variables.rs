//! The variables of the environment, as far as a config asks for them.

/// Where settings come from besides the file.
pub type Variables = Vec<(String, String)>;

/// What a variable holds; an empty one is not set.
pub(in crate::sidecar) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

//! The recipes of `docs/clients`, run as they stand there.

use std::path::{Path, PathBuf};
use std::process::Command;

use tollgate::sidecar::Sidecar;

use crate::support::{Gate, node_place, tool};

const GATE: &str = "http://127.0.0.1:8787";
/// What a page says of which the client is installed by that script, and not by `tests/all`.
const MORE: &str = "\nRun by `tests/more-clients`.\n";

struct Recipe {
    name: String,
    is_more: bool,
    /// What is installed, as `name` and version.
    pins: Vec<(String, String)>,
    language: String,
    code: String,
}

fn recipes() -> Vec<Recipe> {
    let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients")).unwrap();
    let mut pages: Vec<PathBuf> = pages.map(|page| page.unwrap().path()).collect();
    pages.sort();
    pages.iter().filter(|page| !page.ends_with("README.md")).map(|page| Recipe::read(page)).collect()
}

impl Recipe {
    fn read(page: &Path) -> Self {
        let text = std::fs::read_to_string(page).unwrap();
        let mut recipe = Self {
            name: page.file_stem().unwrap().to_string_lossy().into_owned(),
            is_more: text.contains(MORE),
            pins: Vec::new(),
            language: String::new(),
            code: String::new(),
        };
        for block in text.split("```").skip(1).step_by(2) {
            let (language, code) = block.split_once('\n').unwrap();
            if language == "console" {
                recipe.pins = code.split_whitespace().filter_map(pin).collect();
            } else {
                (recipe.language, recipe.code) = (language.to_owned(), code.to_owned());
            }
        }
        assert!(recipe.code.contains(GATE), "{} has no code that leads to the gate", recipe.name);
        recipe
    }

    fn run(&self, sidecar: &Sidecar, command: impl Fn(&str) -> Command) {
        let code = self.code.replace(GATE, &format!("http://{}", sidecar.listen())).replace("YOUR_ACCOUNT", "acc");
        let output = command(&code).output().unwrap();
        let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !said.trim().is_empty(), "{}: {said}{failed}", self.name);
    }
}

/// `name==1.0`, `name[extra]==1.0` or `@scope/name@1.0`, perhaps in quotes.
fn pin(word: &str) -> Option<(String, String)> {
    let word = word.trim_matches('"');
    let (name, version) =
        word.split_once("==").or_else(|| word.rsplit_once('@').filter(|(name, _)| !name.is_empty()))?;
    Some((name.to_owned(), version.to_owned()))
}

/// Runs the recipes in this language by `command`, which is given the code.
fn run(language: &str, sidecar: &Sidecar, command: impl Fn(&str) -> Command) {
    for recipe in recipes().into_iter().filter(|recipe| recipe.language == language && !recipe.is_more) {
        recipe.run(sidecar, &command);
    }
}

fn python(program: &Path, code: &str) -> Command {
    let mut command = Command::new(program);
    // LiteLLM asks the network for prices unless it is told not to.
    command.args(["-c", code]).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command
}

fn javascript(node: &Path, place: &Path, code: &str) -> Command {
    let mut command = Command::new(node);
    command.args(["--input-type=module", "-e", code]).current_dir(place);
    command
}

fn rust(project: &Path, code: &str) -> Command {
    std::fs::write(project.join("src/main.rs"), code).unwrap();
    let mut command = Command::new("cargo");
    // The variables of the cargo that runs this test would be taken for its own.
    command.args(["run", "--quiet"]).current_dir(project).env_remove("CARGO_TARGET_DIR");
    command
}

#[test]
fn python_recipes_work_as_they_stand() {
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", "the recipes in Python (docs/clients)") else { return };
    run("python", &Gate::start().sidecar, |code| self::python(Path::new(&python), code));
}

#[test]
fn javascript_recipes_work_as_they_stand() {
    let Some(installed) = tool("TOLLGATE_TEST_NODE", "the recipes in JavaScript (docs/clients)") else { return };
    let place = node_place(Path::new(&installed));
    let node = Path::new(&installed).join("node_modules/.bin/node");
    run("js", &Gate::start().sidecar, |code| javascript(&node, place.path(), code));
}

#[test]
fn shell_recipes_work_as_they_stand() {
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", "the recipes for the shell (docs/clients)") else { return };
    let home = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", Path::new(&python).parent().unwrap().display(), std::env::var("PATH").unwrap());
    run("sh", &Gate::start().sidecar, |code| {
        let mut command = Command::new("sh");
        command.args(["-ec", code]).env("PATH", &path).env("LLM_USER_PATH", home.path()).env("no_proxy", "*");
        command
    });
}

/// Not a part of `tests/all`: `tests/more-clients` installs them, and has this test run them.
#[test]
fn recipes_of_more_clients_work_as_they_stand() {
    let Some(installed) = std::env::var_os("TOLLGATE_TEST_MORE_CLIENTS") else { return };
    let gate = Gate::start();
    for recipe in recipes().into_iter().filter(|recipe| recipe.is_more) {
        let place = Path::new(&installed).join(&recipe.name);
        recipe.run(&gate.sidecar, |code| match recipe.language.as_str() {
            "python" => python(&place.join("bin/python"), code),
            "js" => javascript(Path::new("node"), &place, code),
            _ => rust(&place, code),
        });
        println!("{} works", recipe.name);
    }
}

#[test]
fn recipes_name_the_versions_that_are_tested() {
    let python = include_str!("../clients/python/requirements.txt");
    let node: serde_json::Value = serde_json::from_str(include_str!("../node/package.json")).unwrap();
    let recipes = recipes();
    assert!(recipes.len() > 10);
    for recipe in &recipes {
        // The script installs by the page's own lines.
        for (name, version) in recipe.pins.iter().filter(|_| !recipe.is_more) {
            let is_tested = match recipe.language.as_str() {
                "js" => node["dependencies"][name] == **version,
                _ => python.lines().any(|line| line == format!("{name}=={version}")),
            };
            assert!(is_tested, "{}: {name} {version} is not what the tests install", recipe.name);
        }
        let index = include_str!("../../docs/clients/README.md");
        assert!(index.contains(&format!("({}.md)", recipe.name)), "{} is not in the index", recipe.name);
    }
}

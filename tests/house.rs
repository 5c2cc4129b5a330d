//! The files of `src` form no circle by their imports: what two of them need stands in a third below both.
//!
//! An import leads to the file that defines what it names, also where a folder's `mod.rs` hands it on. What a `mod.rs` hands on, and
//! what it takes from the files of its own folder, is left out, and so are files of tests.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A module by its names below the crate; the crate itself has none.
type Module = Vec<String>;

#[derive(Default)]
struct File {
    imports: Vec<Module>,
    /// What it hands on, by the last name.
    hands_on: BTreeMap<String, Module>,
    /// The modules that are there for tests alone.
    tests: Vec<String>,
}

struct House(BTreeMap<Module, File>);

impl House {
    fn read(source: &Path) -> Self {
        let mut house = Self(BTreeMap::new());
        house.read_folder(source, &Vec::new());
        let tests = |(module, file): (&Module, &File)| -> Vec<Module> {
            file.tests.iter().map(|name| [module.as_slice(), std::slice::from_ref(name)].concat()).collect()
        };
        let tests: Vec<_> = house.0.iter().flat_map(tests).collect();
        house.0.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let names: Vec<_> = house.0.keys().cloned().collect();
        let is_module = |module: &[String]| names.iter().any(|name| name == module);
        for (module, file) in &mut house.0 {
            let absolute = |path: &Module| absolute(module, path, is_module);
            file.imports = file.imports.iter().filter_map(absolute).collect();
            let hands_on = std::mem::take(&mut file.hands_on).into_iter();
            file.hands_on = hands_on.filter_map(|(name, path)| Some((name, absolute(&path)?))).collect();
        }
        house
    }

    fn read_folder(&mut self, folder: &Path, module: &Module) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = || [module.as_slice(), std::slice::from_ref(&stem)].concat();
            if path.is_dir() {
                self.read_folder(&path, &inner());
            } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "main" {
                let module = if stem == "mod" || stem == "lib" { module.clone() } else { inner() };
                self.0.insert(module, File::read(&fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// The file that defines what a path names.
    fn definition(&self, path: &[String], steps: usize) -> Option<&Module> {
        let length = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, file) = self.0.get_key_value(&path[..length])?;
        match path.get(length).and_then(|name| file.hands_on.get(name)).filter(|_| steps < 8) {
            Some(handed_on) => self.definition(&[handed_on, &path[length + 1..]].concat(), steps + 1),
            None => Some(module),
        }
    }

    /// The files of a circle, if there is one.
    fn circle(&self) -> Option<Vec<Module>> {
        let mut is_done = BTreeMap::new();
        self.0.keys().find_map(|module| self.walk(module, &mut Vec::new(), &mut is_done))
    }

    fn walk(&self, at: &Module, way: &mut Vec<Module>, is_done: &mut BTreeMap<Module, bool>) -> Option<Vec<Module>> {
        match is_done.get(at) {
            Some(true) => return None,
            Some(false) => return way.iter().position(|before| before == at).map(|from| way[from..].to_vec()),
            None => {}
        }
        is_done.insert(at.clone(), false);
        way.push(at.clone());
        for import in &self.0[at].imports {
            if let Some(next) = self.definition(import, 0).filter(|next| !next.starts_with(at))
                && let Some(circle) = self.walk(next, way, is_done)
            {
                return Some(circle);
            }
        }
        way.pop();
        is_done.insert(at.clone(), true);
        None
    }
}

impl File {
    fn read(text: &str) -> Self {
        let mut file = Self::default();
        let mut statement = String::new();
        let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("#[cfg(") && line.contains("test") {
                let next = lines.peek().copied().unwrap_or_default();
                // A module of tests within a file stands at its end.
                match next.split_once("mod ").map(|(_, name)| name) {
                    Some(name) if name.ends_with('{') => break,
                    Some(name) => file.tests.push(name.trim_end_matches(';').to_owned()),
                    None => {}
                }
            }
            let first = line.find("use ").filter(|at| *at == 0 || line.starts_with("pub"));
            if !statement.is_empty() || first.is_some() {
                statement += line;
                statement.push(' ');
            }
            if statement.contains(';') {
                file.take(&std::mem::take(&mut statement));
            }
        }
        file
    }

    fn take(&mut self, statement: &str) {
        let (public, tree) = statement.split_once("use ").unwrap();
        for path in paths(tree.trim().trim_end_matches(';')) {
            if public.is_empty() {
                self.imports.push(path);
            } else if let Some(name) = path.last() {
                self.hands_on.insert(name.clone(), path.clone());
            }
        }
    }
}

/// All paths of a tree such as `a::{b, c::{self, d as e}}`.
fn paths(tree: &str) -> Vec<Module> {
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let names = path.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        return vec![names.collect()];
    };
    let rest = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&rest[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&rest[from..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(&format!("{before}{}", part.trim()))).collect()
}

/// From the crate; `None` for what another crate has.
fn absolute(module: &Module, path: &Module, is_module: impl Fn(&[String]) -> bool) -> Option<Module> {
    let mut path = path.as_slice();
    if path.last().is_some_and(|name| name == "self") && path.len() > 1 {
        path = &path[..path.len() - 1];
    }
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let up = path.iter().take_while(|name| *name == "super").count();
            Some([&module[..module.len().checked_sub(up)?], &path[up..]].concat())
        }
        first => {
            let inner = [module.as_slice(), &[first.to_owned()]].concat();
            is_module(&inner).then(|| [module.as_slice(), path].concat())
        }
    }
}

#[test]
fn no_files_of_src_import_each_other_in_a_circle() {
    let house = House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(house.0.len() > 300, "{} files", house.0.len());
    let circle = house.circle().unwrap_or_default();
    let circle: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
    assert!(circle.is_empty(), "these import each other in a circle: {circle:?}");
}

#[test]
fn a_circle_is_found_also_through_what_a_folder_hands_on() {
    let names = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect::<Module>();
    let file = |imports: &[&str], hands_on: &[(&str, &str)]| File {
        imports: imports.iter().map(|path| names(path)).collect(),
        hands_on: hands_on.iter().map(|(name, path)| ((*name).to_owned(), names(path))).collect(),
        ..File::default()
    };
    let house = |back: &str| {
        let files = [
            ("a", file(&["a::upper::Upper"], &[("Upper", "a::upper::Upper"), ("Lower", "a::lower::Lower")])),
            ("a::upper", file(&["a::Lower"], &[])),
            ("a::lower", file(&[back], &[])),
        ];
        House(files.into_iter().map(|(module, file)| (names(module), file)).collect())
    };
    assert_eq!(house("b::Other").circle(), None);
    assert_eq!(house("a::Upper").circle().map(|circle| circle.len()), Some(2));
    assert_eq!(
        paths("super::{a::{self, b as c}, d}"),
        [names("super::a::self"), names("super::a::b"), names("super::d")]
    );
}

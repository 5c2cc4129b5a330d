//! The book: each page of docs/ is in its summary once, and each link between pages leads to one.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use tollgate::sidecar::config::Config;

fn pages(under: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => pages(&path, found),
            false if path.extension().is_some_and(|kind| kind == "md") => drop(found.insert(path)),
            false => {}
        }
    }
}

/// The pages that a page links to, as paths.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(page).unwrap();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let is_page = |target: &&str| target.ends_with(".md") && !target.contains("://");
    let beside = |target: &str| {
        let mut path = PathBuf::new();
        for part in page.parent().unwrap().join(target).components() {
            match part {
                Component::ParentDir => drop(path.pop()),
                part => path.push(part),
            }
        }
        path
    };
    targets.filter(is_page).map(beside).collect()
}

#[test]
fn every_page_is_in_the_summary_once_and_every_link_leads_to_a_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (summary, mut all) = (docs.join("SUMMARY.md"), BTreeSet::new());
    pages(&docs, &mut all);
    assert!(all.remove(&summary));
    let listed = links(&summary);
    assert_eq!(listed.len(), listed.iter().collect::<BTreeSet<_>>().len(), "a page is listed twice");
    let listed: BTreeSet<_> = listed.into_iter().collect();
    assert_eq!(all.difference(&listed).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "not in docs/SUMMARY.md");
    assert_eq!(
        listed.difference(&all).collect::<Vec<_>>(),
        Vec::<&PathBuf>::new(),
        "in docs/SUMMARY.md, and not there"
    );
    for page in &all {
        for target in links(page) {
            assert!(target.is_file(), "{} links to {}", page.display(), target.display());
        }
    }
}

/// The keys of the `toml` blocks of a page, each with its table; those in comments, too.
fn keys(text: &str, found: &mut BTreeSet<(String, String)>) {
    for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let mut table = String::new();
        for line in block.lines().map(|line| line.trim_start_matches("# ")) {
            if line.starts_with('[') {
                let name = line.trim_start_matches('[').split(']').next().unwrap();
                name.clone_into(&mut table);
            } else if let Some((key, _)) = line.split_once('=') {
                found.insert((table.clone(), key.trim().trim_matches('"').to_owned()));
            }
        }
    }
}

#[test]
fn every_key_that_check_shows_is_in_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut all, mut told) = (BTreeSet::from([root.join("README.md")]), BTreeSet::new());
    pages(&root.join("docs"), &mut all);
    all.iter().for_each(|page| keys(&std::fs::read_to_string(page).unwrap(), &mut told));
    let shown = Config::default().show().unwrap();
    let mut there = BTreeSet::new();
    keys(&format!("```toml\n{shown}```"), &mut there);
    assert!(there.len() > 60, "{shown}");
    assert_eq!(there.difference(&told).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "in no page");
}

#[test]
fn the_page_of_keys_is_a_config_with_what_holds_by_itself() {
    let page = include_str!("../../docs/config.md");
    let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(Config::parse(block, "docs/config.md").unwrap(), Config::default());
    Config::parse(&block.replace("\n# base_url", "\nbase_url"), "docs/config.md").unwrap();
}

//! The book: each page of docs/ is in its summary once, and each link between pages leads to one.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

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

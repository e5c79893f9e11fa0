//! The links of the documents lead to files and headings that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the Markdown files of the repository.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.to_owned(), root.join("docs"), root.join("examples")];
    folders.extend(fs::read_dir(root.join("deploy")).unwrap().map(|entry| entry.unwrap().path()));
    let files = folders.iter().filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let files =
        files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    files.collect()
}

/// Returns `text` without code, which may look like a link.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).flat_map(|part| part.split('`').step_by(2)).collect()
}

/// Returns the anchors of the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let outside_of_code = text.split("\n```").step_by(2);
    for heading in outside_of_code.flat_map(str::lines).filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let next = (1..).map(|number| format!("{anchor}-{number}"));
        let unused = std::iter::once(anchor.clone()).chain(next).find(|anchor| !anchors.contains(anchor));
        anchors.extend(unused);
    }
    anchors
}

/// Returns why the link `target` of the document at `path` leads nowhere.
fn flaw(path: &Path, target: &str) -> Option<&'static str> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let file = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
    if !file.exists() {
        return Some("no such file");
    }
    let anchor = anchor?;
    (!anchors(&fs::read_to_string(file).unwrap()).contains(anchor)).then_some("no such heading")
}

#[test]
fn links_lead_to_files_and_headings() {
    let documents = documents();
    assert!(documents.len() > 20, "{documents:?}");
    let mut flaws = Vec::new();
    for path in &documents {
        let text = prose(&fs::read_to_string(path).unwrap());
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            flaws.extend(flaw(path, target).map(|why| format!("{}: {target}: {why}", path.display())));
        }
    }
    assert!(flaws.is_empty(), "{flaws:#?}");
}

#[test]
fn anchors_are_those_of_github() {
    let text =
        "# How did it change? The history\n\n```console\n# no heading\n```\n\n## `GT` on every write\n## A\n## A\n";
    let expected = ["how-did-it-change-the-history", "gt-on-every-write", "a", "a-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
}

//! The imports of `src` follow the map in `src/lib.rs`: a room uses only those above it there, and no two files import
//! each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms from the lowest to the highest. Each may use those before it.
const FLOORS: [&str; 11] = [
    "small_file",
    "domain",
    "redis",
    "store",
    "embedded_redis",
    "estimator",
    "ingest",
    "http",
    "jobs",
    "config",
    "commands",
];
/// Rooms that every room may use, and that use the two lowest rooms alone.
const LEAVES: [&str; 3] = ["auth", "telemetry", "tls"];

type Module = Vec<String>;

/// The modules of the crate with the paths that each names.
struct Crate {
    /// The paths that each module imports or names in full, from the root of the crate.
    paths: BTreeMap<Module, BTreeSet<Module>>,
    /// The target of each re-exported name.
    exports: BTreeMap<Module, Module>,
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the code of a file without comments and unit tests.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Expands `a::{b, c::{self, d as e}}` into its paths, each with its name in the module.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(Module, String)>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
        let parts = path.split("::").map(str::trim).enumerate();
        // `self` is a module of its own at the start of a path, and the one in front of the braces within them.
        let parts = parts
            .filter(|(at, part)| !["", "*"].contains(part) && (*part != "self" || (*at == 0 && prefix.is_empty())));
        let path: Module = prefix.iter().cloned().chain(parts.map(|(_, part)| part.to_owned())).collect();
        let name = alias.map(str::to_owned).or_else(|| path.last().cloned()).unwrap_or_default();
        return found.push((path, name));
    };
    let head = head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
    let prefix: Vec<_> = prefix.iter().cloned().chain(head).collect();
    let (mut depth, mut part) = (0, String::new());
    for char in rest.trim_end().trim_end_matches('}').chars().chain([',']) {
        match char {
            ',' if depth == 0 => {
                if !part.trim().is_empty() {
                    expand(&part, &prefix, found);
                }
                part.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(char);
    }
}

/// Returns `path` from the root of the crate, if it is a path of this crate.
fn absolute(path: &[String], module: &[String], children: &BTreeSet<String>) -> Option<Module> {
    match path.first().map(String::as_str) {
        Some("crate") => Some(path[1..].to_vec()),
        Some("self") => Some([module, &path[1..]].concat()),
        Some("super") => absolute_above(path, module),
        Some(child) if path.len() > 1 && children.contains(child) => Some([module, path].concat()),
        _ => None,
    }
}

fn absolute_above(path: &[String], module: &[String]) -> Option<Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat())
}

impl Crate {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut all = Vec::new();
        files(&root, &mut all);
        let (mut paths, mut exports) = (BTreeMap::new(), BTreeMap::new());
        for file in all.iter().filter(|file| !file.ends_with("src/main.rs")) {
            let relative = file.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if ["mod", "lib"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            let code = code_of(file);
            let children =
                code.split(';').filter_map(|item| item.trim().rsplit_once("mod ")).map(|(_, name)| name.to_owned());
            let children: BTreeSet<String> = children.collect();
            let mut used = BTreeSet::new();
            for statement in code.split(';') {
                let statement = statement.trim_start();
                let Some((before, tree)) = statement.rsplit_once("use ") else { continue };
                let before = before.lines().last().unwrap_or_default().trim();
                if !(before.is_empty() || before.starts_with("pub")) {
                    continue;
                }
                let mut found = Vec::new();
                expand(tree, &[], &mut found);
                for (path, name) in found {
                    let Some(path) = absolute(&path, &module, &children) else { continue };
                    if before.starts_with("pub") {
                        exports.insert([module.as_slice(), &[name]].concat(), path.clone());
                    }
                    // Re-exporting from a submodule is not an import.
                    if !(before.starts_with("pub") && path.starts_with(&module)) {
                        used.insert(path);
                    }
                }
            }
            // Paths in the code itself, such as `crate::tls::provider()`.
            for (at, _) in code.match_indices("crate::") {
                let rest: String =
                    code[at..].chars().take_while(|char| char.is_alphanumeric() || "_:".contains(*char)).collect();
                let path: Vec<_> = rest.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                if !code[..at].ends_with("pub(in ") {
                    used.extend(absolute(&path, &module, &children));
                }
            }
            paths.insert(module, used);
        }
        Self { paths, exports }
    }

    /// Returns the module that defines the item at `path`.
    fn definer(&self, path: &[String]) -> Module {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let exported = (1..=path.len())
                .rev()
                .find(|&end| self.exports.contains_key(&path[..end]) && !self.paths.contains_key(&path[..end]));
            let Some(end) = exported else { break };
            path = [&self.exports[&path[..end]][..], &path[end..]].concat();
        }
        let end = (0..=path.len()).rev().find(|&end| self.paths.contains_key(&path[..end])).unwrap_or_default();
        path[..end].to_vec()
    }

    /// Returns the imports of each module.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let imports = self.paths.iter().map(|(module, paths)| {
            let used = paths.iter().map(|path| self.definer(path));
            (module, used.filter(|used| used != module && !used.is_empty()).collect())
        });
        imports.collect()
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| *floor == room)
}

#[test]
fn rooms_import_only_the_rooms_below_them() {
    let all = Crate::read();
    let rooms: BTreeSet<&str> = all.paths.keys().filter_map(|module| module.first()).map(String::as_str).collect();
    assert_eq!(rooms, FLOORS.into_iter().chain(LEAVES).collect(), "the rooms of src");
    let mut upward = Vec::new();
    for (module, imports) in all.imports() {
        let Some(room) = module.first() else { continue };
        for import in &imports {
            let is_allowed = match (floor(room), floor(&import[0])) {
                _ if *room == import[0] => true,
                (Some(from), Some(to)) => to < from,
                (Some(_), None) => true,
                (None, to) => to.is_some_and(|to| to < 2),
            };
            if !is_allowed {
                upward.push(format!("{} imports {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn files_do_not_import_each_other_in_a_loop() {
    let all = Crate::read();
    let imports = all.imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 500, "the imports were read");
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(module) = open.pop() {
            for next in imports.get(module).into_iter().flatten() {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    let looped: Vec<_> = imports.keys().filter(|module| !module.is_empty() && reaches(module, module)).collect();
    let looped: Vec<_> = looped.into_iter().map(|module| module.join("::")).collect();
    assert!(looped.is_empty(), "{looped:#?}");
}

//! The house rules that a machine can check.
//!
//! Each rule is a function from what it looks at (files as text, dependency edges) to the violations it found, so that
//! it is tested twice: `planted` shows it a violation and expects to be told, `house` shows it this repository and
//! expects silence. A rule that cannot fail proves nothing.
#![expect(clippy::disallowed_methods, reason = "reads the checkout itself, not a database")]
#![expect(clippy::unwrap_used, reason = "a test panics where it fails; clippy exempts only the test functions")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Longest file that is still read as one page.
const LINES_MAX: usize = 1000;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 4] = ["utils", "common", "helpers", "manager"];

/// Who may know whom: package, workspace packages it may depend on, other packages it must not depend on (a trailing
/// `*` covers every name that starts so). The reasons are in ARCHITECTURE.md.
const EDGES: [(&str, &[&str], &[&str]); 10] = [
    (
        "strata-oltp",
        &[],
        &["arrow", "arrow-array*", "arrow-ipc", "datafusion*", "futures*", "parquet", "sqlparser", "tokio*", "tonic*"],
    ),
    ("strata-olap", &["strata-oltp"], &["arrow-flight", "datafusion", "datafusion-sql", "sqlparser", "tonic*"]),
    ("strata-sql", &["strata-oltp", "strata-olap"], &["arrow-flight", "tonic*"]),
    ("strata-flight", &["strata-sql"], &["datafusion*", "parquet"]),
    ("strata-cli", &["strata-oltp", "strata-olap", "strata-sql", "strata-flight"], &[]),
    ("strata-benches", &["strata-oltp", "strata-olap", "strata-sql", "strata-flight", "strata-cli"], &[]),
    ("strata-schedules", &[], &["arrow", "datafusion*", "parquet", "sqlparser", "tokio*", "tonic*"]),
    ("strata-reliability", &["strata-oltp", "strata-olap"], &["datafusion*"]),
    ("strata-correctness", &["strata-oltp", "strata-sql"], &["datafusion*"]),
    ("ci", &[], &[]),
];

/// What a package's tests may use although the package must not: `olap` asks its questions of a whole query engine.
const TEST_EDGES: [(&str, &str); 1] = [("strata-olap", "datafusion")];

/// The text files of a checkout by their path from its root.
type Tree = Vec<(String, String)>;

/// `from` depends on `to`, be it for its tests alone.
#[derive(Clone, Debug)]
struct Edge {
    from: String,
    to: String,
    test_only: bool,
}

mod rules {
    //! The rules. Each returns one line per violation.

    use super::*;

    pub fn edges(edges: &[Edge]) -> Vec<String> {
        let mut found = Vec::new();
        for Edge { from, to, test_only } in edges {
            let Some((_, may, must_not)) = EDGES.iter().find(|(package, ..)| package == from) else {
                found.push(format!("{from} is missing in the table of edges"));
                continue;
            };
            let is_ours = EDGES.iter().any(|(package, ..)| package == to);
            if is_ours && !may.contains(&to.as_str()) {
                found.push(format!("{from} must not know {to}"));
            }
            let excused = *test_only && TEST_EDGES.contains(&(from, to));
            if !excused && must_not.iter().any(|pattern| matches(pattern, to)) {
                found.push(format!("{from} must not depend on {to}"));
            }
        }
        found
    }

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
    }

    /// DataFusion's traits change every few months: in `olap` they are met in one folder.
    pub fn datafusion_under_scan_only(tree: &Tree) -> Vec<String> {
        let outside =
            rust(tree).filter(|(path, _)| path.starts_with("olap/src/") && !path.starts_with("olap/src/scan"));
        lines_with(outside, |line| code(line).contains("datafusion"), "names DataFusion outside olap/src/scan")
    }

    /// The row store is plain blocking Rust over bytes.
    pub fn oltp_names_no_engine(tree: &Tree) -> Vec<String> {
        let oltp = rust(tree).filter(|(path, _)| path.starts_with("oltp/"));
        let words = ["datafusion", "tokio", "arrow_array", "arrow::", "strata_olap", "sqlparser", "async fn"];
        lines_with(oltp, |line| words.iter().any(|word| code(line).contains(word)), "names what oltp must not know")
    }

    pub fn headers(tree: &Tree) -> Vec<String> {
        let bare = rust(tree).filter(|(_, text)| !text.starts_with("//! "));
        bare.map(|(path, _)| format!("{path} does not open with its story (`//! …`)")).collect()
    }

    pub fn lengths(tree: &Tree) -> Vec<String> {
        let long = rust(tree).filter(|(_, text)| text.lines().count() >= LINES_MAX);
        long.map(|(path, _)| format!("{path} has {LINES_MAX} lines or more; look for the seam")).collect()
    }

    pub fn names(tree: &Tree) -> Vec<String> {
        let says_nothing = |path: &str| path.split('/').any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")));
        let empty = rust(tree).filter(|(path, _)| says_nothing(path));
        empty.map(|(path, _)| format!("{path} has a name that says nothing")).collect()
    }

    /// A format is described beside its encoder, shown by example, listed, and proved by a file of every version.
    pub fn formats(tree: &Tree) -> Vec<String> {
        let index = text(tree, "docs/formats.md");
        let mut found = Vec::new();
        for (path, text) in tree.iter().filter(|(path, _)| path.ends_with("FORMAT.md")) {
            if !text.to_lowercase().contains("example") || !text.contains("```hex") {
                found.push(format!("{path} has no worked example in hex"));
            }
            let Some(row) = index.lines().find(|line| line.contains(&format!("(../{path})"))) else {
                found.push(format!("docs/formats.md does not list {path}"));
                continue;
            };
            let fixtures: Vec<&str> = row.split('`').filter(|part| part.starts_with("data/compat/v")).collect();
            if fixtures.is_empty() {
                found.push(format!("docs/formats.md names no fixture of {path}"));
            }
            for fixture in fixtures {
                if !tree.iter().any(|(path, _)| path.starts_with(fixture)) {
                    found.push(format!("docs/formats.md names {fixture}, which is missing"));
                }
            }
        }
        found
    }

    /// Versions are written once, in the root: crates only inherit. A workspace of its own (fuzzers, comparisons with other
    /// engines) has nothing to inherit from.
    pub fn inheritance(tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        let is_member = |text: &str| !text.lines().any(|line| line.trim() == "[workspace]");
        for (path, text) in tree.iter().filter(|(path, text)| path.ends_with("/Cargo.toml") && is_member(text)) {
            let mut in_dependencies = false;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                if line.starts_with('[') {
                    in_dependencies = line.ends_with("dependencies]");
                } else if in_dependencies && !line.contains("workspace = true") {
                    found.push(format!("{path} does not inherit `{line}`"));
                }
            }
        }
        found
    }

    /// Two versions of a crate we name ourselves are two incompatible vocabularies.
    pub fn one_version(tree: &Tree, edges: &[Edge]) -> Vec<String> {
        let direct: BTreeSet<&str> = edges.iter().map(|edge| edge.to.as_str()).collect();
        let lock = text(tree, "Cargo.lock");
        let count = |name: &str| lock.lines().filter(|line| *line == format!("name = \"{name}\"")).count();
        let many = direct.into_iter().filter(|name| count(name) > 1);
        many.map(|name| format!("Cargo.lock has {} versions of {name}", count(name))).collect()
    }

    /// What the README tells a visitor to run is what decides whether a change lands.
    pub fn test_command(tree: &Tree) -> Vec<String> {
        let told: Vec<&str> = text(tree, "README.md").lines().filter(|line| line.starts_with("cargo test")).collect();
        let run: Vec<&str> =
            text(tree, ".ci/run").lines().filter_map(|line| line.strip_prefix("step cargo test")).collect();
        match (&told[..], &run[..]) {
            ([told], [run]) if told.strip_prefix("cargo test") == Some(run) => Vec::new(),
            _ => vec![format!("README.md tells {told:?}, .ci/run runs cargo test with {run:?}")],
        }
    }

    /// Relative links in the documents lead somewhere.
    pub fn links(tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        for (path, text) in tree.iter().filter(|(path, _)| path.ends_with(".md")) {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
                if target.is_empty() || target.contains("://") {
                    continue;
                }
                let wanted = resolve(folder, target);
                let inside = format!("{wanted}/");
                if !tree.iter().any(|(path, _)| *path == wanted || path.starts_with(&inside)) {
                    found.push(format!("{path} links to {target}, which is missing"));
                }
            }
        }
        found
    }

    fn resolve(folder: &str, target: &str) -> String {
        let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in target.trim_end_matches('/').split('/') {
            match part {
                ".." => drop(parts.pop()),
                "." => {}
                _ => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// The numbers that code cites exist: `(I4)` is an invariant, `(P9)` a promise of ARCHITECTURE.md.
    pub fn citations(tree: &Tree) -> Vec<String> {
        let architecture = text(tree, "ARCHITECTURE.md");
        let mut found = Vec::new();
        for (path, text) in rust(tree) {
            let cited = text.split(['(', ',', ' ']).filter_map(|rest| rest.split([')', ',', ' ', '.', ':']).next());
            for number in cited.filter(|word| is_citation(word)) {
                if !architecture.contains(&format!("**{number} ")) && !architecture.contains(&format!("**{number}**")) {
                    found.push(format!("{path} cites {number}, which ARCHITECTURE.md does not number"));
                }
            }
        }
        found
    }

    fn is_citation(word: &str) -> bool {
        let number = word.strip_prefix(['I', 'P']).unwrap_or_default();
        matches!(number.len(), 1..=2) && number.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn rust(tree: &Tree) -> impl Iterator<Item = &(String, String)> {
        tree.iter().filter(|(path, _)| path.ends_with(".rs"))
    }

    fn text<'a>(tree: &'a Tree, wanted: &str) -> &'a str {
        tree.iter().find(|(path, _)| path == wanted).map_or("", |(_, text)| text)
    }

    /// A line without its comment.
    fn code(line: &str) -> &str {
        line.split("//").next().unwrap_or_default()
    }

    fn lines_with<'a>(
        files: impl Iterator<Item = &'a (String, String)>,
        bad: impl Fn(&str) -> bool,
        what: &str,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (path, text) in files {
            let lines = text.lines().enumerate().filter(|(_, line)| bad(line));
            found.extend(lines.map(|(index, _)| format!("{path}:{} {what}", index + 1)));
        }
        found
    }
}

/// The checkout this test was compiled in.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files of the checkout; the content only of those that some rule reads.
fn checkout() -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                if !matches!(name.as_str(), "target" | ".git") {
                    folders.push(path);
                }
                continue;
            }
            let is_read = [".rs", ".md", "Cargo.toml", "Cargo.lock", ".ci/run"].iter().any(|end| path.ends_with(end));
            let text = if is_read { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
            tree.push((path, text));
        }
    }
    tree.sort();
    tree
}

/// The dependencies that the packages declare, of every kind.
fn declared_edges() -> Vec<Edge> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps().other_options(["--offline".to_string()]);
    let packages = command.exec().unwrap().packages;
    let edges = packages.iter().flat_map(|package| {
        package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            test_only: dependency.kind == DependencyKind::Development,
        })
    });
    edges.collect()
}

mod house {
    //! This repository keeps the rules.

    use super::*;

    fn assert_none(found: &[String]) {
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }

    #[test]
    fn who_may_know_whom() {
        let edges = declared_edges();
        assert!(edges.len() > 20, "cargo metadata lists the dependencies");
        assert_none(&rules::edges(&edges));
    }

    #[test]
    fn what_sources_may_name() {
        assert_none(&rules::datafusion_under_scan_only(&checkout()));
        assert_none(&rules::oltp_names_no_engine(&checkout()));
    }

    #[test]
    fn files_are_named_headed_and_short() {
        let tree = checkout();
        assert!(tree.iter().filter(|(path, _)| path.ends_with(".rs")).count() > 20);
        assert_none(&rules::headers(&tree));
        assert_none(&rules::lengths(&tree));
        assert_none(&rules::names(&tree));
    }

    #[test]
    fn formats_are_shown_listed_and_proved() {
        assert_none(&rules::formats(&checkout()));
    }

    #[test]
    fn versions_are_written_once() {
        assert_none(&rules::inheritance(&checkout()));
        assert_none(&rules::one_version(&checkout(), &declared_edges()));
    }

    #[test]
    fn the_readme_and_ci_run_the_same_tests() {
        assert_none(&rules::test_command(&checkout()));
    }

    #[test]
    fn documents_lead_somewhere() {
        assert_none(&rules::links(&checkout()));
        assert_none(&rules::citations(&checkout()));
    }
}

mod planted {
    //! Each rule speaks up when it should, and only then.

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect()
    }

    fn edges(edges: &[(&str, &str)]) -> Vec<Edge> {
        let edge = |(from, to): &(&str, &str)| Edge { from: from.to_string(), to: to.to_string(), test_only: false };
        edges.iter().map(edge).collect()
    }

    #[test]
    fn forbidden_edges() {
        let upward = edges(&[("strata-oltp", "strata-olap"), ("strata-sql", "strata-oltp")]);
        assert_eq!(rules::edges(&upward), ["strata-oltp must not know strata-olap"]);
        let facade = edges(&[("strata-olap", "datafusion"), ("strata-olap", "datafusion-catalog")]);
        assert_eq!(rules::edges(&facade), ["strata-olap must not depend on datafusion"]);
        let for_tests = |mut edges: Vec<Edge>| {
            edges.iter_mut().for_each(|edge| edge.test_only = true);
            rules::edges(&edges)
        };
        assert!(for_tests(facade).is_empty());
        assert_eq!(for_tests(upward), ["strata-oltp must not know strata-olap"]);
        assert_eq!(for_tests(edges(&[("strata-oltp", "datafusion")])).len(), 1);
        let arrays = edges(&[("strata-oltp", "arrow"), ("strata-oltp", "arrow-schema"), ("strata-oltp", "tokio-util")]);
        assert_eq!(rules::edges(&arrays).len(), 2);
        assert_eq!(rules::edges(&edges(&[("strata-flight", "strata-oltp")])).len(), 1);
        assert_eq!(rules::edges(&edges(&[("newcomer", "bytes")])), ["newcomer is missing in the table of edges"]);
    }

    #[test]
    fn forbidden_names_in_sources() {
        let source = "//! Not for DataFusion.\nuse datafusion_common::Result; // datafusion\n";
        let olap = tree(&[("olap/src/tier.rs", source), ("olap/src/scan/mod.rs", source)]);
        let found = rules::datafusion_under_scan_only(&olap);
        assert_eq!(found, ["olap/src/tier.rs:2 names DataFusion outside olap/src/scan"]);
        let oltp =
            tree(&[("oltp/src/db.rs", "//! No tokio.\nuse tokio::spawn;\n"), ("sql/src/lib.rs", "use tokio;\n")]);
        assert_eq!(rules::oltp_names_no_engine(&oltp), ["oltp/src/db.rs:2 names what oltp must not know"]);
    }

    #[test]
    fn bare_long_and_empty_names() {
        let files = tree(&[("a.rs", "//! Story.\n"), ("b.rs", "use a;\n//! Late.\n"), ("c.md", "no story\n")]);
        assert_eq!(rules::headers(&files), ["b.rs does not open with its story (`//! …`)"]);
        let files = [("a.rs".to_string(), "x\n".repeat(999)), ("b.rs".to_string(), "x\n".repeat(1000))];
        assert_eq!(rules::lengths(&files.to_vec()), ["b.rs has 1000 lines or more; look for the seam"]);
        let files = tree(&[("a/utils.rs", ""), ("a/helpers/b.rs", ""), ("a/common_prefix.rs", "")]);
        assert_eq!(rules::names(&files).len(), 2);
    }

    #[test]
    fn formats_without_example_row_or_fixture() {
        let row = "| [log](../w/FORMAT.md) | 1 | `data/compat/v1/wal` |\n";
        let (good, bad) = (("w/FORMAT.md", "## Example\n```hex\n00\n```\n"), ("w/FORMAT.md", "bytes\n"));
        let fixture = ("data/compat/v1/wal/0000000001.wal", "");
        assert!(rules::formats(&tree(&[good, ("docs/formats.md", row), fixture])).is_empty());
        let found = rules::formats(&tree(&[bad, ("docs/formats.md", row), fixture]));
        assert_eq!(found, ["w/FORMAT.md has no worked example in hex"]);
        let found = rules::formats(&tree(&[good, ("docs/formats.md", ""), fixture]));
        assert_eq!(found, ["docs/formats.md does not list w/FORMAT.md"]);
        let found = rules::formats(&tree(&[good, ("docs/formats.md", row)]));
        assert_eq!(found, ["docs/formats.md names data/compat/v1/wal, which is missing"]);
        let found = rules::formats(&tree(&[good, ("docs/formats.md", "[log](../w/FORMAT.md)"), fixture]));
        assert_eq!(found, ["docs/formats.md names no fixture of w/FORMAT.md"]);
    }

    #[test]
    fn own_and_double_versions() {
        let manifest = "[dependencies]\na.workspace = true\n# why\nb = \"1\"\n[lints]\nworkspace = true\n";
        let found =
            rules::inheritance(&tree(&[("x/Cargo.toml", manifest), ("Cargo.toml", "[dependencies]\nb = \"1\"")]));
        assert_eq!(found, ["x/Cargo.toml does not inherit `b = \"1\"`"]);
        let own = format!("{manifest}[workspace]\n");
        assert!(rules::inheritance(&tree(&[("x/fuzz/Cargo.toml", &own)])).is_empty());
        let lock = "name = \"a\"\nname = \"a\"\nname = \"b\"\nname = \"c\"\nname = \"c\"\n";
        let found = rules::one_version(&tree(&[("Cargo.lock", lock)]), &edges(&[("x", "a"), ("x", "b")]));
        assert_eq!(found, ["Cargo.lock has 2 versions of a"]);
    }

    #[test]
    fn another_test_command() {
        let run = (".ci/run", "step cargo clippy\nstep cargo test --workspace\n");
        assert!(rules::test_command(&tree(&[("README.md", "cargo test --workspace\n"), run])).is_empty());
        assert_eq!(rules::test_command(&tree(&[("README.md", "cargo test\n"), run])).len(), 1);
        assert_eq!(rules::test_command(&tree(&[("README.md", ""), run])).len(), 1);
        assert_eq!(rules::test_command(&tree(&[("README.md", "cargo test --workspace\n")])).len(), 1);
    }

    #[test]
    fn dead_links_and_unknown_numbers() {
        let page = "[a](../a/b.rs) [c](https://x/y) [d](c.md#top) [e](#here) [f](../a/) [g](../a/gone.rs)";
        let files = tree(&[("docs/page.md", page), ("a/b.rs", ""), ("docs/c.md", "")]);
        assert_eq!(rules::links(&files), ["docs/page.md links to ../a/gone.rs, which is missing"]);
        // Put together here, or this file would cite them.
        let code = format!("//! Once synced (I1, P{}). Generic I and P stay, (I2) too; also I{}.\n", 12, 77);
        let files = tree(&[("a.rs", &code), ("ARCHITECTURE.md", "**I1** and **I2 Rising.**")]);
        let found = rules::citations(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("P12") && found[1].contains("I77"));
    }
}

//! Links between documents lead somewhere, and so do documents that code names.

use std::path::Path;

use super::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            let dead = |target: &&&str| !exists(tree, file, target);
            let targets = if file.is_markdown() { links(line) } else { documents(line) };
            for target in targets.iter().filter(dead) {
                broken.push(format!("{}:{}: {target} does not exist", file.path, number + 1));
            }
        }
    }
    broken
}

/// Relative targets of `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    let targets = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next());
    let relative = |target: &&str| !target.contains("://") && !target.starts_with(['#', '<']) && !target.is_empty();
    targets.filter(relative).filter_map(|target| target.split('#').next()).collect()
}

/// `docs/….md` in code and comments.
fn documents(line: &str) -> Vec<&str> {
    let is_path = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let words = line.split(|c: char| !is_path(c));
    words.filter(|word| word.starts_with("docs/") && word.ends_with(".md")).collect()
}

fn exists(tree: &Tree, file: &File, target: &str) -> bool {
    let folder = if file.is_markdown() { Path::new(&file.path).parent() } else { None };
    tree.root.join(folder.unwrap_or(Path::new(""))).join(target).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_and_named_documents_are_found() {
        assert_eq!(links("see [a](b.md#part), [c](https://x.org/y) and [d](#here)"), ["b.md"]);
        assert_eq!(
            documents("// see docs/adr/0001-rooms-and-arrows.md, not docs/"),
            ["docs/adr/0001-rooms-and-arrows.md"]
        );
    }
}

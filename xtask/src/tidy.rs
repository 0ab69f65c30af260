//! The rules of this repository that a program can check; each has its reason beside it.

mod arrows;
mod links;
mod promises;
mod sources;
mod tree;

use crate::Outcome;
use tree::Tree;

/// Reads the tree once, applies every rule, prints what is broken.
pub(crate) fn run() -> Outcome {
    let tree = Tree::read(&crate::command::root())?;
    let mut broken = arrows::check()?;
    broken.extend(sources::check(&tree));
    broken.extend(promises::check(&tree));
    broken.extend(links::check(&tree));
    for note in sources::notes(&tree) {
        println!("note: {note}");
    }
    if broken.is_empty() {
        println!("tidy: {} files", tree.files.len());
        return Ok(());
    }
    for line in &broken {
        println!("{line}");
    }
    Err(format!("{} rules are broken", broken.len()))
}

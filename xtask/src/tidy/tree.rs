//! The text files of the source tree.

use std::path::Path;

use crate::Failure;

const EXTENSIONS: &[&str] = &["rs", "md", "toml", "py", "sh", "slt", "json"];
const SKIPPED: &[&str] = &["target", ".git", "corpus", "fixtures", "__pycache__", "eden-data", "eden-demo"];

/// One text file.
pub(super) struct File {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(super) fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }
}

/// All of them, in the order of their paths.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    pub(super) root: std::path::PathBuf,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self, Failure> {
        let mut tree = Tree { files: Vec::new(), root: root.to_path_buf() };
        tree.read_folder(root).map_err(|error| format!("read the source tree: {error}"))?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    fn read_folder(&mut self, folder: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                if !SKIPPED.contains(&&*name) {
                    self.read_folder(&path)?;
                }
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let is_script = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == ".ci");
            if EXTENSIONS.contains(&extension) || is_script {
                let relative = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                self.files.push(File { path: relative, text: std::fs::read_to_string(&path)? });
            }
        }
        Ok(())
    }
}

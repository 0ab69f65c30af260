//! A section: its keys, their defaults and their manual, declared once.

use std::fmt::Write as _;

use crate::Value;

/// One key, as it is shown.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub key: &'static str,
    /// Its manual entry, one string a line.
    pub docs: &'static [&'static str],
    /// Its value in TOML.
    pub value: String,
}

/// A section of a configuration; [`section!`](crate::section) declares one.
pub trait Section: Default {
    /// Its name in TOML.
    const NAME: &'static str;
    /// What it is about, one string a line.
    const ABOUT: &'static [&'static str];
    /// The names of its keys.
    const KEYS: &'static [&'static str];
    /// Sets one of [`Section::KEYS`].
    ///
    /// # Errors
    /// Says what kind of value the key takes.
    fn set(&mut self, key: &str, value: &Value) -> Result<(), String>;
    /// All keys with their values.
    fn entries(&self) -> Vec<Entry>;
}

/// Declares a section once: its struct, its defaults, its manual and its parser.
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $section:literal $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident : $type:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )+ }
            }
        }

        impl $crate::Section for $name {
            const NAME: &'static str = $section;
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [&'static str] = &[$(stringify!($field)),+];

            fn set(&mut self, key: &str, value: &$crate::Value) -> Result<(), String> {
                match key {
                    $( stringify!($field) => self.$field = <$type as $crate::Setting>::read(value)?, )+
                    _ => return Err(format!("there is no key {key:?}")),
                }
                Ok(())
            }

            fn entries(&self) -> Vec<$crate::Entry> {
                vec![$( $crate::Entry {
                    key: stringify!($field),
                    docs: &[$($doc),+],
                    value: $crate::Setting::show(&self.$field),
                } ),+]
            }
        }
    };
}

/// Appends a section as TOML, each key under its manual entry.
pub fn show_section<S: Section>(out: &mut String, section: &S) {
    show(out, section, &format!("[{}]", S::NAME));
}

/// As [`show_section`], for one of a list.
pub fn show_list_item<S: Section>(out: &mut String, section: &S) {
    show(out, section, &format!("[[{}]]", S::NAME));
}

fn show<S: Section>(out: &mut String, section: &S, head: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    for line in S::ABOUT {
        let _ = writeln!(out, "#{line}");
    }
    let _ = writeln!(out, "{head}");
    for entry in section.entries() {
        out.push('\n');
        for line in entry.docs {
            let _ = writeln!(out, "#{line}");
        }
        let _ = writeln!(out, "{} = {}", entry.key, entry.value);
    }
}

//! What an operator writes, and what is said about mistakes: on the configuration of a program that makes tea.
#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use expect_test::expect;
use settings::{
    ByteSize, ConfigError, Configuration, Contradiction, Others, Part, Period, Section as _, section, show_list_item,
    show_section,
};

section! {
    /// The kettle.
    "kettle" Kettle {
        /// What it says on it.
        label: String = "tin".into(),
        /// Where it stands.
        shelf: PathBuf = PathBuf::from("./shelf"),
        /// Cups that it boils at a time.
        cups_max: u32 = 4,
        /// It is off after this time, whatever
        /// it holds.
        off_after: Period = Period(Duration::from_secs(300)),
    }
}

section! {
    /// The list of who had which tea.
    "notes" Notes {
        /// Its size at most.
        max_bytes: ByteSize = ByteSize(1 << 20),
    }
}

section! {
    /// A guest.
    "guest" Guest {
        /// Its name.
        name: String = String::new(),
        /// What it takes.
        takes: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! {
    /// A cup that is filled by the kettle.
    "kettle.cup" Cup {
        /// Whose it is.
        of: String = String::new(),
        /// What is put into it before.
        with: Vec<String> = Vec::new(),
    }
}

impl Cup {
    fn check(&self) -> Result<(), Contradiction> {
        let wrong = |key, reason: &str| Err(Contradiction { key, reason: reason.into() });
        match &*self.of {
            "" => wrong("of", "a cup is somebody's"),
            "Bo" if !self.with.is_empty() => wrong("with", "Bo takes it as it is"),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Config {
    kettle: Kettle,
    notes: Notes,
    guests: Vec<Guest>,
    cups: Vec<Cup>,
}

impl Configuration for Config {
    const SECTIONS: &'static [&'static str] = &[Kettle::NAME, Cup::NAME, Notes::NAME, Guest::NAME];

    fn part(&mut self, section: &str) -> Option<Part<'_>> {
        Some(match section {
            Kettle::NAME => Part::section(&mut self.kettle),
            Notes::NAME => Part::section(&mut self.notes),
            Guest::NAME => Part::list(&mut self.guests),
            Cup::NAME => Part::checked_list(&mut self.cups, Cup::check),
            _ => return None,
        })
    }
}

fn read(text: &str) -> Result<Config, String> {
    let mut config = Config::default();
    settings::read_text(&mut config, Path::new("tea.toml"), text).map_err(|e| e.to_string())?;
    Ok(config)
}

fn with_variable(name: &str, value: &str, others: Others) -> Result<Config, String> {
    let mut config = Config::default();
    let environment = [(name.to_owned(), value.to_owned())];
    settings::read(&mut config, None, environment, "TEA_", others).map_err(|e| e.to_string())?;
    Ok(config)
}

fn show(config: &Config) -> String {
    let mut out = String::new();
    show_section(&mut out, &config.kettle);
    for cup in &config.cups {
        show_list_item(&mut out, cup);
    }
    show_section(&mut out, &config.notes);
    for guest in &config.guests {
        show_list_item(&mut out, guest);
    }
    out
}

fn guest(name: &str, takes: &[(&str, &str)]) -> Guest {
    let takes = takes.iter().map(|(what, how)| ((*what).to_owned(), (*how).to_owned())).collect();
    Guest { name: name.to_owned(), takes }
}

#[test]
fn a_file_sets_what_it_names_and_leaves_the_rest() {
    assert_eq!(read("").unwrap(), Config::default());
    let config = read("[kettle]\ncups_max = 1_2\nshelf = '/a'\n[notes]\nmax_bytes = \"4KiB\"\n").unwrap();
    let kettle = Kettle { cups_max: 12, shelf: "/a".into(), ..Kettle::default() };
    assert_eq!(config, Config { kettle, notes: Notes { max_bytes: ByteSize(4096) }, ..Config::default() });
}

#[test]
fn a_list_has_an_item_for_each_of_its_heads_and_replaces_what_was_there() {
    let mut config = Config { guests: vec![guest("nobody", &[])], ..Config::default() };
    let text = "[[guest]]\nname = \"Ada\"\ntakes = { milk = \"a drop\" }\n[[guest]]\nname = \"Bo\"\n";
    settings::read_text(&mut config, Path::new("tea.toml"), text).unwrap();
    assert_eq!(config.guests, [guest("Ada", &[("milk", "a drop")]), guest("Bo", &[])]);
}

fn cup(of: &str, with: &[&str]) -> Cup {
    Cup { of: of.to_owned(), with: with.iter().map(|text| (*text).to_owned()).collect() }
}

#[test]
fn a_list_may_stand_below_a_section_wherever_that_is() {
    let cups = [cup("Ada", &["milk", "a \"spoon\""]), cup("Bo", &[])];
    let list = "[[kettle.cup]]\nof = \"Ada\"\nwith = [\"milk\", 'a \"spoon\"']\n[[kettle.cup]]\nof = \"Bo\"\n";
    for text in [list.to_owned(), format!("[kettle]\ncups_max = 4\n{list}"), format!("{list}[kettle]\ncups_max = 4\n")]
    {
        assert_eq!(read(&text).unwrap().cups, cups, "{text}");
    }
}

#[test]
fn what_an_item_of_a_list_says_as_a_whole_is_checked_and_has_a_place() {
    for (text, said) in [
        ("[[kettle.cup]]\nof = \"Ada\"\n[[kettle.cup]]\nwith = []", "3:1: of: a cup is somebody's"),
        ("[[kettle.cup]]\nof = \"Bo\"\nwith = [\"milk\"]", "3:8: with: Bo takes it as it is"),
        ("[[kettle.cup]]\nwiht = []", r#"2:1: unknown key "wiht"; did you mean "with"?"#),
        ("[kettle]\n[[kettle.cpu]]", r#"2:10: unknown key "cpu"; did you mean "cup"?"#),
        ("[kettle.cup]\nof = \"x\"", "1:9: kettle.cup is a list: write [[kettle.cup]] on a line of its own for each"),
        ("[[\"kettle.cup\"]]", r#"1:3: unknown section "kettle.cup"; did you mean "kettle"?"#),
        ("[[kettle.cup]]\nwith = \"milk\"", "2:8: with: this key takes a list of texts: [\"room\", \"floor\"]"),
    ] {
        assert_eq!(read(text).unwrap_err(), format!("tea.toml:{said}"));
    }
}

#[test]
fn a_variable_overrides_the_file_by_one_rule() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tea.toml");
    std::fs::write(&path, "[kettle]\nlabel = \"file\"\ncups_max = 1\n").unwrap();
    let environment = [("TEA_KETTLE_CUPS_MAX", " 7 "), ("TEA_NOTES_MAX_BYTES", "2KiB"), ("HOME", "/")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut config = Config::default();
    settings::read(&mut config, Some(&path), environment, "TEA_", Others::Refused).unwrap();
    assert_eq!((&*config.kettle.label, config.kettle.cups_max), ("file", 7));
    assert_eq!(config.notes.max_bytes, ByteSize(2048));
}

#[test]
fn mistakes_in_a_file_are_named_with_their_place_and_what_is_close() {
    for (text, said) in [
        ("[kettle]\nlabl = \"x\"", r#"2:1: unknown key "labl"; did you mean "label"?"#),
        ("[kettel]\nlabel = \"x\"", r#"1:2: unknown section "kettel"; did you mean "kettle"?"#),
        ("[teapot]\n", r#"1:2: unknown section "teapot"; there are kettle, notes, guest"#),
        ("[[guest]]\n[[guest]]\nnmae = \"x\"", r#"3:1: unknown key "nmae"; did you mean "name"?"#),
        ("kettle = 1", "1:1: kettle is a section: write [kettle] on a line of its own"),
        ("[guest]\nname = \"x\"", "1:2: guest is a list: write [[guest]] on a line of its own for each"),
        ("guest = [1]", "1:1: guest is a list: write [[guest]] on a line of its own for each"),
        // Columns count characters.
        (
            "kettle = { label = \"grün\", off = 1 }",
            r#"1:28: unknown key "off"; there are label, shelf, cups_max, off_after, cup"#,
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), format!("tea.toml:{said}"));
    }
    for text in ["[kettle\n", "[kettle]\nlabel = \"x", "[kettle]\nlabel = \"x\"\nlabel = \"y\""] {
        let broken = read(text).unwrap_err();
        assert!(broken.starts_with("tea.toml:") && broken.lines().count() == 1, "{broken}");
    }
}

#[test]
fn a_value_that_its_key_does_not_take_is_refused_with_one_that_it_does() {
    for (text, said) in [
        ("[kettle]\nlabel = 1", "2:9: label: 1 needs quotes: this key takes a text"),
        ("[kettle]\nlabel = [\"x\"]", "2:9: label: this key takes a text, not a list"),
        ("[kettle]\nlabel = { x = \"y\" }", "2:9: label: this key takes a text, not a table"),
        ("[kettle]\nlabel = 1.5", "2:9: label: this key takes a text, not a fraction"),
        ("[kettle]\nlabel = true", "2:9: label: this key takes a text, not true or false"),
        ("[kettle]\nlabel = 2026-06-01", "2:9: label: this key takes a text, not a date"),
        ("[kettle]\nlabel = 9223372036854775808", "2:9: label: this key takes a text, not so large a number"),
        ("[kettle]\nshelf = \"\"", "2:9: shelf: this key takes a path, not an empty text"),
        ("[kettle]\ncups_max = \"7\"", "2:12: cups_max: this key takes a whole number without quotes"),
        ("[kettle]\ncups_max = -1", "2:12: cups_max: this key takes a whole number without quotes"),
        ("[kettle]\ncups_max = 4294967296", "2:12: cups_max: this key takes a whole number without quotes"),
        ("[kettle]\noff_after = 90", r#"2:13: off_after: 90 needs quotes: this key takes a duration such as "90s""#),
        (
            "[notes]\nmax_bytes = \"2GB\"",
            r#"2:13: max_bytes: "2GB" is not a size; write a whole number and B, KiB, MiB, GiB or TiB: "256MiB""#,
        ),
        ("[[guest]]\ntakes = { milk = 1 }", r#"2:9: takes: this key takes texts by name: { room = "kitchen" }"#),
    ] {
        assert_eq!(read(text).unwrap_err(), format!("tea.toml:{said}"));
    }
}

#[test]
fn mistakes_in_the_environment_are_named() {
    for (name, said) in [
        ("TEA_KETTLE_LABL", r#"unknown key "labl"; did you mean "label"?"#),
        ("TEA_KETTLE", r#"unknown key ""; there are label, shelf, cups_max, off_after"#),
        ("TEA_KETTLE_CUPS_MAX", "cups_max: this key takes a whole number without quotes"),
        ("TEA_GUEST_NAME", "[[guest]] is a list: write it in the file"),
        ("TEA_KETTLE_CUP", "[[kettle.cup]] is a list: write it in the file"),
        ("TEA_KETTLE_CUP_OF", "[[kettle.cup]] is a list: write it in the file"),
    ] {
        let said = format!("environment variable {name}: {said}");
        assert_eq!(with_variable(name, "x", Others::Ignored).unwrap_err(), said);
        assert_eq!(with_variable(name, "x", Others::Refused).unwrap_err(), said);
    }
}

#[test]
fn a_variable_that_names_no_section_is_a_mistake_only_where_the_program_says_so() {
    assert_eq!(with_variable("TEA_POT_LABEL", "x", Others::Ignored).unwrap(), Config::default());
    assert_eq!(
        with_variable("TEA_KETTEL_LABEL", "x", Others::Refused).unwrap_err(),
        r#"environment variable TEA_KETTEL_LABEL: unknown section "kettel"; did you mean "kettle"?"#
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut config = Config::default();
    let read = settings::read(&mut config, Some(Path::new("/nowhere/tea.toml")), [], "TEA_", Others::Refused);
    let Err(error @ ConfigError::Unreadable { .. }) = read else { panic!("{read:?}") };
    assert!(error.to_string().starts_with("read configuration /nowhere/tea.toml: "), "{error}");
}

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    let config = Config {
        kettle: Kettle {
            label: "a \"quoted\"\nlabel with a \\ and a \u{7}".into(),
            shelf: "/a b".into(),
            cups_max: 3,
            off_after: Period(Duration::from_millis(1500)),
        },
        notes: Notes { max_bytes: ByteSize(1025) },
        guests: vec![guest("Ada", &[("two words", "\"\n'"), ("", "")]), guest("Bo", &[])],
        cups: vec![cup("Ada", &["", "a \"\n'"]), cup("Bo", &[])],
    };
    let shown = show(&config);
    assert_eq!(read(&shown).unwrap(), config, "{shown}");
}

#[test]
fn each_key_is_shown_under_its_manual_entry() {
    let config = Config { guests: vec![guest("Ada", &[("milk", "a drop"), ("sugar", "2")])], ..Config::default() };
    expect![[r##"
        # The kettle.
        [kettle]

        # What it says on it.
        label = "tin"

        # Where it stands.
        shelf = "./shelf"

        # Cups that it boils at a time.
        cups_max = 4

        # It is off after this time, whatever
        # it holds.
        off_after = "5m"

        # The list of who had which tea.
        [notes]

        # Its size at most.
        max_bytes = "1MiB"

        # A guest.
        [[guest]]

        # Its name.
        name = "Ada"

        # What it takes.
        takes = { "milk" = "a drop", "sugar" = "2" }
    "##]]
    .assert_eq(&show(&config));
}

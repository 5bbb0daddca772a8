//! The command lines that go on with a program.

use std::ffi::OsString;

use wsnap::snapshots::ImageId;

use super::{SUSPENDED, Session};
use crate::output;

/// What this process was called with: what the command lines depend on that go on with its program.
pub(crate) enum CalledAs {
    /// `run`, perhaps with `--continue`; `keeping` has the words of a command line that keeps the program running, if that was
    /// asked for.
    Run {
        continues: bool,
        keeping: Option<Vec<String>>,
        target: Option<String>,
    },
    /// `resume`, with what only that knows.
    Resume {
        files: String,
        target: Option<String>,
    },
}

impl CalledAs {
    /// Whether whoever called it does so again and again, and the program then goes on.
    pub fn goes_on_by_itself(&self) -> bool {
        matches!(
            self,
            Self::Run {
                continues: true,
                ..
            }
        )
    }
}

/// The words of this process's own command line, without its name.
pub(crate) fn own_words() -> Vec<String> {
    let words = std::env::args_os().skip(1);
    words.map(lossy).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped over values")]
fn lossy(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// Words as a shell reads them.
pub(super) fn line(words: &[String]) -> String {
    let joined = shlex::try_join(words.iter().map(String::as_str));
    joined.unwrap_or_else(|_| words.join(" "))
}

impl Session<'_> {
    /// The words of a command line that goes on with the program as it was run: one of `resume`, without the image, or one of
    /// `run --continue`, which finds it by itself.
    pub(super) fn words_to_go_on(&self) -> Vec<String> {
        let mut words = vec!["resume".to_owned()];
        match &self.called_as {
            CalledAs::Run {
                keeping: Some(words),
                ..
            } => return words.clone(),
            CalledAs::Run { target, .. } => words.extend(flag("--target", target.as_deref())),
            CalledAs::Resume { files, target } => {
                words.extend(flag("--files", Some(files)));
                words.extend(flag("--target", target.as_deref()));
            }
        }
        words.extend(self.grants());
        words.extend(self.saving_and_sharing());
        let options = self.options;
        let id_file = options.id_file.as_ref();
        let id_file = id_file.map(|path| path.display().to_string());
        words.extend(flag("--id-file", id_file.as_deref()));
        for label in &options.labels {
            let label = format!("{}={}", label.key, label.value);
            words.extend(flag("--label", Some(&label)));
        }
        for (name, value) in options.limits.flags() {
            words.extend(flag(name, Some(&value)));
        }
        if options.limits.trap_on_grow_failure {
            words.push("--trap-on-grow-failure".to_owned());
        }
        let code = options.suspended_exit_code;
        if code != SUSPENDED {
            words.extend(flag("--suspended-exit-code", Some(&code.to_string())));
        }
        if options.json {
            words.push("--json".to_owned());
        }
        words
    }

    fn saving_and_sharing(&self) -> Vec<String> {
        let (saving, slots) = (&self.options.saving, &self.options.slots);
        let mut words = Vec::new();
        let mut add = |name, value: String| words.extend(flag(name, Some(&value)));
        if let Some(every) = saving.every {
            add("--every", format!("{}ns", every.0.as_nanos()));
            add("--max-saving", saving.max_saving.to_string());
            add("--keep-saved", saving.keep_saved.to_string());
        }
        if let Some(grace) = saving.grace(false) {
            add("--grace", format!("{}ns", grace.as_nanos()));
        }
        if let Some(directory) = &slots.directory {
            add("--slots", directory.display().to_string());
            // In one word, since it can begin with a dash.
            words.push(format!("--priority={}", slots.priority));
        }
        words
    }

    /// What whoever resumes the program has to grant it again.
    fn grants(&self) -> Vec<String> {
        let mut words = Vec::new();
        for directory in self.directories {
            words.extend(flag("--dir", Some(&directory.to_string())));
        }
        for address in self.listeners {
            words.extend(flag("--tcplisten", Some(&address.to_string())));
        }
        let output = self.options.output.as_ref();
        let output = output.map(|path| path.display().to_string());
        words.extend(flag("--output", output.as_deref()));
        words
    }

    /// The command line that resumes the program, for people.
    pub(super) fn resume_command(&self, id: ImageId) -> Vec<String> {
        let mut words = vec!["wsnap".to_owned(), "resume".to_owned()];
        words.extend(self.places.store_flags());
        words.extend(self.grants());
        words.push(match self.keeper.name() {
            Some(name) => name.to_owned(),
            None => output::short_id(id),
        });
        words
    }
}

fn flag(name: &str, value: Option<&str>) -> Vec<String> {
    let words = value.map(|value| [name.to_owned(), value.to_owned()]);
    words.into_iter().flatten().collect()
}

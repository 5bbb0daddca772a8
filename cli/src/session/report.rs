//! What is said of a suspension.

use serde::Serialize;
use wsnap::snapshots::ImageId;

use super::Session;
use super::keeper::Taken;
use super::requests::StopCause;
use crate::output;

/// The report of a suspension, on standard error.
#[derive(Serialize)]
struct Report<'a> {
    suspended: Suspension<'a>,
}

#[derive(Serialize)]
struct Suspension<'a> {
    id: String,
    name: Option<&'a str>,
    cause: &'static str,
    taken_ms: u64,
    durable_ms: u64,
    /// The command line that goes on, word by word.
    resume: &'a [String],
}

impl Session<'_> {
    /// Says that the program has been suspended for good.
    pub(super) fn report(&self, taken: &Taken, cause: StopCause) {
        let resume = self.resume_command(taken.id);
        if self.options.json {
            output::json_message(&Report {
                suspended: Suspension {
                    id: taken.id.to_string(),
                    name: self.keeper.name(),
                    cause: cause.as_str(),
                    taken_ms: output::milliseconds(taken.taken),
                    durable_ms: output::milliseconds(taken.durable),
                    resume: &resume,
                },
            });
            return;
        }
        output::message(format_args!(
            "suspended ({}) as image {}\nresume with: {}",
            cause.as_str(),
            taken.id,
            line(&resume)
        ));
    }

    /// The words of a command line that goes on with the program as it was run, without the image: that of `run --continue`
    /// goes on by itself.
    pub(super) fn words_to_go_on(&self) -> Vec<String> {
        if self.continues {
            let words = std::env::args_os().skip(1);
            return words
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
        }
        let mut words = vec!["resume".to_owned()];
        words.extend(self.grants());
        let mut flag = |flag: &str, value: String| {
            words.push(flag.to_owned());
            words.push(value);
        };
        let options = self.options;
        if let Some(every) = options.saving.every {
            flag("--every", format!("{}ns", every.0.as_nanos()));
            flag("--max-saving", options.saving.max_saving.to_string());
            flag("--keep-saved", options.saving.keep_saved.to_string());
        }
        if let Some(slots) = &options.slots.directory {
            flag("--slots", slots.display().to_string());
            flag("--priority", options.slots.priority.to_string());
        }
        if let Some(path) = &options.id_file {
            flag("--id-file", path.display().to_string());
        }
        for label in &options.labels {
            flag("--label", format!("{}={}", label.key, label.value));
        }
        for (name, value) in options.limits.flags() {
            flag(name, value);
        }
        if options.limits.trap_on_grow_failure {
            words.push("--trap-on-grow-failure".to_owned());
        }
        words
    }

    /// What whoever resumes the program has to grant it again.
    fn grants(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |flag: &str, value: String| {
            words.push(flag.to_owned());
            words.push(value);
        };
        for directory in self.directories {
            flag("--dir", directory.to_string());
        }
        for address in self.listeners {
            flag("--tcplisten", address.to_string());
        }
        if let Some(path) = &self.options.output {
            flag("--output", path.display().to_string());
        }
        words
    }

    fn resume_command(&self, id: ImageId) -> Vec<String> {
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

fn line(words: &[String]) -> String {
    let joined = shlex::try_join(words.iter().map(String::as_str));
    joined.unwrap_or_else(|_| words.join(" "))
}

//! The values of flags that have a syntax of their own.

mod volumes;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use wsnap::wasi::Preopen;

use crate::failure::Failure;

pub use volumes::{NewVolume, VolumePath};

/// Separates the host's path from the guest's in `--dir`.
const SEPARATOR: &str = "::";

/// When a program is to be suspended: `safepoint=N`, `after=DURATION` or `stdin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At the so many-th safepoint from the start of this process, at least the first.
    Safepoint(u64),
    /// When so much time has passed.
    After(Duration),
    /// When the program would block reading standard input.
    Stdin,
}

/// A text is not a trigger.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// It is no kind of trigger.
    #[error("expected safepoint=N, after=DURATION or stdin")]
    Unknown,
    /// The number of a safepoint is wrong.
    #[error("{0:?} is not the number of a safepoint: they count from 1")]
    Safepoint(String),
    /// The duration is wrong.
    #[error("{text:?} is not a duration such as 10ms, 1.5s or 2m: {source}")]
    Duration {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: humantime::DurationError,
    },
}

impl FromStr for Trigger {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        match text.split_once('=') {
            None if text == "stdin" => Ok(Self::Stdin),
            Some(("safepoint", number)) => match number.parse() {
                Ok(number) if number > 0 => Ok(Self::Safepoint(number)),
                _ => Err(TriggerError::Safepoint(number.to_owned())),
            },
            Some(("after", text)) => match humantime::parse_duration(text) {
                Ok(duration) => Ok(Self::After(duration)),
                Err(source) => Err(TriggerError::Duration {
                    text: text.to_owned(),
                    source,
                }),
            },
            _ => Err(TriggerError::Unknown),
        }
    }
}

/// A text is not a duration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// It has no such form.
    #[error("expected a duration such as 90s, 2h or 14days: {0}")]
    Syntax(#[from] humantime::DurationError),
    /// Periods follow one another, so they take some time.
    #[error("a period has at least a millisecond")]
    Short,
}

/// Reads a duration such as `90s`, `2h 30m` or `14days`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    Ok(humantime::parse_duration(text)?)
}

/// A length of time that is divided into: a duration of a millisecond at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let duration = parse_duration(text)?;
        if duration < Duration::from_millis(1) {
            return Err(DurationError::Short);
        }
        Ok(Self(duration))
    }
}

/// A directory to grant: `HOST` or `HOST::GUEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The host's path.
    pub host: PathBuf,
    /// The name that the program knows it by, by default the host's path as given.
    pub guest: String,
}

/// A text names no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST or HOST::GUEST, neither of them empty")]
pub struct DirectoryError;

impl FromStr for Directory {
    type Err = DirectoryError;

    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        let (host, guest) = text.split_once(SEPARATOR).unwrap_or((text, text));
        if host.is_empty() || guest.is_empty() {
            return Err(DirectoryError);
        }
        Ok(Self {
            host: host.into(),
            guest: guest.to_owned(),
        })
    }
}

/// Writes what `from_str` reads.
impl fmt::Display for Directory {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.as_os_str() == self.guest.as_str() {
            to.write_str(&self.guest)
        } else {
            write!(to, "{}{SEPARATOR}{}", self.host.display(), self.guest)
        }
    }
}

impl Directory {
    /// Opens the directories, each for the program to see under its guest path.
    pub(crate) fn open_all(directories: &[Self]) -> Result<Vec<Preopen>, Failure> {
        let open = |directory: &Self| Preopen::open(&directory.host, &directory.guest);
        Ok(directories.iter().map(open).collect::<Result<_, _>>()?)
    }
}

/// Something to keep with the record of a snapshot: `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A text is not a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected KEY=VALUE, the key not empty")]
pub struct LabelError;

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(LabelError),
        }
    }
}

impl Label {
    /// The values by key; of several with one key, the last.
    pub(crate) fn collect(labels: &[Self]) -> BTreeMap<String, String> {
        let labels = labels.iter();
        labels
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect()
    }
}

/// An environment variable to set: `NAME=VALUE`, or `NAME` to pass on the value that this process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The value; none to pass on this process's own.
    pub value: Option<String>,
}

/// A text is not an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME=VALUE or NAME")]
pub struct VariableError;

impl FromStr for Variable {
    type Err = VariableError;

    fn from_str(text: &str) -> Result<Self, VariableError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(VariableError);
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl Variable {
    /// Names and values for the program. A variable to pass on that this process doesn't have is left unset.
    pub(crate) fn resolve_all(variables: &[Self]) -> Result<Vec<(String, String)>, Failure> {
        let mut resolved = Vec::new();
        for variable in variables {
            let value = match &variable.value {
                Some(value) => Some(value.clone()),
                None => inherited(&variable.name)?,
            };
            resolved.extend(value.map(|value| (variable.name.clone(), value)));
        }
        Ok(resolved)
    }
}

fn inherited(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::new(format!(
            "the environment variable {name} is not UTF-8 text"
        ))
        .hint(format!("set it with --env {name}=VALUE"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_triggers_are_understood() {
        assert_eq!("safepoint=1".parse(), Ok(Trigger::Safepoint(1)));
        assert_eq!(
            format!("safepoint={}", u64::MAX).parse(),
            Ok(Trigger::Safepoint(u64::MAX))
        );
        assert_eq!(
            "after=10ms".parse(),
            Ok(Trigger::After(Duration::from_millis(10)))
        );
        assert_eq!(
            "after=1.5s".parse(),
            Ok(Trigger::After(Duration::from_millis(1500)))
        );
        assert_eq!(
            "after=2m".parse(),
            Ok(Trigger::After(Duration::from_secs(120)))
        );
        assert_eq!("stdin".parse(), Ok(Trigger::Stdin));
    }

    #[test]
    fn what_is_no_trigger_is_refused_with_what_is_wrong_with_it() {
        for text in ["", "tomorrow", "stdin=1", "safepoint", "after"] {
            assert_eq!(
                text.parse::<Trigger>(),
                Err(TriggerError::Unknown),
                "{text}"
            );
        }
        for number in ["", "0", "-1", "some", "18446744073709551616"] {
            assert_eq!(
                format!("safepoint={number}").parse::<Trigger>(),
                Err(TriggerError::Safepoint(number.to_owned()))
            );
        }
        for duration in ["", "soon", "1", "-1s", "99999999999999999999y"] {
            match format!("after={duration}").parse::<Trigger>() {
                Err(TriggerError::Duration { text, .. }) => assert_eq!(text, duration),
                parsed => panic!("{duration}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn a_period_is_a_duration_that_is_not_zero() {
        assert_eq!("1h".parse(), Ok(Period(Duration::from_secs(3600))));
        assert_eq!("1ms".parse(), Ok(Period(Duration::from_millis(1))));
        for text in ["0s", "999us"] {
            assert_eq!(text.parse::<Period>(), Err(DurationError::Short), "{text}");
        }
        match "hourly".parse::<Period>() {
            Err(DurationError::Syntax(_)) => (),
            parsed => panic!("{parsed:?}"),
        }
    }

    #[test]
    fn the_guest_path_of_a_directory_is_the_host_path_unless_given() {
        let directory = |host: &str, guest: &str| Directory {
            host: host.into(),
            guest: guest.to_owned(),
        };
        assert_eq!("data".parse(), Ok(directory("data", "data")));
        assert_eq!("a/b::/w".parse(), Ok(directory("a/b", "/w")));
        assert_eq!("a:b::c:d".parse(), Ok(directory("a:b", "c:d")));
        for text in ["", "::", "a::", "::b"] {
            assert_eq!(text.parse::<Directory>(), Err(DirectoryError), "{text}");
        }
    }

    #[test]
    fn a_variable_is_set_or_passed_on() {
        let variable = |name: &str, value: Option<&str>| Variable {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        assert_eq!("A=b=c".parse(), Ok(variable("A", Some("b=c"))));
        assert_eq!("A=".parse(), Ok(variable("A", Some(""))));
        assert_eq!("A".parse(), Ok(variable("A", None)));
        for text in ["", "=b"] {
            assert_eq!(text.parse::<Variable>(), Err(VariableError), "{text}");
        }
    }

    #[test]
    fn a_variable_to_pass_on_that_is_not_set_stays_unset() {
        let variables = [
            variable_of("WSNAP_TEST_NOBODY_SETS_THIS"),
            variable_of("SET=here"),
        ];
        let resolved = Variable::resolve_all(&variables).expect("all are text");
        assert_eq!(resolved, [("SET".to_owned(), "here".to_owned())]);
    }

    #[test]
    fn a_label_has_a_key_and_a_value() {
        let labels = ["a=1", "b=", "a=2=3"].map(|text| text.parse().expect("a label"));
        let expected = [("a", "2=3"), ("b", "")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(Label::collect(&labels), BTreeMap::from(expected));
        for text in ["", "a", "=b"] {
            assert_eq!(text.parse::<Label>(), Err(LabelError), "{text}");
        }
    }

    fn variable_of(text: &str) -> Variable {
        text.parse().expect("a variable")
    }
}

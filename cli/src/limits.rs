//! The flags that limit what a program may use.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wsnap::Limits;

use crate::arguments::{DurationError, parse_duration};

/// Limits are no part of an image: whoever resumes a program sets them anew.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// How large each memory may become, such as 64MiB; beyond that, growing fails
    #[arg(long, value_name = "SIZE")]
    pub max_memory_size: Option<Size>,
    /// How many elements each table may have; beyond that, growing fails
    #[arg(long, value_name = "N")]
    pub max_table_elements: Option<u64>,
    /// Trap, rather than let growing fail, when a memory or table would exceed its limit
    #[arg(long)]
    pub trap_on_grow_failure: bool,
    /// How many descriptors may be open at once; beyond that, opening fails
    #[arg(long, value_name = "N")]
    pub max_descriptors: Option<u32>,
    /// How much the files of each volume may hold, and their names beside that; beyond that, writing and creating fail
    #[arg(long, value_name = "SIZE")]
    pub max_volume_size: Option<Size>,
    /// How much native stack the program may use; beyond that, it traps [default: 16MiB, 32MiB when resumed]
    #[arg(long, value_name = "SIZE")]
    pub max_wasm_stack: Option<Size>,
    /// End the program when so much time has passed since this process began to run it, such as 90s or 2h
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    pub timeout: Option<Duration>,
    /// End the program when it has used so much processor time since this process began to run it
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    pub cpu_timeout: Option<Duration>,
    /// What becomes of a program whose time is up
    #[arg(long, value_enum, default_value_t)]
    pub on_timeout: OnTimeout,
}

/// What becomes of a program whose time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTimeout {
    /// It ends, with exit code 134 as if it had trapped, and what it has computed is lost
    #[default]
    Kill,
    /// It is suspended, as by Ctrl-C, and can go on later
    Suspend,
}

impl LimitArgs {
    /// What the library sees to.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.max_memory_size.map(|size| size.0),
            table_elements: self.max_table_elements,
            trap_on_grow_failure: self.trap_on_grow_failure,
            descriptors: self.max_descriptors,
            volume_bytes: self.max_volume_size.map(|size| size.0),
        }
    }

    /// The flags and their values that say the same again.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        let mut flag = |name, value: Option<String>| flags.extend(value.map(|value| (name, value)));
        let size = |size: Option<Size>| size.map(|size| size.0.to_string());
        let time = |time: Option<Duration>| time.map(|time| format!("{}ns", time.as_nanos()));
        flag("--max-memory-size", size(self.max_memory_size));
        flag(
            "--max-table-elements",
            self.max_table_elements.map(|elements| elements.to_string()),
        );
        flag(
            "--max-descriptors",
            self.max_descriptors.map(|count| count.to_string()),
        );
        flag("--max-volume-size", size(self.max_volume_size));
        flag("--max-wasm-stack", size(self.max_wasm_stack));
        flag("--timeout", time(self.timeout));
        flag("--cpu-timeout", time(self.cpu_timeout));
        let suspends = self.on_timeout == OnTimeout::Suspend;
        flag("--on-timeout", suspends.then(|| "suspend".to_owned()));
        flags
    }

    /// How much native stack the program may use, in bytes, if that is limited.
    pub fn stack_bytes(&self) -> Option<usize> {
        let size = self.max_wasm_stack?;
        Some(usize::try_from(size.0).unwrap_or(usize::MAX))
    }
}

fn parse_deadline(text: &str) -> Result<Duration, DurationError> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err(DurationError::Short);
    }
    Ok(duration)
}

/// A number of bytes: `65536`, `64KiB`, `16MiB` or `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

/// A text is not a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of bytes such as 65536, 64KiB, 16MiB or 2GiB")]
pub(crate) struct SizeError;

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
        let unit = match &text[digits.len()..] {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(SizeError),
        };
        let number: u64 = digits.parse().map_err(|_| SizeError)?;
        number.checked_mul(unit).map(Self).ok_or(SizeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit_or_without() {
        assert_eq!("0".parse(), Ok(Size(0)));
        assert_eq!("65536".parse(), Ok(Size(65536)));
        assert_eq!("64KiB".parse(), Ok(Size(65536)));
        assert_eq!("3MiB".parse(), Ok(Size(3 << 20)));
        assert_eq!("2GiB".parse(), Ok(Size(2 << 30)));
        for text in [
            "",
            "KiB",
            "1kb",
            "1.5MiB",
            "-1",
            "99999999999999999999",
            "18446744073709551615GiB",
            "1 KiB",
        ] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
    }
}

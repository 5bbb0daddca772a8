//! How results and messages look.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Once;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use wsnap::snapshots::ImageId;

use crate::failure::Failure;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// So many digits of an id are shown where a short form will do.
const SHORT_ID_DIGITS: usize = 12;
/// What takes less is not worth a flicker.
const PROGRESS_DELAY: Duration = Duration::from_millis(250);
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// The end of the year 9999, behind which dates have no usual form.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;

/// Writes `error: …` to standard error.
pub(crate) fn error(message: &str) {
    labelled(ERROR, "error", message);
}

/// Writes `hint: …` to standard error.
pub(crate) fn hint(message: &str) {
    labelled(HINT, "hint", message);
}

fn labelled(style: Style, label: &str, message: &str) {
    let message = printable(message);
    // Without anybody to read messages there is nobody to tell that they cannot be written.
    let _ = writeln!(
        anstream::stderr().lock(),
        "{style}{label}:{style:#} {message}"
    );
}

/// A text in which nothing but its newlines controls a terminal: names can come from strangers' modules and images.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// As [`printable`], in one line: for cells of tables.
pub(crate) fn cell(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Several names in one cell of a table.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

/// Writes a line to standard error.
pub(crate) fn message(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes a line to standard output.
pub(crate) fn result(text: impl fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Writes a value as JSON to standard output.
pub(crate) fn json_result(value: &impl Serialize) -> Result<(), Failure> {
    result(to_json(value, true))
}

/// Writes a value as one line of JSON to standard error.
pub(crate) fn json_message(value: &impl Serialize) {
    message(to_json(value, false));
}

fn to_json(value: &impl Serialize, pretty: bool) -> String {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.expect("reports have text keys only, so they can be written as JSON")
}

/// A table without lines, as `ps` and `ls` of other tools print them.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Says on a terminal what is being done, until the returned value is dropped.
pub(crate) fn progress(doing: String) -> Progress {
    let (done, is_done) = mpsc::channel::<Infallible>();
    let thread = shows_progress().then(|| thread::spawn(move || show_progress(doing, &is_done)));
    Progress {
        done: Some(done),
        thread,
    }
}

/// Something is being done that can take long.
pub(crate) struct Progress {
    /// Nothing is ever sent: that it is dropped says that it is done.
    done: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // Messages that follow must find the line clear. A thread that died has shown its own message.
            let _ = thread.join();
        }
    }
}

fn show_progress(doing: String, is_done: &Receiver<Infallible>) {
    if is_done.recv_timeout(PROGRESS_DELAY) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::new_spinner().with_elapsed(PROGRESS_DELAY);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(doing);
    while is_done.recv_timeout(PROGRESS_PERIOD) == Err(RecvTimeoutError::Timeout) {
        bar.tick();
    }
    bar.finish_and_clear();
}

/// Shows on a terminal how many bytes are done, and of how many, until it is dropped. Any thread may move it on.
pub(crate) struct BytesProgress {
    bar: ProgressBar,
    since: Instant,
    shown: Once,
}

impl BytesProgress {
    /// Begins with no byte done; `doing` is a verb.
    pub fn new(doing: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => {
                "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec} ({eta} left)"
            }
            None => "{spinner} {msg}: {binary_bytes}, {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(doing);
        Self {
            bar,
            since: Instant::now(),
            shown: Once::new(),
        }
    }

    /// So many bytes are done altogether.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
        self.show();
    }

    /// So many more bytes are done.
    pub fn add(&self, done: u64) {
        self.bar.inc(done);
        self.show();
    }

    /// Writes to standard output in between.
    pub fn result(&self, text: impl fmt::Display) -> Result<(), Failure> {
        self.bar.suspend(|| result(text))
    }

    /// What takes little time is not worth a flicker. On what is no terminal nothing is drawn anyway.
    fn show(&self) {
        if self.since.elapsed() >= PROGRESS_DELAY {
            self.shown
                .call_once(|| self.bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
    }
}

impl Drop for BytesProgress {
    fn drop(&mut self) {
        // Messages that follow must find the line clear.
        self.bar.finish_and_clear();
    }
}

/// Whether somebody sees how far something has come.
pub(crate) fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// The first digits of an id, for tables and command lines that people type.
pub(crate) fn short_id(id: ImageId) -> String {
    let mut digits = id.to_string();
    digits.truncate(SHORT_ID_DIGITS);
    digits
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A number of things, with their name in the singular or in the plural.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A length of time for people.
pub(crate) fn duration(duration: Duration) -> String {
    if duration.as_secs() >= 60 {
        humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
    } else {
        format!("{duration:.1?}")
    }
}

/// A point in time for people.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A point in time for programs: milliseconds since 1970; 0 for times before.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

/// The point in time that is so many milliseconds after the start of 1970, as far as people can read it.
pub(crate) fn from_unix_ms(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds.min(UNIX_MS_MAX))
}

/// A length of time in whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_control_a_terminal_is_shown_instead() {
        assert_eq!(
            printable("a\x1b[31mb\r\nc\u{9b}é"),
            "a\\u{1b}[31mb\\r\nc\\u{9b}é"
        );
    }

    #[test]
    fn every_time_that_a_record_can_state_is_shown() {
        assert_eq!(time(from_unix_ms(0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(from_unix_ms(u64::MAX)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn durations_are_shown_with_the_precision_that_people_want() {
        assert_eq!(duration(Duration::from_micros(12_345)), "12.3ms");
        assert_eq!(duration(Duration::from_millis(4200)), "4.2s");
        assert_eq!(duration(Duration::from_millis(3_723_400)), "1h 2m 3s");
    }
}

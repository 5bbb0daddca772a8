//! A guest that works, and writes to its memory at a rate that is asked for.

const TEXT: &str = include_str!("worker.wat");
pub const PAGES_PER_MIB: u64 = 1 << 8;

/// Reads the size of its memory in MiB from a command line.
pub const SIZES: fn(&str) -> Result<u64, String> = parse_size;

fn parse_size(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(size) if size.is_power_of_two() && size <= 2048 => Ok(size),
        _ => Err("it must be 1, 2, 4 and so on up to 2048".to_owned()),
    }
}

/// Which page comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The one behind, as programs fill arrays.
    Runs,
    /// One far away, as hardly any program writes: the worst case for what keeps pages in runs.
    Scattered,
}

impl Order {
    /// From one page to the next.
    fn step(self) -> u64 {
        match self {
            Self::Runs => 1,
            Self::Scattered => 0x9e37_79b1,
        }
    }
}

/// The guest's text. It fills its memory, takes a snapshot of itself, and then works for so long. At its end it prints how many
/// turns of 20 microseconds it worked, how many pages it wrote, the longest time between two looks at its clock and that of all of it in
/// nanoseconds, and what it computed: numbers of 16 hexadecimal digits, a line each.
pub fn worker(size_mib: u64, rate_mib_per_s: u64, order: Order, seconds: f64) -> String {
    let values = [
        ("$WASM_PAGES", size_mib * 16 + 1),
        ("$LAST_PAGE", size_mib * PAGES_PER_MIB - 1),
        ("$PAGES_A_SECOND", rate_mib_per_s * PAGES_PER_MIB),
        ("$STEP", order.step()),
        ("$DURATION_NS", (seconds * 1e9) as u64),
    ];
    let fill = |text: String, (place, value): &(&str, u64)| text.replace(place, &value.to_string());
    values.iter().fold(TEXT.to_owned(), fill)
}

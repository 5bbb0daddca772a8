//! Compares generated programs, bare and with stops, for as long as one likes.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use wsnap_equivalence::campaign::{self, Extent, Found, Tally};
use wsnap_equivalence::compare::Places;
use wsnap_equivalence::driven::THREAD_STACK_BYTES;

/// Run generated programs bare and with stops at random safepoints, and compare what can be seen of them
#[derive(Debug, Parser)]
#[command(
    name = "equivalence",
    help_expected = true,
    after_help = "Examples:\n  cargo run --release --bin equivalence -- --modules 10000\n  cargo run --release --bin equivalence -- --seconds 3600 --seed 1000000\n  cargo run --release --bin equivalence -- --seed 4711 --modules 1"
)]
struct Arguments {
    /// Try so many seeds
    #[arg(
        long,
        value_name = "N",
        default_value = "10000",
        conflicts_with = "seconds"
    )]
    modules: u64,
    /// Go on for so many seconds instead
    #[arg(long, value_name = "T")]
    seconds: Option<u64>,
    /// Begin with this seed
    #[arg(long, value_name = "SEED", default_value = "0")]
    seed: u64,
    /// Run programs on so many threads (default: as many as there are cores)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Count of every so many programs what they do
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    look_at_every: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let extent = Extent {
        first: arguments.seed,
        seeds: arguments.seconds.is_none().then_some(arguments.modules),
        time: arguments.seconds.map(Duration::from_secs),
        threads: arguments.threads.unwrap_or_else(cores),
        look_at_every: arguments.look_at_every,
    };
    let places = match Places::new() {
        Ok(places) => places,
        Err(error) => {
            eprintln!("There is no room for a store: {error}");
            return ExitCode::FAILURE;
        }
    };
    match campaign::run(&places, extent, &|tally| eprintln!("{tally}")) {
        Ok(tally) => {
            report(&tally);
            ExitCode::SUCCESS
        }
        Err(found) => {
            show(places, found);
            ExitCode::FAILURE
        }
    }
}

fn report(tally: &Tally) {
    println!("{tally}");
    println!("What {} of them do when they run:", tally.looked_at);
    for (kind, count) in &tally.uses {
        let percent = count * 100 / tally.looked_at.max(1);
        println!("{percent:>4}% {kind}");
    }
}

/// Prints the difference, and a small program that shows it.
fn show(places: Places, found: Box<Found>) {
    println!("{found}");
    println!("To repeat this: --seed {} --modules 1", found.seed);
    eprintln!("Looking for a smaller program that differs, too...");
    let small = std::thread::Builder::new()
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || campaign::minimised(&places, &found))
        .map(std::thread::JoinHandle::join);
    match small {
        Ok(Ok(text)) => println!("{text}"),
        Ok(Err(_)) => println!("A smaller one was not found, since looking for it failed."),
        Err(error) => println!("A smaller one was not found: no thread: {error}"),
    }
}

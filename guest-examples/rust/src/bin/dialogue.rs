//! Reads lines and answers each at once, remembering all that was said: for stops while a program waits for input.
//! `total` asks for the sum so far, `words` for all words seen, `bye` leaves with exit code 7; a number is added.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let mut total = 0_i64;
    let mut words = BTreeSet::new();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        let number = index + 1;
        match line.trim() {
            "total" => println!("{number}: total {total}"),
            "words" => println!("{number}: {}", words.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
            "bye" => {
                println!("{number}: goodbye");
                return Ok(ExitCode::from(7));
            }
            text => match text.parse::<i64>() {
                Ok(value) => {
                    total = total.wrapping_add(value);
                    println!("{number}: added {value}");
                }
                Err(_) => {
                    words.extend(text.split_whitespace().map(str::to_string));
                    println!("{number}: {} words known", words.len());
                }
            },
        }
    }
    println!("end of input, total {total}, {} words", words.len());
    Ok(ExitCode::SUCCESS)
}

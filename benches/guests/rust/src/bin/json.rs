//! Structures to JSON, JSON to values and to structures, and back to pretty JSON.

use bench_guests::{Random, checksum, size_argument, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    note: Option<String>,
    paid: bool,
    total: f64,
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    count: u32,
    price: f64,
}

fn order(random: &mut Random, words: &[&str]) -> Order {
    let mut word = || words[random.number() as usize % words.len()].to_owned();
    let (customer, note) = (word(), word());
    let articles: Vec<String> = (0..4).map(|_| word()).collect();
    let lines: Vec<Line> = articles
        .into_iter()
        .map(|article| Line {
            article,
            count: 1 + (random.number() % 9) as u32,
            price: (random.number() % 100_000) as f64 / 100.0,
        })
        .collect();
    Order {
        id: random.number(),
        customer,
        note: (random.number() % 3 == 0).then(|| format!("\"{note}\"\n\t\u{20ac}")),
        paid: random.number() % 2 == 0,
        total: lines.iter().map(|line| f64::from(line.count) * line.price).sum(),
        lines,
    }
}

/// How many values there are.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn main() {
    let text = text(4000, 1);
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut random = Random::new(2);
    let orders: Vec<Order> = (0..size_argument()).map(|_| order(&mut random, &words)).collect();
    let json = serde_json::to_string(&orders).expect("orders are plain");
    let value: Value = serde_json::from_str(&json).expect("what was written");
    let back: Vec<Order> = serde_json::from_str(&json).expect("what was written");
    assert_eq!(back, orders);
    let pretty = serde_json::to_string_pretty(&value).expect("values are plain");
    println!("{} {} {:016x}", json.len(), count(&value), checksum(pretty.as_bytes()));
}

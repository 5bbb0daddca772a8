//! A discrete-event simulation of counters in a post office: trait objects, collections, closures, strings and
//! floating-point numbers. Prints a line for each simulated hour and a checksum at the end.
//!
//! `queue.wasm [HOURS [REPORT]]`: the report is a file that gets a line for each hour, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};

/// Milliseconds of simulated time.
type Time = u64;

const HOUR: Time = 3_600_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Served { counter: usize },
    HourEnds,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn exponential(&mut self, mean: f64) -> Time {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-mean * (1.0 - uniform).ln()) as Time + 1
    }
}

/// How a counter chooses whom to serve next.
trait Policy {
    fn name(&self) -> &str;
    fn take(&mut self, waiting: &mut VecDeque<Customer>) -> Option<Customer>;
}

struct FirstCome;
struct Shortest {
    served: u64,
}
struct Every<P> {
    nth: u64,
    turn: u64,
    inner: P,
}

struct Customer {
    arrived: Time,
    needs: Time,
    label: String,
}

impl Policy for FirstCome {
    fn name(&self) -> &str {
        "first come"
    }
    fn take(&mut self, waiting: &mut VecDeque<Customer>) -> Option<Customer> {
        waiting.pop_front()
    }
}

impl Policy for Shortest {
    fn name(&self) -> &str {
        "shortest"
    }
    fn take(&mut self, waiting: &mut VecDeque<Customer>) -> Option<Customer> {
        let (index, _) = waiting.iter().enumerate().min_by_key(|(_, customer)| customer.needs)?;
        self.served += 1;
        waiting.remove(index)
    }
}

impl<P: Policy> Policy for Every<P> {
    fn name(&self) -> &str {
        "now and then"
    }
    fn take(&mut self, waiting: &mut VecDeque<Customer>) -> Option<Customer> {
        self.turn += 1;
        if self.turn.is_multiple_of(self.nth) { waiting.pop_back() } else { self.inner.take(waiting) }
    }
}

struct Office {
    random: Random,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    waiting: VecDeque<Customer>,
    counters: Vec<(Box<dyn Policy>, bool)>,
    waits: HashMap<String, (u64, Time)>,
    served: u64,
}

impl Office {
    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn serve(&mut self, now: Time) {
        for counter in 0..self.counters.len() {
            let (policy, busy) = &mut self.counters[counter];
            if *busy {
                continue;
            }
            let Some(customer) = policy.take(&mut self.waiting) else { return };
            *busy = true;
            let entry = self.waits.entry(format!("{} / {}", policy.name(), customer.label)).or_default();
            entry.0 += 1;
            entry.1 += now - customer.arrived;
            self.served += 1;
            self.schedule(now + customer.needs, Event::Served { counter });
        }
    }

    fn arrive(&mut self, now: Time) {
        let kind = self.random.next() % 3;
        let needs = self.random.exponential([20_000.0, 60_000.0, 150_000.0][kind as usize]);
        let label = ["letter", "parcel", "money"][kind as usize].to_string();
        self.waiting.push_back(Customer { arrived: now, needs, label });
        let next = now + self.random.exponential(17_000.0);
        self.schedule(next, Event::Arrival);
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let hours: u64 = arguments.next().map_or(200, |hours| hours.parse().expect("HOURS is a number"));
    let mut report = arguments.next().map(|path| File::create(path).map(BufWriter::new)).transpose()?;

    let mut office = Office {
        random: Random(0x9E37_79B9_7F4A_7C15),
        events: BinaryHeap::new(),
        sequence: 0,
        waiting: VecDeque::new(),
        counters: vec![
            (Box::new(FirstCome), false),
            (Box::new(Shortest { served: 0 }), false),
            (Box::new(Every { nth: 5, turn: 0, inner: FirstCome }), false),
            (Box::new(Every { nth: 3, turn: 0, inner: Shortest { served: 0 } }), false),
            (Box::new(FirstCome), false),
        ],
        waits: HashMap::new(),
        served: 0,
    };
    office.schedule(0, Event::Arrival);
    office.schedule(HOUR, Event::HourEnds);

    let mut checksum = 0xcbf2_9ce4_8422_2325_u64;
    while let Some(Reverse((now, _, event))) = office.events.pop() {
        match event {
            Event::Arrival => office.arrive(now),
            Event::Served { counter } => office.counters[counter].1 = false,
            Event::HourEnds => {
                let mut line = format!("hour {:4}: {:7} served, {:4} waiting", now / HOUR, office.served, office.waiting.len());
                // The order of a HashMap differs from run to run.
                let sorted: BTreeMap<_, _> = office.waits.drain().collect();
                let mean = |(count, total): &(u64, Time)| *total as f64 / *count as f64 / 1000.0;
                let longest = sorted.iter().max_by(|a, b| mean(a.1).total_cmp(&mean(b.1)));
                if let Some((who, wait)) = longest {
                    write!(line, ", longest {who} {:.3} s", mean(wait)).expect("a String takes everything");
                }
                for byte in line.bytes() {
                    checksum = (checksum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
                println!("{line}");
                if let Some(report) = &mut report {
                    writeln!(report, "{line}")?;
                    report.flush()?;
                }
                if now / HOUR == hours {
                    break;
                }
                office.schedule(now + HOUR, Event::HourEnds);
            }
        }
        office.serve(now);
    }
    println!("checksum {checksum:016x}");
    Ok(())
}

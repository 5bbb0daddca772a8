//! Times a module bare and rewritten in turn: `cargo run --release -p wsnap --example compare -- ROUNDS MODULE [ARG…]`.
//! The directory `.` is granted as `/w`. Output goes to nowhere.

use std::time::{Duration, Instant};
use wsnap::wasi::{Preopen, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().ok_or("how many rounds?")?.parse()?;
    let arguments: Vec<String> = arguments.collect();
    let bytes = std::fs::read(arguments.first().ok_or("which module?")?)?;
    let cache = Some(std::env::temp_dir().join("wsnap-compare-cache"));
    let mut programs = Vec::new();
    for bare in [true, false] {
        let config = EngineConfig {
            bare,
            cache: cache.clone(),
            ..EngineConfig::default()
        };
        let start = Instant::now();
        programs.push(Program::new(&Engine::new(&config)?, bytes.clone())?);
        println!(
            "{}: ready after {:.1?}",
            if bare { "bare" } else { "rewritten" },
            start.elapsed()
        );
    }
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..rounds {
        for (program, times) in programs.iter().zip(&mut times) {
            times.push(time(program, &arguments)?);
        }
    }
    let mut ratios: Vec<f64> = times[0]
        .iter()
        .zip(&times[1])
        .map(|(bare, rewritten)| rewritten.as_secs_f64() / bare.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    for times in &mut times {
        times.sort();
    }
    println!(
        "bare {:.1?}, rewritten {:.1?}, ratio {:.3} ({:.3} to {:.3})",
        times[0][rounds / 2],
        times[1][rounds / 2],
        ratios[rounds / 2],
        ratios[0],
        ratios[rounds - 1]
    );
    Ok(())
}

fn time(program: &Program, arguments: &[String]) -> Result<Duration, Box<dyn std::error::Error>> {
    let nowhere = || -> std::io::Result<Stdio> {
        Ok(Stdio::Descriptor(
            std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/null")?
                .into(),
        ))
    };
    let wasi = Wasi::new(WasiConfig {
        args: arguments.to_vec(),
        preopens: vec![Preopen::open(".".as_ref(), "/w")?],
        streams: StandardStreams {
            stdin: Stdio::Closed,
            stdout: nowhere()?,
            stderr: nowhere()?,
        },
        ..WasiConfig::default()
    })?;
    let mut instance = program.start(wasi, Call::command())?;
    let start = Instant::now();
    instance.run()?;
    Ok(start.elapsed())
}

//! The batch script for Slurm. That it does what it is for is tested with a real Slurm elsewhere.

use std::fs;
use std::process::Command;

use crate::sandbox::Sandbox;

fn script(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let arguments = [&["slurm-script"], arguments].concat();
    sandbox.expect(0, &arguments).0
}

#[test]
fn a_batch_script_runs_the_program_the_way_it_was_asked_to() {
    let sandbox = Sandbox::new();
    let script = script(
        &sandbox,
        &[
            "--partition",
            "low",
            "--time",
            "36h",
            "--sbatch=--mem=4G",
            "--sbatch=--comment=two words",
            "--",
            "--name",
            "sim",
            "--grace",
            "30s",
            "a module.wasm",
            "--steps",
            "it's",
        ],
    );
    for line in [
        "#SBATCH --job-name=sim",
        "#SBATCH --partition=low",
        "#SBATCH --time=1-12:00:00",
        "#SBATCH --signal=TERM@90",
        "#SBATCH --requeue",
        "#SBATCH --mem=4G",
        "#SBATCH --comment=\"two words\"",
    ] {
        assert!(
            script.lines().any(|other| other == line),
            "{line}:\n{script}"
        );
    }
    let run = script.lines().find(|line| line.starts_with("srun "));
    let words = shlex::split(run.expect("a step")).expect("a shell would understand it");
    let begin = words.iter().position(|word| word == "run").expect("run");
    let expected = [
        "run",
        "--continue",
        "--every",
        "5m",
        "--name",
        "sim",
        "--grace",
        "30s",
        "a module.wasm",
        "--steps",
        "it's",
    ];
    assert_eq!(words[begin..], expected);
    // The batch script runs elsewhere, with who knows which environment.
    assert!(words[..begin].contains(&"--store".to_owned()), "{words:?}");
}

#[test]
fn a_batch_script_is_one_that_a_shell_accepts() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("sim.sbatch");
    fs::write(
        &path,
        script(&sandbox, &["--", "--name", "sim", "sim.wasm"]),
    )
    .expect("written");
    let checked = Command::new("sh").arg("-n").arg(&path).status();
    assert!(checked.expect("a shell").success());
}

#[test]
fn a_batch_script_that_could_do_no_good_is_refused() {
    let sandbox = Sandbox::new();
    for (arguments, message) in [
        (&["--", "sim.wasm"][..], "no name"),
        (
            &["--time", "2m", "--", "--name", "sim", "sim.wasm"],
            "--time",
        ),
        (
            &["--sbatch=--comment=a\nb", "--", "--name", "sim", "sim.wasm"],
            "control",
        ),
    ] {
        let arguments = [&["slurm-script"], arguments].concat();
        let (_, stderr) = sandbox.expect(1, &arguments);
        assert!(stderr.contains(message), "{arguments:?}:\n{stderr}");
    }
    let wrong = [
        "slurm-script",
        "--",
        "--name",
        "sim",
        "--no-such-flag",
        "sim.wasm",
    ];
    let (_, stderr) = sandbox.expect(2, &wrong);
    assert!(stderr.contains("--no-such-flag"), "{stderr}");
}

#[test]
fn a_job_that_would_be_taken_for_complete_when_it_is_suspended_is_refused() {
    let sandbox = Sandbox::new();
    let run = ["--name", "sim", "--suspended-exit-code", "0", "sim.wasm"];
    let (_, stderr) = sandbox.expect(1, &[&["slurm-script", "--"], &run[..]].concat());
    assert!(stderr.contains("--suspended-exit-code"), "{stderr}");
}

//! What the help says.

use crate::sandbox::Sandbox;
use wsnap_cli::Cli;

#[test]
fn the_definition_is_consistent_and_every_flag_has_help() {
    Cli::definition().debug_assert();
}

#[test]
fn every_command_shows_an_example_of_itself() {
    for command in Cli::definition().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        let (_, examples) = help
            .split_once("Example")
            .unwrap_or_else(|| panic!("{name}: no example"));
        assert!(
            examples.contains(&format!("\n  wsnap {name}")),
            "{name}:\n{examples}"
        );
    }
}

#[test]
fn examples_are_command_lines_that_are_accepted() {
    let mut accepted = 0;
    for command in Cli::definition().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        let lines = help.lines().filter(|line| line.starts_with("  wsnap "));
        for line in lines {
            // What follows is the shell's business.
            let line = line.split([';', '|', '>']).next().unwrap_or_default();
            let words = shlex::split(line).expect("a shell would understand it");
            if let Err(error) = Cli::definition().try_get_matches_from(words) {
                panic!("{line}: {error}");
            }
            accepted += 1;
        }
    }
    assert!(accepted >= 10, "only {accepted} examples");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["help", "resume"],
        &["--version"],
    ] {
        let (stdout, stderr) = sandbox.expect(0, arguments);
        assert!(!stdout.is_empty() && stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = sandbox.expect(0, &["completions", shell]);
        for word in ["resume", "inspect", "stop-at"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

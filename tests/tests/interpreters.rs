//! Interactive interpreters: their whole state is in an image, and whoever resumes it talks on with them.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use wsnap_tests::fetch::fetch;
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox};

/// Starts an interpreter, gives it some lines, stops it when it waits for more and resumes it with the rest twice.
fn talk(program: &str, arguments: &[&str], first: &str, rest: &str) -> (Finished, [Finished; 2]) {
    let sandbox = Sandbox::new();
    let module = fetch(program).unwrap_or_else(|error| panic!("{error}"));
    let command = sandbox
        .wsnap()
        .args(["run", "--stop-at", "stdin", "--id-file", "id"])
        .arg(module);
    let mut running = command.args(arguments).stdin(Stdio::piped()).start();
    let mut pipe = running.take_stdin().expect("standard input is a pipe");
    pipe.write_all(first.as_bytes())
        .expect("the interpreter reads");
    let stopped = running.wait().expect(SUSPENDED);
    drop(pipe);
    let id = fs::read_to_string(sandbox.path("id")).expect("the id file was written");
    let resumed = [0, 1].map(|_| {
        let input = File::open(sandbox.write("rest", rest)).expect("the file just written");
        sandbox
            .wsnap()
            .args(["resume", id.trim()])
            .stdin(input)
            .run()
            .expect(0)
    });
    (stopped, resumed)
}

#[test]
fn quickjs_keeps_its_variables_while_it_waits_for_input() {
    let evaluate = "var l; while((l=std.in.getline())!==null)(0,eval)(l)";
    let first = "var notes = new Map([['a', 1]]);\nfunction* count() { for (let i = 10; ; i++) yield i; }\n\
                 var counter = count(); counter.next();\n";
    let rest = "print(notes.get('a'), counter.next().value)\nnotes.set('b', 2); print([...notes.keys()])\n";
    let (stopped, resumed) = talk("quickjs", &["--std", "-e", evaluate], first, rest);
    assert_eq!(stopped.text(), "");
    for resumed in resumed {
        assert_eq!(resumed.text(), "1 11\na,b\n");
    }
}

#[test]
fn cpython_keeps_its_variables_while_it_waits_for_input() {
    let first = "import collections\nseen = collections.Counter('mississippi')\nsteps = iter(range(40, 50))\nnext(steps)\n";
    let rest = "seen.most_common(2)\nnext(steps) + 1\nprint('done')\n";
    let (stopped, resumed) = talk("cpython", &["-i", "-q"], first, rest);
    assert!(stopped.text().contains("40"), "{}", stopped.describe());
    for resumed in resumed {
        let text = resumed.text();
        for part in ["[('i', 4), ('s', 4)]", "42", "done"] {
            assert!(
                text.contains(part),
                "{part} is missing\n{}",
                resumed.describe()
            );
        }
    }
}

#[test]
fn arguments_and_environment_reach_the_program() {
    let sandbox = Sandbox::new();
    let module = fetch("quickjs").unwrap_or_else(|error| panic!("{error}"));
    let command = sandbox
        .wsnap()
        .args(["run", "--env", "COLOUR=green", "--env", "EMPTY="])
        .arg(module);
    let script = "print(std.getenv('COLOUR'), '[' + std.getenv('EMPTY') + ']', std.getenv('PATH'), scriptArgs.slice(-2))";
    let finished = command
        .args(["--std", "-e", script, "one two", "--three"])
        .run()
        .expect(0);
    assert_eq!(finished.text(), "green [] undefined one two,--three\n");
}

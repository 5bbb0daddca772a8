//! What `docs/schedulers` gives users to copy is valid, and its command lines do what the pages say.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use wsnap_tests::jobs::Job;
use wsnap_tests::workspace_dir;
use wsnap_tests::wsnap::{SUSPENDED, Sandbox, binary};

/// What reads YAML and HCL, and knows the schemas of Kubernetes.
const PYTHON_PACKAGES: [&str; 2] = ["kubernetes-validate==1.37.0", "python-hcl2==8.1.4"];

/// Prints a line about every 10 ms.
const JOB: Job = Job::new(150, 10_000_000);

fn page(name: &str) -> PathBuf {
    workspace_dir().join("docs/schedulers").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(page(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rest of the only line that begins so.
fn line_after<'a>(text: &'a str, prefix: &str) -> &'a str {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(prefix));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no line begins with {prefix}"));
    assert_eq!(lines.next(), None, "several lines begin with {prefix}");
    line.trim()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Python packages in a folder of their own.
struct Python {
    folder: TempDir,
}

impl Python {
    fn install() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--target"])
            .arg(folder.path())
            .args(PYTHON_PACKAGES)
            .output()
            .expect("python3 can be started");
        assert!(installed.status.success(), "{}", all_output(&installed));
        Self { folder }
    }

    fn run(&self, arguments: &[&str], file: &Path) -> Output {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.folder.path());
        let output = command.args(arguments).arg(file).output();
        output.expect("python3 can be started")
    }

    /// What a program of a line makes of a file, as JSON.
    fn parse(&self, program: &str, file: &Path) -> Value {
        let output = self.run(&["-c", program], file);
        assert!(output.status.success(), "{}", all_output(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn all_output(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    text
}

/// The arguments in a list of JSON.
fn arguments_in(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|word| word.as_str().expect("a text").trim_matches('"').to_owned())
        .collect()
}

/// Runs the line as a scheduler does: with nothing of the user's environment, warned once in the middle, and again until it
/// has ended. `places` says what stands for the folders in it.
fn expect_to_go_on(arguments: &[String], places: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.write("sim.wasm", JOB.wat());
    let bare = sandbox.wsnap().args(["run", "--bare", "sim.wasm"]).run();
    let expected = bare.expect(0).stdout;
    let here = sandbox.path("");
    let here = here.to_str().expect("a path of text").trim_end_matches('/');
    let arguments: Vec<String> = arguments
        .iter()
        .map(|word| {
            places
                .iter()
                .fold(word.clone(), |word, place| word.replace(place, here))
        })
        .collect();
    let start = || {
        let command = sandbox.command("env").arg("-i").arg(binary());
        command.args(&arguments).start()
    };
    let output = || fs::read(sandbox.path("sim.out")).unwrap_or_default();
    let mut running = start();
    while output().len() < 20 * 9 {
        assert!(!running.has_ended(), "{}", running.wait().describe());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let suspended = output();
    assert!(suspended.len() < expected.len() && expected.starts_with(&suspended));
    let finished = start().wait().expect(0);
    assert!(
        finished.stderr.contains("going on from image"),
        "{}",
        finished.describe()
    );
    assert_eq!(output(), expected);
}

#[test]
fn the_line_that_all_schedulers_run_goes_on() {
    let line = line_after(&read("README.md"), "wsnap run --continue").to_owned();
    let arguments = words(&format!("run --continue {line}"));
    // Schedulers say where the store is.
    let places = ["--store", "store", "--cache", "cache"].map(str::to_owned);
    expect_to_go_on(&[&places[..], &arguments].concat(), &[]);
}

#[test]
fn the_job_for_htcondor_goes_on() {
    let file = read("sim.sub");
    assert_eq!(
        line_after(&file, "checkpoint_exit_code ="),
        SUSPENDED.to_string()
    );
    let kept = line_after(&file, "transfer_checkpoint_files =");
    assert_eq!(kept, "store, sim.out");
    let line = line_after(&file, "arguments =")
        .trim_matches('"')
        .to_owned();
    expect_to_go_on(&words(&line), &[]);
}

#[test]
fn the_manifest_for_kubernetes_is_valid_and_its_container_goes_on() {
    let python = Python::install();
    let manifest = page("job.yaml");
    let validate = ["-m", "kubernetes_validate", "--strict"];
    let output = python.run(&validate, &manifest);
    assert!(output.status.success(), "{}", all_output(&output));
    // It would be said if it were not.
    let wrong = Sandbox::new().write(
        "job.yaml",
        read("job.yaml").replace("backoffLimit: 6", "backOffLimit: 6"),
    );
    assert!(!python.run(&validate, &wrong).status.success());
    let to_json =
        "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let documents = python.parse(to_json, &manifest);
    let job = &documents[1]["spec"];
    let rules = job["podFailurePolicy"]["rules"].as_array().expect("rules");
    assert!(rules.iter().any(|rule| {
        rule["action"] == "Ignore"
            && rule["onExitCodes"]["values"] == serde_json::json!([SUSPENDED])
    }));
    let container = &job["template"]["spec"]["containers"][0];
    expect_to_go_on(&arguments_in(&container["args"]), &["/data", "/cache"]);
}

#[test]
fn the_job_for_nomad_goes_on() {
    let python = Python::install();
    let to_json = "import sys, json, hcl2; print(json.dumps(hcl2.load(open(sys.argv[1]))))";
    let file = python.parse(to_json, &page("sim.nomad.hcl"));
    let task = find(&file, "config").unwrap_or_else(|| panic!("no task: {file}"));
    let arguments = find(task, "args").expect("arguments");
    expect_to_go_on(&arguments_in(arguments), &["/data", "/alloc"]);
}

/// The value of a key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map
            .get(key)
            .or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

#[test]
fn the_unit_for_systemd_is_valid_and_its_service_goes_on() {
    let unit = read("sim.service");
    assert_eq!(
        line_after(&unit, "SuccessExitStatus="),
        SUSPENDED.to_string()
    );
    let installed = binary().to_str().expect("a path of text");
    let unit = unit.replace("/usr/local/bin/wsnap", installed);
    let line = line_after(&unit, "ExecStart=").to_owned();
    let arguments = words(&line).split_off(1);
    expect_to_go_on(
        &arguments,
        &["/var/lib/sim", "/var/cache/sim", "/usr/local/lib/sim"],
    );
    let sandbox = Sandbox::new();
    let verify = |unit: &str| {
        let path = sandbox.write("sim.service", unit);
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(path).output()
    };
    match verify(&unit) {
        Ok(output) => {
            let said = all_output(&output);
            assert!(
                output.status.success() && !said.contains("sim.service"),
                "{said}"
            );
            let wrong = verify(&unit.replace("SuccessExitStatus", "SucessExitStatus"));
            assert!(all_output(&wrong.expect("it ran before")).contains("sim.service"));
        }
        Err(error) => {
            eprintln!("not tested: systemd-analyze: {error}");
            assert!(env::var_os("WSNAP_REQUIRE_SYSTEMD").is_none());
        }
    }
}

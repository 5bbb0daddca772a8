//! Jobs under a real Slurm of two nodes, which urgent jobs push aside.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use wsnap_tests::jobs::Job;
use wsnap_tests::slurm::{Cluster, LOW, URGENT};
use wsnap_tests::wsnap::Sandbox;

/// Has to be 1, since Slurm takes root and four packages.
const SWITCH: &str = "WSNAP_SLURM";
const PREEMPTIONS: usize = 5;
/// What keeps a node until it is cancelled.
const BLOCKING: [&str; 2] = ["--output=/dev/null", "--wrap=sleep 600"];

/// Prints a line about every 10 ms, for half a minute.
const JOB: Job = Job {
    echoes: true,
    ..Job::new(3000, 10_000_000)
};

/// A long job of low priority.
struct LongJob<'a> {
    cluster: &'a Cluster,
    sandbox: &'a Sandbox,
    number: String,
}

impl<'a> LongJob<'a> {
    /// Submits what `wsnap slurm-script` writes, with more options of `sbatch`.
    fn submit(cluster: &'a Cluster, sandbox: &'a Sandbox, options: &[&str]) -> Self {
        let script = sandbox
            .wsnap()
            .args(["slurm-script", "--partition", LOW, "--"])
            .args(["--name", "job", "--output", "out", "job.wat"])
            .run()
            .expect(0);
        let script = sandbox.write("job.sbatch", script.stdout);
        let script = script.to_str().expect("a path of text");
        let folder = sandbox.path("");
        let options = [options, &["--output=messages", script]].concat();
        let number = cluster.submit(&folder, &options);
        Self {
            cluster,
            sandbox,
            number,
        }
    }

    fn field(&self, name: &str) -> String {
        self.cluster.job(&self.number, name)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.sandbox.path(file)).unwrap_or_default()
    }

    /// Waits until the job has come on a little since, and returns the node that it is on.
    fn node_where_it_goes_on(&self) -> String {
        let before = self.read("messages").len();
        self.cluster.wait_until("goes on with the job", || {
            self.field("JobState") == "RUNNING" && self.read("messages").len() > before + 900
        });
        self.field("NodeList")
    }

    /// The lines that the program has written to standard error, in all its attempts.
    fn lines_computed(&self) -> Vec<String> {
        let messages = self.read("messages");
        let is_line =
            |line: &&str| line.len() == 8 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        messages
            .lines()
            .filter(is_line)
            .map(str::to_owned)
            .collect()
    }
}

fn is_wanted() -> bool {
    let is_wanted = std::env::var(SWITCH).is_ok_and(|value| value == "1");
    if !is_wanted {
        eprintln!("not tested: {SWITCH} is not 1");
    }
    is_wanted
}

#[test]
fn a_job_that_is_preempted_five_times_and_moves_between_nodes_loses_nothing() {
    if !is_wanted() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", JOB.wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).text();
    let cluster = Cluster::start();
    let job = LongJob::submit(&cluster, &sandbox, &[]);
    let mut node = job.node_where_it_goes_on();
    for _ in 0..PREEMPTIONS {
        let flags = ["--partition", URGENT, "--nodelist", &node];
        let urgent = cluster.submit(&sandbox.path(""), &[&flags[..], &BLOCKING].concat());
        cluster.wait_until("runs the urgent job", || {
            cluster.job(&urgent, "JobState") == "RUNNING"
        });
        let elsewhere = job.node_where_it_goes_on();
        assert_ne!(elsewhere, node);
        node = elsewhere;
        let _ = cluster.ask("scancel", &[&urgent]);
    }
    cluster.wait_until("completes the job", || job.field("JobState") == "COMPLETED");
    assert_eq!(job.field("ExitCode"), "0:0");
    assert_eq!(
        job.field("Restarts"),
        PREEMPTIONS.to_string(),
        "{}",
        job.read("messages")
    );
    assert!(job.read("out") == expected, "the output differs");
    // What it has computed again is what was lost.
    let computed = job.lines_computed();
    let rounds = JOB.rounds as usize;
    let again = computed
        .len()
        .checked_sub(rounds)
        .expect("all of it was computed");
    assert_eq!(computed.into_iter().collect::<BTreeSet<_>>().len(), rounds);
    println!("{again} of {rounds} lines were computed again");
    assert!(
        again * 100 < rounds,
        "{again} of {rounds} lines were computed again"
    );
}

#[test]
fn a_job_that_is_cancelled_does_not_come_back() {
    if !is_wanted() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", JOB.wat());
    let cluster = Cluster::start();
    let job = LongJob::submit(&cluster, &sandbox, &[]);
    job.node_where_it_goes_on();
    let _ = cluster.ask("scancel", &[&job.number]);
    cluster.wait_until("ends the job", || job.field("JobState") == "CANCELLED");
    // Long enough for it to be queued again, if anybody did so.
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert_eq!(job.field("JobState"), "CANCELLED");
}

#[test]
fn a_job_that_may_not_requeue_itself_goes_on_by_its_exit_code() {
    if !is_wanted() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write(
        "job.wat",
        Job {
            rounds: 1000,
            ..JOB
        }
        .wat(),
    );
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).text();
    let cluster = Cluster::start();
    // As where a site forbids it.
    let refusal = sandbox.write("scontrol", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(&refusal, Permissions::from_mode(0o755)).expect("executable");
    let path = std::env::var("PATH").expect("a search path");
    let wsnap = wsnap_tests::wsnap::binary()
        .parent()
        .expect("a folder")
        .display();
    let path = format!(
        "--export=ALL,PATH={}:{wsnap}:{path}",
        sandbox.path("").display()
    );
    let job = LongJob::submit(&cluster, &sandbox, &[&path]);
    job.node_where_it_goes_on();
    let _ = cluster.ask("scancel", &["--signal=TERM", &job.number]);
    cluster.wait_until("completes the job", || job.field("JobState") == "COMPLETED");
    assert_eq!(job.field("Restarts"), "1", "{}", job.read("messages"));
    assert!(job.read("out") == expected, "the output differs");
}

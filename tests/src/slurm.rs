//! A real Slurm of two nodes on this machine, as one user: no systemd, no control groups, nothing left behind.
//!
//! It needs the programs of Debian's packages `slurmctld`, `slurmd`, `slurm-client` and `munge`, and root: `slurmd` starts jobs.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wsnap::binary;

/// The nodes.
pub const NODES: [&str; 2] = ["node0", "node1"];
/// The partition whose jobs make room.
pub const LOW: &str = "low";
/// The partition that the others make room for.
pub const URGENT: &str = "urgent";

/// How long a job that is to leave has.
const GRACE_SECONDS: u32 = 20;
/// Slurm looks after its queue every few seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The daemons, which end with it.
pub struct Cluster {
    folder: TempDir,
    daemons: Vec<Child>,
}

impl Cluster {
    /// Starts munge, the controller and both nodes, and waits until jobs can run.
    ///
    /// # Panics
    ///
    /// If any of that fails.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("wsnap-slurm").tempdir();
        let mut cluster = Self {
            folder: folder.expect("a temporary folder"),
            daemons: Vec::new(),
        };
        for name in ["state", "spool-node0", "spool-node1"] {
            fs::create_dir(cluster.path(name)).expect("a folder");
        }
        cluster.start_munge();
        cluster.write("slurm.conf", &cluster.configuration());
        cluster.daemon("slurmctld", &["-D", "-i"]);
        for node in NODES {
            cluster.daemon("slurmd", &["-D", "-N", node]);
        }
        cluster.wait_until("has idle nodes", || {
            let states = cluster.ask("sinfo", &["--noheader", "--Node", "--format=%T"]);
            let mut states = states.lines();
            states.clone().count() >= NODES.len() && states.all(|state| state == "idle")
        });
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("written");
    }

    /// Munge refuses keys that others could read.
    fn start_munge(&mut self) {
        let key = self.path("munge.key");
        let mut file = File::create(&key).expect("a key file");
        let bytes: Vec<u8> = (0..128).map(|_| fastrand::u8(..)).collect();
        file.write_all(&bytes).expect("written");
        fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("a private key");
        let option = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        let arguments = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            option("key-file", "munge.key"),
            option("socket", "munge.socket"),
            option("pid-file", "munge.pid"),
            option("log-file", "munge.log"),
            option("seed-file", "munge.seed"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.daemon("munged", &arguments);
        let socket = self.path("munge.socket");
        self.wait_until("has munge", || socket.exists());
    }

    fn configuration(&self) -> String {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host has a name");
        let host = host.trim();
        let folder = self.folder.path().display();
        let [controller, first, second] = free_ports();
        format!(
            "ClusterName=wsnap
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SchedulerParameters=sched_interval=5,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
RequeueExit=85
SlurmdParameters=config_overrides
NodeName={node0} NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName={node1} NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName={LOW} Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={GRACE_SECONDS}
PartitionName={URGENT} Nodes=ALL PriorityTier=10 PreemptMode=OFF
",
            node0 = NODES[0],
            node1 = NODES[1],
        )
    }

    fn daemon(&mut self, program: &str, arguments: &[&str]) {
        let log = File::create(self.path(&format!("{program}-{}.out", self.daemons.len())));
        let log = log.expect("a log file");
        let child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        self.daemons.push(child);
    }

    /// One of Slurm's programs, for this cluster.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Jobs get the environment of whoever submits them. Daemons are where a user's search path often does not lead.
        let wsnap = binary().parent().expect("the binary lies in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env(
                "PATH",
                format!("{}:{path}:/usr/sbin:/sbin", wsnap.display()),
            )
            .env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    /// What one of Slurm's programs prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[must_use]
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        self.ask_in(Path::new("/"), program, arguments)
    }

    /// Submits a batch job with a working directory and returns its number.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[must_use]
    pub fn submit(&self, folder: &Path, arguments: &[&str]) -> String {
        let number = self.ask_in(folder, "sbatch", &[&["--parsable"], arguments].concat());
        number.trim().to_owned()
    }

    fn ask_in(&self, folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = self
            .command(program)
            .args(arguments)
            .current_dir(folder)
            .output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A field of what Slurm says of a job, such as `JobState`; empty if it has forgotten the job.
    #[must_use]
    pub fn job(&self, number: &str, field: &str) -> String {
        let shown = self.ask("scontrol", &["show", "job", "--oneliner", number]);
        let prefix = format!("{field}=");
        let value = shown
            .split_whitespace()
            .find_map(|word| word.strip_prefix(&prefix));
        value.unwrap_or_default().to_owned()
    }

    /// Waits for something that needs Slurm's doing.
    ///
    /// # Panics
    ///
    /// If it doesn't come; then the daemons' logs are shown.
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > PATIENCE {
                panic!("the cluster never {what}\n{}", self.logs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path()).expect("the folder can be read");
        let mut logs = String::new();
        for file in files {
            let path = file.expect("an entry").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "log" || extension == "out")
            {
                let text = fs::read(&path).unwrap_or_default();
                logs += &format!("== {}\n{}", path.display(), String::from_utf8_lossy(&text));
            }
        }
        logs
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Jobs first, while somebody is there to end them.
        let _ = self.command("scancel").arg("--user=root").output();
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Ports that nobody listens on. Somebody may before they are used: then the test says so.
fn free_ports<const N: usize>() -> [u16; N] {
    let bound: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    bound.map(|listener| listener.local_addr().expect("an address").port())
}

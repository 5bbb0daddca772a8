//! Everything that a store can be asked to do, asked by many processes at once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use wsnap_tests::chain::seed;
use wsnap_tests::guests::{Run, run};
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox};

/// Seconds of printing digits. `WSNAP_TEST_DIGITS` changes how many.
fn digits() -> Run {
    let given = std::env::var("WSNAP_TEST_DIGITS");
    run("pi").with_args(&[given.as_deref().unwrap_or("16000")])
}

/// Succeeded, or failed with one message because somebody else was faster.
fn succeeded(finished: Finished) -> bool {
    if finished.code() == Some(0) {
        assert!(
            !finished.stderr.contains("panicked"),
            "{}",
            finished.describe()
        );
        return true;
    }
    let is_clean = ["damaged", "cannot be resumed"]
        .iter()
        .all(|text| !finished.stderr.contains(text));
    assert!(is_clean, "{}", finished.describe());
    finished.expect_one_error(1, &[]);
    false
}

struct Everybody<'a> {
    sandbox: &'a Sandbox,
    whole: String,
    /// Tags that were reported as given: nobody deletes what they point at.
    tags: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl Everybody<'_> {
    fn again_and_again(&self, mut rng: Rng, act: impl Fn(&mut Rng)) {
        while !self.is_over.load(Ordering::Relaxed) {
            act(&mut rng);
            thread::sleep(Duration::from_micros(rng.u64(..20_000)));
        }
    }

    fn wsnap(&self, arguments: &[&str]) -> Finished {
        self.sandbox.wsnap().args(arguments).run()
    }

    /// Runs a program to its end while it is snapshotted.
    fn run(&self, name: &str) {
        let command = self.sandbox.wsnap().args(["run", "--name", name]);
        let finished = command.program(&digits()).run().expect(0);
        assert_eq!(finished.text(), self.whole);
    }

    /// Makes the store and one image with a tag, so that everybody finds something from the start.
    fn begin(&self) {
        let command = self.sandbox.wsnap();
        let command = command.args(["run", "--name", "first", "--stop-at", "safepoint=1000"]);
        let _ = command.program(&digits()).run().expect(SUSPENDED);
        let _ = self.wsnap(&["tag", "first", "keep-0"]).expect(0);
        self.tags.lock().unwrap().insert("keep-0".to_owned());
    }

    fn snap(&self, name: &str, rng: &mut Rng) {
        let finished = self.wsnap(&["snap", name]);
        let id = finished.text().trim().to_owned();
        if succeeded(finished) && rng.bool() {
            let tag = format!("keep-{:x}", rng.u64(..));
            if succeeded(self.wsnap(&["tag", &id, &tag])) {
                self.tags.lock().unwrap().insert(tag);
            }
        }
    }

    fn any_image(&self, rng: &mut Rng) -> Option<String> {
        let entries = std::fs::read_dir(self.sandbox.store().join("images")).ok()?;
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        let name = names.get(rng.usize(..names.len().max(1)))?;
        name.to_str().map(str::to_owned)
    }

    fn remove(&self, rng: &mut Rng) {
        if let Some(id) = self.any_image(rng) {
            let _ = succeeded(self.wsnap(&["rm", &id]));
        }
    }

    /// Resumes what is tagged, which works, or anything, which may have gone.
    fn resume(&self, rng: &mut Rng) {
        let tags: Vec<String> = self.tags.lock().unwrap().iter().cloned().collect();
        match tags
            .get(rng.usize(..tags.len().max(1)))
            .filter(|_| rng.bool())
        {
            Some(tag) => self.is_rest(&self.wsnap(&["resume", tag]).expect(0)),
            None => {
                let Some(id) = self.any_image(rng) else {
                    return;
                };
                let finished = self.wsnap(&["resume", &id]);
                if succeeded(finished.clone()) {
                    self.is_rest(&finished);
                }
            }
        }
    }

    fn is_rest(&self, finished: &Finished) {
        let rest = finished.text();
        assert!(
            !rest.is_empty() && self.whole.ends_with(&rest),
            "{}",
            finished.describe()
        );
    }
}

#[test]
fn nothing_in_use_disappears_when_many_processes_use_a_store_at_once() {
    let seed = seed();
    println!("WSNAP_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let sandbox = Sandbox::new();
    let command = sandbox.wsnap().args(["run", "--bare"]).program(&digits());
    let whole = command.run().expect(0).text();
    let everybody = &Everybody {
        sandbox: &sandbox,
        whole,
        tags: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    everybody.begin();
    thread::scope(|scope| {
        let programs = ["one", "two"].map(|name| {
            let rng = rng.fork();
            scope.spawn(move || everybody.again_and_again(rng, |rng| everybody.snap(name, rng)));
            scope.spawn(move || everybody.run(name))
        });
        let mut act = |act: fn(&Everybody<'_>, &mut Rng)| {
            let rng = rng.fork();
            scope.spawn(move || everybody.again_and_again(rng, |rng| act(everybody, rng)));
        };
        act(|all, _| drop(all.wsnap(&["gc", "--grace", "0s"]).expect(0)));
        act(|all, rng| all.remove(rng));
        act(|all, rng| all.resume(rng));
        act(|all, _| drop(all.wsnap(&["verify"]).expect(0)));
        let ends = programs.map(thread::ScopedJoinHandle::join);
        everybody.is_over.store(true, Ordering::Relaxed);
        for end in ends {
            end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let tags = everybody.tags.lock().unwrap();
    println!("{} images were tagged", tags.len());
    assert!(!tags.is_empty());
    let _ = everybody.wsnap(&["gc", "--grace", "0s"]).expect(0);
    let _ = everybody.wsnap(&["verify"]).expect(0);
    for tag in tags.iter() {
        everybody.is_rest(&everybody.wsnap(&["resume", tag]).expect(0));
    }
}

//! Limits of what programs may use.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;

use common::{Output, engine, resume, start};
use wsnap::snapshots::{Store, Value};
use wsnap::{Call, Error, Instance, LimitReached, Limits, Outcome, Program};

/// Grows a memory of one page and a table of one element by one each turn until both fail, over `$turns` turns, and returns
/// how large they are. A reference lies on the stack meanwhile, which a stop saves in a table.
const GROWS: &str = r#"(module
    (memory 1) (table 1 funcref)
    (elem declare func $self)
    (func $turn (param $kept funcref)
        (drop (memory.grow (i32.const 1)))
        (drop (table.grow (local.get $kept) (i32.const 1))))
    (func $self (export "run") (param $turns i32) (result i32 i32)
        (local $kept funcref)
        (local.set $kept (ref.func $self))
        (loop $again
            (call $turn (local.get $kept))
            (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
        (memory.size) (table.size)))"#;

const PAGE: u64 = 65536;

fn program() -> Program {
    Program::new(&engine(None, false, false), GROWS.into()).expect("it compiles")
}

fn started(program: &Program, turns: i32) -> Instance {
    let call = Call {
        export: "run".into(),
        arguments: vec![Value::I32(turns)],
    };
    start(program, call, &Output::new(), false)
}

fn sizes(outcome: Outcome) -> (i32, i32) {
    match outcome {
        Outcome::Returned(values) => match values.as_slice() {
            [Value::I32(memory), Value::I32(table)] => (*memory, *table),
            values => panic!("{values:?}"),
        },
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn memories_and_tables_stay_within_limits_whatever_stops_come_between() {
    let (program, directory) = (program(), tempfile::tempdir().expect("room"));
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let limits = Limits {
        memory_bytes: Some(7 * PAGE),
        table_elements: Some(5),
        ..Limits::default()
    };
    let mut instance = started(&program, 20);
    instance.set_limits(limits).expect("it is small");
    for _ in 0..4 {
        instance
            .stop_at_safepoint(4)
            .expect("its safepoints can be counted");
        match instance.run().expect("it runs") {
            Outcome::Suspended(_) => {}
            outcome => panic!("{outcome:?}"),
        }
        let id = instance
            .snapshot()
            .expect("it can be stored")
            .store(&store)
            .expect("there is room");
        instance = resume(&program, &store, id, &Output::new());
        instance.set_limits(limits).expect("it has kept to them");
    }
    assert_eq!(sizes(instance.run().expect("it runs")), (7, 5));
}

#[test]
fn limits_are_no_part_of_an_image() {
    let (program, directory) = (program(), tempfile::tempdir().expect("room"));
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let mut instance = started(&program, 20);
    let limits = Limits {
        memory_bytes: Some(2 * PAGE),
        ..Limits::default()
    };
    instance.set_limits(limits).expect("it is small");
    instance
        .stop_at_safepoint(8)
        .expect("its safepoints can be counted");
    assert!(matches!(instance.run(), Ok(Outcome::Suspended(_))));
    let id = instance
        .snapshot()
        .expect("it can be stored")
        .store(&store)
        .expect("there is room");
    let (memory, table) = sizes(
        resume(&program, &store, id, &Output::new())
            .run()
            .expect("it runs"),
    );
    assert!(memory > 2, "{memory}");
    assert_eq!(table, 21);
}

#[test]
fn what_is_too_large_already_is_refused_by_name() {
    let program = program();
    let mut instance = started(&program, 1);
    let limits = Limits {
        memory_bytes: Some(PAGE - 1),
        ..Limits::default()
    };
    match instance.set_limits(limits) {
        Err(Error::Limit(LimitReached::Memory {
            limit_bytes,
            wanted_bytes,
        })) => {
            assert_eq!((limit_bytes, wanted_bytes), (PAGE - 1, PAGE));
        }
        result => panic!("{result:?}"),
    }
}

#[test]
fn a_program_that_may_not_grow_traps_if_that_is_wanted() {
    let program = program();
    let mut instance = started(&program, 20);
    let limits = Limits {
        table_elements: Some(3),
        trap_on_grow_failure: true,
        ..Limits::default()
    };
    instance.set_limits(limits).expect("it is small");
    match instance.run().expect("it runs") {
        Outcome::Trapped(trap) => {
            let text = trap.to_string();
            assert!(
                text.contains("the limit for each table is 3 elements"),
                "{text}"
            );
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// Stops the program in place more often than the engine would allow instances by itself.
fn goes_on_in_place(mut instance: Instance) -> (i32, i32) {
    for stop in 0..10_100 {
        instance
            .stop_at_safepoint(1)
            .expect("its safepoints can be counted");
        match instance.run().expect("it goes on") {
            Outcome::Suspended(_) => {}
            outcome => panic!("{outcome:?} after {stop} stops"),
        }
    }
    sizes(instance.run().expect("it goes on"))
}

#[test]
fn a_limited_program_goes_on_in_place_more_often_than_the_engine_counts_instances_by_itself() {
    let mut instance = started(&program(), 10_200);
    let limits = Limits {
        memory_bytes: Some(7 * PAGE),
        table_elements: Some(5),
        ..Limits::default()
    };
    instance.set_limits(limits).expect("it is small");
    assert_eq!(goes_on_in_place(instance), (7, 5));
}

#[test]
fn a_program_without_limits_goes_on_in_place_more_often_than_the_engine_counts_instances_by_itself()
{
    assert_eq!(
        goes_on_in_place(started(&program(), 10_200)),
        (10_201, 10_201)
    );
}

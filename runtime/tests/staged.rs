//! Frames with as many values as can be staged, and with fewer and more, of which some are of other types.

mod common;
#[path = "common/wide.rs"]
mod wide;

use common::{engine, plain_engine, stored, whole};
use wide::{around_the_limits, only_long, wide};
use wsnap::snapshots::Value;
use wsnap::{Call, Program};

#[test]
fn frames_around_the_limits_of_staging_hold_everything() {
    let counting = engine(None, false, false);
    // The fast safepoints stop at the next one only.
    let engines = [
        (&counting, &plain_engine(None)),
        (&counting, &plain_engine(Some("pulley64"))),
        (&plain_engine(None), &plain_engine(None)),
    ];
    let call = Call {
        export: "go".into(),
        arguments: vec![Value::I32(9)],
    };
    let texts = around_the_limits()
        .into_iter()
        .map(|values| (wide(values), 18));
    for (text, stops) in texts.chain([(only_long(), 12)]) {
        let wasm = text.as_bytes();
        let expected = whole(wasm, &call);
        assert!(expected.ending.starts_with("returned"), "{expected:?}");
        for (one, other) in engines {
            let programs = [one, other].map(|engine| {
                Program::new(engine, wasm.to_vec()).expect("the module can be compiled")
            });
            let stopped = stored(&programs, &call, std::iter::repeat_n(1, stops));
            assert_eq!(stopped, (expected.clone(), stops), "{text}");
        }
    }
}

//! Every point at which an activation can stand, found apart from the rewriter.

use wasmparser::{
    FuncValidatorAllocations, Operator, Parser, Payload, ValidPayload, Validator, WasmFeatures,
};
use wsnap_instrument::{CloneRequest, Point};

/// For each defined function of a valid module: its entry, loop headers and calls in reachable code, before the call
/// returned and after it.
///
/// # Panics
///
/// When the module is not valid.
#[must_use]
pub fn all(wasm: &[u8], imported_functions: u32) -> Vec<CloneRequest> {
    let mut validator = Validator::new_with_features(WasmFeatures::WASM3 | WasmFeatures::THREADS);
    let mut requests = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload: Payload<'_> = payload.expect("the module is valid");
        let ValidPayload::Func(function, body) =
            validator.payload(&payload).expect("the module is valid")
        else {
            continue;
        };
        let mut function = function.into_validator(FuncValidatorAllocations::default());
        let mut locals = body.get_locals_reader().expect("the body is valid");
        for _ in 0..locals.get_count() {
            let offset = locals.original_position();
            let (count, ty) = locals.read().expect("the body is valid");
            function
                .define_locals(offset, count, ty)
                .expect("the body is valid");
        }
        let mut operators = body.get_operators_reader().expect("the body is valid");
        let mut points = vec![Point::Next(operators.original_position() as u32)];
        // How many control instructions are open around, the innermost of which began in dead code.
        let mut dead: u32 = 0;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset().expect("the body is valid");
            let next = operators.original_position() as u32;
            let unreachable = function
                .get_control_frame(0)
                .is_some_and(|frame| frame.unreachable);
            match operator {
                Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::If { .. }
                | Operator::TryTable { .. }
                    if dead > 0 || unreachable =>
                {
                    dead += 1;
                }
                Operator::End if dead > 0 => dead -= 1,
                Operator::Loop { .. } if !unreachable => points.push(Point::Next(next)),
                Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::CallRef { .. }
                    if dead == 0 && !unreachable =>
                {
                    points.extend([Point::Calling(offset as u32), Point::Next(next)]);
                }
                _ => {}
            }
            function.op(offset, &operator).expect("the body is valid");
        }
        points.sort_unstable();
        points.dedup();
        requests.push(CloneRequest {
            function: imported_functions + requests.len() as u32,
            points,
        });
    }
    requests
}

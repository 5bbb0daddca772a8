//! Rewrites a module and says what it cost: `cargo run --release --example rewrite -- MODULE [OUTPUT]`.

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which module?")?;
    let bytes = wat::parse_file(&path)?;
    let start = Instant::now();
    let module = wsnap_instrument::Module::parse(&bytes)?;
    let parsed = start.elapsed();
    let rewritten = wsnap_instrument::rewrite(&module, wsnap_instrument::Options::default())?;
    let total = start.elapsed();
    if let Some(output) = arguments.next() {
        std::fs::write(output, &rewritten.wasm)?;
    }
    let start = Instant::now();
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
        .validate_all(&rewritten.wasm)?;
    let validated = start.elapsed();
    println!(
        "{path}: {} -> {} bytes, sections {parsed:.1?}, in all {total:.1?}, validating the result {validated:.1?}",
        bytes.len(),
        rewritten.wasm.len()
    );
    Ok(())
}

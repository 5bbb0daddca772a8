//! Functions and tags that generated modules may import, and their definitions, which take the place of the imports.
//!
//! Chance alone seldom writes a recursion that ends, an exception that is caught, or a call that goes back to where it
//! came from. So there are functions that do, and generated ones call them, and are called back by them.

use crate::driver::{DriverCall, constant};
use crate::imports;
use std::fmt::Write;
use wsnap_instrument::Module;

/// A module that imports all there is.
pub const IMPORTS: &str = r#"(module
    (import "library" "recurses" (func (param i32 i64) (result i64)))
    (import "library" "tails" (func (param i32) (result i32)))
    (import "library" "catches" (func (param i32) (result i32)))
    (import "library" "carries" (func (param i32) (result i32)))
    (import "library" "throws" (func (param i32)))
    (import "library" "grows" (func (param i32) (result i32)))
    (import "library" "vectors" (func (param v128 i32) (result v128)))
    (import "library" "several" (func (param i32 i64) (result i64 i32)))
    (import "library" "indirect" (func (param i32) (result i32)))
    (import "library" "references" (func (param funcref i32) (result funcref)))
    (import "library" "traps" (func (param i32) (result i32)))
    (import "library" "back" (func (param i32) (result i32)))
    (import "library" "back and catch" (func (param i32)))
    (import "library" "pair" (tag (param i32 i64)))
    (import "library" "nothing" (tag)))"#;

/// Defines, in the text of a module, what it imports of the library. Functions of the library make `callbacks`.
///
/// # Panics
///
/// When the text is not that of a module.
#[must_use]
pub fn link(text: &str, original: &Module<'_>, callbacks: &[DriverCall]) -> String {
    let mut used = false;
    let linked = imports::replace(text, |module, name, item| {
        used |= module == "library";
        (module == "library").then(|| match name {
            "pair" | "nothing" => item.to_owned(),
            _ => imports::with_body(item, body(name)),
        })
    });
    if !used {
        return linked;
    }
    let module = linked
        .trim_end()
        .strip_suffix(')')
        .expect("a module ends in a parenthesis");
    let back = call_back(original, callbacks);
    format!("{module}\n{COMMON}\n{back})")
}

/// The body of an imported function.
fn body(name: &str) -> &'static str {
    match name {
        "recurses" => "local.get 0 i32.const 15 i32.and local.get 1 call $library-recurses",
        "tails" => "i32.const 7 local.get 0 i32.const 31 i32.and return_call $library-even",
        "catches" => "local.get 0 i32.const 7 i32.and call $library-catches",
        "carries" => "local.get 0 call $library-carries",
        "throws" => {
            "local.get 0 i32.const 3 i32.and i32.eqz
             if local.get 0 call $library-throws drop end"
        }
        "grows" => "local.get 0 call $library-grows",
        "vectors" => "local.get 0 local.get 1 i32.const 7 i32.and call $library-vectors",
        "several" => "local.get 0 i32.const 7 i32.and local.get 1 call $library-several",
        "indirect" => {
            "local.get 0 call $library-by-reference
             local.get 0 i32.const 5 i32.rem_u
             call_indirect $library-functions (type $library-i32-i32)"
        }
        "references" => "local.get 0 local.get 1 call $library-references",
        "traps" => "local.get 0 call $library-traps",
        "back" => "local.get 0 call $library-back",
        "back and catch" => {
            "block $caught
               try_table (catch_all $caught)
                 local.get 0 call $library-back drop
               end
             end
             block $again (result exnref)
               try_table (catch_all_ref $again)
                 local.get 0 i32.const 1 i32.add call $library-back drop
               end
               return
             end
             i32.const 5 call $library-turns drop
             drop"
        }
        _ => "unreachable",
    }
}

/// A function that makes one of `callbacks`, by its argument.
fn call_back(module: &Module<'_>, callbacks: &[DriverCall]) -> String {
    let mut text = "(func $library-back (param $which i32) (result i32)\n".to_owned();
    for (index, call) in callbacks.iter().enumerate() {
        let count = callbacks.len();
        let Some((params, results)) = module.signature(call.function) else {
            continue;
        };
        let values = params.iter().zip(&call.arguments);
        let arguments: String = values
            .filter_map(|(ty, bits)| Some(constant(*ty, *bits)? + " "))
            .collect();
        let drops = " drop".repeat(results.len());
        writeln!(
            text,
            "local.get $which i32.const {count} i32.rem_u i32.const {index} i32.eq
             if {arguments} call {}{drops} end",
            call.function
        )
        .expect("a String takes everything");
    }
    text + "local.get $which i32.const 3 i32.mul)"
}

/// What the functions of the library share.
const COMMON: &str = r#"
(type $library-i32-i32 (func (param i32) (result i32)))
(tag $library-pair (param i32 i64))
(memory $library-memory 1 9)
(memory $library-memory64 i64 1 9)
(table $library-table 4 60 funcref)
(global $library-held (mut funcref) (ref.null func))
(table $library-functions 5 5 funcref)
(elem (table $library-functions) (i32.const 0) func
  $library-turns $library-throws $library-catches $library-grows $library-carries)
(func $library-turns (param $left i32) (result i32) (local $sum i32)
  local.get $left i32.const 3 i32.and local.set $left
  loop $again
    local.get $sum i32.const 31 i32.mul local.get $left i32.add local.set $sum
    local.get $left i32.const 1 i32.sub local.tee $left
    i32.const 0 i32.gt_s
    br_if $again
  end
  local.get $sum)
(func $library-by-reference (param $value i32) (result i32) (local $function (ref null $library-i32-i32))
  ref.func $library-grows
  ref.func $library-carries
  local.get $value i32.const 1 i32.and
  select (result (ref null $library-i32-i32))
  local.set $function
  local.get $value call $library-turns
  local.get $function call_ref $library-i32-i32
  local.get $value i32.const 2 i32.and
  if (param i32) (result i32)
    local.get $function return_call_ref $library-i32-i32
  end)
(func $library-recurses (param $depth i32) (param $value i64) (result i64)
  local.get $depth i32.eqz
  if local.get $value i32.wrap_i64 call $library-turns i64.extend_i32_u return end
  local.get $value i64.const 0x9E3779B97F4A7C15 i64.mul
  local.get $depth i32.const 1 i32.sub
  local.get $value i64.const 1 i64.add
  call $library-recurses
  i64.xor
  local.get $value i64.add)
(func $library-even (param $sum i32) (param $left i32) (result i32)
  local.get $left i32.eqz if local.get $sum return end
  local.get $sum i32.const 3 i32.mul local.get $left i32.const 1 i32.sub return_call $library-odd)
(func $library-odd (param $sum i32) (param $left i32) (result i32)
  local.get $left i32.eqz if local.get $sum return end
  local.get $left i32.const 7 i32.and i32.eqz
  if local.get $sum local.get $left i32.const 5 i32.rem_u
    return_call_indirect $library-functions (type $library-i32-i32) end
  local.get $sum i32.const 1 i32.add local.get $left i32.const 1 i32.sub return_call $library-even)
(func $library-throws (param $value i32) (result i32)
  local.get $value call $library-turns drop
  local.get $value i32.const 1 i32.and
  if local.get $value local.get $value i64.extend_i32_s throw $library-pair end
  local.get $value)
(func $library-catches (param $left i32) (result i32) (local $sum i32)
  local.get $left i32.const 7 i32.and local.set $left
  loop $again
    block $done
      block $caught (result i32 i64)
        try_table (catch $library-pair $caught)
          local.get $left call $library-throws
          local.get $sum i32.add local.set $sum
        end
        br $done
      end
      i32.wrap_i64 i32.sub local.get $sum i32.add call $library-turns local.set $sum
    end
    local.get $left i32.const 1 i32.sub local.tee $left
    i32.const 0 i32.gt_s
    br_if $again
  end
  local.get $sum)
(func $library-carries (type $library-i32-i32) (param $value i32) (result i32) (local $exception exnref)
  block $caught (result i32 i64 exnref)
    try_table (catch_ref $library-pair $caught)
      local.get $value i32.const 1 i32.or call $library-throws drop
    end
    unreachable
  end
  local.set $exception
  drop drop
  local.get $value call $library-turns local.set $value
  block $again (result i32 i64)
    try_table (catch $library-pair $again)
      local.get $exception throw_ref
    end
    unreachable
  end
  i32.wrap_i64 i32.add local.get $value i32.add)
(func $library-grows (type $library-i32-i32) (param $value i32) (result i32) (local $size i32)
  local.get $value i32.const 1 i32.and memory.grow $library-memory local.set $size
  i32.const 64 local.get $value i32.const 40 memory.fill $library-memory
  local.get $value call $library-turns drop
  i32.const 80 i32.const 60 i32.const 30 memory.copy $library-memory $library-memory
  i32.const 0 i32.const 1 i32.const 3 table.copy $library-table $library-functions
  memory.size $library-memory i32.const 16 i32.shl i32.const 16 i32.sub
  local.get $size i32.store $library-memory
  i64.const 1 memory.grow $library-memory64 drop
  memory.size $library-memory64 i64.const 16 i64.shl i64.const 8 i64.sub
  local.get $value i32.store $library-memory64
  global.get $library-held local.get $value i32.const 3 i32.and table.grow $library-table
  local.get $size i32.add call $library-turns
  memory.size $library-memory i32.add)
(func $library-vectors (param $vector v128) (param $left i32) (result v128)
  loop $again
    local.get $vector
    v128.const i32x4 3 5 7 9 i32x4.mul
    local.get $left i32x4.splat i32x4.add
    local.get $left call $library-turns i32x4.splat v128.xor
    local.set $vector
    local.get $left i32.const 1 i32.sub local.tee $left
    i32.const 0 i32.gt_s
    br_if $again
  end
  local.get $vector)
(func $library-several (param $left i32) (param $value i64) (result i64 i32)
  local.get $left local.get $value
  loop $again (param i32 i64) (result i64 i32)
    local.set $value
    local.set $left
    local.get $value local.get $left call $library-turns i64.extend_i32_u i64.add local.set $value
    local.get $left i32.const 1 i32.sub local.tee $left
    local.get $value
    local.get $left i32.const 0 i32.gt_s
    br_if $again
    local.set $value
    drop
    local.get $value local.get $left
  end)
(func $library-references (param $function funcref) (param $value i32) (result funcref)
  ref.func $library-turns
  local.get $value call $library-turns drop
  global.get $library-held
  local.get $function
  ref.is_null
  select (result funcref)
  local.get $function global.set $library-held
  local.get $value i32.const 1 i32.and
  local.get $function table.set $library-table
  local.get $value i32.const 3 i32.mul call $library-turns i32.const 1 i32.and
  table.get $library-table
  local.get $value i32.const 2 i32.and
  select (result funcref))
(func $library-traps (param $value i32) (result i32)
  local.get $value i32.const 0x5bd1e995 i32.xor i32.const 0x9E3779B1 i32.mul i32.const 27 i32.shr_u
  local.set $value
  local.get $value call $library-turns drop
  local.get $value i32.const 3 i32.eq if unreachable end
  i32.const 1000 local.get $value i32.const 4 i32.sub i32.div_s)
"#;

//! Values of WebAssembly as people write and read them.

use wsnap::ValueClass;
use wsnap::snapshots::Value;

use crate::failure::Failure;

/// Reads the arguments of the function `export`, as many as it has parameters and of their types.
pub(crate) fn parse_all(
    export: &str,
    parameters: &[ValueClass],
    arguments: &[String],
) -> Result<Vec<Value>, Failure> {
    if parameters.len() != arguments.len() {
        let types: Vec<_> = parameters.iter().copied().map(class_name).collect();
        return Err(Failure::new(format!(
            "{export:?} takes {} arguments, but {} are given",
            parameters.len(),
            arguments.len()
        ))
        .hint(format!("its parameters are ({})", types.join(", "))));
    }
    let pairs = parameters.iter().zip(arguments);
    pairs
        .map(|(class, text)| {
            parse(*class, text).ok_or_else(|| {
                let class = class_name(*class);
                Failure::new(format!(
                    "{text:?} is not an {class}, which {export:?} takes"
                ))
            })
        })
        .collect()
}

/// Reads a value: integers in decimal or, after `0x`, hexadecimal digits, signed or not; floats as in Rust.
fn parse(class: ValueClass, text: &str) -> Option<Value> {
    match class {
        ValueClass::I32 => {
            let number = integer(text)?;
            let signed = i32::try_from(number).ok();
            let value = signed.or_else(|| u32::try_from(number).ok().map(u32::cast_signed));
            value.map(Value::I32)
        }
        ValueClass::I64 => {
            let number = integer(text)?;
            let signed = i64::try_from(number).ok();
            let value = signed.or_else(|| u64::try_from(number).ok().map(u64::cast_signed));
            value.map(Value::I64)
        }
        ValueClass::F32 => Some(Value::F32(text.parse::<f32>().ok()?.to_bits())),
        ValueClass::F64 => Some(Value::F64(text.parse::<f64>().ok()?.to_bits())),
        ValueClass::V128 => Some(Value::V128(vector(text)?)),
        ValueClass::Function | ValueClass::Extern | ValueClass::Exception => None,
    }
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    // 64 bits are all that any value takes, so the sign always fits.
    let number: i128 = match hexadecimal(digits) {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?.into(),
        None => digits.parse::<u64>().ok()?.into(),
    };
    Some(if negative { -number } else { number })
}

fn vector(text: &str) -> Option<u128> {
    match hexadecimal(text) {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

fn class_name(class: ValueClass) -> &'static str {
    match class {
        ValueClass::I32 => "i32",
        ValueClass::I64 => "i64",
        ValueClass::F32 => "f32",
        ValueClass::F64 => "f64",
        ValueClass::V128 => "v128",
        ValueClass::Function => "funcref",
        ValueClass::Extern => "externref",
        ValueClass::Exception => "exnref",
    }
}

/// The name of a value's type in WebAssembly.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::I32(_) => "i32",
        Value::I64(_) => "i64",
        Value::F32(_) => "f32",
        Value::F64(_) => "f64",
        Value::V128(_) => "v128",
        Value::FuncRef(_) => "funcref",
        Value::ExternRefNull => "externref",
        Value::ExnRef(_) => "exnref",
    }
}

/// A value without its type: numbers in decimal, references as `null` or what they refer to.
pub(crate) fn describe(value: &Value) -> String {
    match *value {
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::F32(bits) => f32::from_bits(bits).to_string(),
        Value::F64(bits) => f64::from_bits(bits).to_string(),
        Value::V128(bits) => bits.to_string(),
        Value::FuncRef(None) | Value::ExternRefNull | Value::ExnRef(None) => "null".to_owned(),
        Value::FuncRef(Some(function)) => format!("function {function}"),
        Value::ExnRef(Some(exception)) => format!("exception {exception}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_in_decimal_and_hexadecimal_within_their_range() {
        let i32 = |text| parse(ValueClass::I32, text);
        assert_eq!(i32("-2147483648"), Some(Value::I32(i32::MIN)));
        assert_eq!(i32("4294967295"), Some(Value::I32(-1)));
        assert_eq!(i32("0xffffffff"), Some(Value::I32(-1)));
        assert_eq!(i32("-0X10"), Some(Value::I32(-16)));
        for text in [
            "",
            "-",
            "4294967296",
            "-2147483649",
            "1.0",
            "0x",
            "many",
            "--1",
            "+-1",
        ] {
            assert_eq!(i32(text), None, "{text}");
        }
        let i64 = |text| parse(ValueClass::I64, text);
        assert_eq!(i64("-9223372036854775808"), Some(Value::I64(i64::MIN)));
        assert_eq!(i64("0xffffffffffffffff"), Some(Value::I64(-1)));
        assert_eq!(i64("18446744073709551616"), None);
    }

    #[test]
    fn floats_and_vectors_are_read_as_their_bits() {
        assert_eq!(parse(ValueClass::F32, "1.5"), Some(Value::F32(0x3fc0_0000)));
        assert_eq!(
            parse(ValueClass::F64, "-inf"),
            Some(Value::F64(f64::NEG_INFINITY.to_bits()))
        );
        assert_eq!(parse(ValueClass::F64, "one"), None);
        assert_eq!(parse(ValueClass::V128, "0x10"), Some(Value::V128(16)));
    }

    #[test]
    fn references_cannot_be_given() {
        for class in [
            ValueClass::Function,
            ValueClass::Extern,
            ValueClass::Exception,
        ] {
            assert_eq!(parse(class, "0"), None);
        }
    }

    #[test]
    fn too_few_and_too_many_arguments_are_refused_by_name() {
        for arguments in [&[][..], &["1".to_owned(), "2".to_owned()]] {
            match parse_all("twice", &[ValueClass::I32], arguments) {
                Err(failure) => assert!(failure.message().contains("\"twice\"")),
                Ok(values) => panic!("{values:?}"),
            }
        }
    }
}

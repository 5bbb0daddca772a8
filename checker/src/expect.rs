//! Code that is known instruction by instruction.

use crate::context::{Context, Role};
use crate::error::{Result, section};
use crate::module::Module;
use wasmparser::{Operator, ValType};

/// Reads a function's instructions.
fn operators<'a>(module: &Module<'a>, function: u32) -> Result<Vec<Operator<'a>>> {
    let Some(body) = module.body(function) else {
        return section("code", format!("function {function} has no body"));
    };
    let operators = body.get_operators_reader()?.into_iter();
    Ok(operators.collect::<std::result::Result<_, _>>()?)
}

/// Has `read` compare the code of function `function`, all of it, and returns what it makes of that. `part` of the module is where a
/// difference is, in `subject`.
pub(crate) fn whole<'a, T>(
    module: &Module<'a>,
    function: u32,
    control: u32,
    (part, subject): (&'static str, impl std::fmt::Display),
    read: impl FnOnce(&mut Expect<'_, 'a>) -> Option<T>,
) -> Result<T> {
    let operators = operators(module, function)?;
    let mut expect = Expect {
        left: &operators,
        control,
    };
    match read(&mut expect) {
        Some(made) if expect.left.is_empty() => Ok(made),
        _ => section(
            part,
            format!(
                "{subject} is not what it should be before its last {} instructions",
                expect.left.len()
            ),
        ),
    }
}

/// Instructions still to be read, which are compared one after the other.
pub(crate) struct Expect<'o, 'a> {
    pub left: &'o [Operator<'a>],
    pub control: u32,
}

impl<'a> Expect<'_, 'a> {
    pub fn next(&mut self) -> Option<Operator<'a>> {
        let (first, left) = self.left.split_first()?;
        self.left = left;
        Some(first.clone())
    }

    pub fn is(&mut self, expected: Operator<'_>) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    pub fn get(&mut self, local: u32) -> Option<()> {
        self.is(Operator::LocalGet { local_index: local })
    }

    /// An access of the control memory at `offset`, of which `take` returns the memory argument.
    pub fn accesses(
        &mut self,
        offset: u32,
        take: impl FnOnce(&Operator<'a>) -> Option<wasmparser::MemArg>,
    ) -> Option<()> {
        let memarg = take(&self.next()?)?;
        (memarg.memory == self.control && memarg.offset == u64::from(offset)).then_some(())
    }

    pub fn loads_word(&mut self, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match operator {
            Operator::I32Load { memarg } => Some(*memarg),
            _ => None,
        })
    }

    pub fn stores_word(&mut self, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match operator {
            Operator::I32Store { memarg } => Some(*memarg),
            _ => None,
        })
    }

    /// A store of a value of type `ty`, a reference through what saves it.
    pub fn stores(&mut self, context: &Context, ty: ValType, offset: u32) -> Option<()> {
        if let ValType::Ref(_) = ty {
            match self.next()? {
                Operator::Call { function_index }
                    if context.role(function_index) == Role::Saver => {}
                _ => return None,
            }
        }
        self.accesses(offset, |operator| match (ty, operator) {
            (ValType::I32 | ValType::Ref(_), Operator::I32Store { memarg })
            | (ValType::I64, Operator::I64Store { memarg })
            | (ValType::F32, Operator::F32Store { memarg })
            | (ValType::F64, Operator::F64Store { memarg })
            | (ValType::V128, Operator::V128Store { memarg }) => Some(*memarg),
            _ => None,
        })
    }

    /// A load of a value of type `ty`, a reference through the table of saved ones.
    pub fn loads(&mut self, context: &Context, ty: ValType, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match (ty, operator) {
            (ValType::I32 | ValType::Ref(_), Operator::I32Load { memarg })
            | (ValType::I64, Operator::I64Load { memarg })
            | (ValType::F32, Operator::F32Load { memarg })
            | (ValType::F64, Operator::F64Load { memarg })
            | (ValType::V128, Operator::V128Load { memarg }) => Some(*memarg),
            _ => None,
        })?;
        if let ValType::Ref(_) = ty {
            match self.next()? {
                Operator::TableGet { table } if context.saved_tables.contains(&table) => {}
                _ => return None,
            }
            while let Some(Operator::RefCastNullable { .. } | Operator::RefAsNonNull) =
                self.left.first()
            {
                self.next();
            }
        }
        Some(())
    }
}

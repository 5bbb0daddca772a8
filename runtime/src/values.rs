//! Values between the engine and images: which function, external thing or exception a reference points at.

use crate::error::{Error, Result};
use crate::host::HostState;
use std::collections::HashMap;
use wasmtime::{ExnRef, ExnRefPre, ExnType, Func, HeapType, Instance, Ref, Rooted, Store, Table, Tag, Val, ValType};
use wsnap_instrument::{Facts, Module, Name, ValueClass};
use wsnap_snapshots::{Exception, Value};

/// The class of values of an engine's type.
pub(crate) fn class_of(ty: &ValType) -> ValueClass {
    match ty {
        ValType::I32 => ValueClass::I32,
        ValType::I64 => ValueClass::I64,
        ValType::F32 => ValueClass::F32,
        ValType::F64 => ValueClass::F64,
        ValType::V128 => ValueClass::V128,
        ValType::Ref(reference) => match reference.heap_type().top() {
            HeapType::Extern => ValueClass::Extern,
            HeapType::Exn => ValueClass::Exception,
            _ => ValueClass::Function,
        },
    }
}

/// The table exported under `name`.
pub(crate) fn table(store: &mut Store<HostState>, instance: Instance, name: &str) -> Result<Table> {
    let missing = || Error::Internal(wasmtime::Error::msg(format!("the module has no table {name}")));
    instance.get_table(store, name).ok_or_else(missing)
}

/// How deep exceptions may carry each other as payload.
const NESTED_EXCEPTIONS_MAX: usize = 100;

/// Knows the functions and exceptions of one instance by their numbers in images.
pub(crate) struct References<'f> {
    facts: &'f Facts,
    /// Functions that references can point to, in the order of the facts.
    referenced: Table,
    tags: Vec<Tag>,
    /// Function index by address; filled when the first reference is looked up.
    by_address: HashMap<usize, u32>,
    /// Exceptions met so far.
    pub exceptions: Vec<Exception>,
    /// Where each of them is in the engine, to find one that is met twice.
    met: Vec<Rooted<ExnRef>>,
    /// Exceptions made again, by their index in an image.
    made: HashMap<u32, Rooted<ExnRef>>,
    /// Exceptions that are being made, each a payload of the one before.
    making: Vec<u32>,
}

impl<'f> References<'f> {
    pub fn new(
        store: &mut Store<HostState>,
        instance: Instance,
        module: &Module<'_>,
        facts: &'f Facts,
    ) -> Result<Self> {
        let referenced = table(store, instance, &Name::ReferencedFunctions.in_module(module))?;
        let mut tags = Vec::new();
        for index in 0..module.tag_count() {
            tags.extend(instance.get_tag(&mut *store, &Name::Tag(index).in_module(module)));
        }
        Ok(Self {
            facts,
            referenced,
            tags,
            by_address: HashMap::new(),
            exceptions: Vec::new(),
            met: Vec::new(),
            made: HashMap::new(),
            making: Vec::new(),
        })
    }

    fn function_index(&mut self, store: &mut Store<HostState>, function: Func) -> Result<u32> {
        if self.by_address.is_empty() {
            for (place, index) in (0u64..).zip(self.facts.referenced_functions()) {
                if let Some(Ref::Func(Some(known))) = self.referenced.get(&mut *store, place) {
                    self.by_address.insert(known.to_raw(&mut *store).addr(), *index);
                }
            }
        }
        let address = function.to_raw(&mut *store).addr();
        let foreign = || Error::NotStorable("it holds a reference to a function that is not its own".into());
        self.by_address.get(&address).copied().ok_or_else(foreign)
    }

    /// The image's form of a value.
    ///
    /// # Errors
    ///
    /// [`Error::NotStorable`] for references to what is not the program's own.
    pub fn describe(&mut self, store: &mut Store<HostState>, value: Val) -> Result<Value> {
        Ok(match value {
            Val::I32(value) => Value::I32(value),
            Val::I64(value) => Value::I64(value),
            Val::F32(bits) => Value::F32(bits),
            Val::F64(bits) => Value::F64(bits),
            Val::V128(value) => Value::V128(value.as_u128()),
            Val::FuncRef(None) => Value::FuncRef(None),
            Val::FuncRef(Some(function)) => Value::FuncRef(Some(self.function_index(store, function)?)),
            Val::ExternRef(None) => Value::ExternRefNull,
            Val::ExternRef(Some(_)) => {
                return Err(Error::NotStorable("it holds a reference to something of the host (an externref)".into()));
            }
            Val::ExnRef(None) => Value::ExnRef(None),
            Val::ExnRef(Some(exception)) => Value::ExnRef(Some(self.exception_index(store, exception)?)),
            Val::AnyRef(None) => Value::ExternRefNull,
            Val::AnyRef(Some(_)) | Val::ContRef(_) => {
                return Err(Error::NotStorable("it holds a garbage-collected reference".into()));
            }
        })
    }

    fn exception_index(&mut self, store: &mut Store<HostState>, exception: Rooted<ExnRef>) -> Result<u32> {
        for (index, other) in (0..).zip(&self.met) {
            if Rooted::ref_eq(&mut *store, &exception, other).map_err(Error::Internal)? {
                return Ok(index);
            }
        }
        let tag = exception.tag(&mut *store).map_err(Error::Internal)?;
        let foreign = || Error::NotStorable("it holds an exception whose tag is not its own".into());
        let tag = self.tags.iter().position(|own| Tag::eq(own, &tag, &*store)).ok_or_else(foreign)? as u32;
        let index = self.met.len() as u32;
        self.met.push(exception);
        self.exceptions.push(Exception { tag, fields: Vec::new() });
        let values: Vec<Val> = exception.fields(&mut *store).map_err(Error::Internal)?.collect();
        let mut fields = Vec::new();
        for value in values {
            // A payload was there before the exception that carries it, so this ends.
            fields.push(self.describe(store, value)?);
        }
        self.exceptions[index as usize].fields = fields;
        Ok(index)
    }

    /// The engine's form of a value of `class` from an image, whose exceptions are `exceptions`.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] if it is of another class or points at what does not exist.
    pub fn make(
        &mut self,
        store: &mut Store<HostState>,
        exceptions: &[Exception],
        class: ValueClass,
        value: Value,
    ) -> Result<Val> {
        if class_of_value(value) != class {
            return Err(Error::Image(format!("a value is {value:?} where a value of class {class:?} belongs")));
        }
        Ok(match value {
            Value::I32(value) => Val::I32(value),
            Value::I64(value) => Val::I64(value),
            Value::F32(bits) => Val::F32(bits),
            Value::F64(bits) => Val::F64(bits),
            Value::V128(bits) => Val::V128(bits.into()),
            Value::FuncRef(None) => Val::FuncRef(None),
            Value::FuncRef(Some(index)) => Val::FuncRef(Some(self.function(store, index)?)),
            Value::ExternRefNull => Val::ExternRef(None),
            Value::ExnRef(None) => Val::ExnRef(None),
            Value::ExnRef(Some(index)) => Val::ExnRef(Some(self.exception(store, exceptions, index)?)),
        })
    }

    fn function(&mut self, store: &mut Store<HostState>, index: u32) -> Result<Func> {
        let unknown = || Error::Image(format!("a reference points to function {index}, which nothing can refer to"));
        let place = self.facts.referenced_functions().binary_search(&index).map_err(|_| unknown())?;
        match self.referenced.get(&mut *store, place as u64) {
            Some(Ref::Func(Some(function))) => Ok(function),
            _ => Err(unknown()),
        }
    }

    fn exception(
        &mut self,
        store: &mut Store<HostState>,
        exceptions: &[Exception],
        index: u32,
    ) -> Result<Rooted<ExnRef>> {
        if let Some(made) = self.made.get(&index) {
            return Ok(*made);
        }
        let wrong = |what: &str| Error::Image(format!("exception {index} {what}"));
        let exception = exceptions.get(index as usize).ok_or_else(|| wrong("does not exist"))?;
        let tag = *self.tags.get(exception.tag as usize).ok_or_else(|| wrong("has a tag that does not exist"))?;
        let classes: Vec<ValueClass> = tag.ty(&*store).ty().params().map(|ty| class_of(&ty)).collect();
        if classes.len() != exception.fields.len() {
            return Err(wrong("has the wrong number of values"));
        }
        if self.making.contains(&index) || self.making.len() >= NESTED_EXCEPTIONS_MAX {
            return Err(wrong("carries itself, or too many others"));
        }
        self.making.push(index);
        let mut fields = Vec::new();
        for (class, value) in classes.into_iter().zip(&exception.fields) {
            fields.push(self.make(store, exceptions, class, *value)?);
        }
        self.making.pop();
        let ty = ExnType::from_tag_type(&tag.ty(&*store)).map_err(Error::Internal)?;
        let allocator = ExnRefPre::new(&mut *store, ty);
        let made = ExnRef::new(&mut *store, &allocator, &tag, &fields).map_err(Error::Internal)?;
        self.made.insert(index, made);
        Ok(made)
    }
}

/// The class of an image's value.
pub(crate) fn class_of_value(value: Value) -> ValueClass {
    match value {
        Value::I32(_) => ValueClass::I32,
        Value::I64(_) => ValueClass::I64,
        Value::F32(_) => ValueClass::F32,
        Value::F64(_) => ValueClass::F64,
        Value::V128(_) => ValueClass::V128,
        Value::FuncRef(_) => ValueClass::Function,
        Value::ExternRefNull => ValueClass::Extern,
        Value::ExnRef(_) => ValueClass::Exception,
    }
}

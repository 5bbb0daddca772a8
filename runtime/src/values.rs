//! Values between the engine and images: which function, external thing or exception a reference points at.

use crate::error::{Error, Result};
use crate::host::HostState;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use wasmtime::{
    AsContextMut, ExnRef, ExnRefPre, ExnType, Func, HeapType, Instance, Ref, Rooted, Table, Tag,
    Val, ValType,
};
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
pub(crate) fn table<S: AsContextMut<Data = HostState>>(
    store: &mut S,
    instance: Instance,
    name: &str,
) -> Result<Table> {
    let missing = || {
        Error::Internal(wasmtime::Error::msg(format!(
            "the module has no table {name}"
        )))
    };
    instance.get_table(&mut *store, name).ok_or_else(missing)
}

/// Knows the functions and exceptions of one instance by their numbers in images.
pub(crate) struct References<'f> {
    facts: &'f Facts,
    /// Functions that references can point to, in the order of the facts.
    referenced: Table,
    tags: Vec<Tag>,
    /// Function index by address; filled when the first reference is looked up.
    by_address: HashMap<usize, u32>,
    /// Exceptions met so far, in the order of their indices in an image.
    met: Vec<Rooted<ExnRef>>,
    /// The indices of exceptions by a hash of their identity, to find one that is met twice.
    indices: HashMap<u64, Vec<u32>>,
    /// Exceptions made again, by their index in an image.
    made: HashMap<u32, Rooted<ExnRef>>,
}

impl<'f> References<'f> {
    pub fn new<S: AsContextMut<Data = HostState>>(
        store: &mut S,
        instance: Instance,
        module: &Module<'_>,
        facts: &'f Facts,
    ) -> Result<Self> {
        let referenced = table(
            store,
            instance,
            &Name::ReferencedFunctions.in_module(module),
        )?;
        let mut tags = Vec::new();
        for index in 0..module.tag_count() {
            tags.extend(instance.get_tag(&mut *store, &Name::Tag(index).in_module(module)));
        }
        Ok(Self {
            facts,
            referenced,
            tags,
            by_address: HashMap::new(),
            met: Vec::new(),
            indices: HashMap::new(),
            made: HashMap::new(),
        })
    }

    fn function_index<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        function: Func,
    ) -> Result<u32> {
        if self.by_address.is_empty() {
            for (place, index) in (0u64..).zip(self.facts.referenced_functions()) {
                if let Some(Ref::Func(Some(known))) = self.referenced.get(&mut *store, place) {
                    self.by_address
                        .insert(known.to_raw(&mut *store).addr(), *index);
                }
            }
        }
        let address = function.to_raw(&mut *store).addr();
        let foreign =
            || Error::NotStorable("it holds a reference to a function that is not its own".into());
        self.by_address.get(&address).copied().ok_or_else(foreign)
    }

    /// The image's form of a value.
    ///
    /// # Errors
    ///
    /// [`Error::NotStorable`] for references to what is not the program's own.
    pub fn describe<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        value: Val,
    ) -> Result<Value> {
        if let Some(plain) = plain_value(&value) {
            return Ok(plain);
        }
        match value {
            Val::FuncRef(Some(function)) => {
                Ok(Value::FuncRef(Some(self.function_index(store, function)?)))
            }
            Val::ExnRef(Some(exception)) => {
                Ok(Value::ExnRef(Some(self.exception_index(store, exception)?)))
            }
            Val::ExternRef(_) => Err(Error::NotStorable(
                "it holds a reference to something of the host (an externref)".into(),
            )),
            _ => Err(Error::NotStorable(
                "it holds a garbage-collected reference".into(),
            )),
        }
    }

    /// The index of an exception, which is a new one if it has not been met yet.
    fn exception_index<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        exception: Rooted<ExnRef>,
    ) -> Result<u32> {
        let mut hasher = DefaultHasher::new();
        exception
            .ref_hash(&*store, &mut hasher)
            .map_err(Error::Internal)?;
        let candidates = self.indices.entry(hasher.finish()).or_default();
        for index in candidates.iter() {
            let other = &self.met[*index as usize];
            if Rooted::ref_eq(&*store, &exception, other).map_err(Error::Internal)? {
                return Ok(*index);
            }
        }
        let index = self.met.len() as u32;
        candidates.push(index);
        self.met.push(exception);
        Ok(index)
    }

    /// All exceptions met, and those that they carry, by index.
    ///
    /// # Errors
    ///
    /// [`Error::NotStorable`] for exceptions with tags that are not the program's own, or that carry what cannot be stored.
    pub fn exceptions<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
    ) -> Result<Vec<Exception>> {
        let mut described = Vec::new();
        // What an exception carries is met while it is described, and gets its turn.
        while let Some(exception) = self.met.get(described.len()).copied() {
            let tag = exception.tag(&mut *store).map_err(Error::Internal)?;
            let foreign =
                || Error::NotStorable("it holds an exception whose tag is not its own".into());
            let tag = self
                .tags
                .iter()
                .position(|own| Tag::eq(own, &tag, &*store))
                .ok_or_else(foreign)? as u32;
            let values: Vec<Val> = exception
                .fields(&mut *store)
                .map_err(Error::Internal)?
                .collect();
            let fields = values
                .into_iter()
                .map(|value| self.describe(store, value))
                .collect::<Result<_>>()?;
            described.push(Exception { tag, fields });
        }
        Ok(described)
    }

    /// The engine's form of a value of `class` from an image, whose exceptions are `exceptions`.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] if it is of another class or points at what does not exist.
    pub fn make<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        exceptions: &[Exception],
        class: ValueClass,
        value: Value,
    ) -> Result<Val> {
        if class_of_value(value) != class {
            return Err(Error::Image(format!(
                "a value is {value:?} where a value of class {class:?} belongs"
            )));
        }
        if let Some(plain) = plain_val(value) {
            return Ok(plain);
        }
        match value {
            Value::FuncRef(Some(index)) => Ok(Val::FuncRef(Some(self.function(store, index)?))),
            Value::ExnRef(Some(index)) => {
                Ok(Val::ExnRef(Some(self.exception(store, exceptions, index)?)))
            }
            _ => Err(Error::Image(format!("{value:?} is no value of the engine"))),
        }
    }

    fn function<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        index: u32,
    ) -> Result<Func> {
        let unknown = || {
            Error::Image(format!(
                "a reference points to function {index}, which nothing can refer to"
            ))
        };
        let place = self
            .facts
            .referenced_functions()
            .binary_search(&index)
            .map_err(|_| unknown())?;
        match self.referenced.get(&mut *store, place as u64) {
            Some(Ref::Func(Some(function))) => Ok(function),
            _ => Err(unknown()),
        }
    }

    /// Makes exception `index` of an image, after those that it carries.
    fn exception<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        exceptions: &[Exception],
        index: u32,
    ) -> Result<Rooted<ExnRef>> {
        let wrong = |index: u32, what: &str| Error::Image(format!("exception {index} {what}"));
        let mut unmade = vec![index];
        // Those that wait for what they carry: all below the last one of `unmade` that have been looked at.
        let mut waiting = HashSet::new();
        while let Some(index) = unmade.last().copied() {
            if self.made.contains_key(&index) {
                unmade.pop();
                continue;
            }
            let exception = exceptions
                .get(index as usize)
                .ok_or_else(|| wrong(index, "does not exist"))?;
            let carried = exception.fields.iter().filter_map(|value| match value {
                Value::ExnRef(Some(carried)) if !self.made.contains_key(carried) => Some(*carried),
                _ => None,
            });
            let before = unmade.len();
            unmade.extend(carried);
            if unmade.len() == before {
                let made = self.make_exception(store, exceptions, exception)?;
                self.made.insert(index, made);
                waiting.remove(&index);
                unmade.pop();
            } else if !waiting.insert(index)
                || unmade[before..]
                    .iter()
                    .any(|carried| waiting.contains(carried))
            {
                // No program can have made such exceptions: each was there before the one that carries it.
                return Err(wrong(index, "carries itself"));
            }
        }
        self.made
            .get(&index)
            .copied()
            .ok_or_else(|| wrong(index, "does not exist"))
    }

    /// Makes an exception whose carried exceptions are made.
    fn make_exception<S: AsContextMut<Data = HostState>>(
        &mut self,
        store: &mut S,
        exceptions: &[Exception],
        exception: &Exception,
    ) -> Result<Rooted<ExnRef>> {
        let wrong = |what: &str| Error::Image(format!("an exception {what}"));
        let tag = *self
            .tags
            .get(exception.tag as usize)
            .ok_or_else(|| wrong("has a tag that does not exist"))?;
        let classes: Vec<ValueClass> = tag
            .ty(&*store)
            .ty()
            .params()
            .map(|ty| class_of(&ty))
            .collect();
        if classes.len() != exception.fields.len() {
            return Err(wrong("has the wrong number of values"));
        }
        let mut fields = Vec::with_capacity(classes.len());
        for (class, value) in classes.into_iter().zip(&exception.fields) {
            fields.push(self.make(store, exceptions, class, *value)?);
        }
        let ty = ExnType::from_tag_type(&tag.ty(&*store)).map_err(Error::Internal)?;
        let allocator = ExnRefPre::new(&mut *store, ty);
        ExnRef::new(&mut *store, &allocator, &tag, &fields)
            .map_err(|error| Error::Image(format!("an exception cannot be made: {error}")))
    }
}

/// The image's form of a number, a vector or a null reference; none for references that point at something.
pub(crate) fn plain_value(value: &Val) -> Option<Value> {
    Some(match *value {
        Val::I32(value) => Value::I32(value),
        Val::I64(value) => Value::I64(value),
        Val::F32(bits) => Value::F32(bits),
        Val::F64(bits) => Value::F64(bits),
        Val::V128(value) => Value::V128(value.as_u128()),
        Val::FuncRef(None) => Value::FuncRef(None),
        Val::ExternRef(None) => Value::ExternRefNull,
        Val::ExnRef(None) => Value::ExnRef(None),
        _ => return None,
    })
}

/// The engine's form of a number, a vector or a null reference; none for references that point at something.
pub(crate) fn plain_val(value: Value) -> Option<Val> {
    Some(match value {
        Value::I32(value) => Val::I32(value),
        Value::I64(value) => Val::I64(value),
        Value::F32(bits) => Val::F32(bits),
        Value::F64(bits) => Val::F64(bits),
        Value::V128(bits) => Val::V128(bits.into()),
        Value::FuncRef(None) => Val::FuncRef(None),
        Value::ExternRefNull => Val::ExternRef(None),
        Value::ExnRef(None) => Val::ExnRef(None),
        Value::FuncRef(Some(_)) | Value::ExnRef(Some(_)) => return None,
    })
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

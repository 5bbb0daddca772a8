//! Engines without wsnap: wasmtime as it is, and an interpreter. Their programs see the same WASI functions as under
//! wsnap, so that what differs is how the code runs.

use crate::error::BenchError;
use crate::guest::{End, Guest, processor_time};
use std::time::Duration;
use wsnap::wasi::{Stop, Wasi, for_each_function};

/// A module compiled by wasmtime.
pub struct Compiled {
    module: wasmtime::Module,
    linker: wasmtime::Linker<compiled::Host>,
}

impl Compiled {
    /// Compiles under wasmtime's defaults.
    pub fn new(wasm: &[u8]) -> Result<Self, BenchError> {
        Self::with(wasm, &wasmtime::Config::new())
    }

    /// Compiles with the checks by which wasmtime can interrupt a program.
    pub fn with_epochs(wasm: &[u8]) -> Result<Self, BenchError> {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        Self::with(wasm, &config)
    }

    fn with(wasm: &[u8], config: &wasmtime::Config) -> Result<Self, BenchError> {
        let engine = wasmtime::Engine::new(config)?;
        let module = wasmtime::Module::new(&engine, wasm)?;
        let mut linker = wasmtime::Linker::new(&engine);
        compiled::link(&mut linker)?;
        Ok(Self { module, linker })
    }

    /// Runs a fresh instance to its end; it must end as the table says.
    pub fn run(&self, guest: &Guest) -> Result<Duration, BenchError> {
        let host = compiled::Host::new(guest.fresh_wasi()?);
        let mut store = wasmtime::Store::new(self.linker.engine(), host);
        // Nothing ever advances the epoch: a program meets all checks and fails none. Without epochs this is unused.
        store.set_epoch_deadline(1);
        let instance = self.linker.instantiate(&mut store, &self.module)?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        let before = processor_time();
        let result = start.call(&mut store, ());
        let elapsed = processor_time() - before;
        let failure = result.err().map(|error| format!("{error:#}"));
        guest.check(&store.data().end(failure))?;
        Ok(elapsed)
    }
}

/// A module translated for the interpreter.
pub struct Interpreted {
    module: wasmi::Module,
    linker: wasmi::Linker<interpreted::Host>,
}

impl Interpreted {
    /// Translates all functions at once: that is no part of run times for the others either.
    pub fn new(wasm: &[u8]) -> Result<Self, BenchError> {
        /// As much stack as wsnap gives, in bytes, and no other limit on recursion.
        const STACK_BYTES: usize = 16 << 20;
        let mut config = wasmi::Config::default();
        config
            .compilation_mode(wasmi::CompilationMode::Eager)
            .set_max_stack_height(STACK_BYTES)
            .set_max_recursion_depth(STACK_BYTES / 8);
        let engine = wasmi::Engine::new(&config);
        let module = wasmi::Module::new(&engine, wasm)?;
        let mut linker = wasmi::Linker::new(&engine);
        interpreted::link(&mut linker)?;
        Ok(Self { module, linker })
    }

    /// Runs a fresh instance to its end; it must end as the table says.
    pub fn run(&self, guest: &Guest) -> Result<Duration, BenchError> {
        let host = interpreted::Host::new(guest.fresh_wasi()?);
        let mut store = wasmi::Store::new(self.linker.engine(), host);
        let instance = self
            .linker
            .instantiate_and_start(&mut store, &self.module)?;
        store.data_mut().memory = instance.get_memory(&store, "memory");
        let start = instance.get_typed_func::<(), ()>(&store, "_start")?;
        let before = processor_time();
        let result = start.call(&mut store, ());
        let elapsed = processor_time() - before;
        let failure = result.err().map(|error| error.to_string());
        guest.check(&store.data().end(failure))?;
        Ok(elapsed)
    }
}

/// The module of WASI preview 1.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// The host functions for one engine: both have the same names for what is needed here.
macro_rules! define_link {
    ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
        use super::{End, PREVIEW_1, Stop, Wasi};
        use engine::{Caller, Linker, Memory};

        /// The state that host functions find.
        pub struct Host {
            wasi: Wasi,
            /// Set once the module is instantiated.
            pub memory: Option<Memory>,
            exit: Option<u32>,
        }

        impl Host {
            pub fn new(wasi: Wasi) -> Self {
                Self { wasi, memory: None, exit: None }
            }

            /// How the program ended, if its start function failed like this.
            pub fn end(&self, failure: Option<String>) -> End {
                match (self.exit, failure) {
                    (Some(code), _) => End::Exited(code.cast_signed()),
                    (None, None) => End::Exited(0),
                    (None, Some(failure)) => End::Otherwise(failure),
                }
            }

            /// Notes why a call does not return.
            fn stop(&mut self, stop: Stop) -> engine::Error {
                match stop {
                    Stop::Exit(code) => {
                        self.exit = Some(code);
                        error("exit")
                    }
                    Stop::Suspended => error("nobody can suspend a program here"),
                }
            }
        }

        pub fn link(linker: &mut Linker<Host>) -> Result<(), engine::Error> {
            $(define_link!(@one linker, $result $name($($parameter: $type),*));)*
            Ok(())
        }
    };
    (@one $linker:ident, errno $name:ident($($parameter:ident: $type:ident),*)) => {
        $linker.func_wrap(
            PREVIEW_1,
            stringify!($name),
            |mut caller: Caller<'_, Host>, $($parameter: $type),*| -> Result<u32, engine::Error> {
                let memory = caller.data().memory.ok_or_else(|| error("there is no memory"))?;
                let (bytes, host) = memory.data_and_store_mut(&mut caller);
                let errno = host.wasi.$name(bytes, $($parameter),*);
                errno.map(|errno| errno.raw().into()).map_err(|stop| host.stop(stop))
            },
        )?;
    };
    (@one $linker:ident, never $name:ident($($parameter:ident: $type:ident),*)) => {
        $linker.func_wrap(
            PREVIEW_1,
            stringify!($name),
            |mut caller: Caller<'_, Host>, $($parameter: $type),*| -> Result<(), engine::Error> {
                match caller.data_mut().wasi.$name(&mut [], $($parameter),*) {
                    Ok(never) => match never {},
                    Err(stop) => Err(caller.data_mut().stop(stop)),
                }
            },
        )?;
    };
}

mod compiled {
    use wasmtime as engine;

    fn error(text: &'static str) -> engine::Error {
        engine::Error::msg(text)
    }

    super::for_each_function!(define_link);
}

mod interpreted {
    use wasmi as engine;

    fn error(text: &'static str) -> engine::Error {
        engine::Error::new(text)
    }

    super::for_each_function!(define_link);
}

//! Everything the driver knows, behind one lock.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use ptx_interpreter::{Function, Module};

use crate::config::config;
use crate::error::{self, CuError, CuResult};
use crate::graph::Graph;
use crate::memory::Memory;
use crate::queue::Stream;

/// Handles given out to the program; never 0.
pub(crate) type Handle = usize;

#[derive(Default)]
pub(crate) struct State {
    pub initialised: bool,
    /// By visible ordinal.
    pub devices: Vec<Device>,
    pub contexts: HashMap<Handle, Context>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, LoadedModule>,
    pub functions: HashMap<Handle, KernelFunction>,
    pub graphs: HashMap<Handle, Graph>,
    pub memory: Memory,
    /// (from, to): device `from` may access memory of device `to`.
    pub peers: HashSet<(usize, usize)>,
    next_handle: Handle,
}

#[derive(Default)]
pub(crate) struct Device {
    pub primary: Option<Handle>,
    pub primary_references: u32,
}

pub(crate) struct Context {
    pub device: usize,
    /// First asynchronous error; the context is unusable afterwards, as on a real device.
    pub sticky: Option<CuError>,
    pub null_stream: Handle,
}

#[derive(Default)]
pub(crate) struct Event {
    pub context: Handle,
    pub timing: bool,
    /// Stream and position of the last record.
    pub recorded: Option<(Handle, u64)>,
    pub generation: u64,
    /// When the last record was reached.
    pub reached: Option<Instant>,
    /// Recorded during this capture.
    pub captured: Option<Handle>,
}

pub(crate) struct LoadedModule {
    pub context: Handle,
    pub module: Arc<Module>,
    pub constants: u64,
}

#[derive(Clone)]
pub(crate) struct KernelFunction {
    pub owner: Handle,
    pub module: Arc<Module>,
    pub name: String,
    pub max_dynamic_shared: u32,
}

impl KernelFunction {
    pub(crate) fn code(&self) -> CuResult<&Function> {
        let kernel = self.module.kernel(&self.name);
        kernel.map_err(|_| error::INVALID_HANDLE)
    }
}

pub(crate) fn lock() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    let mutex = STATE.get_or_init(Mutex::default);
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Signalled whenever work finishes or is added.
pub(crate) static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// Context stack of the thread; the last one is current.
    pub static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
    /// Per-thread default streams, by context.
    pub static THREAD_STREAMS: RefCell<HashMap<Handle, Handle>> = RefCell::new(HashMap::new());
}

pub(crate) fn current_context() -> Option<Handle> {
    CONTEXTS
        .with(|c| c.borrow().last().copied())
        .filter(|&c| c != 0)
}

impl State {
    pub(crate) fn initialise(&mut self) {
        if !self.initialised {
            self.initialised = true;
            self.devices
                .resize_with(config().visible.len(), Device::default);
        }
    }

    pub(crate) fn new_handle(&mut self) -> Handle {
        self.next_handle += 16;
        0x10_0000 + self.next_handle
    }

    pub(crate) fn device(&self, ordinal: i32) -> CuResult<usize> {
        let index = usize::try_from(ordinal).map_err(|_| error::INVALID_DEVICE)?;
        (index < self.devices.len())
            .then_some(index)
            .ok_or(error::INVALID_DEVICE)
    }

    /// The current context of the thread.
    pub(crate) fn current(&self) -> CuResult<Handle> {
        let handle = current_context().ok_or(error::INVALID_CONTEXT)?;
        if !self.contexts.contains_key(&handle) {
            return Err(error::CONTEXT_IS_DESTROYED);
        }
        Ok(handle)
    }

    pub(crate) fn current_device(&self) -> CuResult<usize> {
        Ok(self.contexts[&self.current()?].device)
    }

    pub(crate) fn new_context(&mut self, device: usize) -> Handle {
        let handle = self.new_handle();
        let null_stream = self.new_stream(handle, true);
        if let Some(stream) = self.streams.get_mut(&null_stream) {
            stream.is_null = true;
        }
        self.contexts.insert(
            handle,
            Context {
                device,
                sticky: None,
                null_stream,
            },
        );
        handle
    }

    pub(crate) fn new_stream(&mut self, context: Handle, blocking: bool) -> Handle {
        let handle = self.new_handle();
        self.streams.insert(handle, Stream::new(context, blocking));
        handle
    }

    /// The stream behind a handle: 0 and 1 are the legacy default stream, 2 the per-thread one.
    pub(crate) fn stream(&mut self, handle: Handle) -> CuResult<Handle> {
        match handle {
            0 | 1 => Ok(self.contexts[&self.current()?].null_stream),
            2 => {
                let context = self.current()?;
                let known = THREAD_STREAMS.with(|s| s.borrow().get(&context).copied());
                if let Some(stream) = known.filter(|s| self.streams.contains_key(s)) {
                    return Ok(stream);
                }
                let stream = self.new_stream(context, true);
                THREAD_STREAMS.with(|s| s.borrow_mut().insert(context, stream));
                Ok(stream)
            }
            _ => match self.streams.get(&handle) {
                Some(stream) if !stream.destroyed => Ok(handle),
                _ => Err(error::INVALID_HANDLE),
            },
        }
    }

    /// Records an asynchronous error.
    pub(crate) fn fail(&mut self, context: Handle, error: CuError) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.sticky.get_or_insert(error);
        }
    }

    /// The asynchronous error of a context, if any.
    pub(crate) fn check(&self, context: Handle) -> CuResult {
        match self.contexts.get(&context).and_then(|c| c.sticky) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Removes a context with everything in it. Its work must be done.
    pub(crate) fn destroy_context(&mut self, context: Handle) {
        let Some(gone) = self.contexts.remove(&context) else {
            return;
        };
        self.streams.retain(|_, s| s.context != context);
        self.events.retain(|_, e| e.context != context);
        self.modules.retain(|_, m| m.context != context);
        let modules: HashSet<Handle> = self.modules.keys().copied().collect();
        self.functions.retain(|_, f| modules.contains(&f.owner));
        self.memory.free_context(context);
        if self.devices[gone.device].primary == Some(context) {
            self.devices[gone.device].primary = None;
            self.devices[gone.device].primary_references = 0;
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Wasmtime's C API, re-exported, and our own C functions for what it lacks: calls that take no vector of boxed
//! values, one object for a call on a fiber, and a Rust panic reported as a failed call. Declared for C++ in
//! dataplane/host/engine_ext.h; called on the thread that owns the store.

#![expect(non_camel_case_types, reason = "C names")]

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use wasmtime_c_api::wasmtime::{Error, Func, Result, Trap, ValRaw, format_err};
pub use wasmtime_c_api::*;

/// Why a call failed. Owned by the caller of the function that returned it.
pub struct weft_fault {
    trap_code: i32,
    message: String,
}

const NOT_A_TRAP: i32 = -1;

fn fault(error: Error) -> Box<weft_fault> {
    let trap_code = match error.downcast_ref::<Trap>() {
        Some(trap) => *trap as i32,
        None => NOT_A_TRAP,
    };
    // The innermost cause names the fault; what is around it is a backtrace of numbers.
    Box::new(weft_fault { trap_code, message: error.root_cause().to_string() })
}

fn panic_fault(panic: Box<dyn Any + Send>) -> Box<weft_fault> {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&'static str>().map(|text| text.to_string()))
        .unwrap_or_default();
    fault(format_err!("the engine refused the call: {text}"))
}

#[unsafe(no_mangle)]
pub extern "C" fn weft_fault_trap_code(fault: &weft_fault) -> i32 {
    fault.trap_code
}

#[unsafe(no_mangle)]
pub extern "C" fn weft_fault_message(fault: &weft_fault, bytes: &mut usize) -> *const u8 {
    *bytes = fault.message.len();
    fault.message.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn weft_fault_delete(_fault: Box<weft_fault>) {}

/// Engine panics are reported as faults of one call, so their text does not belong on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn weft_engine_quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Calls `func` on the caller's stack. `values` holds the parameters and receives the results.
///
/// # Safety
/// `values` fits the function's type, and `func` belongs to the store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_call_plain(
    store: WasmtimeStoreContextMut<'_>,
    func: &Func,
    values: *mut ValRaw,
    count: usize,
) -> Option<Box<weft_fault>> {
    let values = std::ptr::slice_from_raw_parts_mut(values, count);
    // A guest that suspends although it was called plainly makes Wasmtime panic; the panic unwinds the guest.
    match catch_unwind(AssertUnwindSafe(|| unsafe { func.call_unchecked(store, values) })) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(fault(error)),
        Err(panic) => Some(panic_fault(panic)),
    }
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<u32>> + 'a>>;

/// A call on a fiber of its own. Not started until it is polled.
pub struct weft_fiber {
    work: Work<'static>,
}

/// Prepares a call of `func`, an (i32, i32, i32) -> i32, or fails where its type is another.
///
/// # Safety
/// The store outlives the returned object, and nothing else uses it until that is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_fiber_new3(
    store: WasmtimeStoreContextMut<'static>,
    func: &Func,
    a: u32,
    b: u32,
    c: u32,
) -> Option<Box<weft_fiber>> {
    let typed = func.typed::<(u32, u32, u32), u32>(&store).ok()?;
    let work: Work<'static> = Box::pin(async move { typed.call_async(store, (a, b, c)).await });
    Some(Box::new(weft_fiber { work }))
}

/// As weft_fiber_new3 for an (i32) -> i32.
///
/// # Safety
/// As for weft_fiber_new3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_fiber_new1(
    store: WasmtimeStoreContextMut<'static>,
    func: &Func,
    a: u32,
) -> Option<Box<weft_fiber>> {
    let typed = func.typed::<u32, u32>(&store).ok()?;
    let work: Work<'static> = Box::pin(async move { typed.call_async(store, a).await });
    Some(Box::new(weft_fiber { work }))
}

/// As weft_fiber_new3 for a () -> (); its result is 0.
///
/// # Safety
/// As for weft_fiber_new3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_fiber_new0(
    store: WasmtimeStoreContextMut<'static>,
    func: &Func,
) -> Option<Box<weft_fiber>> {
    let typed = func.typed::<(), ()>(&store).ok()?;
    let work: Work<'static> =
        Box::pin(async move { typed.call_async(store, ()).await.map(|()| 0) });
    Some(Box::new(weft_fiber { work }))
}

/// Runs the fiber until it ends or suspends: 0 suspended, 1 ended with `*result`, 2 failed with `*fault_out`.
/// After 1 or 2 it may only be deleted.
#[unsafe(no_mangle)]
pub extern "C" fn weft_fiber_poll(
    fiber: &mut weft_fiber,
    result: &mut u32,
    fault_out: &mut *mut weft_fault,
) -> i32 {
    let mut context = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| fiber.work.as_mut().poll(&mut context)));
    let failed = match polled {
        Ok(Poll::Pending) => return 0,
        Ok(Poll::Ready(Ok(value))) => {
            *result = value;
            return 1;
        }
        Ok(Poll::Ready(Err(error))) => fault(error),
        Err(panic) => panic_fault(panic),
    };
    *fault_out = Box::into_raw(failed);
    2
}

/// Ends the fiber. One that is suspended is resumed once more, with an error that unwinds the guest.
#[unsafe(no_mangle)]
pub extern "C" fn weft_fiber_delete(fiber: Box<weft_fiber>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(fiber)));
}

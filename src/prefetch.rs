//! Asks the processor to have memory in its cache when it is needed: what belongs to one of many viewers was
//! touched last a picture ago, and whoever runs into it has to wait for each line that is missing.
//!
//! A hint and nothing else: no value is read, and where there is no such instruction nothing happens.

/// What the processor fetches at once.
const LINE: usize = 64;

/// All of a value.
#[inline(always)]
pub fn value<T: ?Sized>(value: &T) {
    lines(std::ptr::from_ref(value).cast(), size_of_val(value));
}

/// One element of a list, whether it is there or not.
#[inline(always)]
pub fn element<T>(list: &[T], at: usize) {
    lines(list.as_ptr().wrapping_add(at).cast(), size_of::<T>());
}

#[inline(always)]
fn lines(start: *const u8, length: usize) {
    for at in (0..length).step_by(LINE) {
        line(start.wrapping_add(at));
    }
    // It may begin in the middle of a line.
    if length > size_of::<u64>() {
        line(start.wrapping_add(length - 1));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction belongs to every processor of this kind, and any address will do for it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const u8) {}

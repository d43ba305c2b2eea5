//! Shell: which cores a thread may run on.

use std::io;
use std::mem::MaybeUninit;

/// The cores that this process may use.
pub(super) fn allowed() -> Vec<usize> {
    let mut set = empty();
    // SAFETY: `set` has the size that is told, and outlives the call.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if got != 0 {
        return Vec::new();
    }
    let is_in = |core: &usize| {
        // SAFETY: the number is below that of the set's bits.
        unsafe { libc::CPU_ISSET(*core, &set) }
    };
    (0..libc::CPU_SETSIZE as usize).filter(is_in).collect()
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// What the system says.
pub(super) fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = empty();
    // SAFETY: the number is below that of the set's bits, and `set` has the size that is told.
    let pinned = unsafe {
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if pinned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a set of cores consists of integers, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_pinned_may_use_one_core_and_others_all_of_theirs() {
        let before = allowed();
        let core = *before.last().expect("this thread runs somewhere");
        let pinned = std::thread::spawn(move || {
            pin(core).expect("a core of this process");
            allowed()
        });
        assert_eq!(pinned.join().expect("a thread that does little"), [core]);
        assert_eq!(allowed(), before);
        assert!(pin(usize::MAX).is_err());
    }
}

//! How memory is handed back.

/// Memory that is freed stays with the process, for what handles one event after another: the next needs as much of it again. Otherwise glibc gives large pieces back to
/// the kernel, and takes them again page by page: an eighth of an event's processor time. To be called before there is a second
/// thread. Elsewhere than on glibc nothing changes.
pub fn keep_what_is_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: glibc's documented call; the caller sees to it that there is one thread. It keeps the two numbers, and touches no memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        // The most that it takes for the first: 32 MiB.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}

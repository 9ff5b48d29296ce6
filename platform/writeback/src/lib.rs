//! One system call that no safe crate offers: Linux's `sync_file_range`.

use std::fs::File;
use std::io;

/// Asks the kernel to start writing the dirty pages of `len` bytes from
/// `offset` to the disk. Makes nothing durable and waits for nothing (but for
/// room in the device's queue); the `fsync` that follows finds less to do.
/// Where the system knows no such call nothing happens.
pub fn start_writeback(file: &File, offset: u64, len: u64) -> io::Result<()> {
    start(file, offset, len)
}

#[cfg(target_os = "linux")]
fn start(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, len) = (i64::try_from(offset).map_err(too_far)?, i64::try_from(len).map_err(too_far)?);
    // SAFETY: takes no pointer; the descriptor is open as long as `file` is borrowed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn start(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writeback_of_a_file_starts_and_a_range_that_cannot_be_is_refused() {
        let path = std::env::temp_dir().join(format!("blockframe-writeback-{}", std::process::id()));
        std::fs::write(&path, b"bytes").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        start_writeback(&file, 0, 5).unwrap();
        #[cfg(target_os = "linux")]
        start_writeback(&file, u64::MAX, 1).unwrap_err();
    }
}

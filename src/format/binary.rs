//! Little-endian integers, LEB128 varints and length-prefixed byte strings,
//! read with bounds checked before anything is used.

use super::FormatError;
use crate::base::Timestamp;

/// Reads from a byte slice that is not trusted.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which shall be a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// An error about a value just read.
    pub fn invalid(&self, why: impl Into<String>) -> FormatError {
        FormatError::invalid(self.what, why)
    }

    /// Exactly `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(FormatError::Truncated { what: self.what, at: self.bytes.len() as u64 })?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 varint of at most 64 bits, in its shortest form.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid("a varint is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.invalid("a varint is longer than 64 bits"))
    }

    /// A varint that fits `u32`.
    pub fn varint_u32(&mut self) -> Result<u32, FormatError> {
        u32::try_from(self.varint()?).map_err(|_| self.invalid("a number does not fit 32 bits"))
    }

    /// A zigzag-coded signed varint.
    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A varint length of at most `limit`, then that many bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], FormatError> {
        let len = self.varint()?;
        if len > limit as u64 {
            return Err(self.invalid(format!("a length of {len} is over the limit of {limit}")));
        }
        self.take(len as usize)
    }

    /// Seconds (signed varint) and nanoseconds (varint).
    pub fn timestamp(&mut self) -> Result<Timestamp, FormatError> {
        let seconds = self.signed()?;
        let nanoseconds = self.varint_u32()?;
        if nanoseconds > 999_999_999 {
            return Err(self.invalid("nanoseconds out of range"));
        }
        Ok(Timestamp { seconds, nanoseconds })
    }

    /// Nothing may follow.
    pub fn finish(&self) -> Result<(), FormatError> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.invalid(format!("{} bytes too many", self.remaining()))) }
    }
}

/// Appends an unsigned LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zigzag-coded signed varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a varint length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a timestamp.
pub fn put_timestamp(out: &mut Vec<u8>, time: Timestamp) {
    put_signed(out, time.seconds);
    put_varint(out, u64::from(time.nanoseconds));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(unsigned: u64, signed: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, unsigned);
            put_signed(&mut bytes, signed);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.varint().unwrap(), unsigned);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new("test", &bytes);
            while reader.remaining() > 0 {
                if reader.clone().varint().is_err() && reader.clone().bytes(10).is_err() && reader.u8().is_err() {
                    break;
                }
                let _ = reader.timestamp();
            }
        }
    }
}

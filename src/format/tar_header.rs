//! The tar headers of a bundle's members: ustar, with a pax header before it
//! only for what ustar cannot say.

use super::NodeMeta;

/// Tar's unit, bytes.
pub(super) const BLOCK: u64 = 512;

const NAME_LEN: usize = 100;
const PREFIX_LEN: usize = 155;
/// Largest number of seven octal digits (ids, modes).
const MAX_OCTAL_7: u64 = 0o777_7777;
/// Largest number of eleven octal digits (size, time).
const MAX_OCTAL_11: u64 = 0o777_7777_7777;

/// The header blocks of a regular file of `size` bytes.
pub(super) fn headers(path: &[u8], meta: &NodeMeta, size: u64) -> Vec<u8> {
    let mut pax = Vec::new();
    let (prefix, name) = split(path).unwrap_or_else(|| {
        pax_record(&mut pax, "path", path);
        (&path[..0], &path[..path.len().min(NAME_LEN)])
    });
    let mut number = |key: &str, value: u64, limit: u64| {
        if value > limit {
            pax_record(&mut pax, key, value.to_string().as_bytes());
        }
        value.min(limit)
    };
    let user = number("uid", meta.user.into(), MAX_OCTAL_7);
    let group = number("gid", meta.group.into(), MAX_OCTAL_7);
    let size = number("size", size, MAX_OCTAL_11);
    let seconds = match u64::try_from(meta.modified.seconds) {
        Ok(seconds) if seconds <= MAX_OCTAL_11 => seconds,
        _ => {
            pax_record(&mut pax, "mtime", meta.modified.seconds.to_string().as_bytes());
            0
        }
    };
    let fields = Fields { mode: meta.permissions.into(), user, group, seconds };
    let mut out = Vec::with_capacity(BLOCK as usize);
    if !pax.is_empty() {
        let plain = Fields { mode: 0o644, user: 0, group: 0, seconds: 0 };
        out.extend_from_slice(&ustar(b"", b".blockframe-pax", b'x', pax.len() as u64, &plain));
        out.extend_from_slice(&pax);
        out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
    }
    out.extend_from_slice(&ustar(prefix, name, b'0', size, &fields));
    out
}

/// Prefix and name of a path that ustar can say, cut at the first slash that leaves a short enough name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_LEN {
        return Some((&path[..0], path));
    }
    let earliest = path.len() - NAME_LEN - 1;
    let cut = earliest + path[earliest..].iter().position(|&byte| byte == b'/')?;
    (1..=PREFIX_LEN).contains(&cut).then(|| (&path[..cut], &path[cut + 1..]))
}

struct Fields {
    mode: u64,
    user: u64,
    group: u64,
    seconds: u64,
}

fn ustar(prefix: &[u8], name: &[u8], kind: u8, size: u64, fields: &Fields) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..107], fields.mode);
    octal(&mut block[108..115], fields.user);
    octal(&mut block[116..123], fields.group);
    octal(&mut block[124..135], size);
    octal(&mut block[136..147], fields.seconds);
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..336], 0);
    octal(&mut block[337..344], 0);
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    // The sum is taken with its own field as spaces; it is six digits, NUL, space.
    let sum = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..154], sum);
    block[154] = 0;
    block
}

/// Octal digits that fill the field.
fn octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_where_ustar_can_say_them() {
        assert_eq!(split(b"a/b"), Some((&b""[..], &b"a/b"[..])));
        let long = [vec![b'd'; 150], vec![b'/'], vec![b'n'; 100]].concat();
        assert_eq!(split(&long), Some((&long[..150], &long[151..])));
        let too_long_name = [vec![b'd'; 10], vec![b'/'], vec![b'n'; 101]].concat();
        assert_eq!(split(&too_long_name), None);
        let too_long_prefix = [vec![b'd'; 156], vec![b'/'], vec![b'n'; 100]].concat();
        assert_eq!(split(&too_long_prefix), None);
        let mut leading = vec![b'/'];
        leading.extend(vec![b'n'; 100]);
        assert_eq!(split(&leading), None);
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        for len in [1, 5, 90, 91, 92, 93, 990, 991, 992, 993] {
            let mut record = Vec::new();
            pax_record(&mut record, "path", &vec![b'x'; len]);
            let digits = record.iter().position(|&byte| byte == b' ').unwrap();
            let said: usize = std::str::from_utf8(&record[..digits]).unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }
}

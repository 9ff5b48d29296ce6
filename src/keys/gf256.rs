//! Arithmetic and interpolation over GF(256) with AES's polynomial,
//! x⁸ + x⁴ + x³ + x + 1, in constant time: no branch and no table index
//! depends on a value. Only where shares stand (their x) is taken as public.

use crate::base::Secret;

/// The product.
pub(super) fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut a = a;
    for bit in 0..8 {
        // All ones where the bit is set: a mask, not a branch.
        product ^= a & (b >> bit & 1).wrapping_neg();
        a = a << 1 ^ 0x1b & (a >> 7).wrapping_neg();
    }
    product
}

/// The inverse: the 254th power. That of 0 is 0.
fn invert(a: u8) -> u8 {
    let mut power = a;
    let mut inverse = 1;
    for _ in 1..8 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
    }
    inverse
}

/// The value at `at` of the polynomials, one for each byte, of least degree
/// that run through `points`. The points stand at different places.
pub(super) fn interpolate(points: &[(u8, &Secret<32>)], at: u8) -> Secret<32> {
    Secret::filled_by(|value| {
        for (number, (x, share)) in points.iter().enumerate() {
            let (mut above, mut below) = (1, 1);
            for (other, (other_x, _)) in points.iter().enumerate() {
                if other != number {
                    above = multiply(above, at ^ other_x);
                    below = multiply(below, x ^ other_x);
                }
            }
            let weight = multiply(above, invert(below));
            for (sum, byte) in value.iter_mut().zip(share.expose()) {
                *sum ^= multiply(*byte, weight);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::words::sha256;

    /// Schoolbook: the product of the polynomials, then the remainder.
    fn naive_product(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b & 1 << bit != 0 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product & 1 << bit != 0 {
                product ^= 0x11b << (bit - 8);
            }
        }
        product as u8
    }

    #[test]
    fn every_product_and_every_inverse_is_right() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), naive_product(a, b), "{a} {b}");
            }
            assert_eq!(multiply(a, invert(a)), u8::from(a != 0));
        }
        // FIPS 197, 4.2: {57} * {83} = {c1}, {57} * {13} = {fe}.
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
    }

    #[test]
    fn interpolation_gives_the_polynomial_back() {
        for degree in 0..8usize {
            // Coefficients of one polynomial for each byte, and its values by Horner's rule.
            let coefficient = |power: usize, byte: usize| sha256(&[degree as u8, power as u8])[byte];
            let value = |x: u8| {
                Secret::filled_by(|bytes: &mut [u8; 32]| {
                    for (byte, value) in bytes.iter_mut().enumerate() {
                        *value =
                            (0..=degree).rev().fold(0, |sum, power| naive_product(sum, x) ^ coefficient(power, byte));
                    }
                })
            };
            let places: Vec<u8> = (0..=degree as u8).map(|number| number * 29 + 3).collect();
            let values: Vec<Secret<32>> = places.iter().map(|&x| value(x)).collect();
            let points: Vec<(u8, &Secret<32>)> = places.iter().copied().zip(&values).collect();
            for at in 0..=255 {
                assert_eq!(interpolate(&points, at).expose(), value(at).expose(), "degree {degree} at {at}");
            }
        }
    }

    fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
        let padded =
            |mask: u8| -> Vec<u8> { (0..64).map(|place| key.get(place).copied().unwrap_or_default() ^ mask).collect() };
        let inner = sha256(&[padded(0x36), message.to_vec()].concat());
        sha256(&[padded(0x5c), inner.to_vec()].concat())
    }

    /// Shares (x, value) of two groups of SLIP-39's vector "Threshold number of groups and members in each group
    /// (256 bits, case 1)", read from their words. SLIP-39 has the secret at 255 and, at 254, four bytes of
    /// HMAC-SHA256 of the secret and the HMAC's key; so the vector says itself whether the interpolation is right.
    #[test]
    fn published_shares_of_slip_39_combine() {
        let groups: [&[(u8, &str)]; 2] = [
            &[
                (0, "82a363ed145a49a4e37311253c105846c0afb13b74e5ddda9cc25d7aae49bc89"),
                (1, "d127f1f9bc12e3856fb3983104783b71480d249d80101568def4a41100177dfb"),
                (4, "4bde8a604105f3a6c32f2f547131aafea756725a28e80a14d59d8f05c4adcca5"),
            ],
            &[
                (1, "094ed0a7c9b50a3dcecc037bb4e34eb5b158a8ee3f8ea661e76521e07629e663"),
                (2, "98091ab3396a2e9ab9d6889b6507fce1e3c12dd0a2676ee52bb1b389ec320a90"),
            ],
        ];
        let secrets = [
            "09555b11c4d1cc8fc96163c81b110bbbd46c1bcb4c8488632de2dbb5c4bd9299",
            "de5f1dc34fbf1774a62038233601c08467e01b1f3d1a3671cdfe08de30666b1b",
        ];
        for (group, secret) in groups.iter().zip(secrets) {
            let values: Vec<Secret<32>> = group
                .iter()
                .map(|(_, value)| Secret::filled_by(|bytes| bytes.copy_from_slice(&hex::decode(value).unwrap())))
                .collect();
            let points: Vec<(u8, &Secret<32>)> = group.iter().map(|(x, _)| *x).zip(&values).collect();
            let found = interpolate(&points, 255);
            let digest = interpolate(&points, 254);
            assert_eq!(hex::encode(found.expose()), secret);
            assert_eq!(digest.expose()[..4], hmac_sha256(&digest.expose()[4..], found.expose())[..4]);
        }
    }
}

//! Guesses from samples whether data compress.

/// Bits per byte from which on data are taken for compressed, encrypted or random ones.
const FULL_ENTROPY: f64 = 7.8;
/// Bytes of a sample, of which a frame gives three.
const SAMPLE_LEN: usize = 4096;

/// A cheap guess from a sample of a few KiB whether compressing pays.
pub fn looks_compressible(sample: &[u8]) -> bool {
    if sample.is_empty() {
        return false;
    }
    let mut histogram = Histogram::default();
    histogram.add(sample);
    // Bytes that are equally frequent may still repeat in strings.
    histogram.entropy() < FULL_ENTROPY
        || zstd::bulk::compress(sample, 1).is_ok_and(|smaller| smaller.len() < sample.len() - sample.len() / 16)
}

/// A still cheaper guess about a frame, from the frequencies of bytes at its begin, middle and end.
pub(super) fn frame_looks_compressible(frame: &[u8]) -> bool {
    let mut histogram = Histogram::default();
    if frame.len() <= 3 * SAMPLE_LEN {
        histogram.add(frame);
    } else {
        let last = frame.len() - SAMPLE_LEN;
        [0, last / 2, last].into_iter().for_each(|at| histogram.add(&frame[at..at + SAMPLE_LEN]));
    }
    histogram.entropy() < FULL_ENTROPY
}

struct Histogram {
    counts: [u32; 256],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; 256] }
    }
}

impl Histogram {
    fn add(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.counts[usize::from(byte)] += 1);
    }

    /// Shannon's, bits per byte.
    fn entropy(&self) -> f64 {
        let total: f64 = self.counts.iter().map(|&count| f64::from(count)).sum();
        let bits = |&count: &u32| f64::from(count) * (total / f64::from(count)).log2();
        self.counts.iter().filter(|&&count| count > 0).map(bits).sum::<f64>() / total.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn text_pays_and_noise_does_not() {
        let text: Vec<u8> = (0..2000).flat_map(|n: u32| format!("line {n}\n").into_bytes()).collect();
        for len in [100, 4096, text.len()] {
            assert!(looks_compressible(&text[..len]) && frame_looks_compressible(&text[..len]), "{len}");
        }
        for len in [4096, 12_288, 131_072] {
            assert!(!looks_compressible(&noise(len)) && !frame_looks_compressible(&noise(len)), "{len}");
        }
        assert!(!looks_compressible(b""));
    }

    #[test]
    fn noise_that_repeats_pays() {
        let twice = [noise(4096), noise(4096)].concat();
        assert!(looks_compressible(&twice));
    }
}

//! What `statfs` shows: capacity as a user understands it, net of parity.

use super::{error, lock};
use crate::archive::Archive;
use crate::catalog::{Catalog, NamespaceTotals};
use blockframe_api::{SpaceUsage, VfsError, VfsResult};
use std::sync::Mutex;

/// Counting a large namespace takes a while, so the totals are kept until it changes.
#[derive(Debug, Default)]
pub(super) struct Space {
    totals: Mutex<Option<(u64, NamespaceTotals)>>,
}

impl Space {
    /// The usage; `generation` tells whether the namespace has changed.
    pub(super) fn usage(&self, archive: &Archive, catalog: &Catalog, generation: u64) -> VfsResult<SpaceUsage> {
        let totals = self.totals(catalog, generation)?;
        let (content, stored) = if totals.content_bytes > 0 && totals.stored_bytes >= totals.content_bytes {
            (totals.content_bytes, totals.stored_bytes)
        } else {
            expected_ratio(archive)
        };
        let space = archive.store().space().map_err(|error| VfsError::new(error.class(), error.to_string()))?;
        let free = scale(space.free, content, stored);
        Ok(SpaceUsage { total: totals.logical_bytes.saturating_add(free), free, available: free, nodes: totals.nodes })
    }

    fn totals(&self, catalog: &Catalog, generation: u64) -> VfsResult<NamespaceTotals> {
        let mut kept = lock(&self.totals);
        if let Some((of, totals)) = *kept
            && of == generation
        {
            return Ok(totals);
        }
        let totals = catalog.totals().map_err(|error| error::of_catalog(&error))?;
        *kept = Some((generation, totals));
        Ok(totals)
    }
}

/// Content and stored bytes of an archive without objects: what its last tier would need.
fn expected_ratio(archive: &Archive) -> (u64, u64) {
    match archive.descriptor().tiers.last() {
        Some(tier) => (tier.k.into(), u64::from(tier.k) + u64::from(tier.m)),
        None => (1, 1),
    }
}

/// `bytes` times `content` over `stored`.
fn scale(bytes: u64, content: u64, stored: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(content) / u128::from(stored.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_net_of_parity_and_does_not_overflow() {
        assert_eq!(scale(1000, 30, 33), 909);
        assert_eq!(scale(u64::MAX, 1, 4), u64::MAX / 4);
        assert_eq!(scale(10, 1, 0), 10);
    }
}

//! Ids, units, clock and errors' common ground. No I/O.

pub mod calendar;
mod class;
pub mod clock;
pub mod ids;
pub mod load;
mod locked;
mod secret;
pub mod units;

pub use blockframe_api::{ErrorClass, Timestamp};
pub use class::{class_name, class_named};
pub use clock::{Clock, SystemClock};
pub use ids::{ArchiveId, ContentHash, Digest, ObjectName, StoreId};
pub use load::{ForegroundLoad, LatencyGauge, LoadSample};
pub use secret::Secret;
pub use units::{BlockIndex, ContentRange, LEAF_SIZE, LeafIndex, SegmentIndex, ShardIndex, ShardRange};

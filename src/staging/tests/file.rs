//! One file.

use super::*;
use crate::format::StagedMap;

#[test]
fn what_is_written_one_behind_the_other_is_one_extent_where_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    for at in 0..100 {
        file.write(at * 1000, &[at as u8; 1000]).unwrap();
        if at % 7 == 0 {
            publish_durably(&file);
        }
    }
    let published = file.publish().unwrap();
    let StagedMap::Inline(extents) = published.content.map else { panic!("a long map") };
    assert_eq!(extents, [crate::format::StagedExtent { range: range(0, 100_000), place: Some(0) }]);
}

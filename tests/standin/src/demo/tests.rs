//! Checks the checksum that is written down.

use sha2::{Digest as _, Sha256};

use super::{BIG, BIG_SEED, BIG_SHA256};
use crate::store::synthetic::synthetic_bytes;

#[test]
#[ignore = "ten seconds without optimisation"]
fn the_big_file_has_its_checksum() {
    let mut hash = Sha256::new();
    for offset in (0..BIG).step_by(1 << 20) {
        hash.update(synthetic_bytes(BIG_SEED, offset, 1 << 20));
    }
    assert_eq!(hex::encode(hash.finalize()), BIG_SHA256);
}

#![no_main]
blockframe_fuzz::libfuzzer!(key_ring);

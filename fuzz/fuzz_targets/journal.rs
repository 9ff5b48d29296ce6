#![no_main]
blockframe_fuzz::libfuzzer!(journal);

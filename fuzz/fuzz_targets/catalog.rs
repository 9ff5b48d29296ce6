#![no_main]
blockframe_fuzz::libfuzzer!(catalog);

#![no_main]
blockframe_fuzz::libfuzzer!(descriptor);

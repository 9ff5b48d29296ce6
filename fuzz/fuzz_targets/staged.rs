#![no_main]
blockframe_fuzz::libfuzzer!(staged);

#![no_main]
blockframe_fuzz::libfuzzer!(sealed_segment);

#![no_main]
#![expect(missing_docs, reason = "the check says what it is")]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::otlp_protobuf::check(bytes));

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::check_fold(shared::event::DialectName::GoogleGemini, input));

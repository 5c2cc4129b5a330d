//! The cache's file: what is read of it can be written and read again, and all else is an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::layers::cache::{CacheLayer, Settings};

fuzz_target!(|input: &[u8]| {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = place.path().join("cache");
    std::fs::write(&path, input).unwrap();
    let mut settings = Settings::default();
    settings.max_bytes = 1 << 20;
    let cache = CacheLayer::new(settings.clone());
    let loaded = cache.load(&path);
    let (bytes, _) = cache.size();
    assert!(bytes <= 2 << 20, "{bytes} bytes are held");
    if loaded.is_ok() {
        cache.save(&path).unwrap();
        CacheLayer::new(settings).load(&path).unwrap();
    }
});

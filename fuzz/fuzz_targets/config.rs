//! Any text is a settings file or an error with its line, and what is read can be shown and set again.
#![no_main]

use std::path::Path;

use rivero::config::tree::{parse_ini, parse_json};
use rivero::config::value::Given;
use rivero::config::{Config, Loader, SETTINGS};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for parse in [parse_json, parse_ini] {
        let root = match parse(text) {
            Ok(root) => root,
            Err(error) => {
                assert!(error.line as usize <= text.lines().count() + 1);
                continue;
            }
        };
        let mut loader = Loader::new();
        loader.module_file(Path::new("a/b.conf.ini"), "kurento.WebRtcEndpoint", &root);
        if loader.main_file(Path::new("a.conf.json"), &root, false).is_ok()
            && let Ok(loaded) = loader.finish()
        {
            shown_is_understood(&loaded.config);
        }
    }
});

fn shown_is_understood(config: &Config) {
    for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
        let shown = setting.show(config);
        let again = setting.set(&mut Config::default(), Given { text: &shown, folder: None });
        assert!(again.is_ok(), "{} = {shown}: {again:?}", setting.key);
    }
}

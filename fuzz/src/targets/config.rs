//! The configuration.

use blockframe::cli::config::parse;

/// A configuration that is read is the same after it was written.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok((config, _)) = parse(text) else { return };
    let written = toml::to_string(&config).unwrap_or_else(|error| panic!("a configuration that was read: {error}"));
    let again = parse(&written).map(|(config, _)| config);
    assert_eq!(again.as_ref(), Ok(&config), "{written}");
}

/// The example, whole and by its sections.
pub fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../config.toml.example");
    let mut seeds: Vec<Vec<u8>> = example.split("\n\n").map(|part| part.as_bytes().to_vec()).collect();
    seeds.push(example.as_bytes().to_vec());
    seeds
}

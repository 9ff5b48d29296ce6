//! The ciphers against another implementation: Python's `cryptography`
//! (OpenSSL) opens what is sealed here, and the other way round. A failure
//! prints its seed; `BLOCKFRAME_SEED=N` runs that one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockframe::base::Secret;
use blockframe::codec::seal::{CipherSuite, Tag, frame_cipher, open_metadata, portable_cipher, seal_metadata};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Reads the cases, opens what Rust sealed, seals the same, and writes all that.
const SCRIPT: &str = r#"
import json, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV, ChaCha20Poly1305

def ciphers(case):
    key, nonce, context = (bytes.fromhex(case[name]) for name in ("key", "nonce", "context"))
    if case["suite"] == "metadata":
        return AESSIV(key), [[context]], False
    if case["suite"] == "aes256-siv":
        return AESSIV(key), [[context, nonce]], False
    kind = {"aes256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}[case["suite"]]
    return kind(key[:32]), [nonce, context], True

def answer(case):
    cipher, arguments, tag_is_last = ciphers(case)
    def run(operation, data):
        return operation(arguments[0], data, arguments[1]) if tag_is_last else operation(data, arguments[0])
    plain, sealed, tag = (bytes.fromhex(case[name]) for name in ("plain", "sealed", "tag"))
    opened = run(cipher.decrypt, sealed + tag if tag_is_last else tag + sealed)
    made = run(cipher.encrypt, plain)
    sealed, tag = (made[:-16], made[-16:]) if tag_is_last else (made[16:], made[:16])
    return {"opened": opened.hex(), "sealed": sealed.hex(), "tag": tag.hex()}

json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
"#;

fn python(cases: &[Value]) -> Vec<Value> {
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed (tests/run.sh installs it)");
    let input = serde_json::to_vec(cases).unwrap();
    child.stdin.take().unwrap().write_all(&input).expect("python3 has its module cryptography (python3-cryptography)");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 failed: is python3-cryptography installed? Its message is above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn seed() -> u64 {
    let random = || {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        u64::from_le_bytes(seed)
    };
    let seed = std::env::var("BLOCKFRAME_SEED").map_or_else(|_| random(), |text| text.parse().unwrap());
    println!("BLOCKFRAME_SEED={seed}");
    seed
}

/// Bytes that depend on the seed and the purpose only.
fn bytes(seed: u64, purpose: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Lengths around the sizes of a block, of what is processed at once, and of a frame.
const LENGTHS: [usize; 18] =
    [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 1000, 4096, 16_383, 16_384, 16_385, 200 << 10];

fn text(value: &Value, name: &str) -> Vec<u8> {
    hex::decode(value[name].as_str().unwrap()).unwrap()
}

#[test]
fn frames_are_what_another_implementation_makes() {
    let seed = seed();
    let key = Secret::filled_by(|key| key.copy_from_slice(&bytes(seed, "key", 64)));
    let mut cases = Vec::new();
    for suite in CipherSuite::ALL {
        for (number, len) in LENGTHS.into_iter().enumerate() {
            let (plain, context) = (bytes(seed, "plain", len), bytes(seed, "context", number * 5 + 1));
            let nonce = bytes(seed, &format!("nonce {number}"), 12);
            let mut sealed = plain.clone();
            let tag = frame_cipher(suite, &key).seal(nonce[..].try_into().unwrap(), &context, &mut sealed);
            cases.push(json!({
                "suite": suite.name(), "key": hex::encode(key.expose()), "nonce": hex::encode(nonce),
                "context": hex::encode(context), "plain": hex::encode(plain), "sealed": hex::encode(sealed), "tag": hex::encode(tag),
            }));
        }
    }
    for (case, answer) in cases.iter().zip(python(&cases)) {
        let at = format!("BLOCKFRAME_SEED={seed}, {}, {} bytes", case["suite"], text(case, "plain").len());
        assert!(answer["opened"] == case["plain"], "{at}: opened there");
        assert!(answer["sealed"] == case["sealed"] && answer["tag"] == case["tag"], "{at}: sealed there");
        let suite: CipherSuite = case["suite"].as_str().unwrap().parse().unwrap();
        let tag: Tag = text(&answer, "tag").try_into().unwrap();
        for cipher in [frame_cipher(suite, &key), portable_cipher(suite, &key)] {
            let mut sealed = text(&answer, "sealed");
            let nonce = text(case, "nonce").try_into().unwrap();
            assert_eq!(cipher.open(&nonce, &text(case, "context"), &mut sealed, &tag), Ok(()), "{at}, {cipher:?}");
            assert!(sealed == text(case, "plain"), "{at}, {cipher:?}");
        }
    }
}

#[test]
fn metadata_is_what_another_implementation_makes() {
    let seed = seed();
    let key = Secret::filled_by(|key| key.copy_from_slice(&bytes(seed, "key", 64)));
    let mut cases = Vec::new();
    for (number, len) in LENGTHS.into_iter().enumerate() {
        let (plain, context) = (bytes(seed, "plain", len), bytes(seed, "context", number * 5 + 1));
        let sealed = seal_metadata(&key, &context, &plain);
        cases.push(json!({
            "suite": "metadata", "key": hex::encode(key.expose()), "nonce": "", "context": hex::encode(context),
            "plain": hex::encode(plain), "sealed": hex::encode(&sealed[16..]), "tag": hex::encode(&sealed[..16]),
        }));
    }
    for (case, answer) in cases.iter().zip(python(&cases)) {
        let at = format!("BLOCKFRAME_SEED={seed}, {} bytes", text(case, "plain").len());
        assert!(answer["opened"] == case["plain"], "{at}: opened there");
        let sealed = [text(&answer, "tag"), text(&answer, "sealed")].concat();
        assert!(open_metadata(&key, &text(case, "context"), &sealed) == Ok(text(case, "plain")), "{at}: opened here");
        assert!(answer["tag"] == case["tag"], "{at}: sealed there");
    }
}

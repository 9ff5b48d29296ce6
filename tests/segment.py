"""Reads an encoded object from a store's directory, from what docs/FORMAT.md says and nothing else of BlockFrame.

Standard input is JSON: "object" (the directory), "epochs" (number to key, hexadecimal; of an encrypted object) or "secret"
(hexadecimal: that of a recovery phrase or of shares, with which the key ring is opened), and
"vectors" (values of BLAKE3, to check the ones of this script with). Standard output is the content.
"""

import base64, json, os, struct, subprocess, sys, uuid, zlib

# --- BLAKE3, from its specification ---------------------------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = (1 << bit for bit in range(7))
MASK = 0xFFFFFFFF


def mix(v, a, b, c, d, x, y):
    v[a] = (v[a] + v[b] + x) & MASK
    t = v[d] ^ v[a]
    v[d] = t >> 16 | t << 16 & MASK
    v[c] = (v[c] + v[d]) & MASK
    t = v[b] ^ v[c]
    v[b] = t >> 12 | t << 20 & MASK
    v[a] = (v[a] + v[b] + y) & MASK
    t = v[d] ^ v[a]
    v[d] = t >> 8 | t << 24 & MASK
    v[c] = (v[c] + v[d]) & MASK
    t = v[b] ^ v[c]
    v[b] = t >> 7 | t << 25 & MASK


def compress(chaining, block, counter, length, flags):
    v = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    m = block
    for _ in range(7):
        mix(v, 0, 4, 8, 12, m[0], m[1])
        mix(v, 1, 5, 9, 13, m[2], m[3])
        mix(v, 2, 6, 10, 14, m[4], m[5])
        mix(v, 3, 7, 11, 15, m[6], m[7])
        mix(v, 0, 5, 10, 15, m[8], m[9])
        mix(v, 1, 6, 11, 12, m[10], m[11])
        mix(v, 2, 7, 8, 13, m[12], m[13])
        mix(v, 3, 4, 9, 14, m[14], m[15])
        m = [m[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ chaining[i] for i in range(8)]


def words(data):
    return struct.unpack("<16I", data + bytes(64 - len(data)))


def node(data, start, key, flags):
    """What gives a subtree's chaining value or, as the root, output: the arguments of the last compression."""
    if len(data) <= 1024:
        blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
        chaining, flag = key, CHUNK_START
        for block in blocks[:-1]:
            chaining = compress(chaining, words(block), start, 64, flags | flag)[:8]
            flag = 0
        return chaining, words(blocks[-1]), start, len(blocks[-1]), flags | flag | CHUNK_END
    left = 1024
    while left * 2 < len(data):
        left *= 2
    halves = [node(data[:left], start, key, flags), node(data[left:], start + left // 1024, key, flags)]
    return key, sum((compress(*half)[:8] for half in halves), []), 0, 64, flags | PARENT


def blake3(data, key=IV, flags=0, length=32):
    chaining, block, _, block_len, flags = node(data, 0, key, flags)
    out = b""
    while len(out) < length:
        out += struct.pack("<16I", *compress(chaining, block, len(out) // 64, block_len, flags | ROOT))
    return out[:length]


def keyed_hash(key, data):
    return blake3(data, struct.unpack("<8I", key), KEYED)


def derive(context, *parts, length=64):
    key = blake3(context.encode(), IV, CONTEXT)
    return blake3(b"".join(parts), struct.unpack("<8I", key), MATERIAL, length)


def check_blake3(vectors):
    assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    for vector in vectors:
        data = bytes(at % 251 for at in range(vector["length"]))
        assert blake3(data).hex() == vector["hash"], vector["length"]
        assert keyed_hash(b"whats the Elvish word for friend", data).hex() == vector["keyed"], vector["length"]
        assert derive("a context", data, length=131).hex() == vector["derived"], vector["length"]


# --- Sealed JSON, trees and roots -----------------------------------------------------------------------------------


def sealed_json(data):
    tail = b"\"\n}\n"
    assert data.endswith(tail)
    digits = data[-len(tail) - 64 : -len(tail)]
    zeroed = data[: -len(tail) - 64] + b"0" * 64 + tail
    assert blake3(zeroed).hex() == digits.decode(), "the manifest's checksum"
    return json.loads(data)


def u16(number):
    return struct.pack("<H", number)


def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number)


CODECS = ["none", "zstd", "lz4", "gzip", "brotli"]
CIPHERS = ["none", "aes256-gcm", "chacha20-poly1305", "aes256-siv"]


def block_root(block):
    shards = [bytes.fromhex(root) for root in block["segments"] + block["parity"]]
    return blake3(b"blockframe block 1\n" + u32(len(shards)) + b"".join(shards))


def object_root(manifest):
    key, geometry = manifest.get("key"), manifest["geometry"]
    outer = geometry["outer"] or {"k": 0, "m": 0}
    data = b"blockframe object 2\n" + bytes.fromhex(manifest["object"].rsplit("_", 1)[1])
    data += u64(key["plain_size"] if key else 0) + bytes([CODECS.index(key["compression"]) if key else 0])
    data += bytes([CIPHERS.index(manifest["cipher"])]) + u32(manifest.get("epoch", 0))
    data += u32(len(manifest["stored"])) + b"".join(u64(length) for length in manifest["stored"])
    data += bytes([geometry["tier"], ["whole", "segments", "blocks"].index(geometry["layout"])])
    data += u64(geometry["segment_size"]) + u16(geometry["k"]) + u16(geometry["m"]) + u16(outer["k"]) + u16(outer["m"])
    data += u32(len(manifest["blocks"]))
    return blake3(data + b"".join(block_root(block) for block in manifest["blocks"] + manifest.get("outer", [])))


# --- Segments -------------------------------------------------------------------------------------------------------


def padded_length(length):
    if length <= 4096:
        return 4096
    exponent = length.bit_length() - 1
    grain = 1 << (exponent - (exponent.bit_length() - 1) - 1)
    return -(-length // grain) * grain


def crc_of_byte(crc):
    for _ in range(8):
        crc = crc >> 1 ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc


CRCS = [crc_of_byte(byte) for byte in range(256)]


def crc32c(data):
    crc = MASK
    for byte in data:
        crc = crc >> 8 ^ CRCS[(crc ^ byte) & 255]
    return crc ^ MASK


def opened(cipher, key, nonce, context, sealed, tag):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV, ChaCha20Poly1305

    if cipher == "aes256-siv":
        return AESSIV(key).decrypt(tag + sealed, [context, nonce])
    return {"aes256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}[cipher](key[:32]).decrypt(nonce, sealed + tag, context)


def unsealed(data, number, plain, stream, manifest, facts, epoch_key, archive):
    """The padded stream of a segment's file, without its padding."""
    epoch, cipher, line = manifest["epoch"], CIPHERS.index(manifest["cipher"]), bytes.fromhex(facts["line"])
    footer = data[-64:]
    assert footer[:8] == b"BFSEAL1\n" and footer[45:60] == bytes(15)
    assert struct.unpack("<I", footer[60:])[0] == crc32c(footer[:60]), "the footer's checksum"
    assert struct.unpack("<I", footer[40:44])[0] == epoch and footer[44] == cipher
    frames = next(n for n in range(1, len(data)) if -(-(len(data) - 64 - 16 * n) // 16384) == n)
    padded = len(data) - 64 - 16 * frames
    key = derive("blockframe 1 segment", epoch_key, archive, u32(epoch), line, u32(number), footer[8:40])
    out = b""
    for frame in range(frames):
        context = b"blockframe frame 1\n" + archive + line + u32(number) + u32(epoch)
        context += bytes([cipher, CODECS.index(facts["key"]["compression"])]) + u64(plain) + u64(stream) + u64(padded)
        context += u32(frame) + bytes([frame == frames - 1])
        sealed = data[frame * 16384 : min((frame + 1) * 16384, padded)]
        tag = data[padded + 16 * frame : padded + 16 * frame + 16]
        out += opened(manifest["cipher"], key, u32(frame) + bytes(8), context, sealed, tag)
    assert len(out) == padded and out[stream:] == bytes(padded - stream), "the padding is not zeros"
    return out[:stream]


TOOLS = {"zstd": ["zstd", "-dcq"], "lz4": ["lz4", "-dcq"], "brotli": ["brotli", "-dc"]}


def decompressed(stream, plain, codec):
    count = -(-plain // 131072)
    table, footer = stream[-32 - 4 * count : -32], stream[-32:]
    expected = bytes([1, CODECS.index(codec), 0, 0]) + u32(131072) + u64(plain) + u64(count)
    assert footer[:4] == b"BFCT" and footer[8:] == expected
    assert struct.unpack("<I", footer[4:8])[0] == crc32c(table + footer[8:]), "the table's checksum"
    out, at = b"", 0
    for length in struct.unpack(f"<{count}I", table):
        chunk = stream[at : at + length]
        at += length
        magic, crc, stored_length, plain_length = struct.unpack("<4s3I", chunk[:16])
        assert magic == b"BFCF" and crc == crc32c(chunk[8:]) and stored_length == len(chunk) - 16
        stored = chunk[16:]
        if stored_length == plain_length:
            frame = stored
        elif codec == "gzip":
            frame = zlib.decompress(stored, wbits=31)
        else:
            frame = subprocess.run(TOOLS[codec], input=stored, capture_output=True, check=True).stdout
        assert len(frame) == plain_length == min(131072, plain - len(out))
        out += frame
    assert at == len(stream) - 32 - 4 * count
    return out


def segment_file(layout, number, k):
    names = {"whole": "data.dat", "segments": f"segments/segment_{number}.dat"}
    return names.get(layout, f"blocks/block_{number // k}/segments/segment_{number}.dat")


def content(directory, epochs):
    with open(os.path.join(directory, "manifest.json"), "rb") as file:
        manifest = sealed_json(file.read())
    assert manifest["format"] == "blockframe-manifest" and manifest["version"] == 3
    assert manifest["object"] == os.path.basename(directory)
    assert object_root(manifest).hex() == manifest["root"], "the object root"
    archive, geometry = uuid.UUID(manifest["archive"]).bytes, manifest["geometry"]
    facts, epoch_key = manifest, None
    if manifest["cipher"] != "none":
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        epoch = u32(manifest["epoch"])
        epoch_key = bytes.fromhex(epochs[str(manifest["epoch"])])
        key = derive("blockframe 1 manifest", epoch_key, archive, epoch)
        context = b"blockframe manifest 1\n" + archive + bytes.fromhex(manifest["root"]) + epoch
        sealed = base64.b64decode(manifest["sealed"])
        facts = json.loads(AESSIV(key).decrypt(sealed, [context + manifest["object"].encode()]))
        name_key = derive("blockframe 1 object name", epoch_key, archive, epoch, length=32)
        name = "sealed_" + keyed_hash(name_key, bytes.fromhex(facts["key"]["hash"])).hex()
        assert name == manifest["object"], "the object's name"
        assert len(sealed) - 16 == padded_length(len(sealed) - 16)
    size, codec, step = facts["key"]["plain_size"], facts["key"]["compression"], geometry["segment_size"]
    covered = size if epoch_key is None else padded_length(size)
    assert len(manifest["stored"]) == -(-covered // step)
    out = b""
    for number, length in enumerate(manifest["stored"]):
        with open(os.path.join(directory, segment_file(geometry["layout"], number, geometry["k"])), "rb") as file:
            data = file.read()
        root = manifest["blocks"][number // geometry["k"]]["segments"][number % geometry["k"]]
        assert len(data) == length and blake3(data).hex() == root, "the segment's root"
        plain = max(0, min(step, size - number * step))
        if epoch_key is not None:
            stream = facts["streams"][number] if codec != "none" else plain
            padded = padded_length(stream) if codec != "none" else min(step, covered - number * step)
            assert len(data) == padded + 16 * -(-padded // 16384) + 64
            data = unsealed(data, number, plain, stream, manifest, facts, epoch_key, archive)
        out += data if codec == "none" else decompressed(data, plain, codec)
    assert blake3(out).hex() == facts["key"]["hash"], "the content's hash"
    return out


# --- The key ring ---------------------------------------------------------------------------------------------------


def epochs_of(archive_directory, secret):
    """The keys of all epochs, by the secret of a slot that needs no argon2id: 32 random bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    copies = []
    for name in ["blockframe-keys.json", ".blockframe/keys/keyring.json"]:
        with open(os.path.join(archive_directory, name), "rb") as file:
            copies.append(file.read())
    assert copies[0] == copies[1]
    ring = sealed_json(copies[0])
    assert ring["format"] == "blockframe-keys" and ring["version"] == 1
    archive = uuid.UUID(ring["archive"]).bytes
    for slot in ring["slots"]:
        if slot["kdf"]["name"] != "blake3":
            continue
        kind = ["", "passphrase", "key_file", "recovery", "command", "shares"].index(slot["kind"])
        salt = bytes.fromhex(slot["kdf"]["salt"])
        context = b"blockframe key slot 1\0" + archive + u32(slot["id"]) + bytes([kind, 2]) + bytes(12) + salt
        stretched = derive("blockframe 1 key slot secret", salt, u64(len(secret)), secret, length=32)
        key = derive("blockframe 1 key slot", stretched, context)
        commitment = keyed_hash(derive("blockframe 1 key slot commitment", key, length=32), context)
        if commitment.hex() == slot["commitment"]:
            break
    else:
        raise ValueError("no slot opens")
    archive_key = AESSIV(key).decrypt(bytes.fromhex(slot["wrapped"]), [context])
    bare = {name: value for name, value in ring.items() if name != "checksum"} | {"mac": "0" * 64}
    text = json.dumps(bare, separators=(",", ":"), ensure_ascii=False).encode()
    mac_key = derive("blockframe 1 key ring", archive_key, archive, length=32)
    assert keyed_hash(mac_key, text).hex() == ring["mac"], "the ring's MAC"
    with open(os.path.join(archive_directory, "blockframe-store.json"), "rb") as file:
        rules = json.dumps(sealed_json(file.read())["archive"], separators=(",", ":"), ensure_ascii=False)
    assert blake3(rules.encode()).hex() == ring["descriptor"], "the digest of the archive's rules"
    wrap = derive("blockframe 1 epoch wrap", archive_key, archive)
    epochs = {}
    for number, epoch in enumerate(ring["epochs"], ring["epochs"][0]["epoch"]):
        assert epoch["epoch"] == number
        context = b"blockframe epoch 1\0" + archive + u32(number)
        epochs[str(number)] = AESSIV(wrap).decrypt(bytes.fromhex(epoch["wrapped"]), [context]).hex()
    return epochs


if __name__ == "__main__":
    task = json.load(sys.stdin)
    check_blake3(task["vectors"])
    epochs = task.get("epochs", {})
    if "secret" in task:
        epochs = epochs_of(os.path.dirname(task["object"]), bytes.fromhex(task["secret"]))
    sys.stdout.buffer.write(content(task["object"], epochs))

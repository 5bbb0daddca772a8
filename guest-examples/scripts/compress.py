"""Compresses and expands a text in pieces with two compressors, and a file in between.

Takes the directory for the file. Prints a digest of everything that comes out."""

import bz2
import hashlib
import os
import random
import sys
import zlib

folder = sys.argv[1]
numbers = random.Random(11)
words = ["".join(numbers.choices("abcdefghij", k=numbers.randrange(2, 9))) for _ in range(300)]
text = " ".join(numbers.choices(words, k=40000)).encode()


def digest(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def pieces(data, size):
    for start in range(0, len(data), size):
        yield data[start : start + size]


print("text", digest(text), flush=True)
for level in (1, 6, 9):
    packer = zlib.compressobj(level)
    packed = b"".join(packer.compress(piece) for piece in pieces(text, 1000)) + packer.flush()
    print("deflate", level, digest(packed), flush=True)
    unpacker = zlib.decompressobj()
    assert b"".join(unpacker.decompress(piece) for piece in pieces(packed, 500)) + unpacker.flush() == text
packer = bz2.BZ2Compressor(2)
path = os.path.join(folder, "text.bz2")
with open(path, "wb") as file:
    for piece in pieces(text, 5000):
        file.write(packer.compress(piece))
    file.write(packer.flush())
with open(path, "rb") as file:
    print("bzip2", digest(file.read()), flush=True)
with bz2.open(path) as file:
    assert hashlib.sha256(file.read()).digest() == hashlib.sha256(text).digest()
os.remove(path)
print("left", os.listdir(folder))

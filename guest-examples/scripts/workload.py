"""A few seconds of what scripts do: classes, closures, generators, exceptions, dictionaries, big integers,
regular expressions, JSON, hashing, recursion and sorting. Prints as it goes; the last line is a checksum of it all.

Sets and dictionaries are only printed sorted, so that the random hash seed does not show."""

import collections
import functools
import hashlib
import json
import random
import re
import sys

transcript = hashlib.sha256()


def report(name, value):
    line = f"{name}: {value}"
    transcript.update(line.encode())
    print(line, flush=True)


class Account:
    def __init__(self, owner):
        self.owner = owner
        self.balance = 0

    def withdraw(self, amount):
        if amount > self.balance:
            raise ValueError(f"{self.owner} lacks {amount - self.balance}")
        self.balance -= amount


def bank(rounds):
    numbers = random.Random(1)
    accounts = [Account(f"owner {i}") for i in range(20)]
    refused = collections.Counter()
    for _ in range(rounds):
        source, target = numbers.sample(accounts, 2)
        amount = numbers.randrange(100)
        try:
            source.withdraw(amount)
        except ValueError as error:
            refused[str(error).split()[1]] += 1
            source.balance += 50
        else:
            target.balance += amount
    return sum(a.balance for a in accounts), refused.most_common(3)


def primes():
    composites = {}
    n = 2
    while True:
        if n in composites:
            for p in composites.pop(n):
                composites.setdefault(n + p, []).append(p)
        else:
            yield n
            composites[n * n] = [n]
        n += 1


def words(count):
    numbers = random.Random(2)
    text = " ".join("".join(numbers.choices("aeioubcdfg", k=numbers.randrange(2, 8))) for _ in range(count))
    found = collections.Counter(m.group(2) for m in re.finditer(r"\b([bcdfg])([aeiou]+)(\w*)\b", text))
    return json.dumps(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:5])


def queens(size):
    def place(row, columns, left, right):
        if row == size:
            return 1
        return sum(
            place(row + 1, columns | {c}, left | {row + c}, right | {row - c})
            for c in range(size)
            if c not in columns and row + c not in left and row - c not in right
        )

    return place(0, frozenset(), frozenset(), frozenset())


@functools.lru_cache(maxsize=None)
def paths(x, y):
    return 1 if x == 0 or y == 0 else paths(x - 1, y) + paths(x, y - 1)


def hash_chain(length):
    digest = b"start"
    for _ in range(length):
        digest = hashlib.md5(digest).digest()
    return digest.hex()


def pi_digits(count):
    """Digits of pi by the spigot of Gibbons: ever larger integers."""
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    digits = []
    while len(digits) < count:
        if 4 * q + r - t < n * t:
            digits.append(str(n))
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = (
                q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2
            )
    return "".join(digits)


def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


report("bank", bank(60000))
report("primes", sum(p for p, _ in zip(primes(), range(20000))))
report("words", words(40000))
report("queens", queens(8))
report("paths", paths(20, 20))
report("hashes", hash_chain(60000))
report("pi", pi_digits(900)[-20:])
report("deep", deep(100))
report("sorted", sorted(random.Random(3).sample(range(10**9), 80000), key=str)[::20000])
try:
    json.loads('{"unfinished": ')
except json.JSONDecodeError as error:
    report("error", error)
print("checksum", transcript.hexdigest()[:16])
sys.exit(3)

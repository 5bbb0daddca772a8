"""An SQL database in a file: transactions that are committed, rolled back, and undone in part, with a journal beside it.

Takes the directory for the database. Prints as it goes, and what the database says of itself in the end."""

import hashlib
import os
import random
import sqlite3
import sys

folder = sys.argv[1]
path = os.path.join(folder, "bank.db")
numbers = random.Random(5)


def connect():
    bank = sqlite3.connect(path, isolation_level=None)
    # A small cache makes SQLite write pages, and their old content to the journal, long before the transaction ends.
    bank.execute("PRAGMA cache_size = 10")
    # There is no directory for temporary files.
    bank.execute("PRAGMA temp_store = MEMORY")
    return bank


def transfer(bank, count):
    for _ in range(count):
        source, target = numbers.sample(range(400), 2)
        amount = numbers.randrange(50)
        bank.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source))
        bank.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
        bank.execute("INSERT INTO transfer(source, target, amount) VALUES (?, ?, ?)", (source, target, amount))


def state(bank):
    digest = hashlib.sha256()
    for row in bank.execute("SELECT id, balance FROM account ORDER BY id"):
        digest.update(repr(row).encode())
    for row in bank.execute("SELECT source, sum(amount), count(*) FROM transfer GROUP BY source ORDER BY source"):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


bank = connect()
bank.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER)")
bank.execute("CREATE TABLE transfer(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER)")
bank.execute("CREATE INDEX of_source ON transfer(source)")
bank.execute("BEGIN")
bank.executemany("INSERT INTO account VALUES (?, ?, 1000)", ((i, f"owner {i} " * 20) for i in range(400)))
bank.execute("COMMIT")
before = state(bank)
for round in range(9):
    bank.execute("BEGIN IMMEDIATE")
    transfer(bank, 60)
    # What is left of a savepoint is nothing, whatever becomes of the transaction around it.
    bank.execute("SAVEPOINT attempt")
    transfer(bank, 40)
    bank.execute("ROLLBACK TO attempt")
    journal = os.path.exists(path + "-journal")
    if round % 3 == 2:
        bank.execute("ROLLBACK")
        assert state(bank) == before, "a rollback left something"
    else:
        bank.execute("COMMIT")
        before = state(bank)
    print(f"round {round}: journal {journal}, {before}", flush=True)
    if round % 4 == 3:
        bank.close()
        bank = connect()
print("sum", bank.execute("SELECT sum(balance), count(*) FROM account").fetchone())
print("transfers", bank.execute("SELECT count(*), sum(amount) FROM transfer").fetchone())
print("integrity", bank.execute("PRAGMA integrity_check").fetchone()[0])
bank.close()
print("left", sorted(os.listdir(folder)))

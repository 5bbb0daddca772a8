/* SQLite in memory: inserts, an index, joins, groups, updates, deletes and a recursive query, as its own speed test has. */
#include "guest.h"
#include "sqlite3.h"
#include <string.h>

static sqlite3 *database;

static void check(int code) {
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) {
        fprintf(stderr, "sqlite: %s\n", sqlite3_errmsg(database));
        exit(1);
    }
}

static void execute(const char *sql) {
    check(sqlite3_exec(database, sql, NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    check(sqlite3_prepare_v2(database, sql, -1, &statement, NULL));
    return statement;
}

static void fill(uint32_t rows) {
    sqlite3_stmt *insert = prepare("INSERT INTO parcel(place, grams, label) VALUES (?1, ?2, ?3)");
    uint64_t state = 1;
    for (uint32_t row = 0; row < rows; row++) {
        char label[32];
        uint64_t number = random_next(&state);
        snprintf(label, sizeof label, "parcel %llx", (unsigned long long)(number >> 40));
        sqlite3_bind_int64(insert, 1, number % 997);
        sqlite3_bind_int64(insert, 2, number >> 48);
        sqlite3_bind_text(insert, 3, label, -1, SQLITE_TRANSIENT);
        check(sqlite3_step(insert));
        check(sqlite3_reset(insert));
    }
    check(sqlite3_finalize(insert));
}

/* Mixes all rows of a query into the checksum. */
static uint64_t query(uint64_t sum, const char *sql) {
    sqlite3_stmt *statement = prepare(sql);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        for (int column = 0; column < sqlite3_column_count(statement); column++) {
            const char *text = (const char *)sqlite3_column_text(statement, column);
            for (; text != NULL && *text != 0; text++)
                sum = mix(sum, (uint8_t)*text);
        }
    }
    check(sqlite3_finalize(statement));
    return sum;
}

int main(int argc, char **argv) {
    uint32_t rows = size_argument(argc, argv);
    uint64_t sum = 0;
    check(sqlite3_open(":memory:", &database));
    execute("CREATE TABLE parcel(id INTEGER PRIMARY KEY, place INTEGER, grams INTEGER, label TEXT);"
            "CREATE TABLE town(place INTEGER PRIMARY KEY, name TEXT); BEGIN;"
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 996)"
            " INSERT INTO town SELECT i, 'town ' || (i * 31 % 997) FROM n");
    fill(rows);
    execute("COMMIT; CREATE INDEX by_place ON parcel(place, grams)");
    sum = query(sum, "SELECT place, count(*), sum(grams), max(label) FROM parcel GROUP BY place ORDER BY 3 DESC LIMIT 50");
    sum = query(sum, "SELECT name, avg(grams) FROM town JOIN parcel USING (place) WHERE name LIKE '%7%' GROUP BY name ORDER BY name");
    sum = query(sum, "SELECT count(*) FROM parcel WHERE label LIKE '%ff%' OR label GLOB 'parcel [0-4]*'");
    execute("UPDATE parcel SET grams = grams + 1 WHERE place % 3 = 0; DELETE FROM parcel WHERE id % 7 = 0");
    sum = query(sum, "SELECT substr(label, 8, 2) AS start, count(*), total(grams) FROM parcel GROUP BY start ORDER BY start");
    sum = query(sum, "SELECT a.id FROM parcel a JOIN parcel b ON a.place = b.place AND b.grams = a.grams + 1 ORDER BY 1 LIMIT 100");
    check(sqlite3_close(database));
    return finish(sum);
}

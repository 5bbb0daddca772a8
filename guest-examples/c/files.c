// Works with files the way a small database does: appends records, looks them up at random, compacts into a new
// file, renames it over the old one, lists the directory. Keeps descriptors open all the time.
//
//   files.wasm DIRECTORY

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORDS = 3000, ROUNDS = 4, NAME_BYTES = 24 };

struct record {
  uint32_t key;
  uint32_t version;
  char name[NAME_BYTES];
};

static uint32_t seed = 12345;
static uint32_t next_random(void) {
  seed = seed * 1664525u + 1013904223u;
  return seed >> 8;
}

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
  return hash;
}

static void append(FILE *log, uint32_t key, uint32_t version) {
  struct record record = {.key = key, .version = version};
  snprintf(record.name, sizeof record.name, "record %" PRIu32 ".%" PRIu32, key, version);
  if (fwrite(&record, sizeof record, 1, log) != 1) fail("append");
}

static void read_at(FILE *file, uint32_t index, struct record *record) {
  if (fseek(file, (long)(index * sizeof *record), SEEK_SET)) fail("seek");
  if (fread(record, sizeof *record, 1, file) != 1) fail("read");
}

// Keeps only the newest version of each key.
static uint32_t compact(const char *from, const char *to) {
  static uint32_t newest[RECORDS];
  struct record record;
  uint32_t kept = 0;
  memset(newest, 0, sizeof newest);
  FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
  if (!in || !out) fail("compact");
  for (uint32_t i = 1; fread(&record, sizeof record, 1, in) == 1; i++) newest[record.key] = i;
  rewind(in);
  for (uint32_t i = 1; fread(&record, sizeof record, 1, in) == 1; i++) {
    if (newest[record.key] != i) continue;
    if (fwrite(&record, sizeof record, 1, out) != 1) fail("compact");
    kept++;
  }
  fclose(in);
  if (fclose(out)) fail("compact");
  if (rename(to, from)) fail("rename");
  return kept;
}

static int list(const char *directory) {
  DIR *entries = opendir(directory);
  if (!entries) fail(directory);
  int count = 0;
  for (struct dirent *e; (e = readdir(entries));) count += e->d_name[0] != '.';
  closedir(entries);
  return count;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: files DIRECTORY\n");
    return 2;
  }
  char log_path[256], copy_path[256], sub_path[256];
  snprintf(log_path, sizeof log_path, "%s/log.bin", argv[1]);
  snprintf(copy_path, sizeof copy_path, "%s/log.new", argv[1]);
  snprintf(sub_path, sizeof sub_path, "%s/pages", argv[1]);
  if (mkdir(sub_path, 0777) && errno != EEXIST) fail(sub_path);

  uint64_t hash = 14695981039346656037u;
  for (uint32_t round = 0; round < ROUNDS; round++) {
    FILE *log = fopen(log_path, "ab");
    FILE *reader = fopen(log_path, "rb");
    if (!log || !reader) fail(log_path);
    for (uint32_t i = 0; i < RECORDS; i++) append(log, next_random() % RECORDS, round);
    if (fflush(log)) fail("flush");
    struct stat status;
    if (stat(log_path, &status)) fail("stat");
    uint32_t count = (uint32_t)((size_t)status.st_size / sizeof(struct record));
    for (int i = 0; i < 1000; i++) {
      struct record record;
      read_at(reader, next_random() % count, &record);
      hash = mix(hash, &record, sizeof record);
    }
    fclose(reader);
    fclose(log);

    char page[300];
    snprintf(page, sizeof page, "%s/page%" PRIu32 ".txt", sub_path, round);
    FILE *text = fopen(page, "w+");
    if (!text) fail(page);
    for (int i = 0; i < 200; i++) fprintf(text, "%d %08" PRIx32 "\n", i, next_random());
    if (fseek(text, 100, SEEK_SET)) fail("seek");
    char line[64];
    while (fgets(line, sizeof line, text)) hash = mix(hash, line, strlen(line));
    fclose(text);

    uint32_t kept = compact(log_path, copy_path);
    printf("round %" PRIu32 ": %" PRIu32 " records, %" PRIu32 " kept, %d pages\n", round, count, kept, list(sub_path));
    fflush(stdout);
    if (round == 2) {
      snprintf(page, sizeof page, "%s/page0.txt", sub_path);
      if (unlink(page)) fail(page);
    }
  }
  printf("checksum %016" PRIx64 "\n", hash);
  return 0;
}

// Computes pi with the spigot algorithm of Rabinowitz and Wagon and prints the digits as they come.
//
//   pi.wasm [DIGITS]
//
// The time grows with the square of the number of digits: the default of 45,000 takes some seconds.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

// Digits that one turn of the spigot yields, and digits in one line of output.
enum { GROUP = 4, LINE = 60 };

static uint32_t checksum = 2166136261u;
static int printed;

static void emit(uint32_t group) {
  char text[GROUP + 1];
  snprintf(text, sizeof text, "%04" PRIu32, group);
  for (int i = 0; i < GROUP; i++) {
    checksum = (checksum ^ (unsigned char)text[i]) * 16777619u;
  }
  if (printed % LINE == 0) printf("%6d  ", printed);
  fputs(text, stdout);
  printed += GROUP;
  if (printed % LINE == 0) {
    putchar('\n');
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  int digits = argc > 1 ? atoi(argv[1]) : 45000;
  if (digits < GROUP || digits > 1000000) {
    fprintf(stderr, "usage: pi [DIGITS], from %d to 1000000\n", GROUP);
    return 2;
  }
  int terms = digits / GROUP * 14;
  uint32_t *remainders = malloc(((size_t)terms + 1) * sizeof *remainders);
  if (!remainders) {
    perror("pi");
    return 1;
  }
  for (int i = 0; i <= terms; i++) remainders[i] = 2000;

  uint64_t carried = 0;
  for (int left = terms; left > 0; left -= 14) {
    uint64_t sum = 0;
    for (int i = left; i > 0; i--) {
      sum = sum * (uint64_t)i + (uint64_t)remainders[i] * 10000;
      remainders[i] = (uint32_t)(sum % (2 * (uint64_t)i - 1));
      sum /= 2 * (uint64_t)i - 1;
    }
    emit((uint32_t)((carried + sum / 10000) % 10000));
    carried = sum % 10000;
  }
  if (printed % LINE) putchar('\n');
  printf("%d digits, checksum %08" PRIx32 "\n", printed, checksum);
  free(remainders);
  return 0;
}

// What C programs ask of their library and runtime: qsort with function pointers, setjmp and longjmp through many
// frames, variable arguments, malloc, strings, floating-point formatting, recursion with arrays on the stack.

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash = 14695981039346656037u;

static void report(const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  for (int i = 0; i < length; i++) hash = (hash ^ (unsigned char)line[i]) * 1099511628211u;
  puts(line);
  fflush(stdout);
}

static uint32_t seed = 99;
static uint32_t next_random(void) {
  seed = seed * 1664525u + 1013904223u;
  return seed >> 8;
}

// Sorting: the library calls back through a function pointer.
static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}
static int by_last_digits(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a % 1000, y = *(const uint32_t *)b % 1000;
  return x == y ? ascending(a, b) : (x > y) - (x < y);
}
static void sorting(void) {
  static int (*const orders[])(const void *, const void *) = {ascending, by_last_digits};
  enum { COUNT = 40000 };
  uint32_t *numbers = malloc(COUNT * sizeof *numbers);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < COUNT; i++) numbers[i] = next_random();
    qsort(numbers, COUNT, sizeof *numbers, orders[round]);
    report("sorted %d: %" PRIu32 " %" PRIu32 " %" PRIu32, round, numbers[0], numbers[COUNT / 2], numbers[COUNT - 1]);
  }
  free(numbers);
}

// Searching: the result is thrown up through all the frames of the search.
static jmp_buf found;
static int board[10];
static int safe(int row, int column) {
  for (int r = 0; r < row; r++) {
    if (board[r] == column || abs(board[r] - column) == row - r) return 0;
  }
  return 1;
}
static void place(int row, int size, int *skip) {
  if (row == size) {
    if ((*skip)-- == 0) longjmp(found, size);
    return;
  }
  for (int c = 0; c < size; c++) {
    if (!safe(row, c)) continue;
    board[row] = c;
    place(row + 1, size, skip);
  }
}
static void searching(void) {
  for (volatile int solution = 0; solution < 90; solution += 15) {
    volatile int rounds = 1;
    int skip = solution;
    int size = setjmp(found);
    if (size == 0) {
      rounds = 2;
      place(0, 8, &skip);
      report("no solution %d", solution);
    } else {
      report("solution %d after %d of %d: %d%d%d%d%d%d%d%d", solution, rounds, size, board[0], board[1], board[2],
             board[3], board[4], board[5], board[6], board[7]);
    }
  }
}

static double integral(double (*function)(double), double from, double to, int steps) {
  double sum = 0, width = (to - from) / steps;
  for (int i = 0; i < steps; i++) sum += function(from + (i + 0.5) * width) * width;
  return sum;
}
static double bell(double x) { return exp(-x * x); }

struct node {
  struct node *next;
  char text[];
};
static void strings(void) {
  struct node *list = NULL;
  for (int i = 0; i < 5000; i++) {
    char text[64];
    snprintf(text, sizeof text, "%x,%d;%s", next_random(), i, i % 3 ? "odd" : "even");
    struct node *node = malloc(sizeof *node + strlen(text) + 1);
    strcpy(node->text, text);
    node->next = list;
    list = node;
  }
  unsigned long sum = 0, tokens = 0;
  while (list) {
    struct node *node = list;
    list = node->next;
    for (char *token = strtok(node->text, ",;"); token; token = strtok(NULL, ",;")) {
      sum += strtoul(token, NULL, 16);
      tokens++;
    }
    free(node);
  }
  report("strings: %lu tokens, %lx", tokens, sum);
}

static uint32_t on_the_stack(int depth, uint32_t *above) {
  uint32_t numbers[64];
  for (int i = 0; i < 64; i++) numbers[i] = above[(i * 7) % 64] + (uint32_t)(i * depth);
  uint32_t below = depth ? on_the_stack(depth - 1, numbers) : 0;
  for (int i = 0; i < 64; i++) below = below * 31 + numbers[i];
  return below;
}

int main(void) {
  sorting();
  searching();
  report("integral: %.15g %a", integral(bell, -3, 3, 200000), integral(sin, 0, 1, 100000));
  strings();
  uint32_t start[64] = {1};
  report("stack: %" PRIx32, on_the_stack(150, start));
  printf("checksum %016" PRIx64 "\n", hash);
  return (int)(hash % 64);
}

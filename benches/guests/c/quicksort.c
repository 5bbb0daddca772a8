/* Quicksort of random numbers, with insertion sort for what is short. */
#include "guest.h"

static void insertion_sort(uint32_t *first, uint32_t *end) {
    for (uint32_t *next = first + 1; next < end; next++) {
        uint32_t value = *next, *place = next;
        for (; place > first && place[-1] > value; place--)
            *place = place[-1];
        *place = value;
    }
}

static void sort(uint32_t *first, uint32_t *end) {
    while (end - first > 12) {
        uint32_t pivot = first[(end - first) / 2];
        uint32_t *low = first, *high = end - 1;
        for (;;) {
            while (*low < pivot)
                low++;
            while (*high > pivot)
                high--;
            if (low >= high)
                break;
            uint32_t kept = *low;
            *low++ = *high;
            *high-- = kept;
        }
        sort(first, high + 1);
        first = high + 1;
    }
    if (end - first > 1)
        insertion_sort(first, end);
}

int main(int argc, char **argv) {
    uint32_t n = size_argument(argc, argv);
    uint32_t *numbers = allocate((size_t)n * sizeof *numbers);
    uint64_t state = 1, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        numbers[i] = (uint32_t)(random_next(&state) >> 32);
    sort(numbers, numbers + n);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && numbers[i - 1] > numbers[i])
            return 1;
        sum = mix(sum, numbers[i]);
    }
    return finish(sum);
}

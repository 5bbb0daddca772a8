/* Kernels on vectors of 128 bits: a blur of bytes, a sum of products of floats, a histogram of signs. */
#include "guest.h"
#include <wasm_simd128.h>

enum { WIDTH = 1024, HEIGHT = 256, MARGIN = 16, STRIDE = WIDTH + 2 * MARGIN };

/* Each byte becomes the mean of itself and its neighbours left and right. */
static void blur(const uint8_t *from, uint8_t *to) {
    for (uint32_t row = 0; row < HEIGHT; row++) {
        for (uint32_t column = 0; column < WIDTH; column += 16) {
            const uint8_t *at = from + row * STRIDE + MARGIN + column;
            v128_t sides = wasm_u8x16_avgr(wasm_v128_load(at - 1), wasm_v128_load(at + 1));
            wasm_v128_store(to + row * STRIDE + MARGIN + column, wasm_u8x16_avgr(sides, wasm_v128_load(at)));
        }
    }
}

static float dot(const float *a, const float *b, uint32_t count) {
    v128_t sum = wasm_f32x4_splat(0);
    for (uint32_t i = 0; i < count; i += 4)
        sum = wasm_f32x4_add(sum, wasm_f32x4_mul(wasm_v128_load(a + i), wasm_v128_load(b + i)));
    return wasm_f32x4_extract_lane(sum, 0) + wasm_f32x4_extract_lane(sum, 1) + wasm_f32x4_extract_lane(sum, 2) +
           wasm_f32x4_extract_lane(sum, 3);
}

static uint32_t high_bits(const uint8_t *bytes, uint32_t count) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < count; i += 16)
        bits += (uint32_t)__builtin_popcount(wasm_i8x16_bitmask(wasm_v128_load(bytes + i)));
    return bits;
}

int main(int argc, char **argv) {
    uint32_t rounds = size_argument(argc, argv);
    uint8_t *image = allocate(STRIDE * HEIGHT), *blurred = allocate(STRIDE * HEIGHT);
    float *a = allocate(WIDTH * sizeof *a), *b = allocate(WIDTH * sizeof *b);
    uint64_t state = 1, sum = 0;
    for (uint32_t i = 0; i < STRIDE * HEIGHT; i++)
        blurred[i] = image[i] = (uint8_t)(random_next(&state) >> 56);
    for (uint32_t i = 0; i < WIDTH; i++) {
        a[i] = (float)(random_next(&state) >> 60);
        b[i] = (float)(random_next(&state) >> 60);
    }
    for (uint32_t round = 0; round < rounds; round++) {
        blur(image, blurred);
        uint8_t *kept = image;
        image = blurred;
        blurred = kept;
        image[MARGIN + round % WIDTH] ^= 0xff;
        sum = mix(sum, high_bits(image, STRIDE * HEIGHT));
        for (uint32_t turn = 0; turn < 64; turn++)
            sum = mix(sum, (uint64_t)dot(a, b, WIDTH - 4 * turn));
    }
    return finish(sum);
}

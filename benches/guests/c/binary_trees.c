/* Allocates and frees trees of all depths, as in the Computer Language Benchmarks Game. */
#include "guest.h"

struct tree {
    struct tree *left, *right;
};

static struct tree *grow(uint32_t depth) {
    struct tree *tree = allocate(sizeof *tree);
    tree->left = depth == 0 ? NULL : grow(depth - 1);
    tree->right = depth == 0 ? NULL : grow(depth - 1);
    return tree;
}

static uint32_t nodes(const struct tree *tree) {
    return tree->left == NULL ? 1 : 1 + nodes(tree->left) + nodes(tree->right);
}

static void fell(struct tree *tree) {
    if (tree->left != NULL) {
        fell(tree->left);
        fell(tree->right);
    }
    free(tree);
}

int main(int argc, char **argv) {
    uint32_t depth_max = size_argument(argc, argv);
    uint64_t sum = 0;
    struct tree *lasting = grow(depth_max);
    for (uint32_t depth = 4; depth <= depth_max; depth += 4) {
        for (uint32_t i = 0; i < 1u << (depth_max - depth + 4); i++) {
            struct tree *tree = grow(depth);
            sum = mix(sum, nodes(tree));
            fell(tree);
        }
    }
    sum = mix(sum, nodes(lasting));
    fell(lasting);
    return finish(sum);
}

/* A splay tree whose nodes come and go, each with a payload of its own: pointers and the allocator. */
#include "guest.h"
#include <string.h>

struct node {
    uint64_t key;
    struct node *left, *right;
    char *payload;
};

/* Brings the node with the key, or the last one on the way to it, to the top (Sleator and Tarjan, top-down). */
static struct node *splay(struct node *root, uint64_t key) {
    if (root == NULL)
        return NULL;
    struct node header = {0}, *left = &header, *right = &header;
    for (;;) {
        if (key < root->key) {
            if (root->left == NULL)
                break;
            if (key < root->left->key) {
                struct node *child = root->left;
                root->left = child->right;
                child->right = root;
                root = child;
                if (root->left == NULL)
                    break;
            }
            right->left = root;
            right = root;
            root = root->left;
        } else if (key > root->key) {
            if (root->right == NULL)
                break;
            if (key > root->right->key) {
                struct node *child = root->right;
                root->right = child->left;
                child->left = root;
                root = child;
                if (root->right == NULL)
                    break;
            }
            left->right = root;
            left = root;
            root = root->right;
        } else {
            break;
        }
    }
    left->right = root->left;
    right->left = root->right;
    root->left = header.right;
    root->right = header.left;
    return root;
}

static struct node *insert(struct node *root, uint64_t key) {
    root = splay(root, key);
    if (root != NULL && root->key == key)
        return root;
    struct node *node = allocate(sizeof *node);
    node->key = key;
    node->left = node->right = NULL;
    size_t length = 16 + key % 100;
    node->payload = allocate(length + 1);
    memset(node->payload, 'a' + (int)(key % 26), length);
    node->payload[length] = 0;
    if (root != NULL && key < root->key) {
        node->left = root->left;
        node->right = root;
        root->left = NULL;
    } else if (root != NULL) {
        node->right = root->right;
        node->left = root;
        root->right = NULL;
    }
    return node;
}

/* Removes the top. */
static struct node *remove_top(struct node *root) {
    struct node *rest = root->right;
    if (root->left != NULL) {
        rest = splay(root->left, root->key);
        rest->right = root->right;
    }
    free(root->payload);
    free(root);
    return rest;
}

int main(int argc, char **argv) {
    uint32_t turns = size_argument(argc, argv);
    uint64_t state = 1, sum = 0;
    struct node *root = NULL;
    for (uint32_t i = 0; i < 8000; i++)
        root = insert(root, random_next(&state) >> 32);
    for (uint32_t turn = 0; turn < turns; turn++) {
        root = insert(root, random_next(&state) >> 32);
        root = splay(root, random_next(&state) >> 32);
        sum = mix(sum, root->key + strlen(root->payload));
        root = remove_top(root);
    }
    return finish(sum);
}

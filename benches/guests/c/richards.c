/* Martin Richards's simulation of the kernel of an operating system: tasks, packets, indirect calls. */
#include "guest.h"

enum { IDLE, WORKER, HANDLER_A, HANDLER_B, DEVICE_A, DEVICE_B, TASKS };
enum { RUNNING = 0, RUNNABLE = 1, SUSPENDED = 2, HELD = 4 };
enum kind { FOR_DEVICE, WORK };
enum { TURNS = 10000, PAYLOAD = 4 };

struct packet {
    struct packet *link;
    int to;
    enum kind kind;
    int first, payload[PAYLOAD];
};

struct task {
    struct task *link;
    int id, priority, state;
    struct packet *queue;
    struct task *(*run)(struct task *self, struct packet *packet);
    int number, count;
    struct packet *work, *device;
};

static struct task tasks[TASKS], *list, *current;
static uint32_t queued, held;

/* A packet at the end of a queue. */
static struct packet *append(struct packet *queue, struct packet *packet) {
    packet->link = NULL;
    if (queue == NULL)
        return packet;
    struct packet *last = queue;
    while (last->link != NULL)
        last = last->link;
    last->link = packet;
    return queue;
}

static struct task *suspend(void) {
    current->state |= SUSPENDED;
    return current;
}

static struct task *hold(void) {
    held++;
    current->state |= HELD;
    return current->link;
}

static struct task *release(int id) {
    struct task *task = &tasks[id];
    task->state &= ~HELD;
    return task->priority > current->priority ? task : current;
}

/* Sends a packet to its task, which runs next if it is the more urgent one. */
static struct task *send(struct packet *packet) {
    struct task *task = &tasks[packet->to];
    queued++;
    packet->to = current->id;
    int is_first = task->queue == NULL;
    task->queue = append(task->queue, packet);
    if (!is_first)
        return current;
    task->state |= RUNNABLE;
    return task->priority > current->priority ? task : current;
}

static struct task *idle(struct task *self, struct packet *packet) {
    (void)packet;
    if (--self->count == 0)
        return hold();
    int is_odd = self->number & 1;
    self->number = self->number >> 1 ^ (is_odd ? 0xd008 : 0);
    return release(is_odd ? DEVICE_B : DEVICE_A);
}

static struct task *worker(struct task *self, struct packet *packet) {
    if (packet == NULL)
        return suspend();
    self->number = self->number == HANDLER_A ? HANDLER_B : HANDLER_A;
    packet->to = self->number;
    packet->first = 0;
    for (int i = 0; i < PAYLOAD; i++) {
        self->count = self->count % 26 + 1;
        packet->payload[i] = self->count;
    }
    return send(packet);
}

static struct task *handler(struct task *self, struct packet *packet) {
    if (packet != NULL && packet->kind == WORK)
        self->work = append(self->work, packet);
    else if (packet != NULL)
        self->device = append(self->device, packet);
    struct packet *work = self->work, *device = self->device;
    if (work != NULL && work->first == PAYLOAD) {
        self->work = work->link;
        return send(work);
    }
    if (work == NULL || device == NULL)
        return suspend();
    self->device = device->link;
    device->first = work->payload[work->first++];
    return send(device);
}

static struct task *device(struct task *self, struct packet *packet) {
    if (packet != NULL) {
        self->device = packet;
        return hold();
    }
    if (self->device == NULL)
        return suspend();
    struct packet *kept = self->device;
    self->device = NULL;
    return send(kept);
}

static void add(int id, int priority, struct task *(*run)(struct task *, struct packet *), struct packet *queue) {
    int state = queue == NULL ? SUSPENDED : SUSPENDED | RUNNABLE;
    tasks[id] = (struct task){.link = list, .id = id, .priority = priority, .state = state, .queue = queue, .run = run};
    list = &tasks[id];
}

static void schedule(void) {
    current = list;
    while (current != NULL) {
        if ((current->state & HELD) || current->state == SUSPENDED) {
            current = current->link;
            continue;
        }
        struct packet *packet = NULL;
        if (current->state == (SUSPENDED | RUNNABLE)) {
            packet = current->queue;
            current->queue = packet->link;
            current->state = current->queue == NULL ? RUNNING : RUNNABLE;
        }
        current = current->run(current, packet);
    }
}

/* So many packets in a row of `memory`, all to one task. */
static struct packet *packets(struct packet *memory, int count, int to, enum kind kind) {
    struct packet *queue = NULL;
    for (int i = 0; i < count; i++) {
        memory[i] = (struct packet){.to = to, .kind = kind};
        queue = append(queue, &memory[i]);
    }
    return queue;
}

int main(int argc, char **argv) {
    uint32_t rounds = size_argument(argc, argv);
    struct packet memory[8];
    for (uint32_t round = 0; round < rounds; round++) {
        list = NULL;
        add(IDLE, 0, idle, NULL);
        tasks[IDLE].state = RUNNING;
        tasks[IDLE].number = 1;
        tasks[IDLE].count = TURNS;
        add(WORKER, 1000, worker, packets(memory, 2, WORKER, WORK));
        tasks[WORKER].number = HANDLER_A;
        add(HANDLER_A, 2000, handler, packets(memory + 2, 3, DEVICE_A, FOR_DEVICE));
        add(HANDLER_B, 3000, handler, packets(memory + 5, 3, DEVICE_B, FOR_DEVICE));
        add(DEVICE_A, 4000, device, NULL);
        add(DEVICE_B, 5000, device, NULL);
        schedule();
    }
    /* Each round adds 23246 and 9297. */
    printf("%u %u\n", queued, held);
    return queued == 23246 * rounds && held == 9297 * rounds ? 0 : 1;
}

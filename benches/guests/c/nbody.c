/* The Sun and its four giant planets under gravity, as in the Computer Language Benchmarks Game. */
#include "guest.h"
#include <math.h>

#define DAYS 365.24
#define SOLAR_MASS (4 * M_PI * M_PI)

struct body {
    double place[3], velocity[3], mass;
};

enum { BODIES = 5 };

static struct body bodies[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, SOLAR_MASS},
    {{4.84143144246472090e+00, -1.16032004402742839e+00, -1.03622044471123109e-01},
     {1.66007664274403694e-03 * DAYS, 7.69901118419740425e-03 * DAYS, -6.90460016972063023e-05 * DAYS},
     9.54791938424326609e-04 * SOLAR_MASS},
    {{8.34336671824457987e+00, 4.12479856412430479e+00, -4.03523417114321381e-01},
     {-2.76742510726411899e-03 * DAYS, 4.99852801234917238e-03 * DAYS, 2.30417297573763929e-05 * DAYS},
     2.85885980666130812e-04 * SOLAR_MASS},
    {{1.28943695621391310e+01, -1.51111514016986312e+01, -2.23307578892655734e-01},
     {2.96460137564761618e-03 * DAYS, 2.37847173959480950e-03 * DAYS, -2.96589568540237556e-05 * DAYS},
     4.36624404335156298e-05 * SOLAR_MASS},
    {{1.53796971148509165e+01, -2.59193146099879641e+01, 1.79258772950371181e-01},
     {2.68067772490389322e-03 * DAYS, 1.62824170038242295e-03 * DAYS, -9.51592254519715870e-05 * DAYS},
     5.15138902046611451e-05 * SOLAR_MASS},
};

static void offset_momentum(void) {
    for (int axis = 0; axis < 3; axis++) {
        double momentum = 0;
        for (int i = 0; i < BODIES; i++)
            momentum += bodies[i].velocity[axis] * bodies[i].mass;
        bodies[0].velocity[axis] = -momentum / SOLAR_MASS;
    }
}

static void advance(double step) {
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double distance[3], square = 0;
            for (int axis = 0; axis < 3; axis++) {
                distance[axis] = bodies[i].place[axis] - bodies[j].place[axis];
                square += distance[axis] * distance[axis];
            }
            double magnitude = step / (square * sqrt(square));
            for (int axis = 0; axis < 3; axis++) {
                bodies[i].velocity[axis] -= distance[axis] * bodies[j].mass * magnitude;
                bodies[j].velocity[axis] += distance[axis] * bodies[i].mass * magnitude;
            }
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int axis = 0; axis < 3; axis++)
            bodies[i].place[axis] += step * bodies[i].velocity[axis];
}

int main(int argc, char **argv) {
    uint32_t steps = size_argument(argc, argv);
    offset_momentum();
    for (uint32_t step = 0; step < steps; step++)
        advance(0.01);
    for (int i = 0; i < BODIES; i++)
        printf("%.9f %.9f %.9f\n", bodies[i].place[0], bodies[i].place[1], bodies[i].place[2]);
    return 0;
}

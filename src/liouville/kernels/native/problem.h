/* The problem of one call, in plain C: the Python side fills these structures (liouville/kernels/library.py).
 *
 * All arrays are row-major. States and costates are (batch, width) with a row stride and dense rows. Weights are
 * stacked over the layers with a stride per layer, 0 where all layers share one weight. Pointers to gradients may be
 * null: then they are not needed.
 */
#pragma once
#include <stdint.h>

enum lv_type { LV_FLOAT32 = 0, LV_FLOAT64 = 1 };
enum lv_outcome { LV_DONE = 0, LV_OUT_OF_MEMORY = 1 };
enum lv_activation { LV_TANH = 0, LV_RELU = 1 };

/* A velocity v(x) of widths rows x columns, by K (layers, rows, columns, taps) and b. */
enum lv_velocity_kind {
    LV_GRADIENT = 0,  /* v = K^T sigma(K x + b) */
    LV_PLAIN = 1,     /* v = sigma(K x + b)     */
    LV_TRANSPOSED = 2, /* v = sigma(K^T x + b)  */
    LV_TURNED = 3,    /* v = G^T sigma(K x + b) */
    LV_DRIFT = 4      /* v = x                  */
};

typedef struct {
    int64_t kind, rows, columns;
    const void *K, *b;
    int64_t K_stride, b_stride; /* from one layer to the next, in entries; 0: shared */
    void *K_gradient, *b_gradient;
} lv_velocity;

/* One part of the state (or of the costate): its input and output arrays. */
typedef struct {
    const void* in;
    int64_t in_stride; /* from one sample to the next */
    void* out;         /* (batch, width), dense rows; may be null */
} lv_array;

typedef struct {
    int64_t width;
    lv_array value, costate;
    lv_array grid;  /* exact runs only: the integers whose floating-point image is `value` */
    lv_array start; /* backward: the original first state, to measure the error of inversion; `in` may be null */
} lv_part;

/* Images: a sample is a pixel, and `batch` counts the pixels of all images. Weights are stencils of `taps` numbers, 1 or
 * 9 (3 x 3, zero padding). Arrays have the channels innermost, or outermost: then their stride is from one image to the
 * next, and an image's planes follow each other. Vectors, and pixels in separate rows: 0 throughout, taps 1. */
typedef struct {
    int64_t height, width, planes, taps;
} lv_image;

/* parts[moved] += factor * velocity[moved](parts[1 - moved]) */
typedef struct {
    int64_t moved;
    double factor;
} lv_stage;

typedef struct {
    int64_t type, activation, threads, batch, layers, stages;
    lv_part parts[2];
    lv_velocity velocities[2];
    lv_image image;
    const lv_stage* stage;
    /* exact runs: entries are integers times `spacing`, which must stay below `limit`; 0: ordinary floating point */
    double spacing, limit;
    int64_t left_range;  /* set to 1 where an entry or an increment reached the limit, or was not finite */
    uint64_t checksum;   /* sum of all integers of the first state (forward), or of the rebuilt one (backward) */
    double error, size; /* backward: largest difference of the rebuilt first state, and its largest entry */
} lv_shear_run;

/* Forward Euler: y += step * v(y) in every layer, v = sigma(K y + b) or v = G^T sigma(K y + b).
 *
 * weights[0] has K and b; weights[1] has G as its K, of the same shape, null where v has none. The state after every
 * `segment` layers goes to `kept` (all except the last state), and the backward pass runs each segment again from it. */
typedef struct {
    int64_t type, activation, threads, batch, layers, width, segment;
    double step;
    lv_array value, costate;
    lv_velocity weights[2];
    void* kept; /* ((layers - 1) / segment, batch, width); may be null in the forward pass: nothing is kept */
} lv_euler_run;

/* A row for every step and sample: at[step * time + sample * row], dense. */
typedef struct {
    const void* in;
    void* out;
    int64_t time, sample;
} lv_series;

/* A velocity of a sequence: one weight over time, and a bias that the inputs force,
 *
 *   b_t = b + W input_t.
 *
 * K (rows, columns), W (u, inputs) and b (u), with u = columns for LV_TRANSPOSED and rows elsewhere. W may be null, and
 * G where the formula has none; LV_DRIFT has no weights. */
typedef struct {
    int64_t kind, rows, columns;
    const void *K, *G, *b, *W;
    void *K_gradient, *G_gradient, *b_gradient, *W_gradient;
} lv_forced;

/* One part of the state over time. */
typedef struct {
    int64_t width;
    lv_array value;   /* forward: y_0 and y_T; backward: y_T, null where `output` has it */
    lv_array costate; /* of y_T, null where the final state has none; of y_0 */
    lv_array grid;    /* exact runs only: the integers of y_T, written forward and read backward */
    lv_array start;   /* backward: y_0 */
    lv_series output; /* y_1 ... y_T: written forward, where asked for; read backward, where they were kept */
    lv_series given;  /* backward: the costates of y_1 ... y_T; may be null */
} lv_traced;

/* A sequence: depth is time. In step t, for every stage in turn,
 *
 *   parts[moved] += factor * tau(t, sample) * velocity[moved](parts[source]),
 *
 * where the source is the other one of two parts, or the same one of a single part: forward Euler.
 *
 * The backward pass reads the states that were kept, all as `output` or every segment-th as `kept`, and else inverts
 * the shears, on the grid of `spacing` in exact runs. A single part cannot be inverted: it needs `output` or `kept`. */
typedef struct {
    int64_t type, activation, threads, batch, steps, stages, parts, inputs;
    lv_traced part[2];
    lv_forced velocity[2];
    const lv_stage* stage;
    const void* tau; /* the length of a step over h; null: 1 */
    int64_t tau_time, tau_sample;
    lv_series input;          /* its `out` gets the gradient, with the strides below */
    int64_t input_time, input_sample;
    int64_t segment;
    void* kept;               /* ((steps - 1) / segment, batch, width), for a single part; may be null */
    double spacing, limit;    /* as of shears; only where no `output` is kept */
    int64_t left_range;
    uint64_t checksum;
    double error, size;       /* by inversion, as of shears; exact, forward: size is the largest entry of all states */
} lv_sequence_run;

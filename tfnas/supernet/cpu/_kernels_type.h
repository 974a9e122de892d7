/* The kernels for one floating-point type and one instruction set: included by _kernels_level.h for each type.
 *
 * T is the type; NAME(kernel) the kernel's name for this type and level; EXP(x) the exponential in the type, and
 * RECIPROCAL(d) one over a number of at least 1. A kernel finds in its Call what its signature names.
 */

#define BLOCK 256 /* channels whose partial sums stay in cache */
#define CHUNK 64  /* rows that are summed in T before their sum is added to a double */
#define EACH_BLOCK(first, some) \
    for (size_t first = 0, some; first < channels && (some = channels - first < BLOCK ? channels - first : BLOCK); \
         first += BLOCK)
#define EACH_CHUNK(row, few) \
    for (size_t row = 0, few; row < rows && (few = rows - row < CHUNK ? rows - row : CHUNK); row += CHUNK)
/* Adds to `sums` (2, channels) what the statements add to first_sum[i] and second_sum[i] of a column i, whose number in
 * a row is number n of the matrix. */
#define ADD_COLUMNS(...)                                                  \
    T first_sum[BLOCK] = {0}, second_sum[BLOCK] = {0};                    \
    EACH_CHUNK(row, few)                                                  \
    EACH_BLOCK(first, some) {                                             \
        for (size_t r = row; r < row + few; r++)                          \
            INDEPENDENT for (size_t i = 0; i < some; i++) {               \
                const size_t n = r * channels + first + i;                \
                __VA_ARGS__                                               \
            }                                                             \
        NAME(flush)(first_sum, sums + first, some);                       \
        NAME(flush)(second_sum, sums + channels + first, some);           \
    }

static ALWAYS T NAME(sigmoid)(T x) { return RECIPROCAL(1 + EXP(-x)); }

static ALWAYS T NAME(activated)(int relu, T x) { return relu ? (x < 0 ? 0 : x) : x * NAME(sigmoid)(x); }

static ALWAYS T NAME(slope)(int relu, T x) {
    if (relu)
        return x > 0 ? 1 : 0;
    T s = NAME(sigmoid)(x);
    return s + x * s * (1 - s);
}

static ALWAYS void NAME(flush)(T *restrict part, double *restrict whole, size_t count) {
    for (size_t i = 0; i < count; i++) {
        whole[i] += part[i];
        part[i] = 0;
    }
}

static ALWAYS void NAME(activate_as)(int relu, const T *x, T *y, size_t rows, size_t columns, size_t stride) {
    if (stride == columns) { /* no gaps: one long row */
        columns *= rows;
        rows = 1;
    }
    for (size_t r = 0; r < rows; r++, x += columns, y += stride)
        INDEPENDENT for (size_t i = 0; i < columns; i++) y[i] = NAME(activated)(relu, x[i]);
}

/* y = x activated; the rows of y may have gaps between them. */
static void NAME(activate)(const Call *c) {
    const T *x = c->tensor[0];
    T *y = c->tensor[1];
    const size_t columns = SIZE(C);
    PARTS(SIZE(R), SPECIALIZED(activate_as, x + begin * columns, y + begin * c->row_stride, end - begin, columns,
                               c->row_stride))
}

static ALWAYS void NAME(gradient_as)(int relu, const T *g, const T *x, T *y, double *sums, size_t rows,
                                     size_t channels) {
    ADD_COLUMNS({
        T v = g[n] * NAME(slope)(relu, x[n]), value = x[n];
        y[n] = v;
        first_sum[i] += v;
        second_sum[i] += v * value;
    })
}

/* y = g times the activation's slope at x; adds the column sums of y and of y x. y may be g. */
static void NAME(activation_gradient)(const Call *c) {
    const T *g = c->tensor[0], *x = c->tensor[1];
    T *y = c->tensor[2];
    double *sums = c->tensor[3];
    const size_t channels = SIZE(C);
    PARTS_WITH_SUMS(SIZE(R), SPECIALIZED(gradient_as, g + begin * channels, x + begin * channels, y + begin * channels,
                                         own, end - begin, channels))
}

static ALWAYS void NAME(sums_of_some)(const T *g, const T *x, double *sums, size_t rows, size_t channels) {
    ADD_COLUMNS({
        first_sum[i] += g[n];
        second_sum[i] += g[n] * x[n];
    })
}

/* Adds the column sums of g and of g x. */
static void NAME(column_sums)(const Call *c) {
    const T *g = c->tensor[0], *x = c->tensor[1];
    double *sums = c->tensor[2];
    const size_t channels = SIZE(C);
    PARTS_WITH_SUMS(SIZE(R),
                    NAME(sums_of_some)(g + begin * channels, x + begin * channels, own, end - begin, channels);)
}

static ALWAYS void NAME(squares_of_some)(const T *x, const T *centre, double *sums, size_t rows, size_t channels) {
    ADD_COLUMNS({
        T v = x[n] - centre[first + i];
        first_sum[i] += v;
        second_sum[i] += v * v;
    })
}

/* Mean and 1 / standard deviation of the columns; sums are taken about the first row, against cancellation. */
static void NAME(statistics)(const Call *c) {
    const T *x = c->tensor[0];
    double *sums = c->tensor[1];
    T *mean = c->tensor[2], *scale = c->tensor[3];
    const size_t rows = SIZE(R), channels = SIZE(C);
    PARTS_WITH_SUMS(rows, NAME(squares_of_some)(x + begin * channels, x, own, end - begin, channels);)
    for (size_t i = 0; i < channels; i++) {
        double m = sums[i] / rows, v = sums[channels + i] / rows - m * m;
        mean[i] = (T)((rows > 0 ? x[i] : 0) + m);
        scale[i] = (T)(1 / sqrt((v < 0 ? 0 : v) + c->real));
    }
}

/* x = (x - mean) scale */
static void NAME(normalize)(const Call *c) {
    T *x = c->tensor[0];
    const T *restrict mean = c->tensor[1], *restrict scale = c->tensor[2];
    const size_t channels = SIZE(C);
    PARTS(SIZE(R), {
        for (size_t r = begin; r < end; r++) {
            T *xr = x + r * channels;
            INDEPENDENT for (size_t i = 0; i < channels; i++) xr[i] = (xr[i] - mean[i]) * scale[i];
        }
    })
}

static ALWAYS void NAME(normalize_as)(int relu, T *x, const T *restrict mean, const T *restrict scale, T *y,
                                      size_t rows, size_t channels) {
    for (size_t r = 0; r < rows; r++, x += channels, y += channels)
        INDEPENDENT for (size_t i = 0; i < channels; i++) {
            T v = (x[i] - mean[i]) * scale[i];
            x[i] = v;
            y[i] = NAME(activated)(relu, v);
        }
}

/* The same, and y that activated. */
static void NAME(normalize_and_activate)(const Call *c) {
    T *x = c->tensor[0], *y = c->tensor[3];
    const T *mean = c->tensor[1], *scale = c->tensor[2];
    const size_t channels = SIZE(C);
    PARTS(SIZE(R), SPECIALIZED(normalize_as, x + begin * channels, mean, scale, y + begin * channels, end - begin,
                               channels))
}

static ALWAYS void NAME(gradient_of_some)(const T *g, const T *x, const T *scale, const double *sums, double count,
                                          T *y, size_t rows, size_t channels) {
    T s[BLOCK], a[BLOCK], b[BLOCK];
    EACH_BLOCK(first, some) {
        for (size_t i = 0; i < some; i++) {
            s[i] = scale[first + i];
            a[i] = (T)(scale[first + i] * (sums[first + i] / count));
            b[i] = (T)(scale[first + i] * (sums[channels + first + i] / count));
        }
        for (size_t r = 0; r < rows; r++) {
            const T *gr = g + r * channels + first, *xr = x + r * channels + first;
            T *yr = y + r * channels + first;
            INDEPENDENT for (size_t i = 0; i < some; i++) yr[i] = gr[i] * s[i] - a[i] - xr[i] * b[i];
        }
    }
}

/* y = (g - of_g / count - x of_gx / count) scale: back through batch norm, x being its output. y may be g. */
static void NAME(normalization_gradient)(const Call *c) {
    const T *g = c->tensor[0], *x = c->tensor[1], *scale = c->tensor[2];
    const double *sums = c->tensor[3];
    T *y = c->tensor[4];
    const size_t channels = SIZE(C);
    PARTS(SIZE(R), NAME(gradient_of_some)(g + begin * channels, x + begin * channels, scale, sums, c->real,
                                          y + begin * channels, end - begin, channels);)
}

/* Means of x over each image's pixels. */
static void NAME(image_means)(const Call *c) {
    const T *x = c->tensor[0];
    T *means = c->tensor[1];
    const size_t pixels = SIZE(P), channels = SIZE(C);
    PARTS(SIZE(I), {
        for (size_t image = begin; image < end; image++) {
            T *restrict mean = means + image * channels;
            memset(mean, 0, channels * sizeof(T));
            for (size_t p = image * pixels; p < (image + 1) * pixels; p++)
                for (size_t i = 0; i < channels; i++) mean[i] += x[p * channels + i];
            for (size_t i = 0; i < channels; i++) mean[i] /= (T)pixels;
        }
    })
}

/* x times its image's gates. */
static void NAME(excite)(const Call *c) {
    T *x = c->tensor[0];
    const T *gates = c->tensor[1];
    const size_t pixels = SIZE(P), channels = SIZE(C);
    PARTS(SIZE(I), {
        for (size_t image = begin; image < end; image++) {
            const T *restrict gate = gates + image * channels;
            for (size_t p = image * pixels; p < (image + 1) * pixels; p++)
                for (size_t i = 0; i < channels; i++) x[p * channels + i] *= gate[i];
        }
    })
}

static ALWAYS void NAME(gate_as)(int relu, const T *g, const T *x, T *restrict to_gates, size_t images, size_t pixels,
                                 size_t channels) {
    for (size_t image = 0; image < images; image++, to_gates += channels) {
        memset(to_gates, 0, channels * sizeof(T));
        for (size_t p = 0; p < pixels; p++, g += channels, x += channels)
            for (size_t i = 0; i < channels; i++) to_gates[i] += g[i] * NAME(activated)(relu, x[i]);
    }
}

/* Sums over each image's pixels of g times x activated: the gradient of its gates. */
static void NAME(gate_gradient)(const Call *c) {
    const T *g = c->tensor[0], *x = c->tensor[1];
    T *to_gates = c->tensor[2];
    const size_t pixels = SIZE(P), channels = SIZE(C), image = pixels * channels;
    PARTS(SIZE(I), SPECIALIZED(gate_as, g + begin * image, x + begin * image, to_gates + begin * channels, end - begin,
                               pixels, channels))
}

static ALWAYS void NAME(excitation_as)(int relu, const T *g, const T *x, const T *gates, const T *shifts, T *y,
                                       double *sums, size_t images, size_t pixels, size_t channels) {
    T of_y[BLOCK] = {0}, of_yx[BLOCK] = {0};
    for (size_t image = 0; image < images; image++, gates += channels, shifts += channels)
        EACH_BLOCK(first, some) {
            const T *restrict gate = gates + first, *restrict shift = shifts + first;
            for (size_t r = image * pixels; r < (image + 1) * pixels; r++) {
                const T *gr = g + r * channels + first, *xr = x + r * channels + first;
                T *yr = y + r * channels + first;
                INDEPENDENT for (size_t i = 0; i < some; i++) {
                    T value = xr[i], v = (gr[i] * gate[i] + shift[i]) * NAME(slope)(relu, value);
                    yr[i] = v;
                    of_y[i] += v;
                    of_yx[i] += v * value;
                }
            }
            NAME(flush)(of_y, sums + first, some);
            NAME(flush)(of_yx, sums + channels + first, some);
        }
}

/* y = (g gate + shift) times the activation's slope at x, gate and shift being each image's; adds the column sums of y
 * and of y x. y may be g. */
static void NAME(excitation_gradient)(const Call *c) {
    const T *g = c->tensor[0], *x = c->tensor[1], *gates = c->tensor[2], *shifts = c->tensor[3];
    T *y = c->tensor[4];
    double *sums = c->tensor[5];
    const size_t pixels = SIZE(P), channels = SIZE(C), image = pixels * channels;
    PARTS_WITH_SUMS(SIZE(I), SPECIALIZED(excitation_as, g + begin * image, x + begin * image, gates + begin * channels,
                                         shifts + begin * channels, y + begin * image, own, end - begin, pixels,
                                         channels))
}

#undef BLOCK
#undef CHUNK
#undef EACH_BLOCK
#undef EACH_CHUNK
#undef ADD_COLUMNS

/* The loops for one type of number and one kind of processor: included by _loops.c once for each.
 *
 * T is the type; NAME(loop) the loop's name for this type and processor; EXP(x) the exponential in the type, and
 * RECIPROCAL(d) one over a number of at least 1.
 */

#define BLOCK 256 /* channels whose sums are near at a time */
#define CHUNK 64  /* rows that are summed in T before their sum goes to a double */
#define EACH_BLOCK(first, some) \
    for (size_t first = 0, some; first < channels && (some = channels - first < BLOCK ? channels - first : BLOCK); \
         first += BLOCK)
#define EACH_CHUNK(row, few) \
    for (size_t row = 0, few; row < rows && (few = rows - row < CHUNK ? rows - row : CHUNK); row += CHUNK)

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

static ALWAYS void NAME(activate_as)(int relu, const T *x, T *y, size_t count) {
    INDEPENDENT for (size_t i = 0; i < count; i++) y[i] = NAME(activated)(relu, x[i]);
}

static ALWAYS void NAME(activate_runs)(int relu, const T *x, T *y, size_t begin, size_t end, size_t run, size_t step) {
    if (step == run)
        NAME(activate_as)(relu, x + begin * run, y + begin * run, (end - begin) * run);
    else
        for (size_t r = begin; r < end; r++) NAME(activate_as)(relu, x + r * run, y + r * step, run);
}

/* y is x activated: runs of so many numbers each, which begin `step` numbers apart in y. */
static void NAME(activate)(size_t threads, int relu, const T *x, T *y, size_t runs, size_t run, size_t step) {
    PARTS(runs, {
        if (relu)
            NAME(activate_runs)(1, x, y, begin, end, run, step);
        else
            NAME(activate_runs)(0, x, y, begin, end, run, step);
    })
}
LOOP(activate, 7, a[0].size, a[1].size, a[2].address, a[3].address, a[4].size, a[5].size, a[6].size)

static ALWAYS void NAME(gradient_as)(int relu, const T *g, const T *x, T *y, double *sums, size_t rows,
                                     size_t channels) {
    T of_g[BLOCK] = {0}, of_gx[BLOCK] = {0};
    EACH_CHUNK(row, few) {
        EACH_BLOCK(first, some) {
            for (size_t r = row; r < row + few; r++) {
                const T *gr = g + r * channels + first, *xr = x + r * channels + first;
                T *yr = y + r * channels + first;
                INDEPENDENT for (size_t i = 0; i < some; i++) {
                    T v = gr[i] * NAME(slope)(relu, xr[i]), value = xr[i];
                    yr[i] = v;
                    of_g[i] += v;
                    of_gx[i] += v * value;
                }
            }
            NAME(flush)(of_g, sums + first, some);
            NAME(flush)(of_gx, sums + channels + first, some);
        }
    }
}

/* y = g times the activation's slope at x; adds the columns' sums of y and of y x. y may be g. */
static void NAME(activation_gradient)(size_t threads, int relu, const T *g, const T *x, T *y, double *sums,
                                      size_t rows, size_t channels) {
    PARTS_WITH_SUMS(rows, {
        const size_t at = begin * channels;
        if (relu)
            NAME(gradient_as)(1, g + at, x + at, y + at, own, end - begin, channels);
        else
            NAME(gradient_as)(0, g + at, x + at, y + at, own, end - begin, channels);
    })
}
LOOP(activation_gradient, 8, a[0].size, a[1].size, a[2].address, a[3].address, a[4].address, a[5].address, a[6].size,
     a[7].size)

static void NAME(sums_of_some)(const T *g, const T *x, double *sums, size_t rows, size_t channels) {
    T of_g[BLOCK] = {0}, of_gx[BLOCK] = {0};
    EACH_CHUNK(row, few) {
        EACH_BLOCK(first, some) {
            for (size_t r = row; r < row + few; r++) {
                const T *gr = g + r * channels + first, *xr = x + r * channels + first;
                for (size_t i = 0; i < some; i++) {
                    of_g[i] += gr[i];
                    of_gx[i] += gr[i] * xr[i];
                }
            }
            NAME(flush)(of_g, sums + first, some);
            NAME(flush)(of_gx, sums + channels + first, some);
        }
    }
}

/* Adds the columns' sums of g and of g x. */
static void NAME(column_sums)(size_t threads, const T *g, const T *x, double *sums, size_t rows, size_t channels) {
    PARTS_WITH_SUMS(rows, {
        NAME(sums_of_some)(g + begin * channels, x + begin * channels, own, end - begin, channels);
    })
}
LOOP(column_sums, 6, a[0].size, a[1].address, a[2].address, a[3].address, a[4].size, a[5].size)

static void NAME(squares_of_some)(const T *x, const T *centre, double *sums, size_t rows, size_t channels) {
    T of_x[BLOCK] = {0}, of_xx[BLOCK] = {0};
    EACH_CHUNK(row, few) {
        EACH_BLOCK(first, some) {
            const T *restrict about = centre + first;
            for (size_t r = row; r < row + few; r++) {
                const T *xr = x + r * channels + first;
                for (size_t i = 0; i < some; i++) {
                    T v = xr[i] - about[i];
                    of_x[i] += v;
                    of_xx[i] += v * v;
                }
            }
            NAME(flush)(of_x, sums + first, some);
            NAME(flush)(of_xx, sums + channels + first, some);
        }
    }
}

/* Mean and 1 / standard deviation of the columns; sums are taken about the first row, against cancellation. */
static void NAME(statistics)(size_t threads, const T *x, double eps, double *sums, T *mean, T *scale, size_t rows,
                             size_t channels) {
    PARTS_WITH_SUMS(rows, { NAME(squares_of_some)(x + begin * channels, x, own, end - begin, channels); })
    for (size_t i = 0; i < channels; i++) {
        double m = sums[i] / rows, v = sums[channels + i] / rows - m * m;
        mean[i] = (T)(x[i] + m);
        scale[i] = (T)(1 / sqrt((v < 0 ? 0 : v) + eps));
    }
}
LOOP(statistics, 8, a[0].size, a[1].address, a[2].real, a[3].address, a[4].address, a[5].address, a[6].size, a[7].size)

/* x = (x - mean) scale */
static void NAME(normalize)(size_t threads, T *x, const T *restrict mean, const T *restrict scale, size_t rows,
                            size_t channels) {
    PARTS(rows, {
        for (size_t r = begin; r < end; r++) {
            T *xr = x + r * channels;
            INDEPENDENT for (size_t i = 0; i < channels; i++) xr[i] = (xr[i] - mean[i]) * scale[i];
        }
    })
}
LOOP(normalize, 6, a[0].size, a[1].address, a[2].address, a[3].address, a[4].size, a[5].size)

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
static void NAME(normalize_and_activate)(size_t threads, int relu, T *x, const T *mean, const T *scale, T *y,
                                         size_t rows, size_t channels) {
    PARTS(rows, {
        const size_t at = begin * channels;
        if (relu)
            NAME(normalize_as)(1, x + at, mean, scale, y + at, end - begin, channels);
        else
            NAME(normalize_as)(0, x + at, mean, scale, y + at, end - begin, channels);
    })
}
LOOP(normalize_and_activate, 8, a[0].size, a[1].size, a[2].address, a[3].address, a[4].address, a[5].address, a[6].size,
     a[7].size)

static void NAME(gradient_of_some)(const T *g, const T *x, const T *scale, const double *sums, size_t count, T *y,
                                   size_t begin, size_t end, size_t channels) {
    T s[BLOCK], a[BLOCK], b[BLOCK];
    EACH_BLOCK(first, some) {
        for (size_t i = 0; i < some; i++) {
            s[i] = scale[first + i];
            a[i] = (T)(scale[first + i] * (sums[first + i] / (double)count));
            b[i] = (T)(scale[first + i] * (sums[channels + first + i] / (double)count));
        }
        for (size_t r = begin; r < end; r++) {
            const T *gr = g + r * channels + first, *xr = x + r * channels + first;
            T *yr = y + r * channels + first;
            INDEPENDENT for (size_t i = 0; i < some; i++) yr[i] = gr[i] * s[i] - a[i] - xr[i] * b[i];
        }
    }
}

/* y = (g - of_g / count - x of_gx / count) scale: back through batch norm, x being its output. y may be g. */
static void NAME(normalization_gradient)(size_t threads, const T *g, const T *x, const T *scale, const double *sums,
                                         size_t count, T *y, size_t rows, size_t channels) {
    PARTS(rows, { NAME(gradient_of_some)(g, x, scale, sums, count, y, begin, end, channels); })
}
LOOP(normalization_gradient, 9, a[0].size, a[1].address, a[2].address, a[3].address, a[4].address, a[5].size,
     a[6].address, a[7].size, a[8].size)

/* Means of x over each image's pixels. */
static void NAME(image_means)(size_t threads, const T *x, T *means, size_t images, size_t pixels, size_t channels) {
    PARTS(images, {
        for (size_t image = begin; image < end; image++) {
            T *restrict mean = means + image * channels;
            memset(mean, 0, channels * sizeof(T));
            for (size_t p = image * pixels; p < (image + 1) * pixels; p++)
                for (size_t i = 0; i < channels; i++) mean[i] += x[p * channels + i];
            for (size_t i = 0; i < channels; i++) mean[i] /= (T)pixels;
        }
    })
}
LOOP(image_means, 6, a[0].size, a[1].address, a[2].address, a[3].size, a[4].size, a[5].size)

/* x times its image's gates. */
static void NAME(excite)(size_t threads, T *x, const T *gates, size_t images, size_t pixels, size_t channels) {
    PARTS(images, {
        for (size_t image = begin; image < end; image++) {
            const T *restrict gate = gates + image * channels;
            for (size_t p = image * pixels; p < (image + 1) * pixels; p++)
                for (size_t i = 0; i < channels; i++) x[p * channels + i] *= gate[i];
        }
    })
}
LOOP(excite, 6, a[0].size, a[1].address, a[2].address, a[3].size, a[4].size, a[5].size)

static ALWAYS void NAME(gate_as)(int relu, const T *g, const T *x, T *restrict found, size_t images, size_t pixels,
                                 size_t channels) {
    for (size_t image = 0; image < images; image++, found += channels) {
        memset(found, 0, channels * sizeof(T));
        for (size_t p = 0; p < pixels; p++, g += channels, x += channels)
            for (size_t i = 0; i < channels; i++) found[i] += g[i] * NAME(activated)(relu, x[i]);
    }
}

/* Sums over each image's pixels of g times x activated: the gradient of its gates. */
static void NAME(gate_gradient)(size_t threads, int relu, const T *g, const T *x, T *found, size_t images,
                                size_t pixels, size_t channels) {
    PARTS(images, {
        const size_t at = begin * pixels * channels;
        if (relu)
            NAME(gate_as)(1, g + at, x + at, found + begin * channels, end - begin, pixels, channels);
        else
            NAME(gate_as)(0, g + at, x + at, found + begin * channels, end - begin, pixels, channels);
    })
}
LOOP(gate_gradient, 8, a[0].size, a[1].size, a[2].address, a[3].address, a[4].address, a[5].size, a[6].size, a[7].size)

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

/* y = (g gate + shift) times the activation's slope at x, gate and shift being each image's; adds the columns' sums
 * of y and of y x. */
static void NAME(excitation_gradient)(size_t threads, int relu, const T *g, const T *x, const T *gates,
                                      const T *shifts, T *y, double *sums, size_t images, size_t pixels,
                                      size_t channels) {
    PARTS_WITH_SUMS(images, {
        const size_t at = begin * pixels * channels, of = begin * channels;
        if (relu)
            NAME(excitation_as)(1, g + at, x + at, gates + of, shifts + of, y + at, own, end - begin, pixels, channels);
        else
            NAME(excitation_as)(0, g + at, x + at, gates + of, shifts + of, y + at, own, end - begin, pixels, channels);
    })
}
LOOP(excitation_gradient, 11, a[0].size, a[1].size, a[2].address, a[3].address, a[4].address, a[5].address,
     a[6].address, a[7].address, a[8].size, a[9].size, a[10].size)

static ALWAYS void NAME(move)(T *p, T *m, T g, T rate, T momentum, T decay) {
    *m = *m * momentum + g + *p * decay;
    *p -= rate * *m;
}

/* SGD with momentum and weight decay for a parameter (outer, size, inner); entries along `size` that are not in use (0)
 * rest, as does their momentum. */
static void NAME(update)(size_t threads, T *p, T *m, const T *g, const uint8_t *in_use, double rate, double momentum,
                         double decay, size_t outer, size_t size, size_t inner) {
    const T by = (T)rate, kept = (T)momentum, wd = (T)decay;
    if (inner > 1)
        PARTS(outer * size, {
            for (size_t r = begin; r < end; r++)
                if (in_use[r % size])
                    INDEPENDENT for (size_t i = r * inner; i < (r + 1) * inner; i++)
                        NAME(move)(p + i, m + i, g[i], by, kept, wd);
        })
    else
        PARTS(outer, {
            for (size_t o = begin; o < end; o++)
                for (size_t k = 0; k < size; k++)
                    if (in_use[k])
                        NAME(move)(p + o * size + k, m + o * size + k, g[o * size + k], by, kept, wd);
        })
}
LOOP(update, 11, a[0].size, a[1].address, a[2].address, a[3].address, a[4].address, a[5].real, a[6].real, a[7].real,
     a[8].size, a[9].size, a[10].size)

/* y (outer, count, inner): the entries of x (outer, size, inner) at these places along `size`. */
static void NAME(gather)(size_t threads, const T *x, const int64_t *places, T *y, size_t outer, size_t size,
                         size_t inner, size_t count) {
    if (inner > 1)
        PARTS(outer * count, {
            for (size_t r = begin; r < end; r++)
                memcpy(y + r * inner, x + (r / count * size + places[r % count]) * inner, inner * sizeof(T));
        })
    else
        PARTS(outer, {
            for (size_t o = begin; o < end; o++)
                for (size_t k = 0; k < count; k++) y[o * count + k] = x[o * size + places[k]];
        })
}
LOOP(gather, 8, a[0].size, a[1].address, a[2].address, a[3].address, a[4].size, a[5].size, a[6].size, a[7].size)

/* The other way: y (outer, size, inner) with zeros where nothing of x (outer, count, inner) belongs. */
static void NAME(scatter)(size_t threads, const T *x, const int64_t *places, T *y, size_t outer, size_t size,
                          size_t inner, size_t count) {
    PARTS(outer * size, { memset(y + begin * inner, 0, (end - begin) * inner * sizeof(T)); })
    if (inner > 1)
        PARTS(outer * count, {
            for (size_t r = begin; r < end; r++)
                memcpy(y + (r / count * size + places[r % count]) * inner, x + r * inner, inner * sizeof(T));
        })
    else
        PARTS(outer, {
            for (size_t o = begin; o < end; o++)
                for (size_t k = 0; k < count; k++) y[o * size + places[k]] = x[o * count + k];
        })
}
LOOP(scatter, 8, a[0].size, a[1].address, a[2].address, a[3].address, a[4].size, a[5].size, a[6].size, a[7].size)

#undef BLOCK
#undef CHUNK
#undef EACH_BLOCK
#undef EACH_CHUNK

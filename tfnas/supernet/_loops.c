/* Loops over rows (pixels x channels) that do in one pass what takes PyTorch several operators: arithmetic.py
 * has what each computes, and does the same without this module. Addresses and sizes are not checked here.
 *
 * Every loop is there for float and double, and on x86 for three kinds of processor, of which the best is taken when
 * the module is loaded. Python gives addresses and sizes as whole numbers; the interpreter's lock is released meanwhile.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALWAYS inline __attribute__((always_inline, unused))
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#if defined(_OPENMP)
#define PARALLEL _Pragma("omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)")
#else
#define PARALLEL
#endif

/* exp(x) of float, to about one unit in the last place between -87 and 87, beyond these as there: 2 to a whole number
 * times a Taylor polynomial of what remains, at most ln(2) / 2. Loops with it compute several numbers at once. */
static ALWAYS float exponential(float x) {
    const float shift = 12582912.f; /* 1.5 times 2 to 23: adding it rounds to a whole number, in the lowest bits */
    x = x < -87.f ? -87.f : x;
    x = x > 87.f ? 87.f : x;
    float n = x * 1.44269504f + shift;
    uint32_t whole;
    memcpy(&whole, &n, sizeof n);
    n -= shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first exact */
    float p = 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + .5f;
    p = p * r + 1.f;
    p = p * r + 1.f;
    uint32_t bits;
    memcpy(&bits, &p, sizeof p);
    bits += whole << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* 1 / d of float between 1 and 2 to 126: a guess from the exponent's bits, three times made better (Newton), which
 * takes a quarter of a division's time. */
static ALWAYS float reciprocal(float d) {
    uint32_t bits;
    memcpy(&bits, &d, sizeof d);
    bits = 0x7EF311C7u - bits;
    float y;
    memcpy(&y, &bits, sizeof y);
    y *= 2.f - d * y;
    y *= 2.f - d * y;
    y *= 2.f - d * y;
    return y;
}

static ALWAYS double divided(double d) { return 1 / d; }

#define JOINED(loop, type, level) loop##_##type##_##level
#define JOIN(loop, type, level) JOINED(loop, type, level)
#define NAME(loop) JOIN(loop, T, LEVEL)
#define TEXT_OF(level) #level
#define TEXT(level) TEXT_OF(level)
#define LEVEL_NAME TEXT(LEVEL)
#define METHODS_JOINED(level) methods_##level
#define METHODS_JOIN(level) METHODS_JOINED(level)
#define METHODS METHODS_JOIN(LEVEL)

/* What Python gives: an address, a size or a real number. */
typedef union {
    void *address;
    size_t size;
    double real;
} Argument;

static int taken(PyObject *const *given, Py_ssize_t number, Argument *arguments, Py_ssize_t wanted) {
    if (number != wanted) {
        PyErr_Format(PyExc_TypeError, "the loop takes %zd arguments, got %zd", wanted, number);
        return 0;
    }
    for (Py_ssize_t i = 0; i < number; i++)
        if (PyFloat_Check(given[i]))
            arguments[i].real = PyFloat_AsDouble(given[i]);
        else
            arguments[i].size = PyLong_AsSize_t(given[i]);
    return !PyErr_Occurred();
}

#define LOOP(loop, wanted, ...)                                                                        \
    static PyObject *NAME(call_##loop)(PyObject * module, PyObject *const *given, Py_ssize_t number) { \
        Argument a[wanted];                                                                            \
        (void)module;                                                                                  \
        if (!taken(given, number, a, wanted))                                                          \
            return NULL;                                                                               \
        Py_BEGIN_ALLOW_THREADS NAME(loop)(__VA_ARGS__);                                                \
        Py_END_ALLOW_THREADS Py_RETURN_NONE;                                                           \
    }

/* What is done of [0, total) by each of the `threads`, from `begin` to `end`. */
#define PARTS(total, ...)                                                                          \
    PARALLEL for (size_t part = 0; part < threads; part++) {                                       \
        const size_t begin = (total) * part / threads, end = (total) * (part + 1) / threads;       \
        __VA_ARGS__                                                                                \
    }

/* The same with sums (2, channels), each part's its `own`, which are added in the parts' order. */
#define PARTS_WITH_SUMS(total, ...)                                                                \
    {                                                                                              \
        double *room = threads > 1 ? calloc(threads, 2 * channels * sizeof *room) : NULL;          \
        if (room == NULL)                                                                          \
            threads = 1;                                                                           \
        PARTS(total, double *own = room == NULL ? sums : room + part * 2 * channels; __VA_ARGS__)  \
        for (size_t i = 0; room != NULL && i < threads * 2 * channels; i++)                        \
            sums[i % (2 * channels)] += room[i];                                                   \
        free(room);                                                                                \
    }

#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__clang__)
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#define WIDE /* vectors of 512 bits, which the features alone do not ask for */
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#define WIDE ",prefer-vector-width=512"
#endif

#define LEVEL plain
#include "_loops_of_processor.h"
#undef LEVEL

#if defined(__x86_64__)
#define LEVEL avx2
BEGIN_TARGET("avx2,fma")
#include "_loops_of_processor.h"
END_TARGET
#undef LEVEL

#define LEVEL avx512
BEGIN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,fma" WIDE)
#include "_loops_of_processor.h"
END_TARGET
#undef LEVEL
#endif

/* The kinds of processor whose loops run on this one, the best last. */
static const char *levels(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return "plain";
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
        return "plain avx2";
    return "plain avx2 avx512";
#else
    return "plain";
#endif
}

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_loops", .m_size = 0};

PyMODINIT_FUNC PyInit__loops(void) {
    PyObject *module = PyModule_Create(&definition);
#if defined(_OPENMP)
    const int parallel = 1;
#else
    const int parallel = 0;
#endif
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntConstant(module, "PARALLEL", parallel) == 0 &&
        PyModule_AddStringConstant(module, "LEVELS", levels()) == 0 && PyModule_AddFunctions(module, methods_plain) == 0
#if defined(__x86_64__)
        && PyModule_AddFunctions(module, methods_avx2) == 0 && PyModule_AddFunctions(module, methods_avx512) == 0
#endif
    )
        return module;
    Py_DECREF(module);
    return NULL;
}

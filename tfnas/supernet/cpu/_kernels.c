/* Kernels over rows (pixels x channels) that do in one pass what takes PyTorch several operators: row_ops.py has what
 * each computes, and does the same without this module.
 *
 * Every kernel is there for float and double, and on x86 for three instruction sets. Python passes tensors as DLPack
 * capsules to the one entry, `run`, which verifies each against the kernel's signature before anything is computed. The
 * interpreter's lock is released meanwhile.
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

#define MAX_THREADS 1024
#if defined(_OPENMP)
#define HAS_THREADS 1
#define PARALLEL _Pragma("omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)")
#else
#define HAS_THREADS 0
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

#define JOINED(kernel, type, level) kernel##_##type##_##level
#define JOIN(kernel, type, level) JOINED(kernel, type, level)
#define NAME(kernel) JOIN(kernel, T, LEVEL)
#define TABLE(level) kernels_##level
#define TABLE_OF(level) TABLE(level)
#define KERNELS TABLE_OF(LEVEL)

/* One call of a kernel, its arguments verified: tensors in their order, and the sizes of their dimensions. */
typedef struct {
    size_t threads;
    int relu;
    double real;
    void *tensor[6];
    size_t size[26];   /* by the letter of the signature, UNKNOWN until a tensor has it */
    size_t row_stride; /* of the tensor whose rows may have gaps between them */
    int bits;          /* of T, 0 while it is not known */
} Call;
#define UNKNOWN SIZE_MAX
#define SIZE(letter) c->size[#letter[0] - 'A']

/* A signature has a word for each argument: i is 0 or 1, r a real number, and a tensor is its type (T, or D for double),
 * a colon and its dimensions. A letter is the same size wherever it stands. Tensors have no gaps; with | at the end the
 * rows of a matrix may be apart. */
typedef struct {
    const char *name, *signature;
    void (*function[2])(const Call *);
} Kernel;

/* With a constant in place of `relu`, the compiler makes a loop of its own for each activation. */
#define SPECIALIZED(function, ...)          \
    if (c->relu)                            \
        NAME(function)(1, __VA_ARGS__);     \
    else                                    \
        NAME(function)(0, __VA_ARGS__);

/* What is done of [0, total) by each of the threads, from `begin` to `end`. */
#define SHARES(total, ...)                                                                         \
    PARALLEL for (size_t part = 0; part < threads; part++) {                                       \
        const size_t begin = (total) * part / threads, end = (total) * (part + 1) / threads;       \
        __VA_ARGS__                                                                                \
    }
#define PARTS(total, ...)                  \
    {                                      \
        const size_t threads = c->threads; \
        SHARES(total, __VA_ARGS__)         \
    }

/* The same with `sums` (2, channels): each share adds to its `own`, and these are added in the shares' order. */
#define PARTS_WITH_SUMS(total, ...)                                                                \
    {                                                                                              \
        size_t threads = c->threads;                                                               \
        double *partial = threads > 1 ? calloc(threads, 2 * channels * sizeof *partial) : NULL;    \
        if (partial == NULL)                                                                       \
            threads = 1;                                                                           \
        SHARES(total, double *own = partial == NULL ? sums : partial + part * 2 * channels; __VA_ARGS__) \
        for (size_t i = 0; partial != NULL && i < threads * 2 * channels; i++)                     \
            sums[i % (2 * channels)] += partial[i];                                                \
        free(partial);                                                                             \
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
#include "_kernels_level.h"
#undef LEVEL

#if defined(__x86_64__)
#define LEVEL avx2
BEGIN_TARGET("avx2,fma")
#include "_kernels_level.h"
END_TARGET
#undef LEVEL

#define LEVEL avx512
BEGIN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,fma" WIDE)
#include "_kernels_level.h"
END_TARGET
#undef LEVEL
#endif

/* How many of TABLES run on this processor, the best last. */
static int usable_levels(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
        return 2;
    return 3;
#else
    return 1;
#endif
}

static const Kernel *const TABLES[] = {
    kernels_plain,
#if defined(__x86_64__)
    kernels_avx2,
    kernels_avx512,
#endif
};
static const int NUM_KERNELS = sizeof kernels_plain / sizeof *kernels_plain;

/* What a DLPack capsule of a tensor holds (dlpack.h, before version 1): the tensor's own description of its memory. */
typedef struct {
    void *data;
    struct {
        int32_t type, number;
    } device;
    int32_t dimensions;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } type;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} Tensor;
enum { CPU = 1, FLOAT = 2 };

/* Why a tensor does not fit its word of a signature, or NULL; into `call` what the word tells of it. */
static const char *misfit(Call *call, int number, const Tensor *tensor, const char *word) {
    const size_t length_of_word = strcspn(word, " ");
    const int row_gaps = word[length_of_word - 1] == '|', dimensions = (int)length_of_word - 2 - row_gaps;
    int *bits = word[0] == 'T' ? &call->bits : &(int){64};
    if (tensor->device.type != CPU)
        return "it is not on the CPU";
    if (*bits == 0 && (tensor->type.bits == 32 || tensor->type.bits == 64))
        *bits = tensor->type.bits;
    if (tensor->type.code != FLOAT || tensor->type.lanes != 1 || tensor->type.bits != *bits)
        return "it has another type";
    if (tensor->dimensions != dimensions)
        return "it has another number of dimensions";
    int64_t stride = 1;
    for (int d = dimensions - 1; d >= 0; d--) {
        const char letter = word[2 + d];
        const int64_t length = tensor->shape[d];
        size_t *size = letter >= 'A' ? &call->size[letter - 'A'] : &(size_t){(size_t)(letter - '0')};
        if (*size == UNKNOWN)
            *size = (size_t)length;
        if (*size != (size_t)length)
            return "it has another shape";
        if (row_gaps && d == 0) {
            call->row_stride = (size_t)(length == 1 ? stride : tensor->strides[d]);
            if (length > 1 && tensor->strides[d] < stride)
                return "its rows overlap";
        } else if (length > 1 && tensor->strides[d] != stride)
            return "it has gaps";
        stride *= length;
    }
    call->tensor[number] = (char *)tensor->data + tensor->byte_offset;
    return NULL;
}

/* Fills `call` from the arguments of a kernel; 0 with an exception set where they are not what its signature names. */
static int verified(Call *call, const Kernel *kernel, PyObject *const *arguments, Py_ssize_t number) {
    const char *word = kernel->signature;
    int tensors = 0;
    for (Py_ssize_t i = 0; i < number; i++, word += strcspn(word, " "), word += *word == ' ') {
        const char *why = NULL;
        if (*word == 'i') {
            const long whole = PyLong_AsLong(arguments[i]);
            why = whole == 0 || whole == 1 ? NULL : "it is neither 0 nor 1";
            call->relu = (int)whole;
        } else if (*word == 'r') {
            call->real = PyFloat_AsDouble(arguments[i]);
        } else if (*word != '\0') {
            const Tensor *tensor = PyCapsule_GetPointer(arguments[i], "dltensor");
            why = tensor == NULL ? NULL : misfit(call, tensors++, tensor, word);
        } else
            why = "there are too many";
        if (PyErr_Occurred())
            return 0;
        if (why != NULL) {
            PyErr_Format(PyExc_ValueError, "argument %zd of kernel %s (%s): %s", i + 1, kernel->name,
                         kernel->signature, why);
            return 0;
        }
    }
    if (*word != '\0')
        PyErr_Format(PyExc_TypeError, "kernel %s (%s) got %zd arguments", kernel->name, kernel->signature, number);
    return *word == '\0';
}

/* run(kernel, level, threads, *arguments): the one entry. Nothing is computed unless every argument fits. */
static PyObject *run(PyObject *module, PyObject *const *arguments, Py_ssize_t number) {
    long place[3];
    const long limits[3] = {NUM_KERNELS, usable_levels(), MAX_THREADS + 1};
    (void)module;
    for (int i = 0; i < 3; i++) {
        place[i] = i < number ? PyLong_AsLong(arguments[i]) : -1;
        if (PyErr_Occurred())
            return NULL;
        if (place[i] < (i == 2) || place[i] >= limits[i])
            return PyErr_Format(PyExc_ValueError, "there is no such kernel, level or number of threads");
    }
    const Kernel *kernel = TABLES[place[1]] + place[0];
    Call call = {.threads = (size_t)place[2]};
    memset(call.size, 0xff, sizeof call.size); /* UNKNOWN */
    if (!verified(&call, kernel, arguments + 3, number - 3))
        return NULL;
    Py_BEGIN_ALLOW_THREADS kernel->function[call.bits == 64](&call);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__kernels(void) {
    PyObject *module = PyModule_Create(&definition), *names = PyList_New(0);
    int failed = module == NULL || names == NULL;
    for (int i = 0; !failed && i < NUM_KERNELS; i++) {
        PyObject *name = PyUnicode_FromString(kernels_plain[i].name);
        failed = name == NULL || PyList_Append(names, name) < 0;
        Py_XDECREF(name);
    }
    if (failed || PyModule_AddObjectRef(module, "KERNELS", names) < 0 ||
        PyModule_AddIntConstant(module, "LEVELS", usable_levels()) < 0 ||
        PyModule_AddIntConstant(module, "PARALLEL", HAS_THREADS) < 0)
        Py_CLEAR(module);
    Py_XDECREF(names);
    return module;
}

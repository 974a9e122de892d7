/* The loops for one kind of processor, LEVEL, and the table of them that Python sees: included by _loops.c. */

#define T float
#define EXP exponential
#define RECIPROCAL reciprocal
#include "_loops_of_type.h"
#undef T
#undef EXP
#undef RECIPROCAL

#define T double
#define EXP exp
#define RECIPROCAL divided
#include "_loops_of_type.h"
#undef T
#undef EXP
#undef RECIPROCAL

#define ENTRY_OF(loop, type) \
    {#loop "_" #type "_" LEVEL_NAME, (PyCFunction)(void (*)(void))JOIN(call_##loop, type, LEVEL), METH_FASTCALL, NULL}
#define ENTRY(loop) ENTRY_OF(loop, float), ENTRY_OF(loop, double)
static PyMethodDef METHODS[] = {
    ENTRY(activate),
    ENTRY(activation_gradient),
    ENTRY(column_sums),
    ENTRY(statistics),
    ENTRY(normalize),
    ENTRY(normalize_and_activate),
    ENTRY(normalization_gradient),
    ENTRY(image_means),
    ENTRY(excite),
    ENTRY(gate_gradient),
    ENTRY(excitation_gradient),
    ENTRY(update),
    ENTRY(gather),
    ENTRY(scatter),
    {NULL, NULL, 0, NULL},
};
#undef ENTRY_OF
#undef ENTRY

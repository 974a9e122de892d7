/* The kernels for one instruction set, LEVEL, and their table: included by _kernels.c for each. */

#define T float
#define EXP exponential
#define RECIPROCAL reciprocal
#include "_kernels_type.h"
#undef T
#undef EXP
#undef RECIPROCAL

#define T double
#define EXP exp
#define RECIPROCAL divided
#include "_kernels_type.h"
#undef T
#undef EXP
#undef RECIPROCAL

#define ENTRY(kernel, signature) {#kernel, signature, {JOIN(kernel, float, LEVEL), JOIN(kernel, double, LEVEL)}}
static const Kernel KERNELS[] = {
    ENTRY(activate, "i T:RC T:RC|"),
    ENTRY(activation_gradient, "i T:RC T:RC T:RC D:2C"),
    ENTRY(column_sums, "T:RC T:RC D:2C"),
    ENTRY(statistics, "r T:RC D:2C T:C T:C"),
    ENTRY(normalize, "T:RC T:C T:C"),
    ENTRY(normalize_and_activate, "i T:RC T:C T:C T:RC"),
    ENTRY(normalization_gradient, "r T:RC T:RC T:C D:2C T:RC"),
    ENTRY(image_means, "T:IPC T:IC"),
    ENTRY(excite, "T:IPC T:IC"),
    ENTRY(gate_gradient, "i T:IPC T:IPC T:IC"),
    ENTRY(excitation_gradient, "i T:IPC T:IPC T:IC T:IC T:IPC D:2C"),
};
#undef ENTRY

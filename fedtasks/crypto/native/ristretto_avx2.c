/* ristretto255 in four lanes of AVX2 and FMA, which nearly every x86 processor has. */
#include "ristretto.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi2")
/* Else GCC moves the products of a sum away from where they are added, and spills them. */
#pragma GCC optimize("no-tree-ter", "rename-registers")
#endif

#define KERNEL avx2

#include "field25519_avx2.h"

#include "ristretto_lanes.h"

int fedtasks_ristretto_avx2_works(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_ristretto_avx2_works(void) { return 0; }

#endif

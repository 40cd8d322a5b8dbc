/* ristretto255 in eight lanes of AVX512-IFMA. */
#include "ristretto.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,bmi2")
#endif

#define KERNEL ifma

#include "field25519_ifma.h"

#include "ristretto_lanes.h"

int fedtasks_ristretto_ifma_works(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_ristretto_ifma_works(void) { return 0; }

#endif

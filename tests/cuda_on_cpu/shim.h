// Goes before every kernel's source: what nvcc and the device's library have, for g++.
#pragma once
#include <assert.h>
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmath>
#include <initializer_list>
#include <type_traits>
#include <utility>

#define __CUDACC_RTC__ 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static  // the threads of a block run one after the other, and so do the blocks
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

// ------------------------------------------------------------------------- places and barriers

struct dim3_ { unsigned x, y, z; };
extern "C" struct { dim3_ threadIdx, blockIdx, blockDim, gridDim; } fake_place;  // see cuda.cpp
extern "C" unsigned long long fake_lanes[32][32];
extern "C" void fake_block_barrier();
extern "C" void fake_warp_barrier();
#define threadIdx (fake_place.threadIdx)
#define blockIdx (fake_place.blockIdx)
#define blockDim (fake_place.blockDim)
#define gridDim (fake_place.gridDim)
#define warpSize 32

static inline void __syncthreads() { fake_block_barrier(); }
static inline void __syncwarp(unsigned = 0) { fake_warp_barrier(); }
static inline void __threadfence() {}

static inline unsigned thread_number() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
static inline int lane() { return thread_number() % 32; }

template <class T> static inline T from_lane(T value, int source) {
  unsigned long long *lanes = fake_lanes[thread_number() / 32];
  memcpy(&lanes[lane()], &value, sizeof value);
  fake_warp_barrier();
  memcpy(&value, &lanes[source], sizeof value);
  fake_warp_barrier();
  return value;
}
template <class T> static inline T __shfl_sync(unsigned, T value, int source, int = 32) {
  return from_lane(value, source % 32);
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return from_lane(value, lane() ^ mask);
}
template <class T> static inline T __shfl_up_sync(unsigned, T value, int by, int = 32) {
  return from_lane(value, lane() < by ? lane() : lane() - by);
}
template <class T> static inline T __shfl_down_sync(unsigned, T value, int by, int = 32) {
  return from_lane(value, lane() + by > 31 ? lane() : lane() + by);
}

// ------------------------------------------------------------------------------------- atomics

template <class T, class U> static inline T atomicAdd(T *at, U value) {
  T old = *at;
  *at = old + value;
  return old;
}
template <class T, class U> static inline T atomicMax(T *at, U value) {
  T old = *at;
  if (value > old) *at = value;
  return old;
}
template <class T, class U> static inline T atomicMin(T *at, U value) {
  T old = *at;
  if (value < old) *at = value;
  return old;
}
template <class T, class U, class V> static inline T atomicCAS(T *at, U expected, V value) {
  T old = *at;
  if (old == T(expected)) *at = value;
  return old;
}

// ------------------------------------------------------------------------------------- numbers

template <class T, class F> static inline T bits_of(F from) {
  T to;
  static_assert(sizeof to == sizeof from, "");
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __int_as_float(int x) { return bits_of<float>(x); }
static inline int __float_as_int(float x) { return bits_of<int>(x); }
static inline double __longlong_as_double(long long x) { return bits_of<double>(x); }
static inline long long __double_as_longlong(double x) { return bits_of<long long>(x); }
static inline float __half2float(unsigned short x) { return _cvtsh_ss(x); }
static inline unsigned short __float2half_rn(float x) { return _cvtss_sh(x, 0); }
struct half;
static inline unsigned short __half_as_ushort(half);
static inline half __ushort_as_half(unsigned short);

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

using std::isfinite; using std::isinf; using std::isnan; using std::signbit;
#define MIN_AND_MAX(T) \
  static inline T min(T a, T b) { return b < a ? b : a; } \
  static inline T max(T a, T b) { return a < b ? b : a; }
MIN_AND_MAX(int) MIN_AND_MAX(unsigned) MIN_AND_MAX(long) MIN_AND_MAX(unsigned long)
MIN_AND_MAX(long long) MIN_AND_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }

// ------------------------------------------------------------------------------------ launches

template <class... A, size_t... I>
static inline void run(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<std::remove_reference_t<A>> *)arguments[I]...);
}
template <class... A> static inline void run(void (*kernel)(A...), void **arguments) {
  run(kernel, arguments, std::index_sequence_for<A...>{});
}
#define RUN(kernel) extern "C" void run_##kernel(void **arguments) { run(kernel, arguments); }

#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>

// cuBLAS for CuPy without a GPU: the products of float and double matrices, sums in double.
#include <string>
#include <vector>

void count(const std::string &what);  // these two: see cuda.cpp
bool counts_only();

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Type { FLOAT = 0, DOUBLE = 1 };  // cudaDataType
struct Handle { void *stream; int pointer_mode, math_mode; };
struct Shape { int ta, tb, m, n, k, lda, ldb, ldc; };  // C is m x n; ta, tb: is A, B transposed?

// C = alpha op(A) op(B) + beta C, column by column; C is not read where beta is 0.
template <class T>
static Status product(Shape s, double alpha, const T *a, const T *b, double beta, T *c) {
  auto [ta, tb, m, n, k, lda, ldb, ldc] = s;
  bool fits = lda >= (ta ? k : m) && ldb >= (tb ? n : k) && ldc >= m;
  if (!fits || m < 0 || n < 0 || k < 0 || lda < 1 || ldb < 1 || ldc < 1) return INVALID_VALUE;
  if (counts_only()) return SUCCESS;
  std::vector<double> left(size_t(m) * k), column(m);  // op(A), one column after the other
  for (int q = 0; q < k; q++)
    for (int i = 0; i < m; i++)
      left[i + size_t(q) * m] = ta ? a[q + size_t(i) * lda] : a[i + size_t(q) * lda];
  for (int j = 0; j < n; j++) {
    column.assign(m, 0);
    for (int q = 0; q < k; q++) {
      double factor = tb ? b[j + size_t(q) * ldb] : b[q + size_t(j) * ldb];
      for (int i = 0; i < m; i++) column[i] += left[i + size_t(q) * m] * factor;
    }
    T *out = c + size_t(j) * ldc;
    for (int i = 0; i < m; i++) out[i] = alpha * column[i] + (beta ? beta * out[i] : 0);
  }
  return SUCCESS;
}

template <class T>  // of matrices ``step`` elements apart
static Status strided(Shape s, const void *alpha, const void *a, long long step_a, const void *b,
                      long long step_b, const void *beta, void *c, long long step_c, int batch) {
  count("products");
  Status status = SUCCESS;
  for (int i = 0; i < batch && !status; i++)
    status = product(s, *(const T *)alpha, (const T *)a + i * step_a, (const T *)b + i * step_b,
                     *(const T *)beta, (T *)c + i * step_c);
  return status;
}

template <class T>  // of matrices that lie anywhere
static Status scattered(Shape s, double alpha, T **a, T **b, double beta, T **c, int batch) {
  count("products");
  Status status = SUCCESS;
  for (int i = 0; i < batch && !status; i++)
    status = product<T>(s, alpha, a[i], b[i], beta, c[i]);
  return status;
}

extern "C" {
Status cublasCreate_v2(Handle **handle) {
  *handle = new Handle{};
  return SUCCESS;
}

Status cublasDestroy_v2(Handle *handle) {
  delete handle;
  return SUCCESS;
}

Status cublasGetVersion_v2(Handle *, int *version) {
  *version = 120900;
  return SUCCESS;
}

Status cublasSetStream_v2(Handle *handle, void *stream) {
  handle->stream = stream;
  return SUCCESS;
}

Status cublasGetStream_v2(Handle *handle, void **stream) {
  *stream = handle->stream;
  return SUCCESS;
}

Status cublasSetPointerMode_v2(Handle *handle, int mode) {
  handle->pointer_mode = mode;
  return SUCCESS;
}

Status cublasGetPointerMode_v2(Handle *handle, int *mode) {
  *mode = handle->pointer_mode;
  return SUCCESS;
}

Status cublasSetMathMode(Handle *handle, int mode) {
  handle->math_mode = mode;
  return SUCCESS;
}

Status cublasGetMathMode(Handle *handle, int *mode) {
  *mode = handle->math_mode;
  return SUCCESS;
}

Status cublasGemmStridedBatchedEx(Handle *, int ta, int tb, int m, int n, int k, const void *alpha,
                                  const void *a, int type_a, int lda, long long step_a,
                                  const void *b, int type_b, int ldb, long long step_b,
                                  const void *beta, void *c, int type_c, int ldc, long long step_c,
                                  int batch, int, int) {
  if (type_a != type_c || type_b != type_c || type_c > DOUBLE) return NOT_SUPPORTED;
  auto run = type_c == DOUBLE ? strided<double> : strided<float>;
  return run({ta, tb, m, n, k, lda, ldb, ldc}, alpha, a, step_a, b, step_b, beta, c, step_c, batch);
}

Status cublasGemmEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha,
                    const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                    const void *beta, void *c, int type_c, int ldc, int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b,
                                    ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algorithm);
}

Status cublasSgemmBatched(Handle *, int ta, int tb, int m, int n, int k, const float *alpha,
                          float **a, int lda, float **b, int ldb, const float *beta, float **c,
                          int ldc, int batch) {
  return scattered({ta, tb, m, n, k, lda, ldb, ldc}, *alpha, a, b, *beta, c, batch);
}

Status cublasDgemmBatched(Handle *, int ta, int tb, int m, int n, int k, const double *alpha,
                          double **a, int lda, double **b, int ldb, const double *beta, double **c,
                          int ldc, int batch) {
  return scattered({ta, tb, m, n, k, lda, ldb, ldc}, *alpha, a, b, *beta, c, batch);
}
}

// What lies between the matrix products of a decode step, and the products of very few rows.
//
// One token is appended to each of R rows. Numbers are float32 or bfloat16 in memory and float32 in
// registers; every result is rounded once. Each function takes the threads it may use; no sum depends on
// their number. The size D of a head is a multiple of 32, and the inputs of a layer are one of 16: the caller
// checks it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

namespace {

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef float FloatsInMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t HalvesInMemory __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadWords __attribute__((vector_size(16)));
typedef float QuadInMemory __attribute__((vector_size(16), aligned(4), may_alias));

struct bfloat16 {
  uint16_t bits;
};

// Vectors ----------------------------------------------------------------------------------------------

inline Floats broadcast(float x) { return Floats{} + x; }

inline Floats load(const float* from) { return *reinterpret_cast<const FloatsInMemory*>(from); }

inline Floats load(const bfloat16* from) {
  Halves halves = *reinterpret_cast<const HalvesInMemory*>(from);
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, Floats x) { *reinterpret_cast<FloatsInMemory*>(to) = x; }

inline void store(bfloat16* to, Floats x) {  // to the nearest, ties to even
  Words bits = reinterpret_cast<Words>(x);
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  rounded = x != x ? Words{} + 0x7fc0 : rounded;
  *reinterpret_cast<HalvesInMemory*>(to) = __builtin_convertvector(rounded, Halves);
}

inline float to_float(float x) { return x; }

inline float to_float(bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

inline void store_one(float* to, float x) { *to = x; }

inline void store_one(bfloat16* to, float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  to->bits = x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

union Quads {
  Floats whole;
  Quad parts[LANES / 4];
};

inline Quad fold(Floats x) {
  Quads of = {x};
  for (int i = 1; i < LANES / 4; ++i) of.parts[0] += of.parts[i];
  return of.parts[0];
}

inline float sum(Floats x) {
  Quad quad = fold(x);
  return (quad[0] + quad[2]) + (quad[1] + quad[3]);
}

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, QuadWords{i, j, k, l})
#endif

// The sums of four vectors, each as `sum` has it.
inline Quad sums(const Floats* x) {
  Quad a = fold(x[0]), b = fold(x[1]), c = fold(x[2]), d = fold(x[3]);
  Quad ab = PICK(a, b, 0, 4, 1, 5) + PICK(a, b, 2, 6, 3, 7);
  Quad cd = PICK(c, d, 0, 4, 1, 5) + PICK(c, d, 2, 6, 3, 7);
  return PICK(ab, cd, 0, 1, 4, 5) + PICK(ab, cd, 2, 3, 6, 7);
}

inline float largest(Floats x) {
  Quads of = {x};
  Quad most = of.parts[0];
  for (int i = 1; i < LANES / 4; ++i) most = of.parts[i] > most ? of.parts[i] : most;
  return std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
}

// e^x within two units in the last place; x counts as -87 below that, and as 88 above. The polynomial is
// that of Cephes' expf.
inline Floats exponential(Floats x) {
  x = x < -87.f ? broadcast(-87.f) : x;
  x = x > 88.f ? broadcast(88.f) : x;
  const float to_integer = 12582912.f;  // 1.5 * 2^23: adding it rounds
  Floats n = (x * 1.44269504f + to_integer) - to_integer;
  Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  Words exponent = __builtin_convertvector(n, Words) + 127;
  return p * reinterpret_cast<Floats>(exponent << 23);
}

// Norms ------------------------------------------------------------------------------------------------

// weight * x / sqrt(mean(x^2) + epsilon), in place or not.
template <class T>
inline void normalize(T* out, const T* x, const T* weight, int64_t size, float epsilon) {
  Floats squares{};
  for (int64_t i = 0; i < size; i += LANES) {
    Floats v = load(x + i);
    squares += v * v;
  }
  float scale = 1.f / std::sqrt(sum(squares) / float(size) + epsilon);
  for (int64_t i = 0; i < size; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
}

// x += added (where there is something to add), then out = norm(x); all [rows, size].
template <class T>
void add_norm(T* out, T* x, const T* added, const T* weight, int64_t rows, int64_t size, float epsilon) {
  for (int64_t row = 0; row < rows; ++row) {
    T* states = x + row * size;
    if (added)
      for (int64_t i = 0; i < size; i += LANES)
        store(states + i, load(states + i) + load(added + row * size + i));
    normalize(out + row * size, states, weight, size, epsilon);
  }
}

// Queries, keys and values -----------------------------------------------------------------------------

struct Heads {
  int64_t rows, heads, kv_heads, size;
};

// Keys and values [slots, kv_heads, columns, D] of a layer; strides count numbers.
template <class T>
struct Table {
  T *keys, *values;
  int64_t slot_stride, head_stride;
};

// Where the rows of a step write and what they see.
//
// A row has a slot of the table, a column that its token is written to, and a width: columns that it sees.
// order: the rows, those of a group side by side. groups: [group_count + 1] where each begins in `order`. A
// group has one prefix, `prefix_of` [group_count], or none (-1).
struct Rows {
  const int64_t *slots, *columns, *widths, *order, *groups, *prefix_of;
  int64_t group_count;
};

// cos and sin of the rows' positions, [R, D]; null: nothing is rotated.
template <class T>
struct Rotary {
  const T *cos, *sin;
};

// Weights [D] of the norms of queries and keys, or null.
template <class T>
struct HeadNorms {
  const T *query, *key;
};

template <class T>
inline void rotate(T* head, const T* cos, const T* sin, int64_t size) {
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; i += LANES) {
    Floats first = load(head + i), second = load(head + half + i);
    store(head + i, first * load(cos + i) - second * load(sin + i));
    store(head + half + i, second * load(cos + half + i) + first * load(sin + half + i));
  }
}

// Norms and rotary embedding of queries [R, heads, D] and keys [R, kv_heads, D], in place; keys and values go
// to their slots and columns.
template <class T>
void rotate_and_store(T* query, T* key, const T* value, HeadNorms<T> norms, float epsilon, Rotary<T> rotary,
                      Table<T> table, const Rows& at, Heads n) {
  for (int64_t row = 0; row < n.rows; ++row) {
    for (int64_t h = 0; h < n.heads + n.kv_heads; ++h) {
      bool is_query = h < n.heads;
      T* head =
          is_query ? query + (row * n.heads + h) * n.size : key + (row * n.kv_heads + h - n.heads) * n.size;
      const T* weight = is_query ? norms.query : norms.key;
      if (weight) normalize(head, head, weight, n.size, epsilon);
      if (rotary.cos) rotate(head, rotary.cos + row * n.size, rotary.sin + row * n.size, n.size);
    }
    for (int64_t h = 0; h < n.kv_heads; ++h) {
      int64_t to = at.slots[row] * table.slot_stride + h * table.head_stride + at.columns[row] * n.size;
      int64_t from = (row * n.kv_heads + h) * n.size;
      std::copy_n(key + from, n.size, table.keys + to);
      std::copy_n(value + from, n.size, table.values + to);
    }
  }
}

// Attention --------------------------------------------------------------------------------------------

const int64_t kChunk = 32;  // keys at a time, so that they stay in the first cache for all queries

// Running softmax of some queries of one key head: largest score, sum and weighted values of each.
struct State {
  std::vector<float> queries, most, total, result;
  int64_t size = 0;

  void begin(int64_t count, int64_t head_size) {
    size = head_size;
    queries.resize(count * size);
    most.assign(count, -INFINITY);
    total.assign(count, 0.f);
    result.assign(count * size, 0.f);
  }
};

// Asks for `size` numbers that are read soon.
template <class T>
inline void prefetch(const T* from, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
}

// Scores [Q, kChunk] of Q queries and `count` keys.
template <int Q, class T>
inline void score(float* scores, const float* queries, const T* keys, const T* values, int64_t count,
                  int64_t size) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    Floats dot[Q][4] = {};
    for (int k = 0; k < 4; ++k) prefetch(values + (j + k) * size, size);
    for (int64_t d = 0; d < size; d += LANES)
      for (int k = 0; k < 4; ++k) {
        Floats key = load(keys + (j + k) * size + d);
        for (int q = 0; q < Q; ++q) dot[q][k] += key * load(queries + q * size + d);
      }
    for (int q = 0; q < Q; ++q) *reinterpret_cast<QuadInMemory*>(scores + q * kChunk + j) = sums(dot[q]);
  }
  for (; j < count; ++j)
    for (int q = 0; q < Q; ++q) {
      Floats dot{};
      for (int64_t d = 0; d < size; d += LANES)
        dot += load(keys + j * size + d) * load(queries + q * size + d);
      scores[q * kChunk + j] = sum(dot);
    }
}

// result [Q, D] += weights [Q, kChunk] of `count` values.
template <int Q, class T>
inline void add_values(float* result, const float* weights, const T* values, const T* next, int64_t count,
                       int64_t size) {
  const int kVectors = 32 / LANES;
  for (int64_t d = 0; d < size; d += 32) {
    Floats out[Q][kVectors];
    for (int q = 0; q < Q; ++q)
      for (int v = 0; v < kVectors; ++v) out[q][v] = load(result + q * size + d + v * LANES);
    for (int64_t j = 0; j < count; ++j) {
      if (d == 0) prefetch(next + j * size, size);
      for (int v = 0; v < kVectors; ++v) {
        Floats value = load(values + j * size + d + v * LANES);
        for (int q = 0; q < Q; ++q) out[q][v] += value * weights[q * kChunk + j];
      }
    }
    for (int q = 0; q < Q; ++q)
      for (int v = 0; v < kVectors; ++v) store(result + q * size + d + v * LANES, out[q][v]);
  }
}

// Turns the scores of query `q` of a chunk into weights, and what was summed before to the new scale.
inline void softmax_chunk(State& state, int64_t q, float* scores, int64_t count) {
  int64_t padded = (count + LANES - 1) / LANES * LANES;
  for (int64_t j = count; j < padded; ++j) scores[j] = -INFINITY;
  Floats most = load(scores);
  for (int64_t j = LANES; j < padded; j += LANES) {
    Floats more = load(scores + j);
    most = more > most ? more : most;
  }
  float top = std::max(state.most[q], largest(most));
  float before = std::exp(state.most[q] - top);
  Floats added{};
  for (int64_t j = 0; j < padded; j += LANES) {
    Floats weight = exponential(load(scores + j) - top);
    store(scores + j, weight);
    added += weight;  // the padding adds e^-87 at most
  }
  state.most[q] = top;
  state.total[q] = state.total[q] * before + sum(added);
  if (before != 1.f)
    for (int64_t d = 0; d < state.size; d += LANES)
      store(&state.result[q * state.size + d], load(&state.result[q * state.size + d]) * before);
}

template <int Q, class T>
void attend_chunk(State& state, int64_t first, const T* keys, const T* values, int64_t count) {
  float scores[Q * kChunk];
  score<Q>(scores, &state.queries[first * state.size], keys, values, count, state.size);
  for (int q = 0; q < Q; ++q) softmax_chunk(state, first + q, scores + q * kChunk, count);
  add_values<Q>(&state.result[first * state.size], scores, values, keys + count * state.size, count,
                state.size);
}

// Queries first..stop-1 over `length` keys and values [length, D].
template <class T>
void attend_keys(State& state, int64_t first, int64_t stop, const T* keys, const T* values, int64_t length) {
  for (int64_t begin = 0; begin < length; begin += kChunk) {
    int64_t count = std::min(kChunk, length - begin);
    const T *some_keys = keys + begin * state.size, *some_values = values + begin * state.size;
    int64_t q = first;
    for (; q + 3 <= stop; q += 3) attend_chunk<3>(state, q, some_keys, some_values, count);
    if (stop - q == 2) attend_chunk<2>(state, q, some_keys, some_values, count);
    if (stop - q == 1) attend_chunk<1>(state, q, some_keys, some_values, count);
  }
}

// A beginning that the rows of some groups share: keys and values [kv_heads, length, D].
template <class T>
struct Prefix {
  const T *keys, *values;
  int64_t length;
};

// One token a row: [R, heads * D] from queries [R, heads, D] over a prefix and the row's own columns.
template <class T>
void attend(T* out, const T* query, Table<T> table, const Rows& at, const Prefix<T>* prefixes, Heads n,
            int threads) {
  const float scale = 1.f / std::sqrt(float(n.size));
  const int64_t per_head = n.heads / n.kv_heads;
  (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < at.group_count * n.kv_heads; ++task) {
    static thread_local State state;
    const int64_t group = task / n.kv_heads, head = task % n.kv_heads;
    const int64_t begin = at.groups[group], count = at.groups[group + 1] - begin;
    state.begin(count * per_head, n.size);
    for (int64_t i = 0; i < count * per_head; ++i) {
      int64_t row = at.order[begin + i / per_head];
      const T* from = query + (row * n.heads + head * per_head + i % per_head) * n.size;
      for (int64_t d = 0; d < n.size; d += LANES)
        store(&state.queries[i * n.size + d], load(from + d) * scale);
    }
    if (at.prefix_of[group] >= 0) {
      const Prefix<T>& prefix = prefixes[at.prefix_of[group]];
      int64_t offset = head * prefix.length * n.size;
      attend_keys(state, 0, count * per_head, prefix.keys + offset, prefix.values + offset, prefix.length);
    }
    for (int64_t i = 0; i < count; ++i) {
      int64_t row = at.order[begin + i];
      int64_t offset = at.slots[row] * table.slot_stride + head * table.head_stride;
      attend_keys(state, i * per_head, (i + 1) * per_head, table.keys + offset, table.values + offset,
                  at.widths[row]);
      for (int64_t q = 0; q < per_head; ++q) {
        int64_t from = i * per_head + q;
        T* to = out + (row * n.heads + head * per_head + q) * n.size;
        float share = 1.f / state.total[from];
        for (int64_t d = 0; d < n.size; d += LANES)
          store(to + d, load(&state.result[from * n.size + d]) * share);
      }
    }
  }
}

// The layers' products ---------------------------------------------------------------------------------

// out = silu(gate) * up, `count` numbers.
template <class T>
void gate(T* out, const T* gates, const T* up, int64_t count) {
  for (int64_t i = 0; i < count; i += LANES) {
    Floats x = load(gates + i);
    store(out + i, x / (1.f + exponential(-x)) * load(up + i));
  }
}

// A product x W^T + b of R rows of states x and C rows of weights.
template <int R, int C, class T>
inline void multiply_block(T* out, const float* x, const T* weight, const T* bias, int64_t outputs,
                           int64_t inputs) {
  Floats dot[C][R] = {};
  for (int64_t i = 0; i < inputs; i += LANES)
    for (int c = 0; c < C; ++c) {
      const T* from = weight + c * inputs + i;
      __builtin_prefetch(from + C * inputs);  // of the next block
      Floats w = load(from);
      for (int r = 0; r < R; ++r) dot[c][r] += w * load(x + r * inputs + i);
    }
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < R; ++r)
      store_one(out + r * outputs + c, sum(dot[c][r]) + (bias ? to_float(bias[c]) : 0.f));
}

// x W^T + b of R rows x [R, inputs]; weights [outputs, inputs] are read where they lie.
template <int R, class T>
void multiply(T* out, const T* x, const T* weight, const T* bias, int64_t outputs, int64_t inputs,
              int threads) {
  static thread_local std::vector<float> floats;
  floats.resize(R * inputs);
  float* states = floats.data();  // of this thread, for all
  for (int64_t i = 0; i < R * inputs; i += LANES) store(states + i, load(x + i));
  const int kBlock = 6;
  auto block = [&](int64_t first) {
    multiply_block<R, kBlock>(out + first, states, weight + first * inputs, bias ? bias + first : bias,
                              outputs, inputs);
  };
  const int64_t blocks = outputs / kBlock;
  (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t b = 0; b < blocks; ++b) block(kBlock * b);
  if (outputs % kBlock) block(outputs - kBlock);  // some of them once more
}

// Weights [outputs, inputs], and a bias [outputs] or null.
template <class T>
struct Linear {
  const T *weight, *bias;
};

// Of one to three rows, and six outputs at least.
template <class T>
void linear(T* out, const T* x, Linear<T> layer, int64_t rows, int64_t outputs, int64_t inputs, int threads) {
  if (rows == 1) multiply<1>(out, x, layer.weight, layer.bias, outputs, inputs, threads);
  if (rows == 2) multiply<2>(out, x, layer.weight, layer.bias, outputs, inputs, threads);
  if (rows == 3) multiply<3>(out, x, layer.weight, layer.bias, outputs, inputs, threads);
}

// Whole steps of few rows ------------------------------------------------------------------------------

// A layer's weights, its keys and values, and its prefixes. `rotates`: whether positions are rotated at all.
template <class T>
struct Layer {
  Linear<T> query, key, value, output, gate, up, down;
  const T *input_norm, *post_norm, *query_norm, *key_norm;
  T *keys, *values;
  const Prefix<T>* prefixes;
  int64_t rotates;
};

struct Sizes {
  int64_t layers, hidden, intermediate, vocabulary;
};

// Logits [R, vocabulary] after states x [R, hidden], which change. `table`: its strides are those of all
// layers.
template <class T>
void step(T* logits, T* x, Rotary<T> rotary, const Layer<T>* layers, const T* final_norm, Linear<T> head,
          Table<T> table, const Rows& at, Heads n, Sizes sizes, float epsilon, int threads) {
  const int64_t rows = n.rows, query = n.heads * n.size, key = n.kv_heads * n.size;
  std::vector<T> space(rows * (2 * sizes.hidden + 2 * query + 2 * key + 2 * sizes.intermediate));
  T* left = space.data();
  auto take = [&](int64_t size) {
    T* from = left;
    left += rows * size;
    return from;
  };
  T *y = take(sizes.hidden), *sum = take(sizes.hidden), *q = take(query), *attended = take(query);
  T *k = take(key), *v = take(key), *gates = take(sizes.intermediate), *up = take(sizes.intermediate);
  const T* added = nullptr;
  for (const Layer<T>* layer = layers; layer < layers + sizes.layers; ++layer) {
    add_norm(y, x, added, layer->input_norm, rows, sizes.hidden, epsilon);
    linear(q, y, layer->query, rows, query, sizes.hidden, threads);
    linear(k, y, layer->key, rows, key, sizes.hidden, threads);
    linear(v, y, layer->value, rows, key, sizes.hidden, threads);
    table.keys = layer->keys;
    table.values = layer->values;
    rotate_and_store(q, k, v, {layer->query_norm, layer->key_norm}, epsilon,
                     layer->rotates ? rotary : Rotary<T>{}, table, at, n);
    attend(attended, q, table, at, layer->prefixes, n, threads);
    linear(sum, attended, layer->output, rows, sizes.hidden, query, threads);
    add_norm(y, x, sum, layer->post_norm, rows, sizes.hidden, epsilon);
    linear(gates, y, layer->gate, rows, sizes.intermediate, sizes.hidden, threads);
    linear(up, y, layer->up, rows, sizes.intermediate, sizes.hidden, threads);
    gate(gates, gates, up, rows * sizes.intermediate);
    linear(sum, gates, layer->down, rows, sizes.hidden, sizes.intermediate, threads);
    added = sum;
  }
  add_norm(y, x, added, final_norm, rows, sizes.hidden, epsilon);
  linear(logits, y, head, rows, sizes.vocabulary, sizes.hidden, threads);
}

}  // namespace

#define EXPORT(NAME, T)                                                                                    \
  void add_norm_##NAME(T* out, T* x, const T* added, const T* weight, int64_t rows, int64_t size,          \
                       float epsilon) {                                                                    \
    add_norm(out, x, added, weight, rows, size, epsilon);                                                  \
  }                                                                                                        \
  void rotate_and_store_##NAME(T* query, T* key, const T* value, const HeadNorms<T>* norms, float epsilon, \
                               const Rotary<T>* rotary, const Table<T>* table, const Rows* rows,           \
                               const Heads* heads) {                                                       \
    rotate_and_store(query, key, value, *norms, epsilon, *rotary, *table, *rows, *heads);                  \
  }                                                                                                        \
  void attend_##NAME(T* out, const T* query, const Table<T>* table, const Rows* rows,                      \
                     const Prefix<T>* prefixes, const Heads* heads, int threads) {                         \
    attend(out, query, *table, *rows, prefixes, *heads, threads);                                          \
  }                                                                                                        \
  void gate_##NAME(T* out, const T* gates, const T* up, int64_t count) { gate(out, gates, up, count); }    \
  void step_##NAME(T* logits, T* x, const Rotary<T>* rotary, const Layer<T>* layers, const T* final_norm,  \
                   const Linear<T>* head, const Table<T>* table, const Rows* rows, const Heads* heads,     \
                   const Sizes* sizes, float epsilon, int threads) {                                       \
    step(logits, x, *rotary, layers, final_norm, *head, *table, *rows, *heads, *sizes, epsilon, threads);  \
  }

extern "C" {
EXPORT(float32, float)
EXPORT(bfloat16, bfloat16)

int has_threads() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}
}

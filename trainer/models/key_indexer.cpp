// N tokens, M of them with more keys than they may see, H heads of the indexer, D their size, T keys of a document.
#include "trainer/models/key_indexer.h"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>

#include "kernels/attention/key_bits.h"
#include "kernels/attention/rotation.h"
#include "kernels/sparse_index/sparse_index.h"

namespace graft {
namespace {

struct Document {
  int64_t begin, length, before;   // tokens before its own: cached, or of the shared prefix
  int64_t beyond;                  // of its tokens, the last ones, which have more keys than they may see
};

std::vector<Document> documents_of(const LayerContext& context, int64_t keys_per_query) {
  const auto& batch = context.batch;
  std::vector<Document> documents;
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
    Document document{batch.document_offsets[d], batch.document_offsets[d + 1] - batch.document_offsets[d], d == 0 ? 0 : batch.shared_prefix, 0};
    if (!context.caches.empty()) document.before = context.caches[d]->length;
    document.beyond = std::clamp<int64_t>(document.before + document.length - keys_per_query, 0, document.length);
    documents.push_back(document);
  }
  return documents;
}

// Attention counts the new tokens afterwards; what the cache holds beyond its length was cut back.
void append(KeyValueCache& cache, const at::Tensor& own_TD) {
  const auto own = own_TD.to(at::kCPU).contiguous();
  cache.index_keys.resize(static_cast<size_t>(cache.length * own.size(1)));
  cache.index_keys.insert(cache.index_keys.end(), own.const_data_ptr<float>(), own.const_data_ptr<float>() + own.numel());
}

at::Tensor rows_beyond(const std::vector<Document>& documents, c10::Device device) {
  std::vector<int64_t> rows;
  for (const auto& document : documents) {
    for (int64_t n = document.begin + document.length - document.beyond; n < document.begin + document.length; ++n) rows.push_back(n);
  }
  auto row_M = at::empty({static_cast<int64_t>(rows.size())}, at::kLong);
  std::copy(rows.begin(), rows.end(), row_M.data_ptr<int64_t>());
  return row_M.to(device);
}

}  // namespace

at::Tensor KeyIndexer::selected_keys(const BlockInput& input, const at::Tensor& query_latent_NR, const Norm& query_norm, const RopeTable& rope,
                                     const LayerContext& context) const {
  const at::NoGradGuard no_gradient;
  const auto documents = documents_of(context, spec_.keys_per_query);
  const bool caching = !context.caches.empty();
  const bool selects = std::any_of(documents.begin(), documents.end(), [](const Document& document) { return document.beyond > 0; });
  if (!selects && !caching) return {};

  const auto x_NC = materialised(input);
  const auto cosine_NE = rows_at(rope.cosine_PE, context.batch.positions_N, key_norm.weight_C), sine_NE = rows_at(rope.sine_PE, context.batch.positions_N, key_norm.weight_C);
  const auto key_NHD = key_norm.apply(float_product(key, {}, x_NC)).unsqueeze(1);
  const auto key_ND = rotated(key_NHD, cosine_NE, sine_NE, spec_.neighbouring_pairs).squeeze(1);
  const auto own_keys = [&](const Document& document) { return key_ND.narrow(0, document.begin, document.length); };
  for (size_t d = 0; caching && d < documents.size(); ++d) append(*context.caches[d], own_keys(documents[d]));
  if (!selects) return {};
  const auto keys_of = [&](size_t d) {
    const auto& document = documents[d];
    if (caching) return at::from_blob(context.caches[d]->index_keys.data(), {document.before + document.length, spec_.head_size}, at::TensorOptions(at::kFloat)).to(key_ND.device());
    return document.before == 0 ? own_keys(document) : at::cat({key_ND.narrow(0, 0, document.before), own_keys(document)});
  };

  const auto row_M = rows_beyond(documents, x_NC.device());
  const auto latent_MR = query_norm.apply(query_latent_NR.contiguous()).index_select(0, row_M);
  const auto query_MHD = rotated(float_product(query, {}, latent_MR).view({-1, spec_.num_heads, spec_.head_size}), cosine_NE.index_select(0, row_M),
                                 sine_NE.index_select(0, row_M), spec_.neighbouring_pairs);
  const double scale = 1 / std::sqrt(static_cast<double>(spec_.num_heads * spec_.head_size));   // of the heads' sum, and of products
  const auto weights_MH = at::mul(float_product(weights, {}, x_NC.index_select(0, row_M)), scale);
  int64_t most = 0;
  for (const auto& document : documents) most = std::max(most, document.before + document.length);
  auto bits_NB = at::full({x_NC.size(0), key_bytes(most)}, 255, x_NC.options().dtype(at::kByte));
  int64_t first = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto& document = documents[d];
    if (document.beyond == 0) continue;
    const auto bits = sparse_index(query_MHD.narrow(0, first, document.beyond), keys_of(d), weights_MH.narrow(0, first, document.beyond), spec_.keys_per_query);
    bits_NB.narrow(0, document.begin + document.length - document.beyond, document.beyond).narrow(1, 0, bits.size(1)).copy_(bits);
    first += document.beyond;
  }
  return bits_NB;
}

void KeyIndexer::set_device(c10::Device device) {
  for (auto* weight : {&query, &key, &weights}) move_float(*weight, device);
  key_norm.set_device(device);
}

}  // namespace graft

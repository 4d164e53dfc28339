#include "kernels/attention/attention_heads.h"

#include <ATen/ops/empty_like.h>

namespace graft::attention_heads {

void turn(float* head, const float* cosine, const float* sine, const AttentionOptions& options, bool inverse) {
  if (!cosine) return;
  const int64_t size = 2 * options.cosine_PE.size(1);
  if (options.neighbouring_pairs) {
    rows::rotate_neighbours(head, cosine, sine, size, inverse);
  } else {
    rows::rotate(head, cosine, sine, size, inverse);
  }
}

Tensor pack_gradients(const Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions, const Tensor& dq_HND, const Tensor& dk_HND,
                      const Tensor& dv_HND) {
  const int64_t num_tokens = qkv.size(0), num_heads = options.num_heads, num_kv = options.num_kv_heads, size = options.head_size;
  const int64_t group = num_heads / num_kv;
  auto result = at::empty_like(qkv);
  visit_elements(qkv, [&](auto* data) {
    auto* target = static_cast<decltype(data)>(result.data_ptr());
    for_each_token(num_tokens, options, positions, [&](int64_t n, const float* cosine, const float* sine) {
      std::vector<float> head(size), source(size), turned(size);
      const auto write = [&](int64_t column, const Tensor& norm, bool rotated) {
        const bool turn_first = rotated && !options.norm_after_rotation, turn_last = rotated && options.norm_after_rotation;
        if (turn_first) turn(head.data(), cosine, sine, options, true);
        if (norm.defined()) {
          rows::to_float(data + n * qkv.size(1) + column, size, source.data());
          if (turn_last) turn(source.data(), cosine, sine, options, false);
          const float* weight = norm.const_data_ptr<float>();
          const float inverse_rms = rows::rms_norm(source.data(), weight, size, static_cast<float>(options.head_norm_epsilon), turned.data());
          turned = head;
          rows::rms_norm_backward(turned.data(), source.data(), weight, size, inverse_rms, head.data());
        }
        if (turn_last) turn(head.data(), cosine, sine, options, true);
        rows::from_float(head.data(), size, target + n * qkv.size(1) + column);
      };
      for (int64_t h = 0; h < num_heads; ++h) {
        const float* dq = dq_HND.const_data_ptr<float>() + (h * num_tokens + n) * size;
        std::copy(dq, dq + size, head.begin());
        if (options.query_scale_P.defined()) rows::scale(head.data(), size, options.query_scale_P.const_data_ptr<float>()[positions[n]]);
        write(h * size, options.query_norm_D, true);
      }
      const auto sum_group = [&](const Tensor& gradient, int64_t kv) {
        std::fill(head.begin(), head.end(), 0.0f);
        for (int64_t g = 0; g < group; ++g) {
          rows::add(head.data(), gradient.const_data_ptr<float>() + ((kv * group + g) * num_tokens + n) * size, size);
        }
      };
      for (int64_t kv = 0; kv < num_kv; ++kv) {
        sum_group(dk_HND, kv);
        write((num_heads + kv) * size, options.key_norm_D, true);
        sum_group(dv_HND, kv);
        write((num_heads + num_kv + kv) * size, Tensor(), false);
      }
    });
  });
  return result;
}

}  // namespace graft::attention_heads

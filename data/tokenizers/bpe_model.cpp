#include "data/tokenizers/bpe_model.h"

namespace graft {

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const size_t first = ids.size();
  start(piece, ids);
  merges_.apply(ids, first);
}

void BpeModel::start(std::string_view piece, std::vector<int32_t>& ids) const {
  bool after_unknown = false;
  for (const char c : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      ids.push_back(id);
    } else if (unknown_ >= 0 && !(fuse_unknown_ && after_unknown)) {
      ids.push_back(unknown_);
    }
    after_unknown = id < 0;
  }
}

}  // namespace graft

#include "trainer/report/file_hashes.h"

namespace graft {

FileHashes::FileHashes(std::vector<std::filesystem::path> files) {
  std::promise<std::vector<ManifestFile>> promise;
  result_ = promise.get_future();
  thread_ = std::jthread([files = std::move(files), promise = std::move(promise)](std::stop_token stop) mutable {
    try {
      std::vector<ManifestFile> found;
      for (const auto& file : files) found.push_back(manifest_file(file, stop));
      promise.set_value(std::move(found));
    } catch (...) {   // whatever it is: whoever asks gets it
      promise.set_exception(std::current_exception());
    }
  });
}

}  // namespace graft

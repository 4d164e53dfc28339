// SHA-256 of files, computed on a thread of its own while other things are prepared.
#pragma once
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "trainer/report/manifest.h"

namespace graft {

class FileHashes {
 public:
  explicit FileHashes(std::vector<std::filesystem::path> files);
  // Gives up at the next piece when nobody asks any more: an error elsewhere must not wait for a base of 100 GiB.
  ~FileHashes() = default;
  // As manifest_file, in the order of the files. Waits; throws what reading threw.
  const std::vector<ManifestFile>& get() const { return result_.get(); }

 private:
  std::shared_future<std::vector<ManifestFile>> result_;
  std::jthread thread_;   // last: stopped and joined first
};

}  // namespace graft

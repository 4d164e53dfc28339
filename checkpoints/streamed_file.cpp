#include "checkpoints/streamed_file.h"

#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace graft {

StreamedFile::StreamedFile(const std::filesystem::path& path, std::string_view header,
                           std::map<std::string, Place, std::less<>> places, uint64_t file_bytes)
    : file_(path), places_(std::move(places)) {
  file_.reserve(file_bytes);
  file_.write(header);
}

void StreamedFile::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = places_.find(name);
  if (found == places_.end())
    throw std::logic_error(fmt::format("tensor {} was not declared for {}", name, file_.path().string()));
  Place& place = found->second;
  if (place.written) throw std::logic_error(fmt::format("tensor {} is written twice to {}", name, file_.path().string()));
  if (place.bytes != bytes.size())
    throw std::logic_error(fmt::format("tensor {} was declared with {} bytes, got {} ({})", name, place.bytes, bytes.size(),
                                       file_.path().string()));
  file_.write_at(place.offset, bytes);
  place.written = true;
}

void StreamedFile::finish() {
  for (const auto& [name, place] : places_)
    if (!place.written)
      throw std::logic_error(fmt::format("tensor {} of {} was declared and not written", name, file_.path().string()));
  file_.commit();
}

}  // namespace graft

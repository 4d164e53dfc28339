// The little of HDF5 that the stores need: one-dimensional arrays by name. To be called from one thread at a time: Debian's
// HDF5 has no locks.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace graft {

class Hdf5File {
 public:
  enum class Mode { kCreate, kRead };
  // kCreate replaces a file. Throws MachineError when HDF5 cannot create or open it.
  Hdf5File(const std::filesystem::path& path, Mode mode);
  ~Hdf5File();
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;

  // T: uint8_t, int32_t, int64_t or float. Little-endian, byte-shuffled, deflated at level 1; without time stamps, so that
  // equal arrays give equal bytes. Throws MachineError (a full disk).
  template <typename T>
  void write(const std::string& name, std::span<const T> values);
  // Throws MachineError when there is no such array of this type, naming the file.
  template <typename T>
  std::vector<T> read(const std::string& name) const;
  // Writes what is buffered and closes; errors that the destructor would hide are thrown here.
  void close();

 private:
  [[noreturn]] void throw_failed(const std::string& action) const;
  std::filesystem::path path_;
  int64_t file_ = -1;
};

}  // namespace graft

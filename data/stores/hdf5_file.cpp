#include "data/stores/hdf5_file.h"

#include <algorithm>

#include <hdf5.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

// Closes an HDF5 identifier at the end of its scope.
class Identifier {
 public:
  Identifier(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Identifier() {
    if (id_ >= 0) close_(id_);
  }
  Identifier(const Identifier&) = delete;
  Identifier& operator=(const Identifier&) = delete;
  operator hid_t() const { return id_; }
  bool failed() const { return id_ < 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

template <typename T>
hid_t stored_type();
template <>
hid_t stored_type<uint8_t>() {
  return H5T_STD_U8LE;
}
template <>
hid_t stored_type<int32_t>() {
  return H5T_STD_I32LE;
}
template <>
hid_t stored_type<int64_t>() {
  return H5T_STD_I64LE;
}
template <>
hid_t stored_type<float>() {
  return H5T_IEEE_F32LE;
}

constexpr hsize_t kChunk = 1 << 16;

}  // namespace

void Hdf5File::throw_failed(const std::string& action) const {
  throw MachineError("store",
                     fmt::format("expected HDF5 to {}, got a failure ({}) — is the disk full?", action, path_.string()));
}

Hdf5File::Hdf5File(const std::filesystem::path& path, Mode mode) : path_(path) {
  // Before anything else of HDF5: at the end of the process it would write a file again that it could not write, and crash.
  [[maybe_unused]] static const herr_t no_exit_handler = H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // our errors, not HDF5's stack on stderr
  file_ = mode == Mode::kCreate ? H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)
                                : H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file_ < 0) throw_failed(mode == Mode::kCreate ? "create a file" : "open a file");
}

Hdf5File::~Hdf5File() {
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5File::close() {
  const hid_t file = file_;
  file_ = -1;
  const bool flushed = H5Fflush(file, H5F_SCOPE_LOCAL) >= 0;
  if (H5Fclose(file) < 0 || !flushed) throw_failed("write a file");
}

template <typename T>
void Hdf5File::write(const std::string& name, std::span<const T> values) {
  const hsize_t size = values.size();
  const Identifier space(H5Screate_simple(1, &size, nullptr), H5Sclose);
  const Identifier options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (space.failed() || options.failed()) throw_failed("describe " + name);
  H5Pset_obj_track_times(options, false);
  if (size > 0) {
    const hsize_t chunk = std::min(size, kChunk);
    H5Pset_chunk(options, 1, &chunk);
    H5Pset_shuffle(options);
    H5Pset_deflate(options, 1);
  }
  const Identifier set(H5Dcreate2(file_, name.c_str(), stored_type<T>(), space, H5P_DEFAULT, options, H5P_DEFAULT), H5Dclose);
  if (set.failed() || (size > 0 && H5Dwrite(set, stored_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0))
    throw_failed("write " + name);
}

template <typename T>
std::vector<T> Hdf5File::read(const std::string& name) const {
  const Identifier set(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (set.failed()) throw_failed("find the array " + name);
  const Identifier space(H5Dget_space(set), H5Sclose), type(H5Dget_type(set), H5Tclose);
  if (space.failed() || type.failed() || H5Sget_simple_extent_ndims(space) != 1 || H5Tequal(type, stored_type<T>()) <= 0) {
    throw_failed("find an array of the right type as " + name);
  }
  hsize_t size = 0;
  H5Sget_simple_extent_dims(space, &size, nullptr);
  std::vector<T> values(size);
  if (size > 0 && H5Dread(set, stored_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    throw_failed("read " + name);
  return values;
}

#define GRAFT_HDF5_TYPE(T)                                                  \
  template void Hdf5File::write<T>(const std::string&, std::span<const T>); \
  template std::vector<T> Hdf5File::read<T>(const std::string&) const;
GRAFT_HDF5_TYPE(uint8_t)
GRAFT_HDF5_TYPE(int32_t)
GRAFT_HDF5_TYPE(int64_t)
GRAFT_HDF5_TYPE(float)
#undef GRAFT_HDF5_TYPE

}  // namespace graft

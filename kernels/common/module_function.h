// Functions of libraries that are loaded when they are needed: libgraft_arrow.so, libgraft_http.so.
#pragma once
#include <filesystem>
#include <string>

#include <dlfcn.h>

namespace graft {

// Of a library that lies beside the program, else in `build_folder`; it is never closed. Null where it is missing or does not load: dlerror() says why.
inline void* module_function(const std::string& library, const char* function, const char* build_folder) {
  std::error_code error;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / library;
  const auto path = !error && std::filesystem::exists(beside) ? beside : std::filesystem::path(build_folder) / library;
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  return module ? dlsym(module, function) : nullptr;
}

}  // namespace graft

// libgraft_cuda.so, which brings LibTorch's CUDA operators and ours: opened only where a GPU was chosen (DESIGN section 9).
#pragma once
#include <filesystem>
#include <string>

namespace graft {

std::filesystem::path cuda_module_path();   // beside the program

// Why it cannot be opened, as part of a sentence, or "".
std::string cuda_module_missing(const std::filesystem::path& path);
// Opens it, once a process and before anything asks LibTorch about CUDA or runs a backward pass: LibTorch looks once. Sets what makes a GPU
// repeat its bits and float32 be float32: deterministic algorithms, workspaces for cuBLAS that no environment changes, no TF32, no sums in bfloat16.
std::string load_cuda_module(const std::filesystem::path& path);

}  // namespace graft

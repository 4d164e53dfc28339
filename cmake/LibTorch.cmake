# LibTorch 2.11.0 from the `torch` wheel in .deps/python, imported by path (DESIGN section 9): find_package(Torch)
# would need a CUDA toolkit and pull libtorch_cuda into the program (347 MiB resident against 117).
#
#   graft::torch       torch_cpu + c10 and the wheel's own libgomp; needs cudart and cupti of CUDA 13 at run time only
#   graft::fmt         the fmt 12 headers that LibTorch ships (Debian's fmt 9 clashes); kernels/common/format.cpp has its functions
#   GRAFT_SITE         site-packages of .deps/python
file(GLOB GRAFT_SITE "${PROJECT_SOURCE_DIR}/.deps/python/lib/python3*/site-packages")
if(NOT EXISTS "${GRAFT_SITE}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch is not in .deps/python: run tools/setup first")
endif()
set(GRAFT_TORCH "${GRAFT_SITE}/torch")

add_library(graft_fmt INTERFACE)
add_library(graft::fmt ALIAS graft_fmt)
target_include_directories(graft_fmt SYSTEM INTERFACE "${PROJECT_SOURCE_DIR}/.deps/include")
file(MAKE_DIRECTORY "${PROJECT_SOURCE_DIR}/.deps/include")
if(NOT EXISTS "${PROJECT_SOURCE_DIR}/.deps/include/fmt/format.h")   # several builds may configure at once
  file(CREATE_LINK "${GRAFT_TORCH}/include/fmt" "${PROJECT_SOURCE_DIR}/.deps/include/fmt" SYMBOLIC)
endif()

# cudart and cupti: the machine's toolkit, else the nvidia wheels that tools/setup added.
set(GRAFT_CUDA_RUNTIME_FOLDERS "")
foreach(library libcudart.so.13 libcupti.so.13)
  find_file(GRAFT_${library} ${library}
    PATHS /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64 "${GRAFT_SITE}/nvidia/cu13/lib"
    NO_DEFAULT_PATH)
  if(NOT GRAFT_${library})
    message(FATAL_ERROR "${library} not found: run tools/setup, which adds it from PyPI")
  endif()
  get_filename_component(folder "${GRAFT_${library}}" DIRECTORY)
  list(APPEND GRAFT_CUDA_RUNTIME_FOLDERS "${folder}")
endforeach()
list(REMOVE_DUPLICATES GRAFT_CUDA_RUNTIME_FOLDERS)

add_library(graft_torch INTERFACE)
add_library(graft::torch ALIAS graft_torch)
target_include_directories(graft_torch SYSTEM INTERFACE
  "${GRAFT_TORCH}/include" "${GRAFT_TORCH}/include/torch/csrc/api/include")
target_link_libraries(graft_torch INTERFACE
  "${GRAFT_TORCH}/lib/libtorch_cpu.so" "${GRAFT_TORCH}/lib/libc10.so" "${GRAFT_TORCH}/lib/libgomp.so.1")
target_compile_options(graft_torch INTERFACE -fopenmp)
set(rpath "${GRAFT_TORCH}/lib" ${GRAFT_CUDA_RUNTIME_FOLDERS})
foreach(folder ${rpath})
  target_link_options(graft_torch INTERFACE "LINKER:-rpath,${folder}" "LINKER:-rpath-link,${folder}")
endforeach()

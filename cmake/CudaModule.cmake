# libgraft_cuda.so: every kernels/**/*.cu, their launchers in one table (kernels/device_launch), and the *_cuda.cpp files. The program
# does not link it; it loads it where a GPU is visible. nvcc 13.0: the machine's, else the one of .deps/python.
find_program(GRAFT_NVCC nvcc PATHS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin "${GRAFT_SITE}/nvidia/cu13/bin")
if(NOT GRAFT_NVCC)
  message(FATAL_ERROR "nvcc 13.0 not found: run tools/setup --cuda, which adds it from PyPI, or configure with -DGRAFT_WITH_CUDA=OFF")
endif()
set(CMAKE_CUDA_COMPILER "${GRAFT_NVCC}")
set(GRAFT_CUDA_ARCHITECTURES "80;90a" CACHE STRING "compute capabilities of libgraft_cuda.so")
set(CMAKE_CUDA_ARCHITECTURES OFF)   # CMake 3.25 does not know 90a: the flags are written below
enable_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER_VERSION MATCHES "^13\\.")
  message(FATAL_ERROR "expected nvcc 13, which LibTorch 2.11 was built for, got ${CMAKE_CUDA_COMPILER_VERSION} (${GRAFT_NVCC})")
endif()

file(GLOB_RECURSE device_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/*.cu")
file(GLOB_RECURSE host_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/*_cuda.cpp" "${PROJECT_SOURCE_DIR}/trainer/parallel/*_cuda.cpp")
set_source_files_properties("${PROJECT_SOURCE_DIR}/trainer/parallel/nccl_backend_cuda.cpp" PROPERTIES COMPILE_DEFINITIONS USE_C10D_NCCL)
# Device code includes no Torch, so it is a target of its own with its own include path.
add_library(graft_device OBJECT ${device_sources})
set_target_properties(graft_device PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  POSITION_INDEPENDENT_CODE ON CUDA_ARCHITECTURES OFF)
target_include_directories(graft_device PRIVATE "${PROJECT_SOURCE_DIR}")
# The driver unpacks a kernel when it is first launched: a fifth of the size.
target_compile_options(graft_device PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>")
foreach(architecture ${GRAFT_CUDA_ARCHITECTURES})
  target_compile_options(graft_device PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-gencode=arch=compute_${architecture},code=sm_${architecture}>")
endforeach()

get_filename_component(cuda_root "${GRAFT_NVCC}" REALPATH)
get_filename_component(cuda_root "${cuda_root}/../.." ABSOLUTE)
file(GLOB wheel_library_folders "${GRAFT_SITE}/nvidia/*/lib")
set(cuda_library_folders "${GRAFT_TORCH}/lib" ${wheel_library_folders})
foreach(folder "${cuda_root}/lib64" "${cuda_root}/lib")
  if(EXISTS "${folder}")
    list(APPEND cuda_library_folders "${folder}")
  endif()
endforeach()

add_library(graft_cuda MODULE ${host_sources} $<TARGET_OBJECTS:graft_device>)
target_include_directories(graft_cuda SYSTEM PRIVATE "${cuda_root}/include" "${GRAFT_SITE}/nvidia/cu13/include"
  "${GRAFT_SITE}/nvidia/nccl/include")
target_include_directories(graft_cuda PRIVATE "${PROJECT_SOURCE_DIR}")
target_link_libraries(graft_cuda PRIVATE graft::torch "${GRAFT_TORCH}/lib/libtorch_cuda.so" "${GRAFT_TORCH}/lib/libc10_cuda.so"
  "${GRAFT_libcudart.so.13}")
foreach(folder ${cuda_library_folders})
  target_link_options(graft_cuda PRIVATE "LINKER:-rpath,${folder}" "LINKER:-rpath-link,${folder}")
endforeach()
target_link_options(graft_cuda PRIVATE "LINKER:--no-undefined")
set_target_properties(graft_cuda PROPERTIES LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")

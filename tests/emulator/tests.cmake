# Device code on the CPU: every kernels/*/*.cu compiled as C++ with tests/emulator first on the include path, so that "kernels/cuda/device.cuh" is the
# emulator's. Locals that nobody wrote start as a pattern.
file(GLOB device_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/*/*.cu")
set(emulated_sources "")
foreach(source ${device_sources})
  get_filename_component(stem "${source}" NAME_WE)
  set(wrapper "${CMAKE_CURRENT_BINARY_DIR}/emulated_${stem}.cpp")
  file(GENERATE OUTPUT "${wrapper}" CONTENT "#include \"${source}\"\n")
  list(APPEND emulated_sources "${wrapper}")
endforeach()
file(GLOB emulator_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cpp")
set(emulator_tests ${emulator_sources})
list(FILTER emulator_tests INCLUDE REGEX "_test\\.cpp$")
list(REMOVE_ITEM emulator_sources ${emulator_tests})

add_library(emulated_kernels OBJECT ${emulator_sources} ${emulated_sources})
target_compile_options(emulated_kernels PUBLIC -ftrivial-auto-var-init=pattern)
target_include_directories(emulated_kernels BEFORE PUBLIC "${CMAKE_CURRENT_LIST_DIR}" "${PROJECT_SOURCE_DIR}")

# What hosts decide: pure functions.
set(host_sources "${PROJECT_SOURCE_DIR}/kernels/attention/attention_tiles.cpp" "${PROJECT_SOURCE_DIR}/kernels/delta_attention/delta_chunks.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/lora_linear/lora_windows.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/quantized_product/quantized_product_plan.cpp" "${PROJECT_SOURCE_DIR}/kernels/quantized/dequantize_blocks.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/quantized/round_to_bf16.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/quantized/tensor_type.cpp")
set_source_files_properties("${PROJECT_SOURCE_DIR}/kernels/quantized/dequantize_blocks.cpp" PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
add_executable(test_emulator ${emulator_tests} ${host_sources} $<TARGET_OBJECTS:emulated_kernels>)
target_compile_options(test_emulator PRIVATE -ftrivial-auto-var-init=pattern)
target_include_directories(test_emulator BEFORE PRIVATE "${CMAKE_CURRENT_LIST_DIR}" "${PROJECT_SOURCE_DIR}")
target_link_libraries(test_emulator PRIVATE Threads::Threads GTest::gtest GTest::gmock GTest::gtest_main)
gtest_discover_tests(test_emulator TEST_PREFIX "emulator/" DISCOVERY_TIMEOUT 60)

if(GRAFT_WITH_TORCH)
  add_test(NAME emulator/mutants COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/mutants.py" --build "${PROJECT_BINARY_DIR}")
  set_tests_properties(emulator/mutants PROPERTIES LABELS "long;python" TIMEOUT 7200)
  file(GLOB operator_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/operators/*_test.cpp")
  add_executable(test_emulated_operators ${operator_tests} $<TARGET_OBJECTS:emulated_kernels>)
  target_include_directories(test_emulated_operators BEFORE PRIVATE "${CMAKE_CURRENT_LIST_DIR}" "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(test_emulated_operators PRIVATE GRAFT_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(test_emulated_operators PRIVATE trainer GTest::gtest GTest::gmock GTest::gtest_main)
  gtest_discover_tests(test_emulated_operators TEST_PREFIX "emulated_operators/" DISCOVERY_TIMEOUT 60)
endif()

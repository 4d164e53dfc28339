# Only where libgraft_cuda.so is built; needs no GPU.
if(GRAFT_WITH_TORCH AND GRAFT_WITH_CUDA)
  add_executable(test_cuda_module "${CMAKE_CURRENT_LIST_DIR}/cuda_module_test.cpp")
  add_dependencies(test_cuda_module graft_cuda)
  target_compile_definitions(test_cuda_module PRIVATE "GRAFT_CUDA_MODULE=\"$<TARGET_FILE:graft_cuda>\"")
  target_link_libraries(test_cuda_module PRIVATE kernels ${CMAKE_DL_LIBS} GTest::gtest GTest::gtest_main)
  gtest_discover_tests(test_cuda_module TEST_PREFIX "cuda/" DISCOVERY_TIMEOUT 60)
endif()

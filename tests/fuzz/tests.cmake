# Each tests/fuzz/<name>_fuzz.cpp is a libFuzzer target of its own (preset asan). corpus/<name>/ holds valid inputs to start from,
# crashes/<name>/ every input that once crashed; both are run first. CI: 10^5 inputs; longer by hand:
#   GRAFT_FUZZ_RUNS=-1 GRAFT_FUZZ_SECONDS=1800 ctest --test-dir build/asan -R fuzz/gguf
if(GRAFT_WITH_FUZZERS)
  add_custom_target(fuzzers)
  file(GLOB fuzzers CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_fuzz.cpp")
  foreach(source ${fuzzers})
    get_filename_component(stem "${source}" NAME_WE)
    string(REPLACE "_fuzz" "" name "${stem}")
    add_executable(${stem} "${source}")
    add_dependencies(fuzzers ${stem})
    target_link_libraries(${stem} PRIVATE trainer_plain)
    target_link_options(${stem} PRIVATE -fsanitize=fuzzer)
    add_test(NAME fuzz/${name} COMMAND "${CMAKE_CURRENT_LIST_DIR}/run_fuzzer" $<TARGET_FILE:${stem}> ${name} "${CMAKE_BINARY_DIR}/fuzz/${name}")
    set_tests_properties(fuzz/${name} PROPERTIES LABELS "fuzz" TIMEOUT 7200)
  endforeach()
endif()

# Real engines read what graft reads and writes. Needs the goldens of tests/conformance.
if(GRAFT_WITH_TORCH)
  add_test(NAME engines/readers
    COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/readers_test.py" --goldens "${CMAKE_BINARY_DIR}/goldens")
  set_tests_properties(engines/readers PROPERTIES FIXTURES_REQUIRED "goldens_llama;goldens_qwen2;goldens_qwen3"
    LABELS "python;engines" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
  foreach(name planted_faults served_forms)
    add_test(NAME engines/${name} COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/${name}_test.py" --graft $<TARGET_FILE:graft>)
    set_tests_properties(engines/${name} PROPERTIES LABELS "python;engines" TIMEOUT 900)
  endforeach()
endif()

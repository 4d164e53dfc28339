# Exports in the programs that read them. One test per class of exports_test.py, so that they run side by side.
if(GRAFT_WITH_TORCH)
  foreach(part Llama Qwen2 Qwen3 Refusals RealModel)
    add_test(NAME exports/${part}
      COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/exports_test.py" --graft $<TARGET_FILE:graft> ${part})
    set_tests_properties(exports/${part} PROPERTIES LABELS "python;exports" TIMEOUT 600 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
  endforeach()
  add_test(NAME exports/quantized_hub COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/quantized_hub_test.py" --graft $<TARGET_FILE:graft>)
  set_tests_properties(exports/quantized_hub PROPERTIES LABELS "python;exports" TIMEOUT 600 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
  add_test(NAME exports/export_memory COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/export_memory_test.py" --graft $<TARGET_FILE:graft>)
  set_tests_properties(exports/export_memory PROPERTIES LABELS "python;exports;long" TIMEOUT 3600)
  add_test(NAME exports/go_template COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/go_template_test.py" --graft $<TARGET_FILE:graft>)
  set_tests_properties(exports/go_template PROPERTIES LABELS "python;exports;long" TIMEOUT 1200 SKIP_RETURN_CODE 77 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
endif()

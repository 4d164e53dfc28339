# One fixture makes the goldens of every family of families/; then each family is one test, and one proves that
# conform can fail. A new family is a new file there.
if(GRAFT_WITH_TORCH)
  set(conformance "${CMAKE_CURRENT_LIST_DIR}")
  set(goldens "${CMAKE_BINARY_DIR}/goldens")
  file(GLOB families CONFIGURE_DEPENDS "${conformance}/families/*.py")
  foreach(file ${families})
    get_filename_component(family "${file}" NAME_WE)
    add_test(NAME conformance/${family}/goldens
      COMMAND "${GRAFT_PYTHON}" "${conformance}/make_goldens.py" --out "${goldens}" ${family})
    add_test(NAME conformance/${family}
      COMMAND "${GRAFT_PYTHON}" "${conformance}/conformance_test.py" ${family} --graft $<TARGET_FILE:graft> --goldens "${goldens}")
    add_test(NAME conformance/${family}/faults
      COMMAND "${GRAFT_PYTHON}" "${conformance}/conformance_test.py" ${family} --faults --graft $<TARGET_FILE:graft>
              --goldens "${goldens}")
    add_test(NAME conformance/${family}/exported
      COMMAND "${GRAFT_PYTHON}" "${conformance}/exported_test.py" ${family} --graft $<TARGET_FILE:graft> --goldens "${goldens}")
    set_tests_properties(conformance/${family}/goldens PROPERTIES FIXTURES_SETUP goldens_${family})
    set_tests_properties(conformance/${family} conformance/${family}/faults conformance/${family}/exported PROPERTIES FIXTURES_REQUIRED goldens_${family})
    set_tests_properties(conformance/${family}/goldens conformance/${family} conformance/${family}/faults conformance/${family}/exported PROPERTIES
      LABELS "python;conformance" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
    # In every CI run: exports of one family of each layout, and that conform can fail on one of each kind of norm, position and layout; all of them
    # by tools/test --full.
    if(NOT family MATCHES "^(llama|gemma2|bloom|glm)$")
      set_tests_properties(conformance/${family}/faults PROPERTIES LABELS "python;conformance;long")
    endif()
    if(NOT family MATCHES "^(llama|qwen2|qwen3|gemma2|bloom|glm|phi3|deepseek_v3|gpt_oss|qwen3_moe|qwen3_5_text)$")
      set_tests_properties(conformance/${family}/exported PROPERTIES LABELS "python;conformance;long")
    endif()
  endforeach()
endif()

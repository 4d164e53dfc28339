# Whole runs of the program.
if(GRAFT_WITH_TORCH)
  add_test(NAME runs/kill_and_resume
    COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/kill_and_resume_test.py" --graft $<TARGET_FILE:graft>)
  set_tests_properties(runs/kill_and_resume PROPERTIES LABELS "python" TIMEOUT 900)
endif()

# What the recipes' own data promises: sizes, split, no copies, no leak.
add_test(NAME recipes/support_tickets COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/support_tickets_test.py")
set_tests_properties(recipes/support_tickets PROPERTIES LABELS "python" TIMEOUT 60)

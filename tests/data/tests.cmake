# Tokenizers against tokenizers, transformers and llama.cpp.
add_executable(tokenize_tool "${CMAKE_CURRENT_LIST_DIR}/tokenizers/tokenize_tool.cpp")
target_link_libraries(tokenize_tool PRIVATE data)
add_test(NAME data/tokenizers/parity COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/tokenizers/parity_test.py" $<TARGET_FILE:tokenize_tool>)
set_tests_properties(data/tokenizers/parity PROPERTIES LABELS "python" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")

# Tokenizers against tokenizers, transformers, sentencepiece, tiktoken and llama.cpp.
add_executable(tokenize_tool "${CMAKE_CURRENT_LIST_DIR}/tokenizers/tokenize_tool.cpp")
target_link_libraries(tokenize_tool PRIVATE data)
foreach(part TokenizerJson SmolLM2 Export Config)
  add_test(NAME data/tokenizers/parity/${part} COMMAND "${GRAFT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/tokenizers/parity_test.py" $<TARGET_FILE:tokenize_tool> ${part})
  set_tests_properties(data/tokenizers/parity/${part} PROPERTIES LABELS "python" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1;TOKENIZERS_PARALLELISM=true")
endforeach()

foreach(part Files PieceJson Tiktoken Gguf)
  add_test(NAME data/tokenizers/pieces/${part} COMMAND "${GRAFT_PYTHON}" -W ignore "${CMAKE_CURRENT_LIST_DIR}/tokenizers/pieces_parity_test.py" $<TARGET_FILE:tokenize_tool> ${part})
  set_tests_properties(data/tokenizers/pieces/${part} PROPERTIES LABELS "python" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1;TOKENIZERS_PARALLELISM=true")
endforeach()

# Chat templates against jinja2 in transformers' environment.
add_executable(template_driver "${CMAKE_CURRENT_LIST_DIR}/templates/template_driver.cpp")
target_link_libraries(template_driver PRIVATE data)
add_test(NAME data/templates/jinja2 COMMAND "${GRAFT_PYTHON}" -W ignore "${CMAKE_CURRENT_LIST_DIR}/templates/compare_with_jinja2.py" $<TARGET_FILE:template_driver>)
set_tests_properties(data/templates/jinja2 PROPERTIES LABELS "python" TIMEOUT 900 ENVIRONMENT "HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")

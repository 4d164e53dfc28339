# report.html opened in a browser.
add_executable(write_report report/write_report.cpp)
target_link_libraries(write_report PRIVATE trainer_plain)
add_test(NAME report/report_test COMMAND ${PROJECT_SOURCE_DIR}/.deps/python/bin/python ${CMAKE_CURRENT_LIST_DIR}/report_test.py $<TARGET_FILE:write_report>)

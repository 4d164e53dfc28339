// What a test expects to fail says.
#pragma once
#include <string>

#include "kernels/common/error.h"

namespace graft::test {

// The text of the error that `function` throws; "no error" where it throws none. Another type of exception leaves the test.
template <typename Expected = UserError, typename Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const Expected& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace graft::test

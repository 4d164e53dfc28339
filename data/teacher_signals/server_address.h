// Where a recipe's teacher.server is.
#pragma once
#include <string>

namespace graft {

struct ServerAddress {
  std::string url;          // without a slash at its end
  std::string host;         // with its port where the URL has one: for messages
  bool encrypted = false;   // https
  bool loopback = false;    // localhost, 127.x.x.x or [::1], as they are written: another name is remote, whatever it resolves to
};

// What is wrong with it, as "expected ..." without any part of it, which may be a key; else empty.
std::string problem_of_server(const std::string& url);
// UserError where there is a problem.
ServerAddress server_address(const std::string& url);

}  // namespace graft

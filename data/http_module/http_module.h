// The interface of libgraft_http.so, without libcurl's types. The module is loaded only when a server is asked: no other command has network code in its process.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace graft {

struct HttpRequest {
  std::string url;
  std::string body;              // JSON, by POST; empty: GET
  std::string key;               // sent as a bearer token; empty: none
  bool loopback = false;         // only to addresses of this machine, whatever the name resolves to, and through no proxy
  double connect_seconds = 10, answer_seconds = 120;   // the latter from the beginning to the answer's end
  size_t most_bytes = size_t{64} << 20;   // of an answer
};

struct HttpAnswer {
  int64_t status = 0;
  std::string body;
  std::string retry_after;       // the header, as it came
  std::string error;             // not empty: there is no answer, and why
};

// The type of the function `graft_send_http` that the module exports: one request, on a connection that stays open for the next one. Follows no redirect. Never
// throws; of one thread at a time.
using SendHttpFunction = void(const HttpRequest* request, HttpAnswer* answer);

}  // namespace graft

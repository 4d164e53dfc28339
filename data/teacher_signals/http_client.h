// Loads libgraft_http.so on first use and asks a server through it.
#pragma once
#include "data/http_module/http_module.h"

namespace graft {

// MachineError where the module is missing or does not load; what the network says is in the answer.
HttpAnswer send_http(const HttpRequest& request);

}  // namespace graft

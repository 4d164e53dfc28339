#include "data/teacher_signals/http_client.h"

#include "kernels/common/error.h"
#include "kernels/common/module_function.h"

namespace graft {
namespace {

SendHttpFunction* load_module() {
  void* function = module_function("libgraft_http.so", "graft_send_http", GRAFT_HTTP_MODULE_FOLDER);
  if (!function) {
    throw MachineError("teacher", fmt::format("expected libgraft_http.so, which asks servers, got \"{}\" — build the target graft_http", dlerror()));
  }
  return reinterpret_cast<SendHttpFunction*>(function);
}

}  // namespace

HttpAnswer send_http(const HttpRequest& request) {
  static SendHttpFunction* const send = load_module();
  HttpAnswer answer;
  send(&request, &answer);
  return answer;
}

}  // namespace graft

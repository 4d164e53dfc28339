#include "data/http_module/http_module.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <strings.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace {

using graft::HttpAnswer;
using graft::HttpRequest;

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
  return address.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

curl_socket_t open_socket(void* request, curlsocktype, curl_sockaddr* address) {
  if (static_cast<const HttpRequest*>(request)->loopback && !is_loopback(address->addr)) return CURL_SOCKET_BAD;
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

struct Receiver {
  const HttpRequest& request;
  HttpAnswer& answer;
  bool too_large = false;
};

size_t take_body(char* bytes, size_t, size_t count, void* receiver) {
  auto& [request, answer, too_large] = *static_cast<Receiver*>(receiver);
  too_large = answer.body.size() + count > request.most_bytes;
  if (too_large) return 0;   // libcurl ends the transfer
  answer.body.append(bytes, count);
  return count;
}

size_t take_header(char* bytes, size_t, size_t count, void* receiver) {
  constexpr std::string_view kName = "retry-after:";
  const std::string_view line(bytes, count);
  if (line.size() < kName.size() || strncasecmp(bytes, kName.data(), kName.size()) != 0) return count;
  const auto begin = line.find_first_not_of(" \t", kName.size()), end = line.find_last_not_of(" \t\r\n");
  static_cast<Receiver*>(receiver)->answer.retry_after = begin == line.npos || end < begin ? "" : std::string(line.substr(begin, end + 1 - begin));
  return count;
}

void send(const HttpRequest& request, HttpAnswer& answer) {
  static const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(), curl_easy_cleanup);
  CURL* curl = handle.get();
  if (!curl) {
    answer.error = "libcurl does not start";
    return;
  }
  curl_easy_reset(curl);   // keeps the connection
  curl_slist* headers = nullptr;
  const auto header = [&](const std::string& line) { headers = curl_slist_append(headers, line.c_str()); };
  header("Accept: application/json");
  if (!request.key.empty()) header("Authorization: Bearer " + request.key);
  if (!request.body.empty()) {
    header("Content-Type: application/json");
    header("Expect:");   // the body goes at once
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.c_str());
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  }
  Receiver receiver{request, answer};
  char reason[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "graft");
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(1000 * request.connect_seconds));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(1000 * request.answer_seconds));
  if (request.loopback) curl_easy_setopt(curl, CURLOPT_PROXY, "");
  if (const char* certificates = std::getenv("SSL_CERT_FILE")) curl_easy_setopt(curl, CURLOPT_CAINFO, certificates);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &request);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &receiver);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &receiver);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
  const CURLcode code = curl_easy_perform(curl);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  curl_slist_free_all(headers);
  long status = 0, error_of_system = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &error_of_system);
  answer.status = status;
  if (receiver.too_large) answer.error = "an answer of more than " + std::to_string(request.most_bytes >> 20) + " MiB";
  else if (code == CURLE_OPERATION_TIMEDOUT) answer.error = "no answer in time";
  else if (code != CURLE_OK) answer.error = *reason ? reason : curl_easy_strerror(code);
  if (code == CURLE_COULDNT_CONNECT && error_of_system != 0) answer.error += std::string(" (") + std::strerror(static_cast<int>(error_of_system)) + ")";
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void graft_send_http(const graft::HttpRequest* request, graft::HttpAnswer* answer) {
  try {
    send(*request, *answer);
  } catch (const std::exception& error) {
    answer->error = error.what();
  }
}

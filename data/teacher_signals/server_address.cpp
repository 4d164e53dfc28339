#include "data/teacher_signals/server_address.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

bool only(std::string_view text, const std::string& allowed) { return text.find_first_not_of(allowed) == text.npos; }

std::optional<int> number_below(std::string_view digits, int limit) {
  int value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || !only(digits, "0123456789") || error != std::errc() || value >= limit) return std::nullopt;
  return value;
}

bool is_loopback(std::string_view name) {
  if (name == "localhost" || name == "[::1]") return true;
  if (!name.starts_with("127.") || std::count(name.begin(), name.end(), '.') != 3) return false;
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    if (!number_below(name.substr(begin, end - begin), 256)) return false;
    begin = end + 1;
  }
  return name.back() != '.';
}

// A problem, or the address.
std::string take_address(const std::string& url, ServerAddress& address) {
  std::string_view rest = url;
  address.encrypted = rest.starts_with("https://");
  if (!address.encrypted && !rest.starts_with("http://")) return "expected a URL that begins with http:// or https://";
  rest.remove_prefix(address.encrypted ? 8 : 7);
  if (rest.find_first_of("@?#") != rest.npos)
    return "expected a URL without user, password, query or fragment, got one — a key belongs in the environment: name its variable as teacher.key_env";
  const auto authority = rest.substr(0, rest.find('/')), path = rest.substr(authority.size());
  const size_t behind = authority.starts_with('[') ? std::min(authority.find(']'), authority.size() - 1) + 1 : std::min(authority.find(':'), authority.size());
  const auto name = authority.substr(0, behind), port = authority.substr(behind);
  const bool bracketed = name.starts_with('[');
  if (name.empty() || (bracketed ? !name.ends_with(']') || !only(name.substr(1, name.size() - 2), "0123456789abcdefABCDEF:.") : !only(name, std::string(kLetters) + ".-")))
    return "expected a URL with a host of letters, digits, dots and hyphens, or an IPv6 address in brackets";
  if (!port.empty() && number_below(port.substr(1), 65536).value_or(0) == 0) return "expected a URL with a port of 1 to 65535 behind the host";
  if (!only(path, std::string(kLetters) + "/-._~%")) return "expected a URL whose path holds letters, digits and /-._~% alone";
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  address.loopback = is_loopback(lower);
  address.host = std::string(authority);
  address.url = url.substr(0, url.find_last_not_of('/') + 1);
  return {};
}

}  // namespace

std::string problem_of_server(const std::string& url) {
  ServerAddress address;
  return take_address(url, address);
}

ServerAddress server_address(const std::string& url) {
  ServerAddress address;
  if (const auto problem = take_address(url, address); !problem.empty()) fail("teacher", "{} (teacher.server)", problem);
  return address;
}

}  // namespace graft

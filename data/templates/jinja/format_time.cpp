#include <array>
#include <ctime>

#include "data/templates/jinja/globals.h"

namespace graft::jinja {
namespace {

constexpr std::array<const char*, 7> kDays = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
constexpr std::array<const char*, 12> kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                                 "July",    "August",   "September", "October", "November", "December"};

std::string padded(int value, int width, char flag, char padding = '0') {
  if (flag == '-') return std::to_string(value);
  if (flag == '_') padding = ' ';
  if (flag == '0') padding = '0';
  std::string text = std::to_string(value);
  return text.size() < static_cast<size_t>(width) ? std::string(static_cast<size_t>(width) - text.size(), padding) + text : text;
}

int twelve_hours(int hour) { return hour % 12 == 0 ? 12 : hour % 12; }

// Weeks of the year that begin on that day of the week (0 = Sunday).
int week_of_year(const std::tm& time, int first_day) { return (time.tm_yday + 7 - (time.tm_wday - first_day + 7) % 7) / 7; }

std::string directive(Renderer& renderer, const std::tm& time, int64_t seconds, char letter, char flag) {
  const auto nested = [&](std::string_view format) { return format_time(renderer, format, seconds); };
  switch (letter) {
    case 'Y': return std::to_string(time.tm_year + 1900);
    case 'y': return padded((time.tm_year + 1900) % 100, 2, flag);
    case 'C': return padded((time.tm_year + 1900) / 100, 2, flag);
    case 'm': return padded(time.tm_mon + 1, 2, flag);
    case 'd': return padded(time.tm_mday, 2, flag);
    case 'e': return padded(time.tm_mday, 2, flag, ' ');
    case 'H': return padded(time.tm_hour, 2, flag);
    case 'I': return padded(twelve_hours(time.tm_hour), 2, flag);
    case 'k': return padded(time.tm_hour, 2, flag, ' ');
    case 'l': return padded(twelve_hours(time.tm_hour), 2, flag, ' ');
    case 'M': return padded(time.tm_min, 2, flag);
    case 'S': return padded(time.tm_sec, 2, flag);
    case 'j': return padded(time.tm_yday + 1, 3, flag);
    case 'u': return std::to_string(time.tm_wday == 0 ? 7 : time.tm_wday);
    case 'w': return std::to_string(time.tm_wday);
    case 'U': return padded(week_of_year(time, 0), 2, flag);
    case 'W': return padded(week_of_year(time, 1), 2, flag);
    case 'A': return kDays[static_cast<size_t>(time.tm_wday)];
    case 'a': return std::string(kDays[static_cast<size_t>(time.tm_wday)]).substr(0, 3);
    case 'B': return kMonths[static_cast<size_t>(time.tm_mon)];
    case 'b':
    case 'h': return std::string(kMonths[static_cast<size_t>(time.tm_mon)]).substr(0, 3);
    case 'p': return time.tm_hour < 12 ? "AM" : "PM";
    case 'P': return time.tm_hour < 12 ? "am" : "pm";
    case 'f': return "000000";
    case 's': return std::to_string(seconds);
    case 'Z':
    case 'z': return "";  // the datetime has no zone
    case 'n': return "\n";
    case 't': return "\t";
    case '%': return "%";
    case 'F': return nested("%Y-%m-%d");
    case 'T':
    case 'X': return nested("%H:%M:%S");
    case 'R': return nested("%H:%M");
    case 'r': return nested("%I:%M:%S %p");
    case 'D':
    case 'x': return nested("%m/%d/%y");
    case 'c': return nested("%a %b %e %H:%M:%S %Y");
    default: raise_python("ValueError", fmt::format("strftime_now: the directive %{} is not supported", letter));
  }
}

}  // namespace

std::string format_time(Renderer& renderer, std::string_view format, int64_t unix_seconds) {
  const time_t seconds = static_cast<time_t>(unix_seconds);
  std::tm time{};
  if (!gmtime_r(&seconds, &time)) raise_python("ValueError", "the date is out of range");
  renderer.budget().pay_for_text(16 * format.size());
  std::string result;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      result += format[i];
      continue;
    }
    char flag = '\0';
    if (format[i + 1] == '-' || format[i + 1] == '_' || format[i + 1] == '0') flag = format[++i];
    if (i + 1 == format.size()) raise_python("ValueError", "strftime_now: Invalid format string");
    result += directive(renderer, time, unix_seconds, format[++i], flag);
    renderer.budget().check_text(result.size());
  }
  return result;
}

}  // namespace graft::jinja

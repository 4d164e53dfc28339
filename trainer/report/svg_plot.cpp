#include "trainer/report/svg_plot.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <limits>

#include <fmt/format.h>

#include "trainer/report/html_text.h"
#include "trainer/report/progress.h"

namespace graft {
namespace {

using Points = std::vector<std::pair<double, double>>;

// Units of the view box.
constexpr double kWidth = 460, kHeight = 210, kLeft = 46, kRight = 12, kTop = 12, kBottom = 36;
constexpr size_t kMaxPoints = 500;   // of one line: more than the plot has pixels

struct Scale {
  double low, high;
  bool logarithmic;
  double from, to;
  double operator()(double value) const {
    const double share = logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

bool is_finite(const std::pair<double, double>& point) { return std::isfinite(point.first) && std::isfinite(point.second); }

std::string tick_label(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1000) return format_count(value);
  return size < 1e-3 ? fmt::format("{:.3g}", value) : fmt::format("{:.6g}", value);
}

// Keeps the lowest and highest point of each of at most kMaxPoints/2 stretches, so that spikes stay visible.
Points thinned(const Points& points) {
  if (points.size() <= kMaxPoints) return points;
  Points kept;
  const size_t stretches = kMaxPoints / 2;
  for (size_t i = 0; i < stretches; ++i) {
    const auto begin = points.begin() + static_cast<ptrdiff_t>(i * points.size() / stretches);
    const auto end = points.begin() + static_cast<ptrdiff_t>((i + 1) * points.size() / stretches);
    const auto by_y = [](const auto& a, const auto& b) { return a.second < b.second; };
    auto [low, high] = std::minmax_element(begin, end, by_y);
    if (low > high) std::swap(low, high);
    kept.push_back(*low);
    if (high != low) kept.push_back(*high);
  }
  return kept;
}

std::string line_path(const Points& points, const Scale& x, const Scale& y) {
  std::string path;
  bool drawing = false;
  size_t drawn = 0;
  for (const auto& point : points) {
    if (!is_finite(point)) {
      drawing = false;
      continue;
    }
    path += fmt::format("{}{:.1f} {:.1f}", drawing ? "L" : "M", x(point.first), y(point.second));
    drawing = true;
    ++drawn;
  }
  return drawn == 1 ? path + "h.01" : path;   // a round line end makes a single point a dot
}

// 1, 2 and 5 times powers of ten; powers alone where there are many.
std::vector<double> log_ticks(double low, double high) {
  const bool wide = high / low > 1e3;
  std::vector<double> ticks;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if ((factor == 1 || !wide) && factor * power >= low && factor * power <= high) ticks.push_back(factor * power);
    }
  }
  return ticks;
}

std::string axes(const Scale& x, const Scale& y, const std::vector<double>& x_ticks, const std::vector<double>& y_ticks,
                 const std::string& x_label) {
  std::string svg = "<g class=\"axes\">";
  for (const double tick : y_ticks) {
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/><text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft,
                       y(tick), kWidth - kRight, kLeft - 6, y(tick) + 3.5, tick_label(tick));
  }
  for (const double tick : x_ticks) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x(tick), kHeight - kBottom + 15, tick_label(tick));
  }
  svg += fmt::format("<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text></g>", kWidth - kRight, kHeight - 4,
                     html::escape(x_label));
  return svg;
}

std::string frame(const PlotText& text, const std::string& legend, const std::string& content) {
  static std::atomic<int> next_id{0};
  const int id = next_id++;
  return fmt::format(
      "<figure class=\"plot\"><figcaption><b>{0}</b>{1}</figcaption>"
      "<svg viewBox=\"0 0 {2:.0f} {3:.0f}\" role=\"img\" aria-labelledby=\"plot{4}-title plot{4}-desc\">"
      "<title id=\"plot{4}-title\">{0}</title><desc id=\"plot{4}-desc\">{5}</desc>{6}</svg></figure>\n",
      html::escape(text.title), legend, kWidth, kHeight, id, html::escape(text.description), content);
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double raw = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double candidate : {1.0, 2.0, 2.5, 5.0}) {
    if (candidate * power >= raw * 0.999) {
      step = candidate * power;
      break;
    }
  }
  std::vector<double> ticks;
  for (double index = std::ceil(low / step - 1e-9); index * step <= high + step * 1e-9; ++index) ticks.push_back(index == 0 ? 0 : index * step);
  return ticks;
}

Points smoothed(const Points& points, double width) {
  width = std::clamp(width, 0.5, 200.0);   // bounds the cost for very long runs
  Points kept;
  std::copy_if(points.begin(), points.end(), std::back_inserter(kept), is_finite);
  const auto reach = static_cast<ptrdiff_t>(3 * width), size = static_cast<ptrdiff_t>(kept.size());
  Points result;
  for (ptrdiff_t i = 0; i < size; ++i) {
    double sum = 0, weight = 0;
    for (ptrdiff_t j = std::max<ptrdiff_t>(0, i - reach); j <= std::min(size - 1, i + reach); ++j) {
      const double distance = static_cast<double>(j - i) / width, share = std::exp(-0.5 * distance * distance);
      sum += share * kept[j].second;
      weight += share;
    }
    result.emplace_back(kept[i].first, sum / weight);
  }
  return result;
}

std::string line_plot(const PlotText& text, const std::vector<PlotSeries>& series, YAxis y_axis) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double x_low = kInfinity, x_high = -kInfinity, y_low = kInfinity, y_high = -kInfinity;
  for (const PlotSeries& one : series) {
    for (const auto& point : one.points) {
      if (!is_finite(point)) continue;
      x_low = std::min(x_low, point.first), x_high = std::max(x_high, point.first);
      y_low = std::min(y_low, point.second), y_high = std::max(y_high, point.second);
    }
  }
  if (x_low > x_high) return {};
  if (x_low == x_high) x_low -= 1, x_high += 1;
  const bool logarithmic = y_axis == YAxis::kLogIfWide && y_low > 0 && y_high > 8 * y_low;
  if (!logarithmic) y_low = std::min(y_low, 0.0);
  if (y_low == y_high) y_high = y_low + 1;
  if (!logarithmic) y_high += (y_high - y_low) * 0.06;
  const Scale x{x_low, x_high, false, kLeft + 4, kWidth - kRight}, y{y_low, y_high, logarithmic, kHeight - kBottom, kTop};
  std::vector<double> x_ticks = axis_ticks(x_low, x_high, 6);
  std::erase_if(x_ticks, [](double tick) { return tick != std::floor(tick); });   // steps are whole
  std::string content = axes(x, y, x_ticks, logarithmic ? log_ticks(y_low, y_high) : axis_ticks(y_low, y_high, 4), text.x_label), legend;
  for (const PlotSeries& one : series) {
    const Points points = thinned(one.points);
    if (std::none_of(points.begin(), points.end(), is_finite)) continue;
    content += fmt::format("<path class=\"series line-{}{}\" d=\"{}\"/>", one.colour, one.faint ? " faint" : "", line_path(points, x, y));
    for (const auto& point : points) {
      if (one.dots && points.size() <= 60 && is_finite(point)) {
        content += fmt::format("<circle class=\"dot-{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", one.colour, x(point.first), y(point.second));
      }
    }
    if (!one.name.empty()) legend += fmt::format("<span class=\"key key-{}{}\">{}</span>", one.colour, one.faint ? " faint" : "", html::escape(one.name));
  }
  if (logarithmic) legend += "<span>logarithmic</span>";
  return frame(text, legend, content);
}

std::string bar_plot(const PlotText& text, const Points& bars) {
  double highest = 0;
  Points shown;
  for (const auto& bar : bars) {
    if (!is_finite(bar) || bar.second < 0) continue;
    shown.push_back(bar);
    highest = std::max(highest, bar.second);
  }
  if (highest == 0) return {};
  const double cell = (kWidth - kRight - kLeft - 4) / static_cast<double>(shown.size());
  const Scale y{0, highest * 1.06, false, kHeight - kBottom, kTop};
  const Scale x{0, static_cast<double>(shown.size()), false, kLeft + 4, kWidth - kRight};
  std::string path;
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i].second == 0) continue;
    path += fmt::format("M{:.1f} {:.1f}V{:.1f}h{:.1f}V{:.1f}z", x(static_cast<double>(i)) + cell * 0.08, y(0), y(shown[i].second), cell * 0.84, y(0));
  }
  std::string content = axes(x, y, {}, axis_ticks(0, highest * 1.06, 4), text.x_label) + fmt::format("<path class=\"series bars\" d=\"{}\"/>", path);
  const size_t every = shown.size() / 9 + 1;
  for (size_t i = 0; i < shown.size(); i += every) {
    content += fmt::format("<g class=\"axes\"><text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">≤ {}</text></g>",
                           x(static_cast<double>(i) + 0.5), kHeight - kBottom + 15, tick_label(shown[i].first));
  }
  return frame(text, "", content);
}

}  // namespace graft

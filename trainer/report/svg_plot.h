// Plots as inline SVG, drawn here: no library, no script. Colours come from the page's style (classes line-0, line-1, ..., bars).
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace graft {

struct PlotSeries {
  std::string name;                                  // shown in the legend; empty: none
  std::vector<std::pair<double, double>> points;     // (x, y), x ascending; points that are not finite interrupt the line
  int colour = 0;                                    // 0 or 1
  bool faint = false;                                // raw values behind a smoothed line
  bool dots = false;                                 // marks each point
};

struct PlotText {
  std::string title, description;                    // for readers and screen readers; escaped here
  std::string x_label;
};

enum class YAxis { kFromZero, kLogIfWide };   // kLogIfWide: logarithmic when positive values span more than a factor of 8, else from zero

// Every series becomes a non-empty path; a plot without any finite point is an empty text.
std::string line_plot(const PlotText& text, const std::vector<PlotSeries>& series, YAxis y_axis);
// bars: (upper bound, count), ascending.
std::string bar_plot(const PlotText& text, const std::vector<std::pair<double, double>>& bars);

// Round numbers that divide [low, high] into about `count` parts.
std::vector<double> axis_ticks(double low, double high, int count);
// Gaussian average of the neighbours, `width` points to one standard deviation; centred, so that it does not lag behind a falling loss.
std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& points, double width);

}  // namespace graft

#include "cli/bench_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace reprise {
namespace {

constexpr double kWidth = 720, kHeight = 420, kLeft = 78, kRight = 170, kTop = 52, kBottom = 56;

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

struct Axis {
  double low, high;  // decades, as powers of the base
  double from, to;   // in pixels
  double At(double value) const { return from + (std::log10(value) - low) / (high - low) * (to - from); }
};

std::string Milliseconds(double power) {
  const double value = std::pow(10, power);
  if (value >= 1000) return fmt::format("{:g} s", value / 1000);
  if (value >= 1) return fmt::format("{:g} ms", value);
  return fmt::format("{:g} µs", std::round(value * 1e6) / 1e3);
}

}  // namespace

std::string PlotSvg(const std::string& title, const std::vector<PlotSeries>& series) {
  double least_x = 1e300, most_x = 0, least_y = 1e300, most_y = 0;
  std::vector<double> ticks;
  for (const PlotSeries& one : series) {
    for (const auto& [x, y] : one.points) {
      least_x = std::min(least_x, x), most_x = std::max(most_x, x);
      least_y = std::min(least_y, y), most_y = std::max(most_y, y);
      if (std::find(ticks.begin(), ticks.end(), x) == ticks.end()) ticks.push_back(x);
    }
  }
  if (ticks.empty()) least_x = most_x = least_y = most_y = 1;
  if (most_x <= least_x * 1.01) least_x /= 2, most_x *= 2;
  const Axis x_axis{std::log10(least_x), std::log10(most_x), kLeft + 16, kWidth - kRight - 16};
  Axis y_axis{std::floor(std::log10(least_y)), std::ceil(std::log10(most_y)), kHeight - kBottom, kTop};
  if (y_axis.high <= y_axis.low) y_axis.high = y_axis.low + 1;

  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"{2}\" y=\"28\" font-size=\"16\" fill=\"#222222\">{3}</text>\n",
      kWidth, kHeight, kLeft, Escaped(title));
  for (int power = static_cast<int>(y_axis.low); power <= static_cast<int>(y_axis.high); ++power) {
    const double y = y_axis.At(std::pow(10, power));
    svg += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#e4e4e4\"/>\n", kLeft, kWidth - kRight, y, y);
    svg +=
        fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\" fill=\"#555555\">{}</text>\n", kLeft - 8, y + 4, Milliseconds(power));
  }
  for (const double tick : ticks) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{:g}</text>\n", x_axis.At(tick),
                       kHeight - kBottom + 20, tick);
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">tokens of context</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 14);
  double label_floor = 0;  // labels of close lines are moved apart
  for (const PlotSeries& one : series) {
    std::string path;
    for (const auto& [x, y] : one.points) path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "M" : " L", x_axis.At(x), y_axis.At(y));
    if (path.empty()) continue;
    svg += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\"/>\n", path, one.colour);
    for (const auto& [x, y] : one.points) {
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n", x_axis.At(x), y_axis.At(y), one.colour);
    }
    double y = y_axis.At(one.points.back().second) + 4;
    if (label_floor > 0 && std::fabs(y - label_floor) < 16) y = label_floor + 16;
    label_floor = y;
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" fill=\"{}\">{}</text>\n", kWidth - kRight + 6, y, one.colour, Escaped(one.name));
  }
  return svg + "</svg>\n";
}

}  // namespace reprise

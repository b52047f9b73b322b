// A plot of the time to the first token against the context, as SVG: computed anew, and restored from a capsule.
#pragma once

#include <string>
#include <vector>

namespace reprise {

struct PlotSeries {
  std::string name;
  std::string colour;                             // as SVG knows it
  std::vector<std::pair<double, double>> points;  // tokens of context, milliseconds; both above 0
};

// Both axes logarithmic. Complete without any other file.
std::string PlotSvg(const std::string& title, const std::vector<PlotSeries>& series);

}  // namespace reprise

// SPDX-License-Identifier: Apache-2.0
#include "bench/plot_svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace weft::bench {
namespace {

using nlohmann::json;

constexpr double kWidth = 1080, kHeight = 640;
constexpr double kLeft = 84, kRight = 330, kTop = 84, kBottom = 64;
constexpr double kNinesMax = 5;
constexpr double kLabelGap = 17;  // Between the base lines of two labels.

struct Curve {
  std::string name;
  double p50_ns = 0;
  std::vector<std::pair<double, double>> points;  // (nines, ns)
  double label_y = 0;
};

struct Scale {
  double nines_max = 3;
  double low = 1, high = 4;  // Powers of ten of ns.

  double X(double nines) const { return kLeft + nines / nines_max * (kWidth - kLeft - kRight); }
  double Y(double ns) const {
    const double share = (std::log10(std::max(ns, 1.0)) - low) / (high - low);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  }
};

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string TimeLabel(double ns) {
  if (ns < 1e3) return absl::StrFormat("%.3g ns", ns);
  if (ns < 1e6) return absl::StrFormat("%.3g µs", ns / 1e3);
  if (ns < 1e9) return absl::StrFormat("%.3g ms", ns / 1e6);
  return absl::StrFormat("%.3g s", ns / 1e9);
}

std::vector<Curve> CurvesOf(const json& report) {
  constexpr uint64_t kBytesMax = 64;
  std::vector<Curve> curves;
  for (const json& row : report["rows"]) {
    const std::string name = row["name"];
    if (!row["p50_ns"].is_number() || row["bytes"].get<uint64_t>() > kBytesMax ||
        name.rfind("noise/", 0) == 0 || name.rfind("layer/", 0) == 0)
      continue;
    Curve curve{name, row["p50_ns"], {}, 0};
    for (const json& point : row["distribution"]) {
      const double nines = -std::log10(std::max(1 - point[0].get<double>(), 1e-9));
      if (nines < kNinesMax + 1e-6) curve.points.emplace_back(nines, point[1].get<double>());
    }
    if (curve.points.size() > 1) curves.push_back(std::move(curve));
  }
  std::sort(curves.begin(), curves.end(), [](const Curve& a, const Curve& b) { return a.p50_ns < b.p50_ns; });
  return curves;
}

Scale ScaleOf(const std::vector<Curve>& curves) {
  Scale scale;
  double low = 1e9, high = 1;
  for (const Curve& curve : curves) {
    for (const auto& [nines, ns] : curve.points) {
      low = std::min(low, std::max(ns, 1.0));
      high = std::max(high, ns);
      scale.nines_max = std::max(scale.nines_max, nines);
    }
  }
  scale.nines_max = std::min(kNinesMax, std::ceil(scale.nines_max));
  scale.low = std::floor(std::log10(std::min(low, high)) * 2) / 2;
  scale.high = std::ceil(std::log10(high) * 2 + 0.01) / 2;
  return scale;
}

void DrawGrid(const Scale& scale, std::string* svg) {
  for (int power = static_cast<int>(std::floor(scale.low)); power <= static_cast<int>(scale.high); ++power) {
    for (int digit = 1; digit < 10; ++digit) {
      const double ns = digit * std::pow(10, power);
      const double y = scale.Y(ns);
      if (y > kHeight - kBottom + 0.5 || y < kTop - 0.5) continue;
      absl::StrAppendFormat(svg, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                            digit == 1 ? "major" : "minor", kLeft, y, kWidth - kRight, y);
      if (digit != 1 && digit != 3) continue;
      absl::StrAppendFormat(svg, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                            kLeft - 8, y + 4, TimeLabel(ns));
    }
  }
  static constexpr std::array<const char*, 6> kNames = {"min", "p90", "p99", "p99.9", "p99.99", "p99.999"};
  auto vertical = [&](double nines, const char* name) {
    const double x = scale.X(nines);
    absl::StrAppendFormat(svg, "<line class=\"major\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x,
                          kTop, x, kHeight - kBottom);
    absl::StrAppendFormat(svg,
                          "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x,
                          kHeight - kBottom + 20, name);
  };
  for (int nines = 0; nines <= static_cast<int>(scale.nines_max); ++nines) vertical(nines, kNames[nines]);
  vertical(std::log10(2.0), "p50");
}

// Moves labels apart that would overlap: pushed down in order, then back up from the bottom edge.
void PlaceLabels(const Scale& scale, std::vector<Curve>* curves) {
  std::vector<Curve*> order;
  for (Curve& curve : *curves) {
    curve.label_y = scale.Y(curve.points.back().second) + 4;
    order.push_back(&curve);
  }
  std::sort(order.begin(), order.end(),
            [](const Curve* a, const Curve* b) { return a->label_y < b->label_y; });
  double free_y = kTop;
  for (Curve* curve : order) {
    curve->label_y = std::max(curve->label_y, free_y);
    free_y = curve->label_y + kLabelGap;
  }
  double end_y = kHeight - kBottom + 4;
  for (auto curve = order.rbegin(); curve != order.rend(); ++curve) {
    (*curve)->label_y = std::min((*curve)->label_y, end_y);
    end_y = (*curve)->label_y - kLabelGap;
  }
}

// A family has one hue; its members differ in shade and dash.
struct Style {
  std::string colour;
  const char* dash;
};

Style StyleOf(const std::string& name, int nth_of_family) {
  static constexpr std::array<const char*, 4> kWeft = {"#0b6e4f", "#1f77b4", "#6a3d9a", "#17a2a8"};
  static constexpr std::array<const char*, 4> kKernel = {"#c0392b", "#e67e22", "#a0522d", "#d81b60"};
  static constexpr std::array<const char*, 4> kLimit = {"#222222", "#777777", "#4d5b6a", "#9a9a9a"};
  static constexpr std::array<const char*, 3> kDash = {"none", "7 3", "2 3"};
  const auto& colours = name.rfind("weft/", 0) == 0     ? kWeft
                        : name.rfind("kernel/", 0) == 0 ? kKernel
                                                        : kLimit;
  return {colours[static_cast<std::size_t>(nth_of_family) % 4],
          kDash[static_cast<std::size_t>(nth_of_family) / 4 % 3]};
}

void DrawCurve(const Scale& scale, const Curve& curve, const Style& style, std::string* svg) {
  std::string path;
  double x = 0, y = 0;
  for (const auto& [nines, ns] : curve.points) {
    x = scale.X(nines);
    y = scale.Y(ns);
    absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : " L", x, y);
  }
  absl::StrAppendFormat(svg, "<path class=\"curve\" stroke=\"%s\" stroke-dasharray=\"%s\" d=\"%s\"/>\n",
                        style.colour, style.dash, path);
  const double label_x = kWidth - kRight + 16;
  absl::StrAppendFormat(svg, "<path class=\"leader\" stroke=\"%s\" d=\"M%.1f %.1f L%.1f %.1f\"/>\n",
                        style.colour, x, y, label_x - 3, curve.label_y - 4);
  absl::StrAppendFormat(svg, "<text class=\"label\" fill=\"%s\" x=\"%.1f\" y=\"%.1f\">%s  (p50 %s)</text>\n",
                        style.colour, label_x, curve.label_y, Escape(curve.name), TimeLabel(curve.p50_ns));
}

std::string TextOr(const json& value, const std::string& otherwise) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

}  // namespace

std::string LatencySvg(const json& report) {
  std::vector<Curve> curves = CurvesOf(report);
  const Scale scale = ScaleOf(curves);
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"sans-serif\">\n",
      kWidth, kHeight, kWidth, kHeight);
  absl::StrAppend(&svg,
                  "<style>.major{stroke:#c9ced6;stroke-width:1}.minor{stroke:#eceff3;stroke-width:1}"
                  ".tick{font-size:12px;fill:#444}.label{font-size:12.5px}.curve{fill:none;stroke-width:2}"
                  ".leader{fill:none;stroke-width:0.8;opacity:0.6}</style>\n",
                  "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
  absl::StrAppendFormat(
      &svg,
      "<text x=\"%.0f\" y=\"34\" font-size=\"20\" fill=\"#111\">Round trips of up to 64 B between two "
      "processes on one node</text>\n",
      kLeft);
  const json& machine = report["machine"];
  absl::StrAppendFormat(&svg, "<text x=\"%.0f\" y=\"58\" font-size=\"13\" fill=\"#555\">%s · %s%s</text>\n",
                        kLeft, Escape(TextOr(machine.value("cpu", json()), "unknown processor")),
                        Escape(TextOr(machine.value("kernel", json()), "unknown kernel")),
                        machine.value("virtual", false) ? " · virtual machine" : "");
  if (curves.empty()) {
    absl::StrAppendFormat(
        &svg, "<text x=\"%.0f\" y=\"120\" font-size=\"14\">No row has latencies.</text>\n</svg>\n", kLeft);
    return svg;
  }
  DrawGrid(scale, &svg);
  PlaceLabels(scale, &curves);
  std::array<int, 3> members{};
  for (const Curve& curve : curves) {
    const std::size_t family = curve.name.rfind("weft/", 0) == 0     ? 0
                               : curve.name.rfind("kernel/", 0) == 0 ? 1
                                                                     : 2;
    DrawCurve(scale, curve, StyleOf(curve.name, members[family]++), &svg);
  }
  absl::StrAppendFormat(&svg,
                        "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">share of calls "
                        "that were at least as fast</text>\n",
                        (kLeft + kWidth - kRight) / 2, kHeight - 16);
  absl::StrAppend(&svg, "</svg>\n");
  return svg;
}

}  // namespace weft::bench

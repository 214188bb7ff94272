// SPDX-License-Identifier: Apache-2.0
// Draws the latency distributions of a report as one SVG picture: percentile across, in nines, latency up,
// both logarithmic, one labelled curve a row.
#ifndef WEFT_BENCH_PLOT_SVG_H_
#define WEFT_BENCH_PLOT_SVG_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace weft::bench {

// `report` is what ToJson made. Rows of up to 64 B with a distribution are drawn; larger payloads, rates and
// noise are not. The result is a whole SVG document; it names no font but the viewer's sans serif.
std::string LatencySvg(const nlohmann::json& report);

}  // namespace weft::bench

#endif  // WEFT_BENCH_PLOT_SVG_H_

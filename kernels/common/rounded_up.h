#pragma once
#include <cstdint>

namespace graft {

// The next multiple of unit, value itself included. Both positive.
constexpr int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace graft

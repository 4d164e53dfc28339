// Divergences of distillation, for host and device code.
#pragma once

namespace graft {

enum class Divergence { kForwardKl, kReverseKl, kJensenShannon };

}  // namespace graft

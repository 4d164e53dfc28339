#pragma once
#include "trainer/models/families/family.h"

namespace graft {
Family qwen3_family();
}

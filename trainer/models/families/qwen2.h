#pragma once
#include "trainer/models/families/family.h"

namespace graft {
Family qwen2_family();
}

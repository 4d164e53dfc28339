#pragma once
#include "trainer/models/families/family.h"

namespace graft {
Family llama_family();
}

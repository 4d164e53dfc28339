// README.md of an exported folder, and the facts that every export carries.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/gguf_file.h"
#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"
#include "trainer/report/manifest.h"

namespace graft {

using ExportFacts = std::vector<std::pair<std::string, std::string>>;

// What a run's exports say of where they come from: versions, names, hashes, seed, start. No row, path, host or user name.
ExportFacts export_facts(const Manifest& manifest);

// Hub front matter (licence, base model, library), what it is, how it was made, and the facts as a table.
std::string model_card(const ExportSource& source, const ExportFormat& format, const ExportResult& result);

// The facts as GGUF metadata: graft.<key>.
void append_facts(std::vector<GgufEntry>& metadata, const ExportSource& source);

}  // namespace graft

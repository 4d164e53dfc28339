// graft conform MODEL --golden F.safetensors [--adapter DIR]
#include <cstdio>

#include "tools/graft/commands.h"
#include "trainer/verify/conformance.h"

namespace graft {

void add_conform_command(CommandLine& line) {
  auto* command = line.add("conform", "compare logits, loss and adapter gradients with a golden file (float32 on the CPU)");
  auto model = std::make_shared<std::string>(), golden = std::make_shared<std::string>(), adapter = std::make_shared<std::string>();
  command->add_option("MODEL", *model, "model directory, .gguf file or run folder")->required();
  command->add_option("--golden", *golden, "safetensors file: input_ids, labels, logits, loss, grad.*, documents?")->required();
  command->add_option("--adapter", *adapter, "PEFT folder");
  command->callback([=, &line] {
    line.chosen = [=] {
      const auto rows = run_conformance(*model, *golden, adapter->empty() ? std::nullopt : std::optional<std::filesystem::path>(*adapter));
      int failed = 0;
      for (const auto& row : rows) {
        failed += !row.passed();
        std::printf("%-6s %.3e (at most %.0e)  %s\n", row.passed() ? "ok" : "FAILED", row.error, row.tolerance, row.name.c_str());
      }
      std::printf("%zu passed, %d failed\n", rows.size() - failed, failed);
      return failed == 0 ? 0 : 1;
    };
  });
}

}  // namespace graft

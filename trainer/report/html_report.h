// report.html of a run folder: one self-contained page for people. No script, no request, no external reference; a content security policy
// forbids them too. Plots are inline SVG with title and description. Everything that comes from a file is escaped. The page's first line
// says whether it holds users' rows; it does only where the recipe says report.examples: true.
//
// It reads what is there and leaves out what is not:
//   recipe.yaml        resolved recipe (title: the folder's name; report.examples)
//   manifest.json      manifest.h; of `extra` it shows numbers "seconds", "peak_memory_bytes", "steps", and texts
//   metrics.jsonl      metrics_log.h
//   plan.json          {"rows": {"train": n, "validation": n, "test": n}, "tokens": n, "supervised_tokens": n,       (tokens of one epoch)
//                       "length_histogram": [[upper, count], ...],          rows of at most `upper` tokens, above the bound before
//                       "rows_per_label": {"label": n, ...},
//                       "example": {"source": "built-in"|"row", "tokens": [{"text", "supervised": bool}, ...]},
//                                  default built-in; one of source "row" is shown only with report.examples
//                       "memory_bytes": n, "memory": {"base": n, ...},      the sum's parts, in bytes
//                       "tensors": [{"name", "shape": [..], "form": "Q4_1", "bytes": n, "adapter_parameters": n}, ...],
//                       "notes": ["..."], "findings": [{"severity", "message"}]}         what the plan said and warned of
//   evaluation.json    {"student_minus_teacher"?, "compared"?, "forgetting"?, "speed"? (trainer/runs/test_scores.cpp),
//                       "before": {"accuracy", "macro_f1", "loss", "perplexity", "calibration_error", "rows", "accuracy_interval": [low, high]},
//                       "after": {...}, "baselines": [{"name", "accuracy"}],
//                       "labels": [...], "confusion": [[...], ...],         [expected][answered]; one more column: an answer that is no label
//                       "per_label": [{"label", "precision", "recall", "f1", "support"}],      computed from `confusion` when missing
//                       "answers": [{"prompt", "before", "after", "expected"}]}                shown only with report.examples
//   certificates/*.json {"artifact", "format", "reader", "reader_version", "rows", "supervised_tokens", "mean_kl", "p99_kl", "mean_kl_all",
//                       "top1_agreement", "task": {"trained", "exported", "base": accuracy, "loss": {"trained", "exported", "base"}},
//                       "share_of_gain_kept": {"loss": number or null, "task"},
//                       "threshold", "passed": bool, "note", "reference", "warning", "problems": ["..."],
//                       "sha256": {"artifact": hex, "base": hex, ...}, "serve": "command"}
// Any key may be missing. A file that is not JSON is named on the page and otherwise left out.
#pragma once
#include <filesystem>
#include <string>

namespace graft {

std::string render_report(const std::filesystem::path& run);
// Writes <run>/report.html (mode 0600, whole or not at all). UserError when `run` is no folder.
void write_report(const std::filesystem::path& run);

}  // namespace graft

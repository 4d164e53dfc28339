// The certificate: an exported artefact, read back, against the model that was trained, on held-out rows.
//
// Trained means: the base's stored weights dequantised in float32 plus the float32 adapter, computed in float32. The divergence of bfloat16 compute
// from it (2e-3 is normal) is a line of its own. Of a run with adapter.quantization_aware the base's adapted weights are those of that export's rounding. JSON as trainer/report/html_report.h describes.
#pragma once
#include <optional>

#include <nlohmann/json.hpp>

#include "trainer/runs/prepared_run.h"
#include "trainer/verify/divergence.h"
#include "trainer/verify/served_model.h"

namespace graft {

struct HeldOutRow {
  std::vector<int32_t> ids;
  std::vector<uint8_t> predicts_target;    // position i predicts a supervised token
  nlohmann::ordered_json conversation;     // without the answer; null for text
  std::string prompt_text;                 // rendered as trained
  std::vector<int32_t> prompt;
  std::optional<std::string> label;        // labelled rows: what greedy decoding should answer
};

// What the trained model does on the held-out rows: computed once, compared with every artefact.
class TrainedReference {
 public:
  // Rows of test, else validation, else train (said in the certificate): at least 200 rows or 10,000 supervised tokens where there are as many.
  explicit TrainedReference(PreparedRun& run);

  PreparedRun& run;
  std::string split_name;
  std::vector<HeldOutRow> rows;
  std::vector<at::Tensor> hidden_TC;       // of each row, normed, float32
  int64_t num_targets = 0;
  double trained_loss = 0, base_loss = 0;  // mean over targets
  std::optional<DivergenceSummary> bfloat16_compute;   // over targets
  std::optional<double> trained_accuracy, base_accuracy;   // labelled rows, free greedy decoding
  std::string prompts_sha256, ids_sha256;
};

struct CertificateRequest {
  ServedArtefact artefact;
  double max_mean_kl = 0.002;
  std::optional<double> min_share_of_gain;   // by loss, and by task score of labelled rows (share_of_gain.h)
  std::string engine = "graft";            // graft | llama.cpp | transformers
  std::string cache_type = "F16";
  std::string serve_command;
  std::string warning;                     // of the export
};

nlohmann::ordered_json make_certificate(TrainedReference& reference, const CertificateRequest& request);

// One paragraph for people.
std::string certificate_summary(const nlohmann::ordered_json& certificate);

// Accuracy of answers by free greedy decoding: the text, trimmed, is the label.
double greedy_accuracy(ServedModel& model, const std::vector<HeldOutRow>& rows, const Tokenizer& tokenizer);

// The rows as the artefact's own template and tokenizer make them. What differs from the rows as trained, or would end answers elsewhere, is
// added to `problems`: one sentence each, without the rows' text.
std::vector<HeldOutRow> served_rows(ServedModel& served, const ServedArtefact& artefact, const TrainedReference& reference,
                                    std::vector<std::string>& problems);

}  // namespace graft

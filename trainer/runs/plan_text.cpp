// plan_text: a plan as people read it.
#include <algorithm>
#include <map>

#include "kernels/common/error.h"
#include "trainer/report/progress.h"
#include "trainer/runs/plan.h"
#include "trainer/runs/plan_processes.h"

namespace graft {

using nlohmann::ordered_json;

namespace {

constexpr double kGibibyte = 1073741824.0;
constexpr int64_t kShownLabels = 20, kShownPlaces = 10;

void append_findings(std::string& text, const ordered_json& findings) {
  for (const auto& finding : findings) {
    text += fmt::format("  {:<8} {}\n", finding["severity"].get<std::string>(), finding["message"].get<std::string>());
    int64_t shown = 0;
    for (const auto& place : finding["places"]) {
      if (++shown > kShownPlaces) {
        text += fmt::format("             ... {} more (plan --json lists all)\n", finding["places"].size() - kShownPlaces);
        break;
      }
      text += "             " + place.get<std::string>() + "\n";
    }
  }
}

void append_example(std::string& text, const ordered_json& example, bool colour) {
  text += "\nexample (built-in conversation; supervised tokens " + std::string(colour ? "in green" : "in [brackets]") + ")\n  ";
  bool inside = false;
  const auto mark = [&](bool supervised) {
    if (supervised == inside) return;
    inside = supervised;
    text += colour ? (supervised ? "\x1b[32m" : "\x1b[0m") : (supervised ? "[" : "]");
  };
  for (const auto& token : example["tokens"]) {
    mark(token["supervised"].get<bool>());
    for (const char c : token["text"].get<std::string>()) text += c == '\n' ? "\n  " : std::string(1, c);
  }
  mark(false);
  text += "\n";
}

// At most 100 columns: lines below the first begin where the value does.
std::string wrapped(const std::string& text) {
  constexpr size_t kIndent = 17, kWidth = 100 - kIndent;
  std::string lines, line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const auto word = text.substr(begin, end - begin);
    if (!line.empty() && line.size() + 1 + word.size() > kWidth) {
      lines += line + "\n" + std::string(kIndent, ' ');
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return lines + line;
}

std::string memory_text(const ordered_json& total, const ordered_json& memory) {
  const auto gib = [](const ordered_json& bytes) { return static_cast<double>(bytes.get<int64_t>()) / kGibibyte; };
  return fmt::format("{:.2f} GiB of {:.1f}: base {:.2f}, adapter {:.2f}, activations {:.2f}, scratch {:.2f}, program {:.2f}", gib(total), gib(memory["available"]),
                     gib(memory["base"]), gib(memory["adapters"]), gib(memory["activations"]), gib(memory["scratch"]), gib(memory["program"])) +
         (memory.contains("teacher") ? fmt::format(", teacher {:.2f}", gib(memory["teacher"])) : "") +
         (memory.contains("served_weights") ? fmt::format(", rounded weights {:.2f}", gib(memory["served_weights"])) : "");
}

}  // namespace

std::string plan_text(const Plan& plan, const PreparedRun& run, bool colour) {
  const auto& json = plan.json;
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) { text += fmt::format("  {:<14} {}\n", name, value); };
  text += "model\n";
  line("base", fmt::format("{} ({}, {} layers of {}, vocabulary {})", json["model"]["base"].get<std::string>(), json["model"]["family"].get<std::string>(),
                           json["model"]["layers"].get<int64_t>(), json["model"]["hidden_size"].get<int64_t>(), json["model"]["vocabulary"].get<int64_t>()));
  line("licence", json["model"]["licence"].get<std::string>());
  line("compute", json["model"]["compute"].get<std::string>());
  std::map<std::string, std::pair<int64_t, int64_t>> forms;
  for (const auto& tensor : json["tensors"]) {
    auto& form = forms[tensor["form"].get<std::string>()];
    ++form.first;
    form.second += tensor["bytes"].get<int64_t>();
  }
  for (const auto& [form, sums] : forms) line("frozen " + form, fmt::format("{} tensors, {:.1f} MiB", sums.first, sums.second / 1048576.0));
  if (run.recipe.adapter.kind == "full") {
    line("trained whole", fmt::format("{} linear layers, {:.2f} M parameters (float32)", json["adapter"]["modules"].get<int64_t>(), json["adapter"]["parameters"].get<int64_t>() / 1e6));
  } else {
    line("adapter", fmt::format("LoRA rank {} on {} linear layers, {:.2f} M parameters (float32), scale {:.4g}", json["adapter"]["rank"].get<int64_t>(),
                                json["adapter"]["modules"].get<int64_t>(), json["adapter"]["parameters"].get<int64_t>() / 1e6, json["adapter"]["scale"].get<double>()));
  }
  text += "\ndata                  rows   tokens  supervised  longest\n";
  for (const auto* name : {"train", "validation", "test"}) {
    const auto& split = json["splits"][name];
    text += fmt::format("  {:<14} {:>9} {:>8} {:>11} {:>8}\n", name, split["rows"].get<int64_t>(), split["tokens"].get<int64_t>(),
                        split["supervised_tokens"].get<int64_t>(), split["longest"].get<int64_t>());
  }
  const auto& labels = json["rows_per_label"];
  if (!labels.empty()) {
    text += fmt::format("  rows per label ({}):", labels.size());
    int64_t shown = 0;
    for (const auto& [label, count] : labels.items()) {
      if (++shown > kShownLabels) {
        text += " ...";
        break;
      }
      text += fmt::format("{}{} {}", shown % 4 == 1 ? "\n    " : ", ", label, count.get<int64_t>());
    }
    text += "\n";
  }
  append_findings(text, json["findings"]);
  if (json["example"].is_object()) append_example(text, json["example"], colour);
  text += "\nrun\n";
  const auto& steps = json["steps"];
  line("steps", fmt::format("{} ({} an epoch, {} warm-up), {} rows and {:.0f} tokens a step", steps["total"].get<int64_t>(), steps["per_epoch"].get<int64_t>(),
                            steps["warmup"].get<int64_t>(), run.recipe.optimizer.batch_rows, steps["tokens_per_step"].get<double>()));
  line("loss", wrapped(json["objective"]["formula"].get<std::string>()));
  if (json.contains("teacher")) {
    const auto& teacher = json["teacher"];
    line("teacher", fmt::format("{}{}, licence {}, {}", teacher["model"].get<std::string>(), teacher["adapter"].get<bool>() ? " with its adapter" : "", teacher["licence"].get<std::string>(),
                                teacher["signal"].get<std::string>()));
    if (teacher.contains("answers")) {
      const auto& answers = teacher["answers"];
      line("", fmt::format("{} answers learnt; left out: {} unfinished, {} that are not the row's own (teacher.answers.keep {})", answers["kept"].get<int64_t>(),
                           answers["unfinished"].get<int64_t>(), answers["wrong"].get<int64_t>(), run.recipe.teacher.answers_keep));
    }
    if (teacher.contains("server")) {
      const auto& server = teacher["server"];
      line("would send", wrapped(fmt::format("{} rows of {} tokens to {}; where the server scores no prompts, {} requests of {} tokens: one for each taught token, with those before it",
                                             server["rows"].get<int64_t>(), server["tokens"].get<int64_t>(), server["host"].get<std::string>(), server["taught_tokens"].get<int64_t>(),
                                             server["tokens_before_taught"].get<int64_t>())));
    }
    if (teacher.contains("check")) {
      const auto& check = teacher["check"];
      if (check.contains("spans")) {
        line("", fmt::format("on {} tokens of the first step: {} spans that end with a token on both sides; the teacher's loss {:.2f} nats a token, divergence {:.3f}", check["tokens"].get<int64_t>(),
                             check["spans"].get<int64_t>(), check["teacher_loss"].get<double>(), check["divergence"].get<double>()));
      } else
      line("", wrapped(fmt::format("on {} tokens of the first step: {:.2f} nats for the rows' own tokens, {:.2f} for the next position's; the same likeliest token as the student on {:.0f} %; "
                                   "divergence {:.3f}{}",
                                   check["tokens"].get<int64_t>(), check["teacher_loss"].get<double>(), check["shifted_loss"].get<double>(), 100 * check["agreement"].get<double>(),
                                   check["divergence"].get<double>(),
                                   check.contains("hidden_state_loss") ? fmt::format(", hidden-state loss {:.3f}", check["hidden_state_loss"].get<double>()) : "")));
    }
  }
  line("learning rate", fmt::format("{:.2e}, {}", steps["learning_rate"].get<double>(), run.recipe.schedule.shape));
  line("threads", fmt::format("{}", run.threads));
  if (json.contains("device_memory")) line("GPU memory", memory_text(json["device_memory_bytes"], json["device_memory"]));
  line("memory", memory_text(json["memory_bytes"], json["memory"]));
  line("disk", fmt::format("{:.2f} GiB", json["disk_bytes"].get<int64_t>() / kGibibyte));
  if (json.contains("seconds")) {
    line("time", fmt::format("about {} of training ({:.0f} tokens/s, measured on one micro-batch)", format_duration(json["seconds"].get<double>()),
                             json["tokens_per_s"].get<double>()));
  }
  if (json.contains("parallel")) text += plan_processes_text(json["parallel"]);
  for (const auto& wanted : run.recipe.exports) {
    const auto share = wanted.min_share_of_gain ? fmt::format(" and at least {:g} % of the gain", 100 * *wanted.min_share_of_gain) : "";
    line("export", wanted.format + (wanted.verify ? fmt::format(", certificate with mean KL at most {:g}{}", wanted.max_mean_kl, share) : ", no certificate (verify: none)"));
  }
  for (const auto& note : json["notes"]) line("note", note.get<std::string>());
  for (const auto& error : plan.errors) text += "\nREFUSED: " + error + "\n";
  return text;
}

}  // namespace graft

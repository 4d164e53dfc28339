// Sections on trust: certificates and serving commands, manifest and recipe.
#include <algorithm>
#include <regex>

#include <fmt/format.h>

#include "trainer/report/html_text.h"
#include "trainer/report/log_file.h"
#include "trainer/report/report_sections.h"

namespace graft::report {
namespace {

// A report is passed on: paths that climb out of the run's surroundings tell of this machine.
std::string with_short_paths(const std::string& text) {
  static const std::regex kClimbing(R"((\.\./){2,}[^\s"',}]*/([^\s"',}/]+))");
  return without_absolute_paths(std::regex_replace(text, kClimbing, "…/$2"));
}

using html::Json;

std::string cell(const std::optional<double>& value, std::string (*format)(double)) {
  return fmt::format("<td class=\"n\">{}</td>", value ? format(*value) : "–");
}

std::string certificate_row(const std::string& name, const Json& certificate) {
  const bool passed = html::child(certificate, "passed") == Json(true);
  const Json& task = html::child(certificate, "task");
  std::string scores = "–";
  const bool accuracy = html::number(task, "trained") && html::number(task, "exported");
  const Json& compared = accuracy ? task : html::child(task, "loss");
  std::string (*const shown)(double) = accuracy ? html::percent : html::small_number;
  if (const auto trained = html::number(compared, "trained"), exported = html::number(compared, "exported"); trained && exported) {
    scores = fmt::format("{}{} → {}", accuracy ? "" : "loss ", shown(*trained), shown(*exported));
    if (const auto base = html::number(compared, "base")) scores += fmt::format("<br><span class=\"hash\">base {}</span>", shown(*base));
  }
  const Json& gain = html::child(certificate, "share_of_gain_kept");
  for (const char* kind : {"loss", "task"}) {
    if (const auto share = html::number(gain, kind)) scores += fmt::format("<br><span class=\"hash\">{} of the gain kept by {}</span>", html::percent(*share), kind);
  }
  const std::string reader = html::text(certificate, "reader"), version = html::text(certificate, "reader_version");
  std::string evidence;
  if (const auto count = html::number(certificate, "rows")) evidence += html::count(*count) + " rows";
  if (const auto count = html::number(certificate, "supervised_tokens")) evidence += fmt::format("{}{} tokens", evidence.empty() ? "" : ", ", html::count(*count));
  std::string artefact = html::text(certificate, "artifact");
  if (artefact.empty()) artefact = name;
  const std::string format = html::text(certificate, "format");
  return fmt::format(
      "<tr><td><b>{}</b>{}</td><td>{} {}<br><span class=\"hash\">{}</span></td>{}{}<td class=\"n\">{}</td><td class=\"n\">{}</td>"
      "<td class=\"n\">≤ {}</td><td><span class=\"badge {}\">{}</span></td></tr>\n",
      html::escape(format.empty() ? artefact : format), format.empty() || artefact == format ? "" : fmt::format("<br><span class=\"hash\">{}</span>", html::escape(artefact)),
      html::escape(reader), html::escape(version), html::escape(evidence), cell(html::number(certificate, "mean_kl"), html::small_number),
      cell(html::number(certificate, "p99_kl"), html::small_number),
      html::number(certificate, "top1_agreement") ? html::percent(*html::number(certificate, "top1_agreement")) : "–", scores,
      html::number(certificate, "threshold") ? html::small_number(*html::number(certificate, "threshold")) : "–", passed ? "good" : "bad",
      passed ? "✓ passed" : "✗ failed");
}

std::string hash_list(const ReportData& data) {
  std::string list;
  for (const auto& [name, certificate] : data.certificates) {
    const Json& hashes = html::child(certificate, "sha256");
    if (!hashes.is_object()) continue;
    for (const auto& [what, hash] : hashes.items()) {
      if (!hash.is_string()) continue;
      list += fmt::format("<dt>{} · {}</dt><dd class=\"hash\">{}</dd>\n", html::escape(name), html::escape(what), html::escape(hash.get<std::string>()));
    }
  }
  return list.empty() ? "" : "<h3>SHA-256 of the certificates</h3><dl>" + list + "</dl>";
}

std::string serving(const ReportData& data) {
  std::string commands;
  for (const auto& [name, certificate] : data.certificates) {
    const std::string command = without_absolute_paths(html::text(certificate, "serve"));
    if (command.empty()) continue;
    const std::string format = html::text(certificate, "format");
    const bool passed = html::child(certificate, "passed") == Json(true);
    commands += fmt::format("<h3>{}{}</h3><pre>{}</pre>\n", html::escape(format.empty() ? name : format),
                            passed ? "" : " <span class=\"badge bad\">certificate failed: do not serve</span>", html::escape(command));
  }
  return section("serve", "Serve it", "Each command serves the file that the certificate above examined.", commands);
}

void add_line(std::string& lines, std::string_view name, const std::string& value, bool hash = false) {
  if (!value.empty()) lines += fmt::format("<dt>{}</dt><dd{}>{}</dd>\n", html::escape(name), hash ? " class=\"hash\"" : "", html::escape(value));
}

std::string number_text(const Json& object, std::string_view key) {
  const auto value = html::number(object, key);
  return value ? html::count(*value) : "";
}

std::string files_rows(std::string_view use, const Json& files) {
  std::string rows;
  if (!files.is_array()) return rows;
  for (const Json& file : files) {
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"hash\">{}</td></tr>\n", html::escape(use),
                        html::escape(html::text(file, "name")), html::number(file, "bytes") ? html::bytes(*html::number(file, "bytes")) : "",
                        html::escape(html::text(file, "sha256")));
  }
  return rows;
}

}  // namespace

std::string certificates(const ReportData& data) {
  if (data.certificates.empty()) return {};
  std::string table =
      "<div class=\"wide\"><table><tr><th>export</th><th>read back by</th><th class=\"n\">mean KL</th><th class=\"n\">p99 KL</th><th class=\"n\">same top token</th>"
      "<th class=\"n\">task score</th><th class=\"n\">allowed</th><th>result</th></tr>\n";
  std::string notes;
  for (const auto& entry : data.certificates) {
    const auto& name = entry.first;   // clang 14: a lambda captures no structured binding
    const auto& certificate = entry.second;
    table += certificate_row(name, certificate);
    const auto add = [&](const Json& note) {
      if (note.is_string()) notes += fmt::format("<p class=\"note warning\"><b>{}</b>: {}</p>", html::escape(name), html::escape(note.get<std::string>()));
    };
    add(html::child(certificate, "note"));
    if (const auto reference = html::text(certificate, "reference"); !reference.empty()) {
      notes += fmt::format("<p class=\"note\"><b>{}</b>: {}</p>", html::escape(name), html::escape(reference));
    }
    add(html::child(certificate, "warning"));
    const Json& problems = html::child(certificate, "problems");
    if (problems.is_array()) std::for_each(problems.begin(), problems.end(), add);
  }
  table += "</table></div>" + notes;
  return section("certificates", "Served = trained",
                 "Every export was loaded back and compared with the model that was trained: KL divergence in nats over the supervised positions, 0 is identical.",
                 table) + serving(data);
}

std::string provenance(const ReportData& data) {
  const Json& manifest = data.manifest;
  std::string lines, content;
  const Json &program = html::child(manifest, "program"), &base = html::child(manifest, "base"), &run = html::child(manifest, "run");
  const Json& machine = html::child(manifest, "machine");
  add_line(lines, "base", html::text(base, "name"));
  add_line(lines, "family", html::text(base, "family"));
  add_line(lines, "licence of the base", html::text(base, "licence"));
  const Json& teacher = html::child(manifest, "teacher");
  add_line(lines, "teacher", html::text(teacher, "name"));
  add_line(lines, "licence of the teacher", html::text(manifest, "teacher_licence"));
  add_line(lines, "started", html::text(run, "started"));
  add_line(lines, "seed", number_text(run, "seed"));
  add_line(lines, "compute", html::text(run, "compute"));
  add_line(lines, "device", html::text(run, "device"));
  add_line(lines, "threads", number_text(run, "threads"));
  if (html::child(run, "bit_exact").is_boolean()) add_line(lines, "bit-exact", html::child(run, "bit_exact") == Json(true) ? "yes" : "no (--not-bit-exact)");
  add_line(lines, "processor", html::text(machine, "cpu"));
  add_line(lines, "instruction set", html::text(machine, "instruction_set"));
  add_line(lines, "GPU", html::text(machine, "gpu"));
  if (const auto memory = html::number(machine, "memory_bytes")) add_line(lines, "memory", html::bytes(*memory));
  add_line(lines, "graft", html::text(program, "version"));
  add_line(lines, "program", html::text(program, "build"), true);
  add_line(lines, "tokenizer", html::text(html::child(manifest, "tokenizer"), "sha256"), true);
  add_line(lines, "chat template", html::text(html::child(manifest, "template"), "sha256"), true);
  add_line(lines, "rows", html::text(html::child(manifest, "data"), "rows_sha256"), true);
  add_line(lines, "recipe", html::text(html::child(manifest, "recipe"), "sha256"), true);
  if (manifest.is_object()) {
    for (const auto& [key, value] : manifest.items()) {
      if (value.is_string() && key != "teacher_licence") add_line(lines, key, value.get<std::string>(), true);
    }
  }
  if (!lines.empty()) content += "<dl>" + lines + "</dl>";
  std::string files = files_rows("base", html::child(base, "files")) + files_rows("teacher", html::child(teacher, "files"));
  for (const char* split : {"train", "validation", "test"}) files += files_rows(split, html::child(html::child(manifest, "data"), split));
  if (!files.empty()) {
    content += "<h3>Files</h3><div class=\"wide\"><table><tr><th>use</th><th>file</th><th class=\"n\">size</th><th>SHA-256</th></tr>\n" + files + "</table></div>";
  }
  content += hash_list(data);
  if (!data.recipe_text.empty()) content += "<h3>Recipe</h3><pre>" + html::escape(with_short_paths(data.recipe_text)) + "</pre>";
  return section("provenance", "Provenance", "What went in, so that the run can be traced and repeated.", content);
}

}  // namespace graft::report

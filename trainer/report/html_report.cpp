#include "trainer/report/html_report.h"

#include <fmt/format.h>

#include "checkpoints/atomic_file.h"
#include "trainer/report/html_text.h"
#include "trainer/report/report_sections.h"

namespace graft {
namespace {

std::string privacy_line(const ReportData& data) {
  return data.examples ? "<p class=\"privacy rows\">This report contains rows of the training or test data (report.examples is true): share it as you would share the data.</p>\n"
                       : "<p class=\"privacy\">This report contains no rows of the training or test data.</p>\n";
}

std::string subtitle(const ReportData& data) {
  const std::string base = html::text(html::child(data.manifest, "base"), "name");
  const std::string started = html::text(html::child(data.manifest, "run"), "started").substr(0, 10);
  std::string line = base.empty() ? "A graft run" : "Fine-tuned from " + base;
  if (!started.empty()) line += " on " + started;
  return line;
}

}  // namespace

std::string render_report(const std::filesystem::path& run) {
  const ReportData data = read_report_data(run);
  const std::string name = html::escape(data.name);
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n"
      "<title>{} · graft</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{}</style>\n</head>\n<body>\n",
      name, report::style());
  page += privacy_line(data);
  page += fmt::format("<main>\n<header><h1>{}</h1><p>{}</p></header>\n", name, html::escape(subtitle(data)));
  for (const std::string& file : data.unreadable) {
    page += fmt::format("<p class=\"note\">{} could not be read and is left out.</p>\n", html::escape(file));
  }
  for (const auto section : {report::summary, report::results, report::certificates, report::training, report::errors, report::rows,
                             report::provenance, report::model}) {
    page += section(data);
  }
  page += fmt::format("<footer>Written by graft {}. This page makes no request and runs no script.</footer>\n</main>\n</body>\n</html>\n",
                      html::escape(html::text(html::child(data.manifest, "program"), "version")));
  return page;
}

void write_report(const std::filesystem::path& run) { write_file_atomic(run / "report.html", render_report(run)); }

}  // namespace graft

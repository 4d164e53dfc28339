// The sections of report.html, each HTML or an empty text when the run has nothing for it.
#pragma once
#include <string>
#include <string_view>

#include "trainer/report/report_data.h"

namespace graft::report {

std::string style();                                       // the page's CSS
std::string summary(const ReportData& data);               // the numbers that people ask for first
std::string results(const ReportData& data);               // before and after, other scores, answers
std::string errors(const ReportData& data);                // confusions, per label
std::string certificates(const ReportData& data);          // served = trained, and how to serve
std::string training(const ReportData& data);              // curves
std::string rows(const ReportData& data);                  // lengths, labels, mask
std::string model(const ReportData& data);                 // memory and tensors
std::string provenance(const ReportData& data);            // manifest and recipe

// <section> with a heading; empty content: empty.
std::string section(std::string_view id, std::string_view heading, std::string_view lead, const std::string& content);

}  // namespace graft::report

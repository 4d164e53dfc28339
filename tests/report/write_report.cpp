// write_report RUN: writes RUN/report.html, for report_test.py.
#include <cstdio>
#include <exception>

#include "trainer/report/html_report.h"

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: write_report RUN\n"), 2;
  try {
    graft::write_report(argv[1]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

// `graft launch`: several processes of one run on this machine, for those who have no launcher.
#pragma once
#include <string>
#include <vector>

namespace graft {

// Starts `graft train arguments...` `processes` times with torchrun's variables set, meeting on a free port of 127.0.0.1. Rank 0 talks to the terminal;
// the others' errors are shown where rank 0 could not report them. SIGINT and SIGTERM are passed on: the run saves and stops. When one process
// fails, the others end by themselves; after a minute they are ended. Returns rank 0's exit code, or the first other one that is not 0.
int launch_processes(int processes, const std::vector<std::string>& arguments);

}  // namespace graft

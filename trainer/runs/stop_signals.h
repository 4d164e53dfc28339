// SIGINT and SIGTERM as a wish to stop: what is being computed is finished and saved first.
#pragma once

namespace graft {

// The first one is kept for pending_stop_signal(), a second one ends the process at once.
void install_stop_signals();
// A signal that came since, or comes, ends the process at once.
void restore_stop_signals();
int pending_stop_signal();   // 0: none

}  // namespace graft

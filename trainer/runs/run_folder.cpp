#include "trainer/runs/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "checkpoints/atomic_file.h"
#include "kernels/common/error.h"

namespace graft {

namespace fs = std::filesystem;

RunFolder::RunFolder(const fs::path& path, bool resume) : path_(path) {
  const bool holds_run = fs::exists(path_ / "manifest.json");
  if (holds_run && !resume) {
    fail("run", "expected a new folder for the run, got {}, which holds one — give --resume to go on with it, or another --out", path_.string());
  }
  if (!holds_run && resume && !fs::exists(path_)) {
    fail("run", "expected {} to hold a run to resume, got nothing there — leave --resume out to start it", path_.string());
  }
  if (!holds_run && !resume && fs::exists(path_) && !fs::is_empty(path_)) {
    for (const auto& entry : fs::directory_iterator(path_)) {   // a run that was killed before its first line leaves only these
      const auto name = entry.path().filename();
      if (name != ".lock" && name != "log.txt") {
        fail("run", "expected an empty or new folder for the run, got {}, which holds {} — give another --out", path_.string(), name.string());
      }
    }
  }
  make_private_directory(path_);
  lock_ = open((path_ / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) throw MachineError("run", "could not create a lock in " + path_.string() + " — is the disk writable?");
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    close(lock_);
    fail("run", "expected {} to be free, got another graft process that works in it — wait for it or stop it", path_.string());
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) close(lock_);   // closing gives the lock back
}

}  // namespace graft

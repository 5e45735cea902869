import CFuzzer
import Glibc

/// A file in memory, for readers that open files by path.
final class MemoryFile: @unchecked Sendable {
  private let descriptor: Int32
  var path: String { "/proc/self/fd/\(descriptor)" }

  init() {
    descriptor = fuzz_memory_file()
    guard descriptor >= 0 else { fatalError("no memory file") }
  }

  /// Makes the content `bytes` and then `zeros` zeros.
  func write(_ bytes: [UInt8], zeros: Int) {
    guard ftruncate(descriptor, 0) == 0, ftruncate(descriptor, bytes.count + zeros) == 0,
      pwrite(descriptor, bytes, bytes.count, 0) == bytes.count
    else { fatalError("the memory file cannot be written") }
  }
}

import Glibc

/// What memory the machine has left, and what this process has taken.
public enum SystemMemory {
  /// Bytes that can be taken without swapping: the kernel's MemAvailable, or a tighter control group limit; `nil`
  /// where neither is known.
  public static var availableBytes: Int? {
    let machine = field("MemAvailable:", in: "/proc/meminfo")
    guard let limit = number(in: "/sys/fs/cgroup/memory.max"),
      let used = number(in: "/sys/fs/cgroup/memory.current")
    else { return machine }
    // the file cache counts as used, but goes when memory is wanted
    let reclaimable = field("inactive_file", in: "/sys/fs/cgroup/memory.stat", unit: 1) ?? 0
    return min(machine ?? limit, max(0, limit - used + reclaimable))
  }

  /// The most bytes this process has held at once (its peak resident set), or `nil` where unknown.
  public static var peakResidentBytes: Int? { field("VmHWM:", in: "/proc/self/status") }

  /// Bytes this process holds now (its resident set), or `nil` where unknown.
  public static var residentBytes: Int? { field("VmRSS:", in: "/proc/self/status") }

  /// Throws if `bytes` more are surely not to be had.
  public static func require(_ bytes: Int, for purpose: String) throws(LongspanError) {
    guard let available = availableBytes, bytes > available else { return }
    throw LongspanError(
      .insufficientMemory,
      "\(purpose) would take \(describe(bytes)), but only \(describe(available)) are free")
  }

  /// A byte count for people: "1.5 GiB".
  public static func describe(_ bytes: Int) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var value = Double(bytes)
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    let tenths = Int((value * 10).rounded())
    return unit == 0 ? "\(bytes) bytes" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
  }

  /// The number after a label of a system file, times `unit`: /proc counts in KiB.
  private static func field(_ label: String, in path: String, unit: Int = 1024) -> Int? {
    guard let text = contents(of: path) else { return nil }
    for line in text.split(separator: "\n") where line.hasPrefix(label) {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      if words.count > 1, let value = Int(words[1]) { return value * unit }
    }
    return nil
  }

  private static func number(in path: String) -> Int? {
    contents(of: path).flatMap { Int($0.prefix { $0.isNumber }) }
  }

  private static func contents(of path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 16384)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}

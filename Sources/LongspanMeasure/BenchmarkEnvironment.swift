import Foundation
import LongspanKernels

/// What a run's figures depend on besides the kernels.
public struct BenchmarkEnvironment: Sendable, Codable, Equatable {
  /// The C library's version.
  public let version: String
  /// The CPU's name, or "unknown".
  public let cpu: String
  /// Physical cores that the process may run on.
  public let cores: Int
  /// Bytes of one first-level data cache.
  public let l1dBytes: Int
  /// Bytes of one second-level cache.
  public let l2Bytes: Int
  /// Bytes of one third-level cache.
  public let l3Bytes: Int
  /// Bytes of the machine's memory.
  public let memoryBytes: Int
  /// How OpenMP's threads wait between calls: the environment's OMP_WAIT_POLICY, or "default".
  public let ompWaitPolicy: String
  /// The environment's KMP_BLOCKTIME, or "default": for how long libomp's threads spin.
  public let kmpBlocktime: String
  /// Processes that wanted to run in the last minute.
  public let loadAverage: Double

  private enum CodingKeys: String, CodingKey {
    case version, cpu, cores
    case l1dBytes = "l1d_bytes"
    case l2Bytes = "l2_bytes"
    case l3Bytes = "l3_bytes"
    case memoryBytes = "memory_bytes"
    case ompWaitPolicy = "omp_wait_policy"
    case kmpBlocktime = "kmp_blocktime"
    case loadAverage = "load_average"
  }

  /// The environment as it is now.
  public init(_ topology: MachineTopology) {
    version = KernelContext.libraryVersion
    cpu = Self.cpuName ?? "unknown"
    cores = topology.cores
    l1dBytes = topology.l1dBytes
    l2Bytes = topology.l2Bytes
    l3Bytes = topology.l3Bytes
    memoryBytes = topology.memoryBytes
    let variables = ProcessInfo.processInfo.environment
    ompWaitPolicy = variables["OMP_WAIT_POLICY"] ?? "default"
    kmpBlocktime = variables["KMP_BLOCKTIME"] ?? "default"
    loadAverage = Self.loadAverage
  }

  /// Processes that wanted to run in the last minute.
  public static var loadAverage: Double {
    var load = 0.0
    return getloadavg(&load, 1) == 1 ? load : 0
  }

  private static var cpuName: String? {
    guard let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) else { return nil }
    let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
    return line?.split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) }
  }
}

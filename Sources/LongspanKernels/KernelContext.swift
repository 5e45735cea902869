import CKernels
import Glibc

/// What a kernel call runs with: an ISA variant and a team of threads.
///
/// Immutable after it is made; any number of threads may use one context at once, each call with a
/// ``Workspace`` of its own. C: `lspan_context`.
public final class KernelContext: Sendable {
  nonisolated(unsafe) let handle: OpaquePointer

  /// Makes a context.
  ///
  /// - Parameters:
  ///   - threads: the team size of every call; 0 takes the physical cores this process may run on.
  ///   - isa: an ISA variant's name, see ``variants``; `nil` takes the environment's `LONGSPAN_ISA`, and
  ///     without one the best that this CPU supports.
  ///   - fixedSplit: 0 cuts calls into tasks for the team. From 1 to 4096 they are cut as for a team of that size
  ///     whatever the team is, so that the same call on the same variant gives the same bits with any number of threads.
  ///     Products through OpenBLAS, those of weights that are not packed, are exempt.
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/unknownISA`` or ``LongspanError/Code/badValue``.
  public init(threads: Int = 0, isa: String? = nil, fixedSplit: Int = 0) throws(LongspanError) {
    guard let count = Int32(exactly: threads) else {
      throw LongspanError(.badValue, "threads: \(threads) is out of range, which is 0 to 4096")
    }
    guard (0...4096).contains(fixedSplit), let split = Int32(exactly: fixedSplit) else {
      throw LongspanError(.badValue, "fixedSplit: \(fixedSplit) is out of range, which is 0 to 4096")
    }
    var made: OpaquePointer?
    func create(_ name: UnsafePointer<CChar>?) -> lspan_status {
      var options = lspan_context_options(threads: count, isa: name, executor: nil, fixed_split: split)
      return lspan_context_create(&options, &made)
    }
    let status = isa.map { $0.withCString(create) } ?? create(nil)
    guard status == .ok, let made else {
      if status == .unknown_isa {
        let names = KernelContext.variants.filter(\.isSupported).map(\.name).joined(separator: ", ")
        let asked = isa ?? "\(getenv("LONGSPAN_ISA").map { String(cString: $0) } ?? "") of LONGSPAN_ISA"
        throw LongspanError(.unknownISA, "ISA variant '\(asked)': unknown here; this CPU runs \(names)")
      }
      throw LongspanError(status, during: "making a context with \(threads) threads")
    }
    handle = made
  }

  deinit {
    lspan_context_destroy(handle)
  }

  /// The name of the ISA variant in use.
  public var isa: String { String(cString: lspan_context_isa(handle)) }

  /// The number of threads in use.
  public var workerCount: Int { lspan_context_workers(handle) }
}

extension KernelContext {
  /// An ISA variant compiled into the C library.
  public struct Variant: Sendable, Equatable {
    /// Its name, for example "avx512".
    public let name: String
    /// Whether this CPU and operating system can run it.
    public let isSupported: Bool
  }

  /// All variants, best first.
  public static var variants: [Variant] {
    (0..<lspan_isa_count()).compactMap { index in
      lspan_isa_name(index).map {
        Variant(name: String(cString: $0), isSupported: lspan_isa_is_supported(index) != 0)
      }
    }
  }

  /// The C library's version.
  public static var libraryVersion: String { String(cString: lspan_version()) }
}

/// The machine as hwloc sees it; 0 where it does not know. C: `lspan_topology`.
public struct MachineTopology: Sendable, Equatable {
  /// Sockets.
  public let packages: Int
  /// NUMA nodes.
  public let numaNodes: Int
  /// Physical cores that this process may run on.
  public let cores: Int
  /// Hardware threads that this process may run on.
  public let processingUnits: Int
  /// Bytes of one first-level data cache.
  public let l1dBytes: Int
  /// Bytes of one second-level cache.
  public let l2Bytes: Int
  /// Bytes of one third-level cache.
  public let l3Bytes: Int
  /// Bytes of the machine's memory.
  public let memoryBytes: Int

  /// Reads the machine's topology, which takes some milliseconds.
  public init() throws(LongspanError) {
    var t = lspan_topology()
    try LongspanError.check(lspan_topology_read(&t), "reading the machine's topology")
    packages = Int(t.packages)
    numaNodes = Int(t.numa_nodes)
    cores = Int(t.cores)
    processingUnits = Int(t.processing_units)
    l1dBytes = Int(t.l1d_bytes)
    l2Bytes = Int(t.l2_bytes)
    l3Bytes = Int(t.l3_bytes)
    memoryBytes = Int(t.memory_bytes)
  }
}

/// The OpenBLAS that runs.
public enum OpenBLAS {
  /// Its configuration string.
  public static var configuration: String { String(cString: lspan_openblas_config()) }
  /// How it threads outside our tasks.
  public static var threading: String {
    switch lspan_openblas_parallel() {
    case 0: "serial"
    case 1: "pthreads"
    case 2: "OpenMP"
    default: "unknown"
    }
  }
}

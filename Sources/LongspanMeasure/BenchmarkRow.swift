import LongspanKernels

/// What a case's calls took, beside what the machine allows.
public struct BenchmarkRow: Sendable, Codable, Equatable {
  /// The kernel's name.
  public let name: String
  /// The ISA variant.
  public let variant: String
  /// The element type's name.
  public let dtype: String
  /// The team size.
  public let threads: Int
  /// By the dimensions' names, see ``BenchmarkKernel/dimensions``.
  public let shape: [String: Int]
  /// Where the operands were.
  public let cache: CacheState
  /// Nanoseconds of the fastest repetition.
  public let nsMin: Double
  /// Nanoseconds of the middle repetition.
  public let nsMedian: Double
  /// See ``BenchmarkCost``.
  public let bytes: Int
  /// See ``BenchmarkCost``.
  public let flops: Int
  /// Elements of ``BenchmarkCost``, a second of the fastest repetition.
  public let elementsPerSecond: Double
  /// Scratch memory of a call.
  public let scratchBytes: Int
  /// The ceiling that bounds the call: the one of which it reaches the largest part.
  public let ceiling: MachineCeilings.Ceiling
  /// Bytes, FLOPs or exponentials a second that the ceiling's loop reached at best with as many threads; where the call
  /// reads keys and values, or other elements, from memory, by reading those beside the calls.
  public let ceilingRate: Double
  /// The fastest call's rate over the ceiling's.
  public let fractionOfCeiling: Double

  private enum CodingKeys: String, CodingKey {
    case name, variant, dtype, threads, shape, cache, bytes, flops, ceiling
    case nsMin = "ns_min"
    case nsMedian = "ns_median"
    case elementsPerSecond = "elements_per_second"
    case scratchBytes = "scratch_bytes"
    case ceilingRate = "ceiling_rate"
    case fractionOfCeiling = "fraction_of_ceiling"
  }

  /// Bytes a second of the fastest call.
  public var bytesPerSecond: Double { Double(bytes) / nsMin * 1e9 }
  /// FLOPs a second of the fastest call.
  public var flopsPerSecond: Double { Double(flops) / nsMin * 1e9 }
  /// FLOPs for each byte that must move.
  public var intensity: Double { Double(flops) / Double(max(bytes, 1)) }

  init(
    _ c: BenchmarkCase, _ cost: BenchmarkCost, variant: String, threads: Int, timing: Timing,
    scratchBytes: Int, bound: MachineCeilings.Bound
  ) {
    name = c.name
    self.variant = variant
    dtype = c.elementType.rawValue
    self.threads = threads
    shape = c.shape
    cache = c.cache
    nsMin = timing.minimum
    nsMedian = timing.median
    bytes = cost.bytes
    flops = cost.flops
    elementsPerSecond = Double(cost.elements) / timing.minimum * 1e9
    self.scratchBytes = scratchBytes
    ceiling = bound.ceiling
    ceilingRate = bound.rate
    fractionOfCeiling = bound.fraction
  }
}

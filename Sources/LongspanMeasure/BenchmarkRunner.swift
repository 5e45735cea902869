import LongspanKernels

/// Times cases on a machine whose ceilings are known.
public struct BenchmarkRunner: Sendable {
  /// The machine's caches, which say how large cold operands are.
  public let topology: MachineTopology
  /// What rates are put beside.
  public let ceilings: MachineCeilings
  /// Time for the calls of a case, warm-up not counted.
  public let seconds: Double

  /// A runner for this machine.
  public init(topology: MachineTopology, ceilings: MachineCeilings, seconds: Double) {
    self.topology = topology
    self.ceilings = ceilings
    self.seconds = seconds
  }

  private var lastLevelBytes: Int { topology.lastLevelBytes }

  /// Whether operands stay in a cache: a sixteenth more than it holds still counts, so that keys and values that just
  /// fill it do not fail for the queries beside them.
  static func fits(_ bytes: Int, in cacheBytes: Int) -> Bool { bytes <= cacheBytes + cacheBytes / 16 }

  /// The cases with those that cannot be warm, because they do not fit the last-level cache, made cold; no case twice.
  public func settle(_ cases: [BenchmarkCase]) throws(LongspanError) -> [BenchmarkCase] {
    var seen: Set<BenchmarkCase> = []
    var settled: [BenchmarkCase] = []
    for c in cases {
      let fits = Self.fits(try c.cost().bytes, in: lastLevelBytes)
      let state = BenchmarkCase(c.kernel, c.shape, c.elementType, cache: fits ? c.cache : .cold)
      if seen.insert(state).inserted { settled.append(state) }
    }
    return settled
  }

  /// Warms up and times calls until the time is spent, but at least three.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` from the kernel, or if there is no memory for the operands.
  public func run(_ c: BenchmarkCase, on context: KernelContext) throws(LongspanError) -> BenchmarkRow {
    guard let team = ceilings[context.workerCount] else {
      throw LongspanError(.invalidArgument, "no ceilings were measured for \(context.workerCount) threads")
    }
    try c.validate()
    let cost = try c.cost()
    let copies = Self.copies(of: cost.bytes, cache: c.cache, lastLevelBytes: lastLevelBytes)
    try SystemMemory.require(try Self.operandBytes(c, cost, copies), for: "\(c.name) \(c.shapeDescription)")
    var operands = try BenchmarkOperands(c, copies: copies, context)

    let watch = Stopwatch()
    // the first call also starts the threads and touches the scratch memory
    try operands.call(0)
    let start = watch.nanoseconds
    try operands.call(1 % copies)
    // short calls are timed in groups, beside which reading the clock does not count
    let group = max(1, min(1000, Int(20_000 / max(watch.nanoseconds - start, 1))))
    var slot = 2 % copies
    var samples: [Double] = []
    var reads: [Double] = []
    let isReadable = c.cache == .cold && operands.readableBytes >= 2 * lastLevelBytes
    let began = watch.nanoseconds
    var reading = 0.0
    var readBytes = 0
    repeat {
      let start = watch.nanoseconds
      for _ in 0..<group {
        try operands.call(slot)
        slot = slot + 1 == copies ? 0 : slot + 1
      }
      let end = watch.nanoseconds
      samples.append((end - start) / Double(group))
      // memory differs from place to place and from moment to moment: the ceiling is that of the operands, beside the calls
      if isReadable && reading <= (end - began) / 3 {
        readBytes = try operands.read()
        reads.append(watch.nanoseconds - end)
        reading += watch.nanoseconds - end
      }
    } while watch.nanoseconds - began < seconds * 1e9 || samples.count < 3
    guard let timing = Timing(samples) else {
      throw LongspanError(.invalidArgument, "\(c.name): nothing was timed")
    }
    let limits = Timing(reads).map { team.replacing(dram: MachineCeilings.Rate(readBytes, in: $0)) } ?? team
    return BenchmarkRow(
      c, cost, variant: context.isa, threads: context.workerCount, timing: timing,
      scratchBytes: operands.scratchBytes,
      bound: Self.bound(c, cost, nanoseconds: timing.minimum, team: limits, topology: topology))
  }

  /// Copies of the operands to rotate over: together four times the last-level cache where they are to be cold.
  static func copies(of bytes: Int, cache: CacheState, lastLevelBytes: Int) -> Int {
    guard cache == .cold else { return 1 }
    let target = 4 * lastLevelBytes
    if bytes >= target { return 1 }
    return max(2, (target + bytes - 1) / max(bytes, 64))
  }

  /// Memory that the operands take: an embedding table is read only in part.
  private static func operandBytes(
    _ c: BenchmarkCase, _ cost: BenchmarkCost, _ copies: Int
  ) throws(LongspanError) -> Int {
    let (bytes, overflow) = cost.bytes.multipliedReportingOverflow(by: copies)
    let (table, overflowTable) = (c.shape["V"] ?? 0).multipliedReportingOverflow(
      by: (c.shape["C"] ?? 0) * c.elementType.byteCount)
    // and so is a cache of which some tokens are chosen
    let (row, overflowRow) = (c.shape["Hk"] ?? 0).multipliedReportingOverflow(
      by: 2 * (c.shape["D"] ?? 0) * c.elementType.byteCount)
    let (cache, overflowCache) = (c.kernel == .sparseDecode ? c.shape["S"] ?? 0 : 0)
      .multipliedReportingOverflow(by: row)
    let (sum, overflowSum) = bytes.addingReportingOverflow(table)
    let (total, overflowTotal) = sum.addingReportingOverflow(cache)
    guard
      !overflow, !overflowTable, !overflowSum, !overflowRow, !overflowCache, !overflowTotal
    else {
      throw LongspanError(.overflow, "\(c.name): the operands do not fit in 64 bits")
    }
    return total
  }

  /// The ceiling of which a call reaches the largest part, and that part.
  static func bound(
    _ c: BenchmarkCase, _ cost: BenchmarkCost, nanoseconds: Double, team: MachineCeilings.Team,
    topology: MachineTopology
  ) -> MachineCeilings.Bound {
    team.bound(
      bytes: cost.bytes, flops: cost.flops, exponentials: cost.exponentials, nanoseconds: nanoseconds,
      level: level(of: cost.bytes, cache: c.cache, threads: team.threads, topology: topology),
      arithmetic: c.kernel.arithmetic(of: c.elementType), addsArithmetic: c.kernel.addsArithmetic)
  }

  /// Where a working set lives.
  static func level(
    of bytes: Int, cache: CacheState, threads: Int, topology: MachineTopology
  ) -> MachineCeilings.Ceiling {
    if cache == .cold { return .dram }
    if fits(bytes, in: topology.l2Bytes * threads) { return .l2 }
    return fits(bytes, in: topology.l3Bytes) ? .l3 : .dram
  }
}

extension MachineTopology {
  /// Bytes of the last-level cache, or a guess that is no more than any machine's.
  var lastLevelBytes: Int { max(l3Bytes, l2Bytes, 1 << 20) }
}

extension MachineCeilings.Team {
  /// The ceiling of which a call reaches the largest part, and that part.
  ///
  /// - Parameters:
  ///   - level: where the call's operands are.
  ///   - arithmetic: what its FLOPs are made of.
  ///   - addsArithmetic: whether exponentials and other FLOPs, each about as costly, take their time one after the other.
  func bound(
    bytes: Int, flops: Int, exponentials: Int, nanoseconds: Double, level: MachineCeilings.Ceiling,
    arithmetic: Arithmetic, addsArithmetic: Bool
  ) -> MachineCeilings.Bound {
    var candidates: [(MachineCeilings.Ceiling, Int)] = [(level, bytes), (.exp, exponentials)]
    switch arithmetic {
    case .f32: candidates.append((.fmaF32, flops))
    case .bf16: candidates.append((fmaBF16 == nil ? .fmaF32 : .fmaBF16, flops))
    case .int8: break
    }
    var bound = MachineCeilings.Bound(ceiling: level, rate: self[level]?.best ?? 0, fraction: 0)
    for (ceiling, amount) in candidates {
      guard let rate = self[ceiling]?.best, rate > 0 else { continue }
      let fraction = Double(amount) / nanoseconds * 1e9 / rate
      if fraction > bound.fraction {
        bound = MachineCeilings.Bound(ceiling: ceiling, rate: rate, fraction: fraction)
      }
    }
    if addsArithmetic, exp.best > 0, fmaF32.best > 0 {
      let seconds = Double(exponentials) / exp.best + Double(flops - exponentials) / fmaF32.best
      let fraction = seconds / nanoseconds * 1e9
      if fraction > bound.fraction {
        bound = MachineCeilings.Bound(
          ceiling: .expFMA, rate: Double(exponentials) / seconds, fraction: fraction)
      }
    }
    return bound
  }
}

/// What the FLOPs of a call are made of, which decides the ceiling that they are held against.
enum Arithmetic {
  case f32
  /// bf16 dot products, where the CPU has them.
  case bf16
  /// Dot products of 8-bit integers, for which no ceiling is measured.
  case int8

  /// Of products with packed weights in their native mode.
  init(packed type: WeightType) {
    switch type {
    case .f32, .f16: self = .f32
    case .bf16: self = .bf16
    default: self = .int8
    }
  }
}

extension BenchmarkKernel {
  /// Whether its exponentials and its other FLOPs are of about equal cost, so that their times add up.
  var addsArithmetic: Bool {
    switch self {
    case .selectiveScan, .selectiveUpdate: true
    default: false
    }
  }

  var isAttention: Bool {
    switch self {
    case .attentionDecode, .attentionPrefill, .sparseDecode, .sparsePrefill, .lagPrefill: true
    default: false
    }
  }

  /// What its FLOPs are made of with inputs of a type.
  func arithmetic(of type: ElementType) -> Arithmetic {
    if case .product(let weights) = self { return Arithmetic(packed: weights) }
    return type == .bf16 && (isAttention || self == .ssdScan) ? .bf16 : .f32
  }
}

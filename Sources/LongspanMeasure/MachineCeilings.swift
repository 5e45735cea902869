import LongspanKernels

/// The highest rates that this machine reached in loops that do nothing else.
public struct MachineCeilings: Sendable, Codable, Equatable {
  /// A rate: per second, of the fastest repetition and of the middle one.
  public struct Rate: Sendable, Codable, Equatable {
    /// Of the fastest repetition.
    public let best: Double
    /// Of the middle repetition.
    public let median: Double

    /// A rate of these two.
    public init(best: Double, median: Double) {
      self.best = best
      self.median = median
    }

    init(_ amount: Int, in timing: Timing) {
      self.init(best: Double(amount) / timing.minimum * 1e9, median: Double(amount) / timing.median * 1e9)
    }
  }

  /// The ceilings of one thread count.
  public struct Team: Sendable, Codable, Equatable {
    /// The team size.
    public let threads: Int
    /// Bytes read a second from memory.
    public let dram: Rate
    /// Bytes read a second from half of the last-level cache.
    public let l3: Rate
    /// Bytes read a second from half of each core's L2 cache.
    public let l2: Rate
    /// FLOPs a second in f32, a multiply-add counting two.
    public let fmaF32: Rate
    /// FLOPs a second of bf16 dot products; `nil` where the CPU has none.
    public let fmaBF16: Rate?
    /// Exponentials a second.
    public let exp: Rate

    /// The ceilings of a team of this size.
    public init(threads: Int, dram: Rate, l3: Rate, l2: Rate, fmaF32: Rate, fmaBF16: Rate?, exp: Rate) {
      self.threads = threads
      self.dram = dram
      self.l3 = l3
      self.l2 = l2
      self.fmaF32 = fmaF32
      self.fmaBF16 = fmaBF16
      self.exp = exp
    }

    /// The same with another rate from memory.
    func replacing(dram: Rate) -> Team {
      Team(threads: threads, dram: dram, l3: l3, l2: l2, fmaF32: fmaF32, fmaBF16: fmaBF16, exp: exp)
    }

    private enum CodingKeys: String, CodingKey {
      case threads, exp
      case dram = "dram_read"
      case l3 = "l3_read"
      case l2 = "l2_read"
      case fmaF32 = "fma_f32"
      case fmaBF16 = "fma_bf16"
    }

    /// The rate of one ceiling; `nil` where the machine has none.
    public subscript(ceiling: Ceiling) -> Rate? {
      switch ceiling {
      case .dram: dram
      case .l3: l3
      case .l2: l2
      case .fmaF32: fmaF32
      case .fmaBF16: fmaBF16
      case .exp: exp
      case .expFMA: nil
      }
    }
  }

  /// What bounds a kernel. Raw values are those of the column `ceiling`.
  public enum Ceiling: String, Sendable, Codable, CaseIterable {
    /// Reading from memory.
    case dram
    /// Reading from the third-level cache.
    case l3
    /// Reading from the second-level cache.
    case l2
    /// Multiply-adds of f32.
    case fmaF32 = "fma_f32"
    /// Multiply-adds of pairs of bf16.
    case fmaBF16 = "fma_bf16"
    /// Exponentials.
    case exp
    /// Exponentials and multiply-adds one after the other, on the pipes that they share.
    case expFMA = "exp_fma"
  }

  /// What bounds a call: the ceiling of which it reaches the largest part.
  struct Bound: Sendable, Equatable {
    let ceiling: Ceiling
    /// The ceiling's amount a second.
    let rate: Double
    let fraction: Double
  }

  /// The ISA variant of the loops: the best that this CPU runs.
  public let variant: String
  /// In the order of their thread counts.
  public let teams: [Team]

  /// Ceilings that are known already.
  public init(variant: String, teams: [Team]) {
    self.variant = variant
    self.teams = teams
  }

  /// The ceilings of a thread count, or `nil` if they were not measured.
  public subscript(threads: Int) -> Team? { teams.first { $0.threads == threads } }

  /// Bytes that each loop reads with a thread count.
  struct ReadSizes: Equatable {
    let dram: Int
    let l3: Int
    let l2: Int

    /// L2: half of each thread's; L3: half of one; DRAM: four times the last-level cache and at least 64 MiB, but at
    /// most a quarter of what is available.
    init(l2Bytes: Int, l3Bytes: Int, threads: Int, availableBytes: Int?) {
      let l2Bytes = l2Bytes > 0 ? l2Bytes : 512 << 10
      let l3Bytes = l3Bytes > 0 ? l3Bytes : 2 * l2Bytes
      l2 = l2Bytes / 2 * threads
      l3 = l3Bytes / 2
      dram = max(min(max(4 * l3Bytes, 64 << 20), (availableBytes ?? .max) / 4), 1 << 20)
    }
  }

  /// Repetitions of a loop, however short the time: a ceiling that is too low would flatter every kernel.
  private static let leastSamples = 8

  /// Measures the ceilings.
  ///
  /// - Parameters:
  ///   - threadCounts: the teams to measure.
  ///   - topology: the machine's caches.
  ///   - seconds: the time for each of the six loops of a team.
  ///   - progress: is told what was measured so far, and of how many.
  public static func measure(
    threadCounts: [Int], topology: MachineTopology, seconds: Double,
    progress: (_ completed: Int, _ total: Int) -> Void = { _, _ in }
  ) throws(LongspanError) -> MachineCeilings {
    let best = KernelContext.variants.first(where: \.isSupported)?.name
    var teams: [Team] = []
    let counts = Set(threadCounts).sorted()
    let available = SystemMemory.availableBytes
    for (index, threads) in counts.enumerated() {
      let context = try KernelContext(threads: threads, isa: best)
      let sizes = ReadSizes(
        l2Bytes: topology.l2Bytes, l3Bytes: topology.l3Bytes, threads: threads, availableBytes: available)
      let buffer = try filledBuffer(max(sizes.dram, sizes.l3, sizes.l2), context)
      var rates: [Rate] = []
      for bytes in [sizes.dram, sizes.l3, sizes.l2] {
        rates.append(try readRate(buffer, bytes, context, seconds))
        progress(index * 6 + rates.count, counts.count * 6)
      }
      let f32 = try rate(seconds) { count throws(LongspanError) in
        try context.measureMultiplyAdd(.f32, iterations: count)
      }
      progress(index * 6 + 4, counts.count * 6)
      let bf16 = try rate(seconds) { count throws(LongspanError) in
        try context.measureMultiplyAdd(.bf16, iterations: count)
      }
      progress(index * 6 + 5, counts.count * 6)
      let exp = try rate(seconds) { count throws(LongspanError) in try context.measureExp(passes: count) }
      progress(index * 6 + 6, counts.count * 6)
      guard let f32, let exp else {
        throw LongspanError(.unsupported, "this CPU's arithmetic could not be measured")
      }
      teams.append(
        Team(
          threads: threads, dram: rates[0], l3: rates[1], l2: rates[2], fmaF32: f32, fmaBF16: bf16, exp: exp))
    }
    return MachineCeilings(variant: best ?? "scalar", teams: teams)
  }

  /// Floats that are not all zero pages, written by the threads that will read them.
  private static func filledBuffer(
    _ bytes: Int, _ context: KernelContext
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try SystemMemory.require(bytes, for: "measuring the DRAM bandwidth")
    var buffer = try AlignedBuffer<Float>(count: bytes / 4)
    try Filling.fill(&buffer, .f32, context)
    return buffer
  }

  private static func readRate(
    _ buffer: borrowing AlignedBuffer<Float>, _ bytes: Int, _ context: KernelContext, _ seconds: Double
  ) throws(LongspanError) -> Rate {
    let data = buffer.span.extracting(0..<bytes / 4).bytes
    // passes that take a millisecond even from a fast cache
    let passes = max(1, (256 << 20) / bytes)
    let watch = Stopwatch()
    var samples: [Double] = []
    var amount = try context.measureRead(data, passes: passes)
    repeat {
      let start = watch.nanoseconds
      amount = try context.measureRead(data, passes: passes)
      samples.append(watch.nanoseconds - start)
    } while watch.nanoseconds < seconds * 1e9 || samples.count < leastSamples
    guard let timing = Timing(samples) else { return Rate(best: 0, median: 0) }
    return Rate(amount, in: timing)
  }

  /// The rate of a loop that says how much it did for a count; `nil` if it does nothing.
  private static func rate(
    _ seconds: Double, _ loop: (Int) throws(LongspanError) -> Int
  ) throws(LongspanError) -> Rate? {
    let watch = Stopwatch()
    // counts grow until one call takes two milliseconds, which also wakes the threads and the clock
    var count = 64
    var amount = 0
    while true {
      let start = watch.nanoseconds
      amount = try loop(count)
      if amount == 0 { return nil }
      let middle = watch.nanoseconds
      amount = try loop(count)
      // the faster of two: one may have waited for another process
      if min(middle - start, watch.nanoseconds - middle) >= 2e6 || count >= 1 << 30 { break }
      count *= 2
    }
    var samples: [Double] = []
    repeat {
      let start = watch.nanoseconds
      amount = try loop(count)
      samples.append(watch.nanoseconds - start)
    } while watch.nanoseconds < seconds * 1e9 || samples.count < leastSamples
    return Timing(samples).map { Rate(amount, in: $0) }
  }
}

import Foundation
import Longspan
import LongspanKernels
import Testing

/// What the cache keeps, against the float64 oracle.
@Suite struct LagKVOracleTests {
  typealias Fixtures = LagKVFixtures

  enum Schedule: CaseIterable {
    /// Everything in one step of a one-shot prompt.
    case oneShot
    /// Window by window.
    case chunked
    /// Everything in one step, under the chunk mask.
    case masked
    /// In steps of three tokens.
    case small
    /// A one-shot prompt, then token by token.
    case decode
    /// Window by window, compressed before attention.
    case first
  }

  /// A layer's keys and values to be read by a cache.
  struct Source {
    let keys: [UInt8]
    let values: [UInt8]
    let type: ElementType
    let heads: Int
    let dimension: Int

    var rowBytes: Int { heads * dimension * type.byteCount }

    /// Reads tokens into the only layer of a cache in one step.
    func read(
      _ tokens: Range<Int>, into cache: inout KVCache, on context: KernelContext,
      workspace: inout Workspace
    ) throws {
      try cache.beginStep(tokens.count)
      let range = tokens.lowerBound * rowBytes..<tokens.upperBound * rowBytes
      let layout = TensorLayout(type, tokens: tokens.count, heads: heads, columns: dimension)
      let keyBytes = Array(keys[range])
      let valueBytes = Array(values[range])
      try cache.append(
        layer: 0, keys: TensorView(keyBytes.span.bytes, layout),
        values: TensorView(valueBytes.span.bytes, layout), on: context)
      var output = [Float](repeating: 0, count: tokens.count * heads * dimension)
      var span = output.mutableSpan
      try cache.attend(
        layer: 0, queries: TensorView(keyBytes.span.bytes, layout), on: context, workspace: &workspace,
        into: &span)
      try cache.commitStep(on: context, workspace: &workspace)
    }
  }

  /// Reads all tokens by a schedule and returns what the cache then holds, and its slots after each step that gave up some.
  static func run(
    _ source: Source, _ p: Fixtures.Parameters, prefill: Int, _ schedule: Schedule, threads: Int = 2
  ) throws -> (kept: [[Int]], sizes: [[Int]]) {
    let context = try KernelContext(threads: threads)
    var workspace = Workspace()
    let policy = try p.policy(
      prefill: schedule == .oneShot || schedule == .decode ? .oneShot : .chunked,
      mode: schedule == .first ? .compressFirst : .useThenCompress)
    var cache = try KVCache(
      KVShape(layers: 1, heads: p.heads, headDimension: p.headDim, elementType: source.type),
      policy: policy, capacity: 1)
    var sizes: [[Int]] = []
    func step(_ count: Int) throws {
      let before = cache.slots(layer: 0) + count
      try source.read(cache.count..<cache.count + count, into: &cache, on: context, workspace: &workspace)
      let after = cache.slots(layer: 0)
      if after < before { sizes.append([cache.count, before, after]) }
    }
    switch schedule {
    case .oneShot, .decode:
      let first = schedule == .oneShot ? p.tokens : prefill
      cache.beginPrefill()
      try source.read(0..<first, into: &cache, on: context, workspace: &workspace)
      #expect(cache.slots(layer: 0) == first)
      try cache.endPrefill(on: context, workspace: &workspace)
      if cache.slots(layer: 0) < first { sizes.append([first, first, cache.slots(layer: 0)]) }
      while cache.count < p.tokens { try step(1) }
    case .chunked:
      while cache.count < p.tokens {
        let next = cache.count == 0 ? p.sink + 2 * p.lag : p.lag
        try step(min(next, p.tokens - cache.count))
      }
    case .masked:
      try step(p.tokens)
    case .small:
      while cache.count < p.tokens { try step(min(3, p.tokens - cache.count)) }
    case .first:
      while cache.count < p.tokens { try step(cache.stepLength(limit: p.tokens - cache.count)) }
    }
    #expect(cache.count == p.tokens)
    #expect(cache.slots(layer: 0) == policy.slots(afterReading: p.tokens))
    var kept: [[Int]] = []
    for head in 0..<p.heads {
      var positions: [Int] = []
      for slot in 0..<cache.lengths(layer: 0)[head] {
        positions.append(try cache.position(layer: 0, head: head, slot: slot))
      }
      try checkContents(cache, head, positions, source)
      kept.append(positions)
    }
    return (kept, sizes)
  }

  /// Every kept key and value is the token's, bit for bit.
  private static func checkContents(
    _ cache: borrowing KVCache, _ head: Int, _ positions: [Int], _ source: Source
  ) throws {
    let row = source.dimension * source.type.byteCount
    let context = try KernelContext(threads: 1)
    for (given, kind) in [(source.keys, 0), (source.values, 1)] {
      let count = positions.count * row
      var held = [UInt8](repeating: 0, count: count)
      do {
        var span = held.mutableSpan
        var output = try MutableTensorView(
          span.mutableBytes, TensorLayout(source.type, tokens: positions.count, columns: source.dimension))
        let view = try kind == 0 ? cache.keys(layer: 0) : cache.values(layer: 0)
        try context.convert(view.head(head), into: &output)
      }
      let wrong = positions.indices.first { index in
        let start = positions[index] * source.rowBytes + head * row
        return held[index * row..<(index + 1) * row] != given[start..<start + row]
      }
      #expect(wrong == nil, "kind \(kind), head \(head)")
    }
  }

  @Test(arguments: try LagKVFixtures.cases().cases, Schedule.allCases)
  func keepsWhatTheOracleKeeps(test: Fixtures.Case, schedule: Schedule) throws {
    let blobs = try Fixtures.Blobs("cases")
    let p = test.parameters
    let source = Source(
      keys: blobs.bytes(test.arrays.keys), values: blobs.bytes(test.arrays.values),
      type: try #require(ElementType(rawValue: test.dtype)), heads: p.heads, dimension: p.headDim)
    let (kept, sizes) = try Self.run(source, p, prefill: test.prefill, schedule)
    #expect(kept.flatMap { $0 } == blobs.integers(test.arrays.kept))
    let events: [[Int]]? =
      switch schedule {
      case .oneShot: test.events.oneshot
      case .chunked: test.events.chunked
      case .decode: test.events.decode
      default: nil
      }
    // with a ratio of 1 nothing is given up, though windows become final
    if let events, p.keep < p.lag { #expect(sizes == events.map { Array($0[0..<3]) }) }
  }

  @Test(arguments: Schedule.allCases) func keepsWhatTheOracleKeepsOfRealKeys(schedule: Schedule) throws {
    let blobs = try Fixtures.Blobs("smollm2")
    for layer in try Fixtures.model().stored {
      for test in layer.cases {
        let p = test.parameters
        let source = Source(
          keys: blobs.bytes(layer.arrays.keys), values: blobs.bytes(layer.arrays.values), type: .bf16,
          heads: p.heads, dimension: p.headDim)
        let (kept, _) = try Self.run(source, p, prefill: 300, schedule)
        #expect(kept.flatMap { $0 } == blobs.integers(test.arrays.kept), "layer \(layer.layer)")
      }
    }
  }

  @Test func scoresAreTheOracles() throws {
    let blobs = try Fixtures.Blobs("cases")
    for variant in KernelContext.variants where variant.isSupported {
      let context = try KernelContext(threads: 2, isa: variant.name)
      for test in try Fixtures.cases().cases where test.arrays.scores.count > 0 {
        let p = test.parameters
        let windows = test.arrays.scores.shape[1]
        let layout = TensorLayout(
          ElementType(rawValue: test.dtype)!, tokens: p.tokens, heads: p.heads, columns: p.headDim)
        let keys = blobs.bytes(test.arrays.keys)
        let values = blobs.bytes(test.arrays.values)
        var scores = [Float](repeating: 0, count: test.arrays.scores.count)
        var workspace = Workspace()
        do {
          var span = scores.mutableSpan
          let skipped = p.sink * layout.tokenStride * layout.elementType.byteCount
          var rest = layout
          rest.tokens -= p.sink
          try context.lagScores(
            keys: TensorView(keys.span.bytes.extracting(droppingFirst: skipped), rest),
            values: TensorView(values.span.bytes.extracting(droppingFirst: skipped), rest), window: p.lag,
            windows: windows, valueWeight: p.valueWeight, workspace: &workspace, into: &span)
        }
        let error = zip(scores, blobs.floats(test.arrays.scores)).map { abs($0 - $1) / $1 }.max() ?? 0
        #expect(error < 2e-6, "\(test.name), \(variant.name): \(error)")
      }
    }
  }

  @Test func chunkMaskIsTheOracles() throws {
    let blobs = try Fixtures.Blobs("cases")
    for variant in KernelContext.variants where variant.isSupported {
      let context = try KernelContext(threads: 2, isa: variant.name)
      for test in try Fixtures.cases().attention {
        let p = test.parameters
        let queries = blobs.floats(test.arrays.q)
        let keys = blobs.floats(test.arrays.k)
        let values = blobs.floats(test.arrays.v)
        var output = [Float](repeating: 0, count: test.arrays.out.count)
        var workspace = Workspace()
        do {
          var span = output.mutableSpan
          try context.attend(
            through: LagWindows(
              leading: p.sink, lag: p.lag, rawWindows: p.rawWindows, keep: p.keep,
              keptWindows: p.keptWindows, kept: blobs.integers(test.arrays.kept).map(Int32.init)),
            queries: TensorView(queries.span, tokens: p.queries, heads: p.queryHeads, columns: p.headDim),
            keys: TensorView(keys.span, tokens: p.tokens, heads: p.heads, columns: p.headDim),
            values: TensorView(values.span, tokens: p.tokens, heads: p.heads, columns: p.headDim),
            options: AttentionOptions(scale: p.scale), workspace: &workspace, into: &span)
        }
        let error = zip(output, blobs.floats(test.arrays.out)).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 5e-6, "\(test.name), \(variant.name): \(error)")
      }
    }
  }

  @Test func sizesAreThoseOfTheLaw() throws {
    let cases = try Fixtures.cases()
    for size in cases.sizes {
      let policy = try LagRelativeCompression(sink: size.sink, lag: size.lag, ratio: size.ratio)
      #expect(policy.slots(afterReading: size.tokens) == size.keptSlots)
    }
    for keep in cases.keeps where keep.keep > 0 {
      #expect(try LagRelativeCompression(lag: keep.lag, ratio: keep.ratio).keep == keep.keep)
    }
    for keep in cases.keeps where keep.keep == 0 {
      let error = #expect(throws: LongspanError.self) {
        _ = try LagRelativeCompression(lag: keep.lag, ratio: keep.ratio)
      }
      #expect(error?.message.contains("keeps no token") == true)
    }
  }
}
